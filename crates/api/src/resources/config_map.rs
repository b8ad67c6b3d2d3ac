//! ConfigMap: settings for pods, as text or bytes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of ConfigMap.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Data", "string", "number of keys, text and binary"), age_column()];
    row(&kinds::CONFIG_MAP, columns, ConfigMap).short_names(&["cm"])
}

struct ConfigMap;

impl Rules for ConfigMap {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = object.entries("data").len() + object.entries("binaryData").len();
        vec![json!(object["metadata"].text("name")), json!(keys), age::of(object, now)]
    }
}
