//! Roles and bindings: who may do what, as objects. A role names rights; a binding gives a role's rights to subjects.
//!
//! Source: API reference, rbac.authorization.k8s.io/v1.
//! Not here    what a rule allows, and who may write one (apiserver: `rbac`)

pub(super) mod cluster_role;
pub(super) mod cluster_role_binding;
mod policy_rule;
pub(super) mod role;
pub(super) mod role_binding;
mod subject;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{column, name_column};
use crate::resource::Column;

/// The group of roles, bindings, users and groups.
const GROUP: &str = "rbac.authorization.k8s.io";

/// The columns of both kinds of roles.
fn role_columns() -> Vec<Column> {
    vec![name_column(), column("Created At", "date", "when the role was made")]
}

/// The cells of both kinds of roles. Unlike ages, this column shows a time.
fn role_cells(role: &Value, _now: Timestamp) -> Vec<Value> {
    let metadata = &role["metadata"];
    vec![json!(metadata.text("name")), json!(metadata.text("creationTimestamp"))]
}
