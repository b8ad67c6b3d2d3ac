//! A tainted node takes only pods that tolerate its taints.

use super::Why;
use crate::near::Near;
use crate::node::{Node, NodeFacts, Taint};
use crate::pod::Pod;

pub(super) fn fits(pod: &Pod, _near: &Near, _node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    match refusing(pod, facts) {
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or_default();
            Err(vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into()])
        }
        None => Ok(()),
    }
}

/// Whether the pod tolerates every taint of the node that keeps pods away.
pub(crate) fn tolerates(pod: &Pod, facts: &NodeFacts) -> bool {
    refusing(pod, facts).is_none()
}

fn refusing<'a>(pod: &Pod, facts: &'a NodeFacts) -> Option<&'a Taint> {
    let mut refusing = facts.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    refusing.find(|taint| !pod.tolerates(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect))
}
