//! An APIService for each version of each group that this server serves itself, so that clients which list APIServices see all
//! there is.
//!
//! Rules
//!   A1 served     each served version has one, with Kubernetes' priorities for its own groups
//!   A2 gone       one that this server made goes with the version, as when a custom resource definition goes
//!
//! Source: kube-aggregator's own list of local APIServices.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use windlass_api::Registry;

/// Marks the objects that this server made, and may remove.
pub(super) const OWN_LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The priorities of Kubernetes' own groups: least of the group, and of its versions.
const PRIORITIES: [(&str, u32); 22] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
    // What metrics-server has where it serves the group.
    ("metrics.k8s.io", 100),
];
/// Of groups that users define.
const CUSTOM_PRIORITY: u32 = 1_000;
const CUSTOM_VERSION_PRIORITY: u32 = 100;

/// A1: the objects for what is served.
pub(super) fn served(registry: &Registry) -> Vec<Value> {
    versions(registry).iter().map(|(group, version)| object(group, version)).collect()
}

/// A2: whether an APIService of ours is for a version that is no longer served.
pub(super) fn is_gone(registry: &Registry, api_service: &Value) -> bool {
    let spec = &api_service["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let is_own = api_service["metadata"]["labels"][OWN_LABEL].is_string() && spec["service"].is_null();
    is_own && !versions(registry).contains(&(text("group"), text("version")))
}

fn versions(registry: &Registry) -> BTreeSet<(String, String)> {
    registry.iter().map(|resource| (resource.kind.group.to_string(), resource.kind.version.to_string())).collect()
}

fn object(group: &str, version: &str) -> Value {
    let (of_group, of_version) = match PRIORITIES.iter().find(|(known, _)| *known == group) {
        Some((_, priority)) if group.is_empty() => (*priority, 1),
        Some((_, priority)) => (*priority, if version == "v2" { 30 } else { 15 }),
        None => (CUSTOM_PRIORITY, CUSTOM_VERSION_PRIORITY),
    };
    // Those of built-in groups are there from the start, and those of custom ones while they are served.
    let managed = if of_group == CUSTOM_PRIORITY { "true" } else { "onstart" };
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {OWN_LABEL: managed}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version},
    })
}

#[cfg(test)]
mod tests {
    use super::{is_gone, served};
    use windlass_api::Registry;
    use windlass_api::resources::registry;

    #[test]
    fn a1_and_a2_what_is_served_has_one_and_what_is_not_has_none() {
        let all = served(&registry());
        let names: Vec<&str> = all.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
        assert!(names.contains(&"v1.") && names.contains(&"v1.apps"), "{names:?}");
        assert!(all.iter().all(|object| !is_gone(&registry(), object) && is_gone(&Registry::default(), object)));
    }
}
