//! flowcontrol.apiserver.k8s.io: which requests wait for which.
//!
//! The cluster depends on four of these objects being as they are; `mandatory` says which.

pub(super) mod flow_schema;
pub(super) mod priority_level_configuration;

use serde_json::Value;

use super::tree::Tree;
use crate::field::{Errors, Path};

/// The level that never waits, and the one for whoever has no other.
const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";

/// Conditions of both kinds: each type once, whatever it is.
fn validate_conditions(status: &Value, errors: &mut Errors) {
    let (conditions, at) = (status.items("conditions"), Path::new("status").child("conditions"));
    for (index, condition) in conditions.iter().enumerate() {
        let at = at.index(index);
        let kind = condition.text("type");
        if conditions[..index].iter().any(|before| before.text("type") == kind) {
            errors.duplicate(&at.child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&at.child("type"), "must not be empty");
        }
    }
}
