//! RoleBinding: gives a role's rights in one namespace. Its rules are those of `subject`.

use jiff::Timestamp;
use serde_json::Value;

use super::subject::{self, Scope};
use crate::field::Errors;
use crate::kind::kinds;
use crate::name::NameRule;
use crate::resource::{Resource, Rules};
use crate::resources::row;

/// The row of RoleBinding.
pub(in crate::resources) fn resource() -> Resource {
    row(&kinds::ROLE_BINDING, subject::columns(), RoleBinding).created_by_update()
}

struct RoleBinding;

impl Rules for RoleBinding {
    fn default(&self, object: &mut Value) {
        subject::default(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        subject::validate(object, &["Role", "ClusterRole"], Scope::Namespace, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        subject::validate_update(object, old, errors);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        subject::cells(object, now)
    }
}
