//! Node: a machine that runs pods.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row, wide};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of Node.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Status", "string", "whether the machine is ready, and whether it takes new pods"),
        column("Roles", "string", "what the machine is for, from its labels"),
        age_column(),
        column("Version", "string", "version of the node agent"),
        wide("Internal-IP", "string", "address inside the cluster"),
        wide("External-IP", "string", "address outside the cluster"),
        wide("OS-Image", "string", "operating system"),
        wide("Kernel-Version", "string", "kernel"),
        wide("Container-Runtime", "string", "what runs the containers"),
    ];
    row(&kinds::NODE, columns, Node)
        .short_names(&["no"])
        .subresources(&[Subresource::Status])
        .selectable(&["spec.unschedulable"])
}

struct Node;

impl Rules for Node {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let system = &object["status"]["nodeInfo"];
        vec![
            json!(object["metadata"].text("name")),
            json!(status(object)),
            json!(roles(object)),
            age::of(object, now),
            json!(system.text("kubeletVersion")),
            json!(address(object, "InternalIP")),
            json!(address(object, "ExternalIP")),
            json!(or(system.text("osImage"), age::UNKNOWN)),
            json!(or(system.text("kernelVersion"), age::UNKNOWN)),
            json!(or(system.text("containerRuntimeVersion"), age::UNKNOWN)),
        ]
    }
}

fn status(node: &Value) -> String {
    let ready = node["status"].items("conditions").iter().find(|condition| condition.text("type") == "Ready");
    let mut shown = match ready {
        Some(condition) if condition.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"].flag("unschedulable") {
        shown.push_str(",SchedulingDisabled");
    }
    shown
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node["metadata"].entries("labels") {
        let role = match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or_default(),
            None => "",
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    or(&roles.into_iter().collect::<Vec<_>>().join(","), "<none>").to_owned()
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let found = node["status"].items("addresses").iter().find(|address| address.text("type") == kind);
    found.map_or("<none>", |address| address.text("address"))
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
