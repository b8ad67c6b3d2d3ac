//! Node: a machine that runs pods.
//!
//! Rules
//!   M1 addresses   the pod network is one or two CIDRs of different families, and does not change once known
//!   M2 taints      each key and effect once
//!   M3 provider    who runs the machine does not change once known
//!   M4 amounts     what it has and gives is not negative, and whole where it is counted
//!   M5 status      addresses once, and features by their names and in order
//! Source: API reference, core/v1 Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::network;
use super::tree::{Tree, carry_over, fill};
use super::{age, age_column, column, name_column, pod, row, wide};
use crate::field::{Errors, Path};
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
        .subresources(&[Subresource::Status, Subresource::Proxy])
        .selectable(&["spec.unschedulable"])
}

struct Node;

impl Rules for Node {
    /// `podCIDR` is the first of `podCIDRs`, for clients from before there were several. What a node can give is what it has
    /// unless it says otherwise.
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            let (one, all) = (spec.text("podCIDR").to_owned(), spec.items("podCIDRs").to_vec());
            match all.first() {
                Some(first) if one.is_empty() => spec["podCIDR"] = first.clone(),
                None if !one.is_empty() => spec["podCIDRs"] = json!([one]),
                _ => {}
            }
        }
        if let Some(status) = object.get_mut("status")
            && status.is_set("capacity")
        {
            let capacity = status["capacity"].clone();
            fill(status, "allocatable", capacity);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        // Kubernetes looks for them in the metadata, where they were before they had a field.
        pod::validate_taints(spec.items("taints"), &Path::new("metadata").child("taints"), errors);
        validate_amounts(&object["status"], errors);
        validate_networks(spec, &at, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let (status, at) = (&object["status"], Path::new("status"));
        validate_amounts(status, errors);
        let swap = &status["nodeInfo"]["swap"];
        if let Some(capacity) = swap.int("capacity").filter(|&capacity| capacity <= 0) {
            let path = Path::new("metadata").child("nodeSwapStatus").child("capacity");
            errors.invalid(&path, capacity, "must be greater than zero");
        }
        validate_features(status.items("declaredFeatures"), &at.child("declaredFeatures"), errors);
        let addresses = status.items("addresses");
        for (index, address) in addresses.iter().enumerate().filter(|(index, one)| addresses[..*index].contains(one)) {
            errors.duplicate(&at.child("addresses").index(index), address.clone());
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut all = Vec::new();
        if object["spec"].is_set("configSource") {
            all.push("spec.configSource: the spec.configSource field is deprecated and has no effect".to_owned());
        }
        if !object["spec"].text("externalID").is_empty() {
            all.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        all
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (spec, before, at) = (&object["spec"], &old["spec"], Path::new("spec"));
        let networks = before.items("podCIDRs");
        if !networks.is_empty() && spec.items("podCIDRs") != networks {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&at.child("podCIDRs"), detail);
        }
        let provider = before.text("providerID");
        if !provider.is_empty() && spec.text("providerID") != provider {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&at.child("providerID"), detail);
        }
        if spec.text("externalID") != before.text("externalID") {
            errors.forbidden(&at.child("externalID"), "may not be updated");
        }
    }

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

/// M4.
fn validate_amounts(status: &Value, errors: &mut Errors) {
    for field in ["capacity", "allocatable"] {
        for (resource, amount) in status.entries(field) {
            pod::validate_quantity(resource, amount, &Path::new("status").child(field).child(resource), errors);
        }
    }
}

/// M5.
fn validate_features(features: &[Value], at: &Path, errors: &mut Errors) {
    const BYTES_MAX: usize = 253;
    for (index, feature) in features.iter().enumerate() {
        let (name, path) = (feature.as_str().unwrap_or_default(), at.index(index));
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if name.len() > BYTES_MAX {
            let detail = format!("invalid feature name {name:?}: must be no more than {BYTES_MAX} characters");
            errors.invalid(&path, name, &detail);
        } else if !name.starts_with(|first: char| first.is_ascii_uppercase()) || !name.split('/').all(is_part) {
            let detail = format!(
                "invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments \
                 separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters \
                 and slashes"
            );
            errors.invalid(&path, name, &detail);
        }
        let next = features.get(index + 1).and_then(Value::as_str);
        match next.map(|next| (next, next.cmp(name))) {
            Some((next, std::cmp::Ordering::Equal)) => errors.duplicate(&at.index(index + 1), next),
            Some((next, std::cmp::Ordering::Less)) => {
                errors.invalid(&at.index(index + 1), next, "list must be sorted alphabetically");
            }
            _ => {}
        }
    }
}

/// M1.
fn validate_networks(spec: &Value, at: &Path, errors: &mut Errors) {
    let networks: Vec<&str> = spec.items("podCIDRs").iter().filter_map(Value::as_str).collect();
    let path = at.child("podCIDRs");
    if networks.first().copied().unwrap_or_default() != spec.text("podCIDR") {
        let detail = "must contain the same value as podCIDR in its first place";
        errors.invalid(&path.index(0), spec["podCIDRs"].clone(), detail);
    }
    for (index, text) in networks.iter().enumerate() {
        network(text, &path.index(index), errors);
    }
    let of_both_families = || networks.len() == 2 && networks[0].contains(':') != networks[1].contains(':');
    if networks.len() > 1 && !of_both_families() {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid(&path, spec["podCIDRs"].clone(), detail);
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

#[cfg(test)]
mod tests {
    use super::Node;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn paths(errors: &Errors) -> Vec<&str> {
        errors.iter().map(|error| error.path.as_str()).collect()
    }

    #[test]
    fn m1_the_pod_network_is_set_once() {
        let mut node = json!({"spec": {"podCIDR": "10.42.0.0/24"}, "status": {"capacity": {"cpu": "2"}}});
        Node.default(&mut node);
        assert_eq!(node["spec"]["podCIDRs"], json!(["10.42.0.0/24"]));
        assert_eq!(node["status"]["allocatable"], json!({"cpu": "2"}));
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            Node.validate(&json!({"spec": spec}), &mut errors);
            assert_eq!(paths(&errors), expected, "{spec}");
        };
        check(node["spec"].clone(), &[]);
        check(json!({"podCIDR": "10.0.0.1/24", "podCIDRs": ["10.0.0.1/24"]}), &["spec.podCIDRs[0]"]);
        check(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}), &["spec.podCIDRs"]);
        check(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"]}), &[]);
        check(json!({"podCIDR": "10.0.0.0/33", "podCIDRs": ["10.0.0.0/33"]}), &["spec.podCIDRs[0]"]);

        let mut errors = Errors::new();
        Node.validate_update(&node, &json!({"spec": {}}), &mut errors);
        assert!(errors.is_empty());
        Node.validate_update(&json!({"spec": {"podCIDRs": ["10.1.0.0/24"]}}), &node, &mut errors);
        assert_eq!(paths(&errors), ["spec.podCIDRs"]);
    }

    #[test]
    fn m2_taints_are_said_once() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let mut errors = Errors::new();
        Node.validate(&json!({"spec": {"taints": [taint, taint]}}), &mut errors);
        assert_eq!(paths(&errors), ["metadata.taints[1]"]);
    }

    #[test]
    fn m4_and_m5_a_status_can_be_counted() {
        let address = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let node = json!({"status": {"capacity": {"cpu": "-1", "example.com/gpu": "500m"}, "addresses": [address, address],
            "declaredFeatures": ["b", "GangScheduling", "GangScheduling"]}});
        let mut errors = Errors::new();
        Node.validate_status(&node, &node, &mut errors);
        crate::resources::fixture::compare(
            &errors,
            &[
                "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
                "status.capacity.example.com/gpu: Invalid value: \"500m\": must be an integer",
                "status.declaredFeatures[0]: Invalid value: \"b\": invalid feature name \"b\": must start with an UpperCamelCase",
                "status.declaredFeatures[1]: Invalid value: \"GangScheduling\": list must be sorted alphabetically",
                "status.declaredFeatures[2]: Duplicate value: \"GangScheduling\"",
                "status.addresses[1]: Duplicate value",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-03T00:00:00Z".parse().expect("a timestamp");
        let node = json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "worker"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.18"}},
        });
        assert_eq!(
            Node.cells(&node, now),
            [
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,worker",
                "2d",
                "v1.37.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "6.18",
                "<unknown>"
            ]
            .map(Value::from)
        );
        let cells = Node.cells(&json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}), now);
        assert_eq!(cells[1..3], ["NotReady", "<none>"].map(Value::from));
        assert_eq!(Node.cells(&json!({}), now)[1], "Unknown");
    }
}
