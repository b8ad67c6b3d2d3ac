//! A pod goes only to nodes that reach its volumes.

use std::borrow::Cow;

use super::Why;
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn fits(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    match pod.needs.iter().find(|need| !need.is_met(node, facts)) {
        Some(need) => Err(vec![Cow::Borrowed(need.why)]),
        None => Ok(()),
    }
}
