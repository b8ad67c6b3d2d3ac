//! sig-api-machinery: how the API itself behaves, whatever the kind.

mod admission_policy;
mod aggregator;
mod conversion;
mod definition;
mod discovery;
mod field_validation;
mod flow_control;
mod garbage;
mod hook;
mod list;
mod namespace;
mod openapi;
mod resource_quota;
mod version;
mod watch;
mod webhook;

use crate::{Case, case, row};

pub(crate) fn cases() -> Vec<Case> {
    [basic(), discovered(), custom(), published(), admitted(), asked(), bounded()].into_iter().flatten().collect()
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

/// How kinds that users define behave.
fn custom() -> Vec<Case> {
    vec![
        case!("Custom Resource Definition, create", definition::a_definition_is_made_and_deleted),
        case!("Custom Resource Definition, watch", definition::objects_of_custom_kinds_are_watched),
        case!(
            "Custom Resource Definition, status sub-resource",
            definition::the_status_of_a_definition_is_read_patched_and_updated
        ),
        case!("Custom Resource Definition, list", definition::definitions_are_listed_and_deleted_by_label),
        case!("Custom Resource Definition, defaulting", definition::objects_are_defaulted_when_written_and_when_read),
        case!("Custom Resource Definition, discovery", definition::definitions_are_found_by_discovery),
        case!("Aggregated Discovery Interface CRDs", definition::one_document_names_custom_kinds),
        case!("Aggregated Discovery Endpoint Accept Headers CRDs", definition::a_custom_kind_is_in_every_document),
        case!(
            "custom-resource-definition-field-selectors-list-watch-register-informers",
            definition::objects_are_selected_by_fields
        ),
        case!(
            "Server side field validation, unknown fields CR no validation schema",
            field_validation::a_kind_without_schema_takes_unknown_fields
        ),
        case!(
            "Server side field validation, valid CR with validation schema",
            field_validation::a_valid_custom_object_is_taken
        ),
        case!(
            "Server side field validation, unknown fields CR fails validation",
            field_validation::unknown_fields_of_a_custom_object_are_found
        ),
        case!(
            "Server side field validation, CR duplicates",
            field_validation::duplicate_fields_are_found_where_all_are_preserved
        ),
        case!(
            "Server side field validation, unknown metadata",
            field_validation::unknown_metadata_of_a_custom_object_is_found
        ),
    ]
}

/// How the schemas of such kinds are published.
fn published() -> Vec<Case> {
    vec![
        case!("Custom Resource OpenAPI Publish, with validation schema", openapi::a_schema_is_published_and_kept),
        case!(
            "Custom Resource OpenAPI Publish, with x-kubernetes-preserve-unknown-fields in object",
            openapi::a_kind_without_schema_takes_anything
        ),
        case!(
            "Custom Resource OpenAPI Publish, with x-kubernetes-preserve-unknown-fields at root",
            openapi::a_kind_that_preserves_at_its_root_takes_anything
        ),
        case!(
            "Custom Resource OpenAPI Publish, with x-kubernetes-preserve-unknown-fields in embedded object",
            openapi::a_kind_that_preserves_in_an_object_takes_anything_there
        ),
        case!("Custom Resource OpenAPI Publish, varying groups", openapi::kinds_of_different_groups_are_published),
        case!("Custom Resource OpenAPI Publish, varying kinds", openapi::kinds_of_one_version_are_published),
        case!("Custom Resource OpenAPI Publish, varying versions", openapi::versions_of_kinds_are_published),
        case!("Custom Resource OpenAPI Publish, version rename", openapi::a_version_is_published_by_its_new_name),
        case!(
            "Custom Resource OpenAPI Publish, stop serving version",
            openapi::a_version_that_is_not_served_is_not_published
        ),
    ]
}

/// What webhooks are asked, and what becomes of their answers.
fn asked() -> Vec<Case> {
    vec![
        case!("Admission webhook, discovery document", webhook::the_kinds_are_discovered),
        case!("Admission webhook, deny create", webhook::objects_are_refused),
        case!("Admission webhook, deny attach", webhook::attaching_is_refused),
        case!("Admission webhook, deny custom resource create and delete", webhook::custom_objects_are_refused),
        case!("Admission webhook, deny custom resource definition", webhook::a_definition_is_refused),
        case!("Admission webhook, fail closed", webhook::a_webhook_that_is_not_there_refuses_everything),
        case!("Admission webhook, honor timeout", webhook::a_time_that_is_given_is_kept),
        case!("Admission webhook, ordered mutation", webhook::mutations_come_in_order),
        case!("Admission webhook, mutation with defaulting", webhook::defaults_follow_a_mutation),
        case!(
            "Admission webhook, admission control not allowed on webhook configuration objects",
            webhook::configurations_themselves_are_left_alone
        ),
        case!("Admission webhook, mutate custom resource", webhook::a_custom_object_is_changed),
        case!("Admission webhook, mutate custom resource with pruning", webhook::what_a_schema_does_not_have_is_pruned),
        case!(
            "Admission webhook, mutate custom resource with different stored version",
            webhook::an_object_is_changed_while_its_stored_version_changes
        ),
        case!("Admission webhook, list validating webhooks", webhook::validating_configurations_are_listed_and_deleted),
        case!("Admission webhook, list mutating webhooks", webhook::mutating_configurations_are_listed_and_deleted),
        case!("Admission webhook, update validating webhook", webhook::a_validating_configuration_is_changed),
        case!("Admission webhook, update mutating webhook", webhook::a_mutating_configuration_is_changed),
        case!(
            "Validating Admission webhook, create and update validating webhook configuration with matchConditions",
            webhook::conditions_of_a_validating_configuration_are_kept
        ),
        case!(
            "Mutating Admission webhook, create and update mutating webhook configuration with matchConditions",
            webhook::conditions_of_a_mutating_configuration_are_kept
        ),
        case!(
            "Validing Admission webhook, reject validating webhook configurations with invalid matchConditions",
            webhook::bad_conditions_of_a_validating_configuration_are_refused
        ),
        case!(
            "Mutating Admission webhook, reject mutating webhook configurations with invalid matchConditions",
            webhook::bad_conditions_of_a_mutating_configuration_are_refused
        ),
        case!(
            "Mutating Admission webhook, mutating webhook excluding object with specific name",
            webhook::a_condition_leaves_out_one_name
        ),
        case!("aggregator-supports-the-sample-apiserver", aggregator::the_sample_server_is_served),
        case!(
            "Custom Resource Definition Conversion Webhook, conversion custom resource",
            conversion::an_object_is_read_in_another_version
        ),
        case!(
            "Custom Resource Definition Conversion Webhook, convert mixed version list",
            conversion::a_list_of_mixed_versions_is_converted
        ),
    ]
}

/// How policies decide about what is written.
fn admitted() -> Vec<Case> {
    vec![
        row!("ValidatingAdmissionPolicy API", admission_policy::validating_policies),
        row!("ValidatingadmissionPolicyBinding API", admission_policy::validating_bindings),
        row!("MutatingAdmissionPolicy API", admission_policy::mutating_policies),
        row!("MutatingAdmissionPolicyBinding API", admission_policy::mutating_bindings),
        case!(
            "ValidatingAdmissionPolicy (ValidatingAdmissionPolicy  should validate against a Deployment)",
            admission_policy::a_deployment_is_validated
        ),
        case!(
            "ValidatingAdmissionPolicy (ValidatingAdmissionPolicy  should allow expressions to refer variables.)",
            admission_policy::expressions_refer_to_variables
        ),
        case!(
            "MutatingAdmissionPolicy (MutatingAdmissionPolicy  should mutate a Deployment)",
            admission_policy::a_deployment_is_changed
        ),
        case!(
            "MutatingAdmissionPolicy (MutatingAdmissionPolicy  should mutate a Deployment with annotations)",
            admission_policy::a_deployment_is_annotated
        ),
    ]
}
