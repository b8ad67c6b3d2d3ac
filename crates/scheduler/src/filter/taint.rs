//! A tainted node takes only pods that tolerate its taints.

use super::Why;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn fits(pod: &Pod, _node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    let refusing = facts.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    for taint in refusing {
        let value = taint.value.as_deref().unwrap_or_default();
        if !pod.tolerates(&taint.key, value, &taint.effect) {
            return Err(vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into()]);
        }
    }
    Ok(())
}
