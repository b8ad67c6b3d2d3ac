//! Spread that is only wished for: domains with fewer pods of the group are better.

use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn rate(_pod: &Pod, near: &Near, _node: &Node, facts: &NodeFacts) -> i64 {
    let more = |skew: &crate::near::Skew| {
        // A node outside of every domain is as bad as the fullest domain.
        let fullest = || skew.pods.values().copied().max().unwrap_or(0);
        let here = facts.labels.get(&skew.constraint.key).map(|domain| skew.pods.get(domain).copied().unwrap_or(0));
        here.unwrap_or_else(fullest) - skew.fewest
    };
    near.soft.iter().map(more).sum()
}
