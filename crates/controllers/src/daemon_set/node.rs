//! R4 and R5: which nodes a daemon runs on, and how its pod says for which one it is.
//!
//! Source: Kubernetes "DaemonSet, how daemon pods are scheduled" and "taints and tolerations"; core/v1 NodeSelector.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::Object;
use windlass_api::binding::Reach;
use windlass_client::Cached;

use crate::pod::Toleration;

/// What of a node decides whether a daemon runs there.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeFacts {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Metadata {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Spec {
    taints: Option<Vec<Taint>>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
    value: Option<String>,
    effect: String,
}

impl NodeFacts {
    pub(super) fn of(node: &Cached) -> Arc<NodeFacts> {
        node.memo(|node: &Object| {
            node.decode().unwrap_or_else(|error| {
                tracing::error!(node = node.header.key(), %error, "a node that cannot be read has neither labels nor taints");
                NodeFacts::default()
            })
        })
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// Whether a daemon is for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suits {
    /// It is to run there.
    Runs,
    /// It would not be started there now, but one that is there stays.
    Stays,
    /// It is not for this node.
    Not,
}

/// What a template wants of a node.
pub(super) struct Wants {
    node_name: String,
    node_selector: BTreeMap<String, String>,
    /// The nodes that its required node affinity lets in; `None` is all.
    reach: Option<Reach>,
    tolerations: Vec<Toleration>,
}

impl Wants {
    pub(super) fn of(template: &Value) -> Wants {
        let mut spec = template["spec"].clone();
        tolerate(&mut spec);
        let read = |pointer: &str| spec.pointer(pointer).cloned().unwrap_or_default();
        // The API keeps templates well-formed; what is not wants nothing.
        Wants {
            node_name: read("/nodeName").as_str().unwrap_or_default().to_owned(),
            node_selector: serde_json::from_value(read("/nodeSelector")).unwrap_or_default(),
            reach: Reach::read(&read("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution")),
            tolerations: serde_json::from_value(read("/tolerations")).unwrap_or_default(),
        }
    }

    pub(super) fn suit(&self, name: &str, node: &NodeFacts) -> Suits {
        let is_named = self.node_name.is_empty() || self.node_name == name;
        let is_selected = self.node_selector.iter().all(|(key, value)| node.label(key) == Some(value));
        let no_labels = BTreeMap::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&no_labels);
        let is_reached = self.reach.as_ref().is_none_or(|reach| reach.includes(name, labels));
        if !(is_named && is_selected && is_reached) {
            return Suits::Not;
        }
        let refused = |effect: &str| {
            node.spec.taints.iter().flatten().filter(|taint| taint.effect == effect).any(|taint| {
                let value = taint.value.as_deref().unwrap_or_default();
                !self.tolerations.iter().any(|toleration| toleration.tolerates(&taint.key, value, effect))
            })
        };
        match (refused("NoExecute"), refused("NoSchedule")) {
            (true, _) => Suits::Not,
            (false, true) => Suits::Stays,
            (false, false) => Suits::Runs,
        }
    }
}

/// The node that a pod is on or is meant for; empty if it says none.
pub(super) fn of(pod: &Cached) -> String {
    if !pod.header.node_name().is_empty() {
        return pod.header.node_name().to_owned();
    }
    let spec = pod.memo(|pod: &Object| Meant(meant(&pod.value())));
    spec.0.clone()
}

/// The node that an unbound pod is meant for, read once.
struct Meant(String);

fn meant(pod: &Value) -> String {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = pod.pointer(terms).and_then(Value::as_array);
    let fields = terms.into_iter().flatten().flat_map(|term| term["matchFields"].as_array().into_iter().flatten());
    let mut names =
        fields.filter(|field| field["key"] == "metadata.name").filter_map(|field| field["values"][0].as_str());
    names.next().unwrap_or_default().to_owned()
}

/// Makes the pod one for this node: only its required node affinity says so, and the scheduler binds it.
pub(super) fn bind(spec: &mut Value, node: &str) {
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    // The node suits what the template wanted already.
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [term]});
}

/// R5.
pub(super) fn tolerate(spec: &mut Value) {
    const ALWAYS: [(&str, &str); 6] = [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    let on_host = spec["hostNetwork"] == true;
    if !spec["tolerations"].is_array() {
        spec["tolerations"] = json!([]);
    }
    let Some(tolerations) = spec["tolerations"].as_array_mut() else { return };
    let network = on_host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in ALWAYS.into_iter().chain(network) {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}
