//! Node health: a node that is not heard of for its grace is not ready, and says so.
//!
//! Goal        a node's condition Ready and its taints tell whether its agent is there and well
//! Watches     Node; Lease (in kube-node-lease)
//! Writes      Node: status conditions (Unknown only), the taints not-ready and unreachable · Pod: condition Ready (False
//!             only, on nodes that are not heard of)
//! Relies on   an agent renews its lease well within the lease's own duration
//!
//! Rules, in order
//!   R1 heard       a node is heard of when its lease or its status changes; the time is ours, not the node's clock
//!   R2 silent      after its grace (its lease's duration, else the configured one) a node's conditions become Unknown
//!   R3 taints      Ready False → not-ready, Ready Unknown → unreachable, both NoSchedule and NoExecute; True → neither
//!   R4 pods        pods on a silent node are not ready, so that services stop sending to them
//! Not here       what happens to the pods of tainted nodes (eviction)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef, Patch};

use super::facts::{NodeFacts, Taint};
use crate::condition;
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The conditions that an agent keeps, and that nobody knows when it is silent.
const KEPT_BY_AGENT: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// A grace below this would call a busy node silent.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// The controller of node health.
pub(crate) struct NodeHealth {
    nodes: Cache,
    leases: Cache,
    pods: Cache,
    grace: Duration,
    /// By node: what was heard last, and when. Kept here because it is our time and not the cluster's.
    heard: Mutex<BTreeMap<Key, Heard>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Heard {
    uid: String,
    lease_revision: u64,
    heartbeat: Option<String>,
    at: Instant,
}

/// What a decision about one node depends on.
pub(crate) struct View {
    header: Header,
    node: Arc<NodeFacts>,
    silent_for: Duration,
    grace: Duration,
    /// Its ready pods, looked at only when it is silent.
    ready_pods: Vec<Arc<Cached>>,
    now: Timestamp,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Lease {
    spec: LeaseSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    lease_duration_seconds: Option<u64>,
}

impl NodeHealth {
    pub(crate) fn new(caches: &Caches, grace: Duration) -> NodeHealth {
        NodeHealth {
            nodes: caches.of(&kinds::NODE),
            leases: caches.of(&kinds::LEASE),
            pods: caches.of(&kinds::POD),
            grace,
            heard: Mutex::default(),
        }
    }

    /// R1: for how long the node has not been heard of.
    fn silent_for(&self, key: &Key, node: &Cached, lease: Option<&Cached>, instant: Instant) -> Duration {
        let heartbeat = NodeFacts::of(node)
            .condition("Ready")
            .and_then(|ready| ready["lastHeartbeatTime"].as_str())
            .map(str::to_owned);
        let lease_revision = lease.map_or(0, |lease| lease.header.revision);
        let now = Heard { uid: node.header.uid().to_owned(), lease_revision, heartbeat, at: instant };
        let mut heard = self.heard.lock().expect("nothing panics while holding it");
        match heard.get(key) {
            Some(last)
                if (&last.uid, last.lease_revision, &last.heartbeat)
                    == (&now.uid, now.lease_revision, &now.heartbeat) =>
            {
                instant.duration_since(last.at)
            }
            _ => {
                heard.insert(key.clone(), now);
                Duration::ZERO
            }
        }
    }
}

impl Controller for NodeHealth {
    type View = View;
    const NAME: &'static str = "nodehealth";

    fn wakes(&self) -> Vec<Wake> {
        let leases = Wake::new(&kinds::LEASE, |change, wake| {
            if change.key.namespace() == LEASES {
                wake(Key::new("", change.key.name()));
            }
        });
        vec![Wake::itself(&kinds::NODE), leases]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let Some(node) = self.nodes.get_key(key.as_str()) else {
            self.heard.lock().expect("nothing panics while holding it").remove(key);
            return None;
        };
        let lease = self.leases.get(LEASES, key.name());
        let silent_for = self.silent_for(key, &node, lease.as_deref(), look.instant);
        let duration = lease.and_then(|lease| lease.decode::<Lease>().ok()?.spec.lease_duration_seconds);
        let grace = duration.map_or(self.grace, Duration::from_secs).max(GRACE_MIN);
        let facts = NodeFacts::of(&node);
        let mut ready_pods = Vec::new();
        if silent_for >= grace {
            ready_pods = self.pods.on_node(key.name());
            ready_pods.retain(|pod| PodFacts::of(pod).is_ready());
        }
        Some(View { header: node.header.clone(), node: facts, silent_for, grace, ready_pods, now: look.now })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if view.header.is_ending() {
            return plan;
        }
        let is_silent = view.silent_for >= view.grace;
        if is_silent {
            say_unknown(view, &mut plan);
            unready_pods(view, &mut plan);
        } else {
            plan.look_again(view.grace - view.silent_for, "whether the node has been heard of by then");
        }
        let ready = if is_silent { "Unknown" } else { view.node.ready() };
        taint(view, ready, &mut plan);
        plan
    }
}

/// R2.
fn say_unknown(view: &View, plan: &mut Plan) {
    let now = condition::text(view.now);
    let unknown = |kind: &&str| {
        let found = view.node.condition(kind);
        let said = found.and_then(|found| found["status"].as_str());
        if said == Some("Unknown") {
            return None;
        }
        let (reason, message) = match found {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = found.map_or_else(|| json!(view.header.created()), |found| found["lastHeartbeatTime"].clone());
        Some(json!({"type": kind, "status": "Unknown", "reason": reason, "message": message,
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": now}))
    };
    let conditions: Vec<Value> = KEPT_BY_AGENT.iter().filter_map(unknown).collect();
    if !conditions.is_empty() {
        let why = format!("node {} was not heard of for {} s", view.header.name(), view.grace.as_secs());
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        let item = plan.patch_status(Target::of(&kinds::NODE, &view.header), patch, why);
        item.tell(ObjectRef::of(&view.header), "NodeNotReady").as_warning();
    }
}

/// R4.
fn unready_pods(view: &View, plan: &mut Plan) {
    for pod in &view.ready_pods {
        let patch = Patch::Strategic(json!({"status": {"conditions": [{
            "type": "Ready", "status": "False", "lastTransitionTime": condition::text(view.now),
        }]}}));
        let why = format!("its node {} is not heard of", view.header.name());
        plan.patch_status(Target::of(&kinds::POD, &pod.header), patch, why);
    }
}

/// R3.
fn taint(view: &View, ready: &str, plan: &mut Plan) {
    let wanted = match ready {
        "True" => None,
        "Unknown" => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let is_ours = |taint: &&Taint| [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    let found: Vec<(&str, &str)> =
        view.node.taints().filter(is_ours).map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect();
    let effects = ["NoSchedule", "NoExecute"];
    let wanted: Vec<(&str, &str)> = wanted.iter().flat_map(|key| effects.map(|effect| (*key, effect))).collect();
    if found.len() == wanted.len() && wanted.iter().all(|taint| found.contains(taint)) {
        return;
    }
    let now = condition::text(view.now);
    let mut taints: Vec<Value> = view.node.taints().filter(|taint| !is_ours(taint)).map(Taint::to_json).collect();
    for (key, effect) in wanted {
        let kept = view.node.taints().find(|taint| taint.key == key && taint.effect == effect);
        taints.push(kept.map_or_else(|| json!({"key": key, "effect": effect, "timeAdded": now}), Taint::to_json));
    }
    let patch = json!({"metadata": {"resourceVersion": view.header.revision.to_string()}, "spec": {"taints": taints}});
    let ready = if ready.is_empty() { "unsaid" } else { ready };
    // The status patch before it, if there is one, has moved the node to a revision that we do not know.
    let patch = if plan.items.is_empty() { patch } else { json!({"spec": patch["spec"]}) };
    plan.patch(Target::of(&kinds::NODE, &view.header), patch, format!("node {} is ready: {ready}", view.header.name()));
}

#[cfg(test)]
mod tests {
    use super::{Controller, NodeFacts, NodeHealth, View};
    use crate::fixture::{check, now, object};
    use crate::plan::Action;
    use serde_json::{Value, json};
    use std::time::Duration;
    use windlass_client::Patch;

    fn view(ready: &str, taints: Value, silent_seconds: u64) -> View {
        let conditions: Vec<Value> = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
            .into_iter()
            .filter(|_| !ready.is_empty())
            .map(|kind| {
                json!({"type": kind, "status": if ready == "Unknown" || kind == "Ready" { ready } else { "False" },
                "lastHeartbeatTime": "2026-01-01T11:59:00Z"})
            })
            .collect();
        let node = object(&json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "n", "resourceVersion": "8"},
            "spec": {"taints": taints}, "status": {"conditions": conditions}}));
        let pod = object(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "p"}}),
        );
        View {
            header: node.header.clone(),
            node: NodeFacts::of(&node),
            silent_for: Duration::from_secs(silent_seconds),
            grace: Duration::from_secs(10),
            ready_pods: if silent_seconds >= 10 { vec![pod] } else { Vec::new() },
            now: now(),
        }
    }

    #[test]
    fn r1_a_node_that_is_heard_of_is_looked_at_again_when_its_grace_ends() {
        check(
            &NodeHealth::plan(&view("True", json!(null), 3)),
            "again after 7s: whether the node has been heard of by then",
        );
    }

    #[test]
    fn r2_r3_r4_a_silent_node_is_unknown_tainted_and_its_pods_unready() {
        let kept = json!([{"key": "team", "effect": "NoSchedule"}]);
        let plan = NodeHealth::plan(&view("True", kept, 10));
        check(
            &plan,
            "patch nodes n1 status: node n1 was not heard of for 10 s
             patch pods a/p status: its node n1 is not heard of
             patch nodes n1: node n1 is ready: Unknown",
        );
        let Action::Patch { patch: Patch::Strategic(patch), .. } = &plan.items[0].action else { panic!("strategic") };
        assert_eq!(patch["status"]["conditions"].as_array().map(Vec::len), Some(4));
        let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[2].action else { panic!("merge") };
        let keys: Vec<&Value> = patch["spec"]["taints"].as_array().expect("taints").iter().map(|t| &t["key"]).collect();
        assert_eq!(keys, ["team", "node.kubernetes.io/unreachable", "node.kubernetes.io/unreachable"]);
    }

    #[test]
    fn r3_taints_follow_ready() {
        let unreachable = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
        for (ready, taints, silent, expected) in [
            ("Unknown", unreachable.clone(), 20, ""),
            ("True", unreachable.clone(), 0, "patch nodes n1: node n1 is ready: True"),
            ("False", json!(null), 0, "patch nodes n1: node n1 is ready: False"),
            ("", json!(null), 0, "patch nodes n1: node n1 is ready: unsaid"),
        ] {
            let mut view = view(ready, taints, silent);
            view.ready_pods.clear();
            let text = NodeHealth::plan(&view).to_string();
            let found = text.lines().find(|line| !line.starts_with("again")).unwrap_or_default();
            assert_eq!(found, expected);
        }
    }
}
