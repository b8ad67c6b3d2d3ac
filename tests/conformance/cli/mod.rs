//! sig-cli: what kubectl's commands send, without kubectl. The program itself is for the end-to-end suite.

mod guestbook;
mod kubectl;
mod log;

use crate::{Case, case, on_node};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("Kubectl, check version v1", kubectl::api_versions_has_v1),
        case!("Kubectl, cluster info", kubectl::cluster_info_finds_what_is_the_clusters),
        case!("Kubectl, create service, replication controller", kubectl::expose_makes_a_service_of_a_selector),
        case!("Kubectl, describe pod or rc", kubectl::describe_finds_events_and_pods),
        on_node!("Kubectl, guestbook application", guestbook::what_guests_write_can_be_read),
        on_node!("Kubectl, logs", log::logs_are_cut_as_asked),
        case!("Kubectl, diff Deployment", kubectl::diff_shows_what_would_be),
        case!("Kubectl, label update", kubectl::label_sets_and_takes_away),
        case!("Kubectl, patch to annotate", kubectl::patch_annotates),
        case!("Kubectl, replace", kubectl::replace_changes_the_image),
        case!("Kubectl, replication controller", kubectl::a_controller_runs_its_pods),
        case!("Kubectl, run pod", kubectl::run_makes_a_pod),
        case!("Kubectl, scale replication controller", kubectl::scale_sets_how_many_run),
        case!("Kubectl, server-side dry-run Pod", kubectl::a_dry_run_changes_nothing),
        case!("Kubectl, version", kubectl::version_says_what_runs),
    ]
}
