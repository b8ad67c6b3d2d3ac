//! Room: nodes with more of it left are better, and nodes whose processor and memory fill alike.

use super::BEST;
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// Processor and memory with the pod on the node, each as taken and there.
fn filled(pod: &Pod, node: &Node, facts: &NodeFacts) -> [(i64, i64); 2] {
    [
        (node.weight.0 + pod.footprint.weight.0, facts.allocatable.cpu_millis),
        (node.weight.1 + pod.footprint.weight.1, facts.allocatable.memory_bytes),
    ]
}

/// The share that is left, of both on average.
pub(super) fn least_taken(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> i64 {
    let left = |(taken, there): (i64, i64)| {
        if there == 0 || taken >= there { 0 } else { (there - taken).saturating_mul(BEST) / there }
    };
    filled(pod, node, facts).map(left).iter().sum::<i64>() / 2
}

/// How near the two shares are to each other.
pub(super) fn balanced(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> i64 {
    let share =
        |(taken, there): (i64, i64)| if there == 0 { BEST } else { (taken.saturating_mul(BEST) / there).min(BEST) };
    let [cpu, memory] = filled(pod, node, facts).map(share);
    // The standard deviation of two values is half their distance.
    BEST - (cpu - memory).abs() / 2
}
