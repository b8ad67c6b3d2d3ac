//! A domain may not have more pods of a group than the emptiest has, by more than the allowed skew.

use super::{Why, refuse};
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

pub(super) fn fits(_pod: &Pod, near: &Near, _node: &Node, facts: &NodeFacts) -> Result<(), Why> {
    for skew in &near.spread {
        let constraint = skew.constraint;
        let Some(domain) = facts.labels.get(&constraint.key) else {
            return refuse("node(s) didn't match pod topology spread constraints (missing required label)");
        };
        let here = skew.pods.get(domain).copied().unwrap_or(0) + i64::from(constraint.matches_self);
        if here - skew.fewest > constraint.max_skew {
            return refuse("node(s) didn't match pod topology spread constraints");
        }
    }
    Ok(())
}
