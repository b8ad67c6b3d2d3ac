//! The order in which objects are printed and applied: what others need comes first.

use anyhow::{Result, bail};

use super::file::{LegacySort, SortOptions};
use super::resource::Resource;

const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// By kind, then by name; `fifo` leaves them as they came.
pub fn sort(resources: &mut [Resource], options: Option<&SortOptions>) -> Result<()> {
    let (first, last) = match options.map(|options| (options.order.as_str(), &options.legacy_sort_options)) {
        Some(("fifo", _)) => return Ok(()),
        None => (owned(&FIRST), owned(&LAST)),
        Some(("legacy", legacy)) if *legacy == LegacySort::default() => (owned(&FIRST), owned(&LAST)),
        Some(("legacy", legacy)) => (legacy.order_first.clone(), legacy.order_last.clone()),
        Some((other, _)) => bail!("the field 'sortOptions.order' must be one of [fifo, legacy], found {other:?}"),
    };
    resources.sort_by_cached_key(|resource| {
        let id = resource.id();
        let at = |list: &[String]| list.iter().position(|kind| *kind == id.kind);
        let rank = match (at(&first), at(&last)) {
            (Some(at), _) => (0, at),
            (None, None) => (1, 0),
            (None, Some(at)) => (2, at),
        };
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let kind = format!("{}_{}_{}", or(&id.group, "~G"), or(&id.version, "~V"), id.kind);
        let name = format!("{}|{}", or(resource.namespace(), "~X"), or(&id.name, "~N"));
        (rank, kind, name)
    });
    Ok(())
}

fn owned(kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(|kind| (*kind).to_owned()).collect()
}
