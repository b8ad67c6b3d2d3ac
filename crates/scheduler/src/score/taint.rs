//! Taints that only ask to be avoided: the fewer untolerated the better.

use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn rate(pod: &Pod, _near: &Near, _node: &Node, facts: &NodeFacts) -> i64 {
    let avoided = facts.taints.iter().filter(|taint| {
        taint.effect == "PreferNoSchedule"
            && !pod.tolerates(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)
    });
    i64::try_from(avoided.count()).unwrap_or(i64::MAX)
}
