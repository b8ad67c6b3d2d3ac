//! A pod goes only to nodes that its node selector and its required node affinity select.

use super::{Why, refuse};
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::{NodeTerm, Pod};

pub(super) fn fits(pod: &Pod, _near: &Near, node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    if suits(pod, node, facts) {
        return Ok(());
    }
    refuse("node(s) didn't match Pod's node affinity/selector")
}

/// Whether the pod's selector and required affinity select the node.
pub(crate) fn suits(pod: &Pod, node: &Node, facts: &NodeFacts) -> bool {
    let selected = pod.node_selector.iter().all(|(key, value)| facts.labels.get(key) == Some(value));
    let required = pod.required.as_ref().is_none_or(|terms| terms.iter().any(|term| holds(term, node, facts)));
    selected && required
}

/// Whether a term selects a node. An empty one selects none.
pub(crate) fn holds(term: &NodeTerm, node: &Node, facts: &NodeFacts) -> bool {
    let is_empty = term.labels.is_empty() && term.names.is_empty();
    !is_empty
        && !term.is_broken
        && term.labels.iter().all(|found| found.matches(facts.labels.get(&found.key).map(String::as_str)))
        && term.names.iter().all(|found| found.matches(Some(&node.name)))
}
