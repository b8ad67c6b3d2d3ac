//! Pod: containers that live and die together on one node.
//!
//! The nouns of a pod have files of their own here: container, volume, probe and so on.

mod cells;

use jiff::Timestamp;
use serde_json::Value;

use super::tree::Tree;
use super::{age_column, column, name_column, row, wide};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// Seconds a pod has to stop when neither it nor its deletion says otherwise.
pub const GRACE_SECONDS_DEFAULT: u32 = 30;

/// The row of Pod.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Ready", "string", "ready containers of all"),
        column("Status", "string", "what the pod is doing, or why it is not"),
        column("Restarts", "string", "how often containers were restarted, and when last"),
        age_column(),
        wide("IP", "string", "the pod's address"),
        wide("Node", "string", "where it runs"),
        wide("Nominated Node", "string", "where it will run once others have made room"),
        wide("Readiness Gates", "string", "conditions met of those that readiness also waits for"),
    ];
    let mut pod = row(&kinds::POD, columns, Pod)
        .short_names(&["po"])
        .in_all()
        .subresources(&[
            Subresource::Status,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Log,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
        ])
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
        .counts_generations();
    pod.grace_seconds_default = Some(GRACE_SECONDS_DEFAULT);
    pod
}

struct Pod;

impl Rules for Pod {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells::cells(object, now)
    }
}

/// The names and the images of a template's containers, as wide columns show them.
pub(super) fn template_columns(template: &Value) -> (String, String) {
    let containers = template["spec"].items("containers");
    let joined = |field: &str| containers.iter().map(|container| container.text(field)).collect::<Vec<_>>().join(",");
    (joined("name"), joined("image"))
}
