//! sig-api-machinery: how the API itself behaves, whatever the kind.

mod garbage;
mod list;
mod namespace;
mod version;
mod watch;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
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
        case!("namespace-deletion-removes-services", namespace::its_services_end_with_a_namespace),
        case!(
            "API Chunking, server should return chunks of results for list calls",
            list::lists_come_in_pages_of_one_revision
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
    ]
}
