//! One placement: filters, then scores, in one pass over as many nodes as it takes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::filter::{self, Cure, Filter, Why};
use crate::near::Near;
use crate::node::Node;
use crate::pod::Pod;
use crate::score;

/// Fitting nodes that are compared. The best of so many is as good as any in a large cluster, and what a placement
/// costs does not grow with the cluster. The next placement goes on where this one stopped.
const COMPARED_MAX: usize = 100;

/// Where a pod goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The node's name.
    pub(crate) node: String,
    /// Why this one.
    pub(crate) why: String,
}

/// Why a pod goes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In Kubernetes' words: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    pub(crate) message: String,
    /// What may change that.
    pub(crate) cured_by: Cure,
}

/// Finds the node for a pod.
pub(crate) fn place(pod: &Pod, cluster: &mut Cluster) -> Result<Placement, Refusal> {
    cluster.know(pod);
    let near = Near::of(pod, cluster);
    let count = cluster.nodes.len();
    let named = pod.named_nodes();
    let mut candidates: Vec<usize> = match &named {
        Some(names) => names.iter().filter_map(|name| cluster.index_of(name)).collect(),
        None => (0..count).map(|offset| (cluster.start + offset) % count).collect(),
    };
    let mut fitting = Vec::new();
    let mut reasons: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    let mut cured_by = Cure::NodeChanged;
    let mut looked_at = 0;
    for index in candidates.drain(..) {
        looked_at += 1;
        let node = &cluster.nodes[index];
        let Some(facts) = &node.facts else { continue };
        match fits(pod, &near, node, cluster) {
            Ok(()) => fitting.push((node, facts)),
            Err((filter, why)) => {
                cured_by = cured_by.max(filter.cured_by);
                for reason in why {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if fitting.len() >= COMPARED_MAX {
            break;
        }
    }
    let Some((best, total, parts)) = score::best(pod, &near, &fitting) else {
        let left_out = cluster.len() - named.map_or(cluster.len(), |_| looked_at.min(cluster.len()));
        return Err(Refusal { message: message(cluster.len(), reasons, left_out), cured_by });
    };
    let placement = Placement { node: fitting[best].0.name.clone(), why: why(fitting.len(), total, &parts) };
    if named.is_none() {
        cluster.start = (cluster.start + looked_at) % count;
    }
    Ok(placement)
}

/// Whether a pod fits a node that is there, with those on it who have room made for them.
pub(crate) fn fits(pod: &Pod, near: &Near, node: &Node, cluster: &Cluster) -> Result<(), (&'static Filter, Why)> {
    let Some(facts) = &node.facts else { return Ok(()) };
    match cluster.as_promised(node, pod) {
        Some(promised) => filter::check(pod, near, &promised, facts),
        None => filter::check(pod, near, node, facts),
    }
}

fn why(fitting: usize, total: i64, parts: &[i64]) -> String {
    if fitting == 1 {
        return "the only node that fits".to_owned();
    }
    let parts: Vec<String> =
        score::LIST.iter().zip(parts).map(|(score, part)| format!("{} {part}", score.name)).collect();
    format!("best of {fitting} nodes that fit, with {total}: {}", parts.join(", "))
}

fn message(nodes: usize, mut reasons: BTreeMap<Cow<'static, str>, usize>, left_out: usize) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    if left_out > 0 {
        *reasons.entry("node(s) didn't match Pod's node affinity/selector".into()).or_default() += left_out;
    }
    let mut counted: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counted.sort();
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{COMPARED_MAX, place};
    use crate::cluster::Cluster;
    use crate::filter::Cure;
    use crate::fixture::{node, pod};
    use serde_json::{Value, json};

    fn cluster(nodes: &[(&str, Value)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, changes) in nodes {
            cluster.set_node(name, node(name, changes.clone()).facts.expect("facts"));
        }
        cluster
    }

    fn asks(cpu: &str) -> Value {
        json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn r3_a_refusal_counts_the_nodes_by_reason() {
        let mut cluster = cluster(&[
            ("n1", json!({})),
            ("n2", json!({"/spec/unschedulable": true})),
            ("n3", json!({})),
            ("n4", json!({"/spec/taints": [{"key": "a", "effect": "NoSchedule"}]})),
        ]);
        let refusal = place(&pod(asks("5")), &mut cluster).expect_err("no node has 5 processors");
        assert_eq!(
            refusal.message,
            "0/4 nodes are available: 1 node(s) had untolerated taint {a: }, 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(refusal.cured_by, Cure::PodLeft);
    }

    #[test]
    fn r3_without_nodes_it_says_so() {
        let refusal = place(&pod(json!({})), &mut Cluster::default()).expect_err("there is no node");
        assert_eq!(refusal.message, "no nodes available to schedule pods");
        assert_eq!(refusal.cured_by, Cure::NodeChanged);
    }

    #[test]
    fn r3_a_named_node_is_the_only_one_looked_at() {
        let mut cluster = cluster(&[("n1", json!({})), ("n2", json!({}))]);
        let named = |name: &str, cpu: &str| {
            let mut spec = asks(cpu);
            spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
            pod(spec)
        };
        assert_eq!(place(&named("n2", "1"), &mut cluster).map(|found| found.node), Ok("n2".to_owned()));
        let refusal = place(&named("n2", "5"), &mut cluster).expect_err("n2 is too small");
        assert_eq!(
            refusal.message,
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector."
        );
    }

    #[test]
    fn r4_the_reason_for_a_placement_names_its_scores() {
        let mut two = cluster(&[("n1", json!({})), ("n2", json!({"/status/allocatable/cpu": "64"}))]);
        let placement = place(&pod(asks("1")), &mut two).expect("both fit");
        assert_eq!(placement.node, "n2");
        assert!(placement.why.starts_with("best of 2 nodes that fit, with "), "{}", placement.why);
        let mut one = cluster(&[("n1", json!({}))]);
        assert_eq!(place(&pod(asks("1")), &mut one).expect("it fits").why, "the only node that fits");
    }

    #[test]
    fn in_a_large_cluster_placements_take_turns_over_the_nodes() {
        let names: Vec<String> = (0..COMPARED_MAX * 3).map(|index| format!("n{index}")).collect();
        let nodes: Vec<(&str, Value)> = names.iter().map(|name| (name.as_str(), json!({}))).collect();
        let mut cluster = cluster(&nodes);
        let starts: Vec<usize> = (0..4)
            .map(|_| {
                place(&pod(asks("1")), &mut cluster).expect("all fit");
                cluster.start
            })
            .collect();
        assert_eq!(starts, [COMPARED_MAX, COMPARED_MAX * 2, 0, COMPARED_MAX]);
    }
}
