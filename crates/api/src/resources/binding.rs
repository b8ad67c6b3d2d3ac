//! Binding: a pod's node, said by whoever schedules.
//!
//! Source: API reference, core/v1 Binding.
//! Not here    what it does (apiserver: `sub/binding`); the same as a pod's subresource (`pod`)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{created_cell, created_column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Verbs};

/// The row of Binding.
pub(super) fn resource() -> Resource {
    Resource { verbs: Verbs::CreateOnly, ..row(&kinds::BINDING, vec![name_column(), created_column()], Binding) }
}

struct Binding;

impl Rules for Binding {
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), created_cell(object)]
    }
}
