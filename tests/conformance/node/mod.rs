//! sig-node: the objects that nodes read, and what of pods is decided before a node has them.

mod config_map;
mod device;
mod lease;
#[expect(clippy::module_inception, reason = "the area and the kind have one name")]
mod node;
mod pod;
mod pod_template;
mod runtime_class;
mod secret;

use crate::{Case, case, row};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        row!("CRUD operations for deviceclasses", device::class_row),
        row!("CRUD operations for resourceclaims", device::claim_row),
        row!("CRUD operations for resourceclaimtemplates", device::claim_template_row),
        row!("CRUD operations for resoureslices", device::slice_row),
        case!("ConfigMap Update", config_map::a_config_map_is_updated),
        case!("ConfigMap lifecycle", config_map::a_config_map_lives),
        case!("ConfigMap, with empty-key", config_map::no_key_is_empty),
        case!("Node, resource lifecycle", node::a_node_lives),
        row!("PodTemplate lifecycle", pod_template::row),
        case!("PodTemplate, delete a collection", pod_template::many_are_listed_and_deleted),
        case!("PodTemplate, replace", pod_template::a_template_is_replaced),
        case!("Pods Generation, 500 updates", pod::every_wish_counts),
        case!("Pods Generation, graceful delete", pod::an_end_that_waits_counts),
        case!("Pods Generation, updates", pod::what_is_wished_counts_generations),
        case!("Pods, QOS", pod::the_class_follows_from_the_resources),
        case!("Pods, completes the lifecycle of a Pod and the PodStatus", pod::a_pod_and_its_status_live),
        case!("Pods, delete a collection", pod::many_are_listed_and_deleted),
        case!("Pods, patching status", pod::the_status_is_patched),
        case!("Pods, update", pod::a_label_is_changed),
        row!("RuntimeClass API", runtime_class::row),
        case!("RuntimeClass Overhead field must be respected.", runtime_class::a_pod_has_the_overhead_of_its_class),
        case!("Pod with the deleted RuntimeClass is rejected.", runtime_class::a_deleted_class_is_refused),
        case!("Pod with the non-existing RuntimeClass is rejected.", runtime_class::an_unknown_class_is_refused),
        case!("Secret patching", secret::a_secret_is_patched),
        case!("Secrets, with empty-key", secret::no_key_is_empty),
        case!("Sysctls, reject invalid sysctls", pod::names_of_sysctls_are_checked),
        case!("lease API should be available", lease::a_lease_lives),
    ]
}
