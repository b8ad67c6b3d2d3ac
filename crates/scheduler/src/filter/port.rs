//! A port of a node is given to one pod at a time.

use super::{Why, refuse};
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn fits(pod: &Pod, _near: &Near, node: &Node, _facts: &NodeFacts) -> Result<(), Why> {
    if pod.footprint.ports.iter().any(|port| node.has_port(port)) {
        return refuse("node(s) didn't have free ports for the requested pod ports");
    }
    Ok(())
}
