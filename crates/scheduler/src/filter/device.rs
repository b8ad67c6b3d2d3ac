//! A pod goes only to nodes where its claims have their devices, or can get them.

use std::borrow::Cow;

use super::Why;
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn fits(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    match pod.devices.get().map(|ask| ask.fits(&node.name, &facts.labels)) {
        Some(Err(why)) => Err(vec![Cow::Owned(why)]),
        _ => Ok(()),
    }
}
