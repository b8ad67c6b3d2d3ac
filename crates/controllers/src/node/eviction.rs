//! Eviction: pods that do not tolerate their node's NoExecute taints are deleted.
//!
//! Goal        no pod stays on a node whose NoExecute taints it does not tolerate, or for longer than it tolerates them
//! Watches     Node; Pod (bound)
//! Writes      Pod: delete · Node: the time of a NoExecute taint that says none
//! Relies on   nobody else dates the taints of others; node health dates its own
//!
//! Rules, in order
//!   R1 at once     a pod that does not tolerate a NoExecute taint is deleted
//!   R2 later       one that tolerates it for some seconds is deleted that long after the taint came; the shortest counts
//!   R3 for ever    one that tolerates it without seconds stays
//!   R4 mass        when more than MASS_SHARE of at least MASS_NODES_MIN nodes are unreachable it is more likely we who
//!                  are cut off: pods of unreachable nodes stay until fewer are
//!   R5 paced       at most BURST_MAX pods of a node per pass
//!   R6 dated       a NoExecute taint that does not say since when it is there is there since it was seen, and says so
//!   R7 in turn     of nodes that vanish together one after the other loses its pods, NODE_PACE apart: those that return
//!                  meanwhile keep theirs
//! Not here       pods of nodes that are gone (pod garbage)

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef};

use super::facts::{NodeFacts, Taint};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;

/// Above this share of unreachable nodes nothing is evicted from them, in percent.
const MASS_SHARE_PERCENT: usize = 55;
/// A share of fewer nodes than this says nothing.
const MASS_NODES_MIN: usize = 3;
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long until a mass outage is looked at again, should no node change.
const MASS_LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Between two nodes that are unreachable and lose their pods. Kubernetes takes ten seconds.
const NODE_PACE: Duration = Duration::from_secs(2);
/// Pods of one node deleted by one pass.
const BURST_MAX: usize = 200;
/// How long until the next pass over a node with more pods than that.
const PACE: Duration = Duration::from_millis(500);

/// The controller of evictions.
pub(crate) struct Evictions {
    nodes: Cache,
    pods: Cache,
}

/// What a decision about one node depends on.
pub(crate) struct View {
    header: Header,
    /// All its taints; only those of NoExecute count.
    all: Vec<Taint>,
    /// Its NoExecute taints.
    taints: Vec<Taint>,
    pods: Vec<Arc<Cached>>,
    nodes: usize,
    unreachable_nodes: usize,
    /// How much later than it would be alone it is this node's turn (R7).
    behind: Duration,
    now: Timestamp,
}

impl Evictions {
    pub(crate) fn new(caches: &Caches) -> Evictions {
        Evictions { nodes: caches.of(&kinds::NODE), pods: caches.of(&kinds::POD) }
    }
}

impl Controller for Evictions {
    type View = View;
    const NAME: &'static str = "eviction";

    fn wakes(&self) -> Vec<Wake> {
        let nodes = self.nodes.clone();
        let pods = Wake::new(&kinds::POD, move |change, wake| {
            let Some(pod) = change.new.as_ref().filter(|pod| !pod.header.node_name().is_empty()) else { return };
            if change.old.as_ref().is_some_and(|old| old.header.node_name() == pod.header.node_name()) {
                return;
            }
            let node = Key::new("", pod.header.node_name());
            if nodes.get_key(node.as_str()).is_some_and(|node| NodeFacts::of(&node).taints().any(executes)) {
                wake(node);
            }
        });
        let tainted = Wake::new(&kinds::NODE, |change, wake| {
            if change.new.as_ref().is_some_and(|node| NodeFacts::of(node).taints().any(executes)) {
                wake(change.key.clone());
            }
        });
        vec![tainted, pods]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let node = self.nodes.get_key(key.as_str())?;
        let all: Vec<Taint> = NodeFacts::of(&node).taints().cloned().collect();
        let taints: Vec<Taint> = all.iter().filter(|taint| executes(taint)).cloned().collect();
        if taints.is_empty() {
            return None;
        }
        let nodes = self.nodes.list();
        let unreachable_nodes = nodes.iter().filter(|node| NodeFacts::of(node).ready() == "Unknown").count();
        let mut pods = self.pods.on_node(key.name());
        pods.retain(|pod| !pod.header.is_ending());
        Some(View {
            header: node.header.clone(),
            all,
            taints,
            pods,
            nodes: nodes.len(),
            unreachable_nodes,
            behind: behind(key.name(), lost(&nodes)),
            now: look.now,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        date(view, &mut plan);
        let is_unreachable = view.taints.iter().any(|taint| taint.key == UNREACHABLE);
        if is_unreachable && is_mass(view) && !view.pods.is_empty() {
            let why = format!(
                "{} of {} nodes are unreachable: more than {MASS_SHARE_PERCENT} %, so nothing is evicted from them",
                view.unreachable_nodes, view.nodes
            );
            plan.look_again(MASS_LOOK_AGAIN, why);
            return plan;
        }
        for pod in &view.pods {
            let facts = PodFacts::of(pod);
            match stay(view, &facts) {
                Stay::ForEver => {}
                Stay::Until(left) if !left.is_zero() => {
                    plan.look_again(left, format!("pod {} tolerates the taints until then", pod.header.name()));
                }
                Stay::Until(_) if plan.items.len() >= BURST_MAX => {
                    plan.look_again(PACE, "the node has more pods to evict");
                    break;
                }
                Stay::Until(_) => evict(view, pod, &mut plan),
            }
        }
        plan
    }
}

/// The nodes that are unreachable: since when, and which.
fn lost(nodes: &[Arc<Cached>]) -> Vec<(Timestamp, String)> {
    let since = |node: &Arc<Cached>| {
        let facts = NodeFacts::of(node);
        let taint = facts.taints().find(|taint| executes(taint) && taint.key == UNREACHABLE)?;
        Some((taint.time_added?, node.header.name().to_owned()))
    };
    nodes.iter().filter_map(since).collect()
}

/// R7: the nodes have their turns in the order in which they vanished.
fn behind(name: &str, mut lost: Vec<(Timestamp, String)>) -> Duration {
    lost.sort_unstable();
    let mut turn: Option<Timestamp> = None;
    for (since, other) in lost {
        let due = turn.and_then(|before| before.checked_add(NODE_PACE).ok()).map_or(since, |due| due.max(since));
        if other == name {
            return Duration::try_from(due.duration_since(since)).unwrap_or(Duration::ZERO);
        }
        turn = Some(due);
    }
    Duration::ZERO
}

/// R6.
fn date(view: &View, plan: &mut Plan) {
    if view.taints.iter().all(|taint| taint.time_added.is_some()) {
        return;
    }
    let dated = view.all.iter().cloned().map(|taint| match executes(&taint) {
        true => Taint { time_added: taint.time_added.or(Some(view.now)), ..taint },
        false => taint,
    });
    let taints: Vec<Value> = dated.map(|taint| taint.to_json()).collect();
    let patch = json!({"metadata": {"resourceVersion": view.header.revision.to_string()}, "spec": {"taints": taints}});
    let why = format!("a taint of node {} does not say since when it is there", view.header.name());
    plan.patch(Target::of(&kinds::NODE, &view.header), patch, why);
}

fn executes(taint: &Taint) -> bool {
    taint.effect == "NoExecute"
}

/// R4.
fn is_mass(view: &View) -> bool {
    view.nodes >= MASS_NODES_MIN && view.unreachable_nodes * 100 > view.nodes * MASS_SHARE_PERCENT
}

enum Stay {
    ForEver,
    Until(Duration),
}

/// R1, R2 and R3: for how long from now the pod may stay.
fn stay(view: &View, pod: &PodFacts) -> Stay {
    let mut until: Option<Duration> = None;
    for taint in &view.taints {
        let value = taint.value.as_deref().unwrap_or_default();
        let tolerations = pod.spec.tolerations.iter().flatten();
        let tolerating: Vec<Option<i64>> = tolerations
            .filter(|toleration| toleration.tolerates(&taint.key, value, &taint.effect))
            .map(|toleration| toleration.toleration_seconds)
            .collect();
        let behind = if taint.key == UNREACHABLE { view.behind } else { Duration::ZERO };
        if tolerating.is_empty() && behind.is_zero() {
            return Stay::Until(Duration::ZERO);
        }
        // Of several tolerations of one taint the shortest counts; without seconds is for ever.
        let seconds = match tolerating.is_empty() {
            true => 0,
            false => match tolerating.into_iter().flatten().min() {
                Some(seconds) => seconds,
                None => continue,
            },
        };
        let since = taint.time_added.unwrap_or(view.now);
        let behind = SignedDuration::try_from(behind).unwrap_or(SignedDuration::MAX);
        let left = SignedDuration::from_secs(seconds.max(0)).saturating_add(behind) - view.now.duration_since(since);
        let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
        until = Some(until.map_or(left, |earlier| earlier.min(left)));
    }
    until.map_or(Stay::ForEver, Stay::Until)
}

fn evict(view: &View, pod: &Cached, plan: &mut Plan) {
    let keys: Vec<&str> = view.taints.iter().map(|taint| taint.key.as_str()).collect();
    let why = format!(
        "its node {} has the taint {}, which it does not tolerate (any longer)",
        view.header.name(),
        keys.join(", ")
    );
    plan.delete(Target::of(&kinds::POD, &pod.header), why).tell(ObjectRef::of(&pod.header), "TaintManagerEviction");
}

#[cfg(test)]
mod tests {
    use super::{Controller, Evictions, NodeFacts, View, behind, executes};
    use crate::fixture::{check, now, object};
    use crate::plan::Action;
    use serde_json::{Value, json};
    use std::time::Duration;
    use windlass_client::Patch;

    fn view(tolerations: Value) -> View {
        let node = object(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "n"},
            "spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T11:59:00Z"},
                {"key": "team", "effect": "NoSchedule"}]}}));
        let pod =
            object(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "p"},
            "spec": {"nodeName": "n1", "tolerations": tolerations}}));
        View {
            header: node.header.clone(),
            all: NodeFacts::of(&node).taints().cloned().collect(),
            taints: NodeFacts::of(&node).taints().filter(|taint| executes(taint)).cloned().collect(),
            pods: vec![pod],
            nodes: 1,
            unreachable_nodes: 1,
            behind: Duration::ZERO,
            now: now(),
        }
    }

    const EVICTED: &str = "delete pods a/p: its node n1 has the taint node.kubernetes.io/unreachable, which it does not tolerate (any longer)";

    #[test]
    fn r1_r2_r3_a_pod_stays_as_long_as_it_tolerates() {
        let toleration = |seconds: Value| json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        for (tolerations, expected) in [
            (json!(null), EVICTED),
            (json!([{"key": "other", "operator": "Exists"}]), EVICTED),
            (toleration(json!(30)), EVICTED),
            (toleration(json!(300)), "again after 240s: pod p tolerates the taints until then"),
            (toleration(json!(null)), ""),
            (json!([{"operator": "Exists"}]), ""),
        ] {
            check(&Evictions::plan(&view(tolerations)), expected);
        }
    }

    #[test]
    fn r4_when_most_nodes_vanish_nothing_is_evicted() {
        for (nodes, unreachable, evicts) in
            [(1, 1, true), (2, 2, true), (10, 5, true), (10, 6, false), (100, 100, false)]
        {
            let plan = Evictions::plan(&View { nodes, unreachable_nodes: unreachable, ..view(json!(null)) });
            assert_eq!(plan.items.len(), usize::from(evicts), "{unreachable} of {nodes}");
            assert_eq!(plan.again.is_some(), !evicts, "a mass outage is looked at again");
        }
    }

    #[test]
    fn f55_r7_of_nodes_that_vanish_together_one_after_the_other_loses_its_pods() {
        let at = |second: i64| now() + jiff::SignedDuration::from_secs(second);
        let lost = |list: &[(i64, &str)]| list.iter().map(|(second, name)| (at(*second), (*name).to_owned())).collect();
        let half = [(0, "a"), (0, "b"), (0, "c"), (1, "d"), (100, "e")];
        let turns = ["a", "b", "c", "d", "e", "well"].map(|name| behind(name, lost(&half)).as_secs());
        assert_eq!(turns, [0, 2, 4, 5, 0, 0], "d vanished a second later; e long after the others had their turns");
        assert_eq!(behind("c", lost(&[(0, "a"), (0, "c")])).as_secs(), 2, "one that returned is not waited for");
        // The taint is a minute old: whoever is behind by more than that still waits, and is looked at again.
        let shown = |behind_s: u64| {
            Evictions::plan(&View {
                nodes: 10,
                unreachable_nodes: 5,
                behind: Duration::from_secs(behind_s),
                ..view(json!(null))
            })
        };
        check(&shown(60), EVICTED);
        check(&shown(70), "again after 10s: pod p tolerates the taints until then");
    }

    #[test]
    fn r6_a_taint_without_a_time_is_there_since_it_was_seen() {
        let tolerations = json!([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]);
        let mut undated = view(tolerations);
        undated.taints[0].time_added = None;
        undated.all[0].time_added = None;
        let plan = Evictions::plan(&undated);
        check(
            &plan,
            "patch nodes n1: a taint of node n1 does not say since when it is there
             again after 30s: pod p tolerates the taints until then",
        );
        let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[0].action else { panic!("merge") };
        let times: Vec<bool> = patch["spec"]["taints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|taint| taint["timeAdded"].is_string())
            .collect();
        assert_eq!(times, [true, false], "{patch}");
    }

    #[test]
    fn r5_a_pass_evicts_at_most_a_burst() {
        let mut many = view(json!(null));
        many.pods = (0..500).map(|_| many.pods[0].clone()).collect();
        let plan = Evictions::plan(&many);
        assert_eq!(plan.items.len(), 200);
        assert!(plan.again.is_some());
    }
}
