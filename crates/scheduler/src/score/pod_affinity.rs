//! Preferred pod affinity: what the pods of a node's domains think of this one, and it of them.

use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn rate(_pod: &Pod, near: &Near, _node: &Node, facts: &NodeFacts) -> i64 {
    let of = |(weight, key, pods): &(i64, &str, &std::collections::BTreeMap<String, i64>)| {
        let pods = facts.labels.get(*key).and_then(|domain| pods.get(domain)).copied().unwrap_or(0);
        weight.saturating_mul(pods)
    };
    near.weights.iter().map(of).sum()
}
