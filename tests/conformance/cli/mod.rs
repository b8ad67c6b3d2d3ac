//! sig-cli: what kubectl's commands send, without kubectl. The program itself is for the end-to-end suite.

mod kubectl;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("Kubectl, check version v1", kubectl::api_versions_has_v1),
        case!("Kubectl, diff Deployment", kubectl::diff_shows_what_would_be),
        case!("Kubectl, label update", kubectl::label_sets_and_takes_away),
        case!("Kubectl, patch to annotate", kubectl::patch_annotates),
        case!("Kubectl, replace", kubectl::replace_changes_the_image),
        case!("Kubectl, server-side dry-run Pod", kubectl::a_dry_run_changes_nothing),
        case!("Kubectl, version", kubectl::version_says_what_runs),
    ]
}
