//! Spread: nodes with fewer pods of the same owner are better, so that losing one node loses few of them.

use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn rate(pod: &Pod, _near: &Near, node: &Node, _facts: &NodeFacts) -> i64 {
    if pod.footprint.owner.is_empty() {
        return 0;
    }
    i64::try_from(node.pods_of(&pod.footprint.owner)).unwrap_or(i64::MAX)
}
