//! Preferred node affinity: the weights of the terms that hold.

use crate::filter::holds;
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn rate(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> i64 {
    pod.preferred.iter().filter(|(_, term)| holds(term, node, facts)).map(|(weight, _)| weight).sum()
}
