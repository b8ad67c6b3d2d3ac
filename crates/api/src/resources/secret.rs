//! Secret: what pods may know and others may not.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of Secret.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Type", "string", "what the secret is for, which says which keys it has"),
        column("Data", "string", "number of keys"),
        age_column(),
    ];
    row(&kinds::SECRET, columns, Secret).selectable(&["type"])
}

struct Secret;

impl Rules for Secret {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"].text("name");
        vec![json!(name), json!(object.text("type")), json!(object.entries("data").len()), age::of(object, now)]
    }
}
