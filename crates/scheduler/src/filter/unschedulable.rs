//! A cordoned node takes no new pods.

use super::{Why, refuse};
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

const TAINT: &str = "node.kubernetes.io/unschedulable";

pub(super) fn fits(pod: &Pod, _near: &Near, _node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    if !facts.is_unschedulable || pod.tolerates(TAINT, "", "NoSchedule") {
        return Ok(());
    }
    refuse("node(s) were unschedulable")
}
