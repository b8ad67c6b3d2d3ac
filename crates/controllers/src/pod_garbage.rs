//! Pod garbage: pods that no agent will ever finish.
//!
//! Goal        no pod waits for a node that is gone, and ended pods do not fill the store
//! Watches     Pod; Node
//! Writes      Pod: delete, at once
//!
//! Rules
//!   R1 lost        a pod bound to a node that is gone, for LOST_AFTER and by the API's own word, is deleted
//!   R2 unbound     an ending pod that was never bound is deleted at once: no agent will say that it has ended
//!   R3 ended       of pods that have ended and that nobody owns or deletes at most ENDED_MAX are kept, newest last
//! Not here       pods of nodes that are there but silent (eviction)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::kinds;
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Guard, Plan, Target};
use crate::pod::PodFacts;

/// How long a node must be gone before its pods are: a node that is replaced under its name keeps them.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// Ended pods that are kept, as Kubernetes has it by default.
const ENDED_MAX: usize = 12_500;
/// Pods deleted by one pass.
const BURST_MAX: usize = 500;
/// Ended pods are counted this often, while there are pods.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// The key under which ended pods are counted; the others are names of nodes.
const ENDED: &str = "*/ended";

/// The controller of pods that are left over.
pub(crate) struct PodGarbage {
    pods: Cache,
    nodes: Cache,
    /// By node: since when it is gone, by our time.
    gone: Mutex<BTreeMap<Key, Instant>>,
}

/// What a decision depends on.
pub(crate) enum View {
    /// The pods bound to a node that is gone; the empty name stands for those never bound.
    Node {
        /// The node's name.
        name: String,
        /// For how long it is gone.
        gone_for: Duration,
        /// Its pods.
        pods: Vec<Arc<Cached>>,
    },
    /// The pods that have ended, all of them.
    Ended(Vec<Arc<Cached>>),
}

impl PodGarbage {
    pub(crate) fn new(caches: &Caches) -> PodGarbage {
        PodGarbage { pods: caches.of(&kinds::POD), nodes: caches.of(&kinds::NODE), gone: Mutex::default() }
    }
}

impl Controller for PodGarbage {
    type View = View;
    const NAME: &'static str = "podgarbage";

    fn wakes(&self) -> Vec<Wake> {
        let nodes = self.nodes.clone();
        let pods = Wake::new(&kinds::POD, move |change, wake| {
            let Some(pod) = &change.new else { return };
            let header = &pod.header;
            let is_lost = !header.node_name().is_empty() && nodes.get("", header.node_name()).is_none();
            let is_unbound = header.node_name().is_empty() && header.is_ending();
            if is_lost || is_unbound {
                wake(Key::new("", header.node_name()));
            }
            if PodFacts::of(pod).is_terminal() {
                wake(Key::from(ENDED));
            }
        });
        vec![pods, Wake::itself(&kinds::NODE)]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        if key.as_str() == ENDED {
            let mut pods = self.pods.list();
            pods.retain(|pod| matches!(pod.header.phase(), "Succeeded" | "Failed") && !pod.header.is_ending());
            return (!pods.is_empty()).then_some(View::Ended(pods));
        }
        let name = key.name().to_owned();
        let mut gone = self.gone.lock().expect("nothing panics while holding it");
        if !name.is_empty() && self.nodes.get("", &name).is_some() {
            gone.remove(key);
            return None;
        }
        let mut pods = self.pods.on_node(&name);
        if name.is_empty() {
            pods.retain(|pod| pod.header.is_ending());
        }
        if pods.is_empty() {
            gone.remove(key);
            return None;
        }
        let since = *gone.entry(key.clone()).or_insert(look.instant);
        Some(View::Node { name, gone_for: look.instant.duration_since(since), pods })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        match view {
            View::Node { name, pods, .. } if name.is_empty() => {
                for pod in pods.iter().take(BURST_MAX) {
                    delete(pod, "it is ending and was never bound", &mut plan);
                }
            }
            View::Node { name, gone_for, pods } => lost(name, *gone_for, pods, &mut plan),
            View::Ended(pods) => ended(pods, &mut plan),
        }
        plan
    }
}

/// R1.
fn lost(name: &str, gone_for: Duration, pods: &[Arc<Cached>], plan: &mut Plan) {
    if gone_for < LOST_AFTER {
        plan.look_again(LOST_AFTER - gone_for, format!("node {name} will have been gone long enough"));
        return;
    }
    for pod in pods.iter().take(BURST_MAX) {
        let node = Target { kind: kinds::NODE.clone(), key: Key::new("", name), uid: String::new() };
        delete(pod, &format!("its node {name} is gone"), plan).guard(Guard::Absent(vec![node]));
    }
}

/// R3.
fn ended(pods: &[Arc<Cached>], plan: &mut Plan) {
    if let Some(surplus) = pods.len().checked_sub(ENDED_MAX).filter(|surplus| *surplus > 0) {
        let mut oldest: Vec<&Arc<Cached>> = pods.iter().collect();
        oldest.sort_by(|one, other| one.header.created().cmp(other.header.created()));
        for pod in oldest.into_iter().take(surplus.min(BURST_MAX)) {
            delete(pod, &format!("it has ended and more than {ENDED_MAX} such pods are kept"), plan);
        }
    }
    plan.look_again(COUNT_EVERY, "how many pods have ended by then");
}

fn delete<'a>(pod: &Cached, why: &str, plan: &'a mut Plan) -> &'a mut crate::plan::Item {
    let item = plan.delete_at_once(Target::of(&kinds::POD, &pod.header), why);
    item.tell(ObjectRef::of(&pod.header), "PodGC")
}

#[cfg(test)]
mod tests {
    use super::{Controller, ENDED_MAX, PodGarbage, View};
    use crate::fixture::{check, object};
    use crate::plan::Guard;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;
    use windlass_client::Cached;

    fn pod(name: &str) -> Arc<Cached> {
        object(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "uid": name,
            "creationTimestamp": format!("2026-01-01T00:00:{}Z", &name[name.len() - 2..])}}))
    }

    fn node(name: &str, gone_seconds: u64) -> View {
        let gone_for = Duration::from_secs(gone_seconds);
        View::Node { name: name.to_owned(), gone_for, pods: vec![pod("p-00")] }
    }

    #[test]
    fn r1_pods_of_a_node_that_is_gone_go_after_a_while_if_the_api_agrees() {
        check(&PodGarbage::plan(&node("n1", 4)), "again after 6s: node n1 will have been gone long enough");
        let plan = PodGarbage::plan(&node("n1", 10));
        check(&plan, "delete pods a/p-00: its node n1 is gone");
        assert!(matches!(&plan.items[0].guard, Some(Guard::Absent(nodes)) if nodes[0].key.name() == "n1"));
    }

    #[test]
    fn r2_an_ending_pod_that_was_never_bound_goes_at_once() {
        check(&PodGarbage::plan(&node("", 0)), "delete pods a/p-00: it is ending and was never bound");
    }

    #[test]
    fn r3_too_many_ended_pods_go_oldest_first() {
        let mut pods = vec![pod("p-59"); ENDED_MAX];
        let again = "again after 60s: how many pods have ended by then";
        check(&PodGarbage::plan(&View::Ended(pods.clone())), again);
        pods.push(pod("old-01"));
        let expected = format!("delete pods a/old-01: it has ended and more than 12500 such pods are kept\n{again}");
        check(&PodGarbage::plan(&View::Ended(pods)), &expected);
    }
}
