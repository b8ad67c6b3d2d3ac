//! Pods that must be near each other, and pods that must not.

use super::{Why, refuse};
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// The pods it must be near are there, or it is the first of its own kind.
pub(super) fn together(_pod: &Pod, near: &Near, _node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    let Some((together, group)) = &near.together else { return Ok(()) };
    let is_first = group.total == 0 && together.matches_self;
    let is_near = together.keys.iter().all(|key| {
        let Some(domain) = facts.labels.get(key) else { return false };
        let pods = group.by(key).and_then(|domains| domains.pods.get(domain));
        is_first || pods.is_some_and(|pods| *pods > 0)
    });
    if is_near { Ok(()) } else { refuse("node(s) didn't match pod affinity rules") }
}

/// No pod is there that it keeps away from, or that keeps it away.
pub(super) fn apart(_pod: &Pod, near: &Near, _node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    let meets = |(key, pods): &(&str, &std::collections::BTreeMap<String, i64>)| {
        facts.labels.get(*key).and_then(|domain| pods.get(domain)).is_some_and(|pods| *pods > 0)
    };
    if near.apart.iter().any(meets) {
        return refuse("node(s) didn't match pod anti-affinity rules");
    }
    if near.forbidden.iter().any(meets) {
        return refuse("node(s) didn't satisfy existing pods anti-affinity rules");
    }
    Ok(())
}
