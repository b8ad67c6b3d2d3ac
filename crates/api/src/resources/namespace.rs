//! Namespace: a room for names.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of Namespace.
pub(super) fn resource() -> Resource {
    let columns =
        vec![name_column(), column("Status", "string", "whether the namespace is active or ending"), age_column()];
    row(&kinds::NAMESPACE, columns, Namespace)
        .short_names(&["ns"])
        .subresources(&[Subresource::Status, Subresource::Finalize])
        .selectable(&["status.phase"])
}

struct Namespace;

impl Rules for Namespace {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), json!(object["status"].text("phase")), age::of(object, now)]
    }
}
