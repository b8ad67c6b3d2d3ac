//! A node has room for what a pod asks for. Every resource that lacks is named.

use std::borrow::Cow;

use super::Why;
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn fits(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    let asked = &pod.footprint.requests;
    let (there, taken) = (&facts.allocatable, &node.taken);
    let mut why = Why::new();
    if node.pods + 1 > facts.pods_max {
        why.push(Cow::Borrowed("Too many pods"));
    }
    for (name, asked, there, taken) in [
        ("Insufficient cpu", asked.cpu_millis, there.cpu_millis, taken.cpu_millis),
        ("Insufficient memory", asked.memory_bytes, there.memory_bytes, taken.memory_bytes),
        ("Insufficient ephemeral-storage", asked.disk_bytes, there.disk_bytes, taken.disk_bytes),
    ] {
        if lacks(asked, there, taken) {
            why.push(Cow::Borrowed(name));
        }
    }
    for (name, asked) in &asked.others {
        let amount = |resources: &crate::resource::Resources| resources.others.get(name).copied().unwrap_or(0);
        if lacks(*asked, amount(there), amount(taken)) {
            why.push(Cow::Owned(format!("Insufficient {name}")));
        }
    }
    if why.is_empty() { Ok(()) } else { Err(why) }
}

/// Who asks for nothing lacks nothing, even on a node that is overfull.
fn lacks(asked: i64, there: i64, taken: i64) -> bool {
    asked > 0 && asked > there.saturating_sub(taken)
}
