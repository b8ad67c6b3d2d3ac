//! sig-api-machinery: how the API itself behaves, whatever the kind.

mod discovery;
mod field_validation;
mod flow_control;
mod garbage;
mod list;
mod namespace;
mod resource_quota;
mod version;
mod watch;

use crate::{Case, case, row};

pub(crate) fn cases() -> Vec<Case> {
    [basic(), discovered(), bounded()].into_iter().flatten().collect()
}

/// How single objects and lists behave.
fn basic() -> Vec<Case> {
    vec![
        case!("Confirm a server version", version::the_version_is_semantic),
        case!("watch-configmaps-with-multiple-watchers", watch::watchers_with_different_selectors_see_their_own),
        case!("watch-configmaps-from-resource-version", watch::a_watch_starts_after_a_revision),
        case!("watch-configmaps-closed-and-restarted", watch::a_watch_goes_on_where_another_ended),
        case!("watch-configmaps-label-changed", watch::an_object_that_leaves_the_selector_is_deleted),
        case!("watch-consistency", watch::all_watchers_see_the_same_order),
        case!("Namespace patching", namespace::a_namespace_is_patched),
        case!("Namespace, apply changes to a namespace status", namespace::the_status_is_read_patched_and_updated),
        case!("Namespace, apply update to a namespace", namespace::a_namespace_is_updated),
        case!("Namespace, apply finalizer to a namespace", namespace::a_finalizer_is_added_and_removed),
        case!("Ordered Namespace Deletion", namespace::pods_end_before_the_rest_of_a_namespace),
        case!("namespace-deletion-removes-pods", namespace::its_pods_end_with_a_namespace),
        case!("namespace-deletion-removes-services", namespace::its_services_end_with_a_namespace),
        case!(
            "API Chunking, server should return chunks of results for list calls",
            list::lists_come_in_pages_of_one_revision
        ),
        case!(
            "API Chunking, server should support continue listing from the last key even if the original version has \
             been compacted away",
            list::a_list_goes_on_after_its_revision_is_compacted
        ),
        case!("API metadata HTTP return", list::lists_are_tables_for_who_asks),
        case!(
            "Garbage Collector, delete deployment, propagation policy background",
            garbage::background_takes_the_owned_after_the_owner
        ),
        case!(
            "Garbage Collector, delete deployment, propagation policy orphan",
            garbage::orphan_leaves_the_owned_without_owner
        ),
        case!("Garbage Collector, dependency cycle", garbage::a_circle_of_owners_is_no_obstacle),
        case!(
            "Garbage Collector, delete replication controller, propagation policy background",
            garbage::background_takes_the_pods_of_a_controller
        ),
        case!(
            "Garbage Collector, delete replication controller, propagation policy orphan",
            garbage::orphan_leaves_the_pods_of_a_controller
        ),
        case!(
            "Garbage Collector, delete replication controller, after owned pods",
            garbage::foreground_takes_a_controller_after_its_pods
        ),
        case!("Garbage Collector, multiple owners", garbage::what_another_owns_too_stays),
    ]
}

/// How kinds are found and what their fields are checked for.
fn discovered() -> Vec<Case> {
    vec![
        case!(
            "Discovery, confirm the PreferredVersion for each api group",
            discovery::every_group_prefers_a_version_it_has
        ),
        case!(
            "Discovery, confirm the groupVerion and a resourcefrom each apiGroup",
            discovery::every_group_version_lists_its_resources
        ),
        case!("Aggregated Discovery Interface", discovery::one_document_names_every_built_in_resource),
        case!(
            "Aggregated Discovery Endpoint Accept Headers",
            discovery::who_does_not_ask_for_one_document_gets_the_old_ones
        ),
        case!("Server side field validation, typed object", field_validation::unknown_and_duplicate_fields_are_found),
        case!("Server side field validation, typed unknown metadata", field_validation::unknown_metadata_is_found),
    ]
}

/// How requests and namespaces are bounded.
fn bounded() -> Vec<Case> {
    vec![
        row!("Priority and Fairness FlowSchema API", flow_control::schemas),
        row!("Priority and Fairness PriorityLevelConfiguration API", flow_control::priority_levels),
        case!("ResourceQuota, update and delete", resource_quota::a_quota_is_updated_and_deleted),
        case!("ResourceQuota, manage lifecycle of a ResourceQuota", resource_quota::a_quota_lives),
        case!("ResourceQuota, apply changes to a ResourceQuota status", resource_quota::the_status_follows_the_spec),
        case!("ResourceQuota, object count quota, resourcequotas", resource_quota::quotas_count_themselves),
        case!("ResourceQuota, object count quota, configmap", resource_quota::config_maps_count),
        case!("ResourceQuota, object count quota, secret", resource_quota::secrets_count),
        case!("ResourceQuota, object count quota, replicaSet", resource_quota::replica_sets_count),
        case!(
            "ResourceQuota, object count quota, replicationController",
            resource_quota::replication_controllers_count
        ),
        case!(
            "ResourceQuota, object count quota, service",
            resource_quota::services_count_with_their_ports_and_balancers
        ),
        case!("ResourceQuota, object count quota, pod", resource_quota::pods_count_with_what_they_request),
        case!(
            "ResourceQuota, quota scope, BestEffort and NotBestEffort scope",
            resource_quota::scopes_tell_best_effort_from_others
        ),
        case!(
            "ResourceQuota, quota scope, Terminating and NotTerminating scope",
            resource_quota::scopes_tell_pods_with_a_deadline_from_others
        ),
    ]
}
