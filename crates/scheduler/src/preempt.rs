//! Preemption: which less important pods make way for a pod that fits nowhere.
//!
//! Rules, in order
//!   P1 who         a pod whose policy is Never makes nobody go; only pods of lower priority go
//!   P2 where       only nodes that fewer pods could make fit, at most CANDIDATES_MAX of them
//!   P3 victims     no more than it takes: all less important pods are taken away, and put back one by one, those first
//!                  that would break a disruption budget, then the more important and the longer running
//!   P4 which node  the fewest broken budgets, then the least important most important victim, then the least important
//!                  victims together, then the fewest, then those that began last
//! Guarantees       the cluster is afterwards as it was before
//!
//! Source: Kubernetes, "Pod priority and preemption".

use std::cmp::Reverse;
use std::sync::Arc;

use windlass_client::Key;

use crate::budget::{Budget, breaking};
use crate::cluster::Cluster;
use crate::near::Near;
use crate::place;
use crate::pod::{Footprint, Pod};

/// Nodes on which it would do that are compared.
const CANDIDATES_MAX: usize = 100;

/// Room that can be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Preemption {
    /// The node's name.
    pub(crate) node: String,
    /// Who makes way.
    pub(crate) victims: Vec<Key>,
}

/// A node with its victims, the most important first.
struct Candidate {
    node: String,
    victims: Vec<(Key, Arc<Footprint>)>,
    broken: usize,
}

/// Finds the node where making room costs least.
pub(crate) fn find(pod: &Pod, cluster: &mut Cluster, budgets: &[Arc<Budget>]) -> Option<Preemption> {
    if !pod.preempts {
        return None;
    }
    cluster.know(pod);
    let mut candidates = Vec::new();
    for node in yielding(pod, cluster) {
        candidates.extend(try_node(pod, cluster, &node, budgets));
        if candidates.len() >= CANDIDATES_MAX {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(Candidate::cost)?;
    Some(Preemption { node: best.node, victims: best.victims.into_iter().map(|(key, _)| key).collect() })
}

/// P2: the nodes that fewer pods may make fit, and that have a less important one.
fn yielding(pod: &Pod, cluster: &Cluster) -> Vec<String> {
    let near = Near::of(pod, cluster);
    let count = cluster.nodes.len();
    let nodes = (0..count).map(|offset| &cluster.nodes[(cluster.start + offset) % count]);
    nodes
        .filter(|node| node.facts.is_some() && node.on.values().any(|other| other.priority < pod.priority))
        .filter(|node| matches!(place::fits(pod, &near, node, cluster), Err((filter, _)) if filter.yields))
        .map(|node| node.name.clone())
        .collect()
}

fn fits(pod: &Pod, cluster: &Cluster, node: &str) -> bool {
    let Some(index) = cluster.index_of(node) else { return false };
    place::fits(pod, &Near::of(pod, cluster), &cluster.nodes[index], cluster).is_ok()
}

/// P3: the victims on one node, if their going is enough.
fn try_node(pod: &Pod, cluster: &mut Cluster, node: &str, budgets: &[Arc<Budget>]) -> Option<Candidate> {
    let index = cluster.index_of(node)?;
    let mut lower: Vec<(Key, Arc<Footprint>)> = cluster.nodes[index]
        .on
        .iter()
        .filter(|(_, other)| other.priority < pod.priority)
        .map(|(key, other)| (key.clone(), Arc::clone(other)))
        .collect();
    lower.sort_by(|(a, one), (b, other)| {
        (Reverse(one.priority), &one.since, a).cmp(&(Reverse(other.priority), &other.since, b))
    });
    for (key, _) in &lower {
        cluster.take(key);
    }
    let mut candidate = Candidate { node: node.to_owned(), victims: Vec::new(), broken: 0 };
    let is_enough = fits(pod, cluster, node);
    if is_enough {
        let breaking = breaking(lower.iter().map(|(key, other)| (key, &**other)), budgets);
        // Who breaks a budget comes first, in the same order otherwise.
        let (first, then): (Vec<_>, Vec<_>) = lower.iter().partition(|(key, _)| breaking.contains(key));
        for (key, other) in first.into_iter().chain(then) {
            cluster.put(key, node, Arc::clone(other));
            if !fits(pod, cluster, node) {
                cluster.take(key);
                candidate.broken += usize::from(breaking.contains(key));
                candidate.victims.push((key.clone(), Arc::clone(other)));
            }
        }
        candidate.victims.sort_by(|(a, one), (b, other)| {
            (Reverse(one.priority), &one.since, a).cmp(&(Reverse(other.priority), &other.since, b))
        });
    }
    for (key, other) in lower {
        cluster.put(&key, node, other);
    }
    (is_enough && !candidate.victims.is_empty()).then_some(candidate)
}

impl Candidate {
    /// P4.
    fn cost(&self) -> (usize, i64, i128, usize, Reverse<String>) {
        let highest = self.victims.first().map_or(i64::MIN, |(_, victim)| victim.priority);
        // Priorities may be negative: counted from the lowest, so that more victims never weigh less.
        let sum = self.victims.iter().map(|(_, victim)| i128::from(victim.priority) - i128::from(i32::MIN)).sum();
        let most = self.victims.iter().take_while(|(_, victim)| victim.priority == highest);
        let earliest = most.map(|(_, victim)| victim.since.clone()).min().unwrap_or_default();
        (self.broken, highest, sum, self.victims.len(), Reverse(earliest))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use windlass_api::Object;
    use windlass_client::Key;

    use super::find;
    use crate::budget::Budget;
    use crate::cluster::Cluster;
    use crate::fixture::{named_pod, node};
    use crate::pod::Pod;

    fn asks(name: &str, priority: i64, cpu: &str) -> Pod {
        named_pod(name, json!({"priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]}))
    }

    fn cluster(nodes: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for name in nodes {
            cluster.set_node(name, node(name, json!({})).facts.expect("facts"));
        }
        cluster
    }

    fn put(cluster: &mut Cluster, pod: &Pod, node: &str) {
        cluster.put(&pod.key, node, Arc::clone(&pod.footprint));
    }

    fn budget(allowed: i64, labels: Value) -> Arc<Budget> {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "a"}, "spec": {"selector": {"matchLabels": labels}},
            "status": {"disruptionsAllowed": allowed}});
        Arc::new(Budget::read(&Object::parse(Bytes::from(budget.to_string())).expect("a budget")))
    }

    #[track_caller]
    fn check(pod: &Pod, cluster: &mut Cluster, budgets: &[Arc<Budget>], expected: Option<(&str, &[&str])>) {
        let before: Vec<Vec<Key>> = cluster.nodes.iter().map(|node| node.on.keys().cloned().collect()).collect();
        let found = find(pod, cluster, budgets);
        let found = found.map(|found| (found.node, found.victims.iter().map(|key| key.name().to_owned()).collect()));
        let expected = expected.map(|(node, victims)| {
            (node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>())
        });
        assert_eq!(found, expected);
        let after: Vec<Vec<Key>> = cluster.nodes.iter().map(|node| node.on.keys().cloned().collect()).collect();
        assert_eq!(after, before, "the cluster is as it was");
    }

    #[test]
    fn p1_only_less_important_pods_go_and_only_for_those_who_want_it() {
        let mut one = cluster(&["n1"]);
        put(&mut one, &asks("low", 1, "3"), "n1");
        check(&asks("high", 2, "2"), &mut one, &[], Some(("n1", &["low"])));
        check(&asks("equal", 1, "2"), &mut one, &[], None);
        let mut modest = asks("modest", 2, "2");
        modest.preempts = false;
        check(&modest, &mut one, &[], None);
    }

    #[test]
    fn p2_a_node_that_room_does_not_help_is_left_alone() {
        let mut cordoned = Cluster::default();
        let facts = node("n1", json!({"/spec/unschedulable": true})).facts.expect("facts");
        cordoned.set_node("n1", facts);
        put(&mut cordoned, &asks("low", 1, "3"), "n1");
        check(&asks("high", 2, "2"), &mut cordoned, &[], None);
        let mut small = cluster(&["n1"]);
        put(&mut small, &asks("low", 1, "3"), "n1");
        check(&asks("huge", 2, "9"), &mut small, &[], None);
    }

    #[test]
    fn p3_no_more_pods_go_than_it_takes_and_the_least_important_first() {
        let mut one = cluster(&["n1"]);
        for (name, priority) in [("a", 3), ("b", 1), ("c", 2)] {
            put(&mut one, &asks(name, priority, "1"), "n1");
        }
        check(&asks("high", 9, "2"), &mut one, &[], Some(("n1", &["b"])));
        check(&asks("high", 9, "3"), &mut one, &[], Some(("n1", &["c", "b"])));
    }

    #[test]
    fn p3_pods_whose_budget_would_break_are_the_last_to_go() {
        let mut one = cluster(&["n1"]);
        let mut guarded = asks("guarded", 1, "1");
        let mut footprint = (*guarded.footprint).clone();
        footprint.labels.insert("app".to_owned(), "db".to_owned());
        guarded.footprint = Arc::new(footprint);
        put(&mut one, &guarded, "n1");
        put(&mut one, &asks("other", 2, "1"), "n1");
        put(&mut one, &asks("large", 5, "2"), "n1");
        let pod = asks("high", 4, "1");
        check(&pod, &mut one, &[], Some(("n1", &["guarded"])));
        check(&pod, &mut one, &[budget(0, json!({"app": "db"}))], Some(("n1", &["other"])));
        check(&pod, &mut one, &[budget(1, json!({"app": "db"}))], Some(("n1", &["guarded"])));
    }

    #[test]
    fn p4_the_node_where_it_costs_least_is_taken() {
        let mut three = cluster(&["n1", "n2", "n3"]);
        put(&mut three, &asks("middle", 5, "4"), "n1");
        put(&mut three, &asks("small-1", 2, "2"), "n2");
        put(&mut three, &asks("small-2", 2, "2"), "n2");
        put(&mut three, &asks("low", 2, "4"), "n3");
        check(&asks("high", 9, "4"), &mut three, &[], Some(("n3", &["low"])));
        check(&asks("high", 9, "1"), &mut three, &[], Some(("n2", &["small-2"])));
    }

    #[test]
    fn p4_room_that_is_promised_is_taken_for_equals_and_free_for_the_more_important() {
        let mut one = cluster(&["n1"]);
        let promised = asks("promised", 5, "3");
        one.nominate(&promised.key, "n1", Arc::clone(&promised.footprint));
        let place = |pod: &Pod, cluster: &mut Cluster| crate::place::place(pod, cluster).is_ok();
        assert!(!place(&asks("equal", 5, "2"), &mut one));
        assert!(place(&asks("higher", 6, "2"), &mut one));
        assert!(place(&promised, &mut one), "the room is its own");
        put(&mut one, &promised, "n1");
        assert!(one.nominated_on("n1").next().is_none(), "it has come");
    }

    #[test]
    fn p2_a_pod_that_keeps_others_away_makes_way() {
        let mut one = cluster(&["n1"]);
        let mut facts = node("n1", json!({"/metadata/labels": {"host": "n1"}})).facts.expect("facts");
        facts.labels.insert("host".to_owned(), "n1".to_owned());
        one.set_node("n1", facts);
        let term = json!({"topologyKey": "host", "labelSelector": {}});
        let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        put(&mut one, &named_pod("jealous", json!({"priority": 1, "affinity": anti})), "n1");
        check(&asks("high", 2, "1"), &mut one, &[], Some(("n1", &["jealous"])));
    }
}
