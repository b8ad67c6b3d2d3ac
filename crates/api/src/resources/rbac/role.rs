//! Role: rights in one namespace.

use jiff::Timestamp;
use serde_json::Value;

use super::policy_rule::{self, Scope};
use super::{role_cells, role_columns};
use crate::field::Errors;
use crate::kind::kinds;
use crate::name::NameRule;
use crate::resource::{Resource, Rules};
use crate::resources::row;

/// The row of Role.
pub(in crate::resources) fn resource() -> Resource {
    row(&kinds::ROLE, role_columns(), Role).created_by_update()
}

struct Role;

impl Rules for Role {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        policy_rule::validate_all(object, Scope::Namespace, errors);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        role_cells(object, now)
    }
}
