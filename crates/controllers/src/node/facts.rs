//! What the node controllers want to know of a node, read once per revision.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::Object;
use windlass_client::Cached;

use crate::condition;

/// The facts about one node that decisions depend on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeFacts {
    pub(super) spec: Spec,
    pub(super) status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    pub(super) taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) conditions: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Taint {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) effect: String,
    pub(super) time_added: Option<Timestamp>,
}

impl Taint {
    /// The taint as the API has it.
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({"key": self.key, "effect": self.effect});
        if let Some(value) = &self.value {
            out["value"] = json!(value);
        }
        if let Some(added) = self.time_added {
            out["timeAdded"] = json!(condition::text(added));
        }
        out
    }
}

impl NodeFacts {
    /// The facts of a cached node, read once.
    pub(super) fn of(node: &Cached) -> Arc<NodeFacts> {
        node.memo(|node: &Object| {
            node.decode().unwrap_or_else(|error| {
                tracing::error!(node = node.header.name(), %error, "a node that cannot be read counts as silent");
                NodeFacts::default()
            })
        })
    }

    /// Status of the condition Ready: `True`, `False`, `Unknown`, or empty when it was never said.
    pub(super) fn ready(&self) -> &str {
        self.condition("Ready").and_then(|ready| ready["status"].as_str()).unwrap_or_default()
    }

    pub(super) fn condition(&self, kind: &str) -> Option<&Value> {
        self.status.conditions.iter().flatten().find(|condition| condition["type"] == kind)
    }

    pub(super) fn taints(&self) -> impl Iterator<Item = &Taint> {
        self.spec.taints.iter().flatten()
    }
}
