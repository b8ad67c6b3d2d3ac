//! Table: objects as `kubectl get` prints them, meta.k8s.io/v1.
//!
//! A list is one table. A watch sends one table per event; only its first needs the columns.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// How much of its object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// What the query parameter `includeObject` asks for; `None` if it is not a word it may be.
    pub fn parse(text: &str) -> Option<Include> {
        match text {
            "None" => Some(Include::None),
            "" | "Metadata" => Some(Include::Metadata),
            "Object" => Some(Include::Object),
            _ => None,
        }
    }
}

/// A table of objects with its columns. `list_metadata` is the `metadata` of the list (`resourceVersion`, `continue`,
/// `remainingItemCount`), or `{resourceVersion}` of the object where there is one only.
pub fn table<'a>(
    resource: &Resource,
    list_metadata: Value,
    objects: impl IntoIterator<Item = &'a Value>,
    include: Include,
    now: Timestamp,
) -> Value {
    let mut table = rows(resource, list_metadata, objects, include, now);
    table["columnDefinitions"] = columns(resource);
    table
}

/// A table without columns, for a watch event after the first.
pub fn rows<'a>(
    resource: &Resource,
    list_metadata: Value,
    objects: impl IntoIterator<Item = &'a Value>,
    include: Include,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, object, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
        "columnDefinitions": [], "rows": rows,
    })
}

/// The columns of a kind.
pub fn columns(resource: &Resource) -> Value {
    let columns = resource.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    Value::Array(columns.collect())
}

/// One row.
pub fn row(resource: &Resource, object: &Value, include: Include, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(resource.rules.cells(object, now)));
    match include {
        Include::None => {}
        Include::Metadata => {
            row.insert("object".to_owned(), partial(object));
        }
        Include::Object => {
            row.insert("object".to_owned(), object.clone());
        }
    }
    Value::Object(row)
}

/// The metadata of an object as an object of its own: PartialObjectMetadata.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

#[cfg(test)]
mod tests {
    use super::{Include, rows, table};
    use crate::resources;
    use serde_json::json;

    #[test]
    fn a_table_has_a_cell_for_each_column() {
        let registry = resources::registry();
        let resource = registry.get("", "v1", "configmaps").expect("a built-in kind");
        let now = "2026-01-01T00:00:30Z".parse().expect("a timestamp");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z"}, "data": {"a": "1", "b": "2"},
        });
        let list = json!({"resourceVersion": "9"});
        let whole = table(resource, list.clone(), [&object], Include::Metadata, now);
        assert_eq!(whole["columnDefinitions"][1]["name"], "Data");
        assert_eq!(whole["rows"][0]["cells"], json!(["c", 2, "30s"]));
        assert_eq!(whole["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(whole["rows"][0]["object"].get("data"), None);
        assert_eq!(whole["metadata"], list);

        let next = rows(resource, list, [&object], Include::Object, now);
        assert_eq!(next["columnDefinitions"], json!([]));
        assert_eq!(next["rows"][0]["object"], object);
        assert_eq!(Include::parse("None"), Some(Include::None));
        assert_eq!(Include::parse("all"), None);
    }

    #[test]
    fn every_kind_prints_an_empty_object_in_its_columns() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        for resource in resources::all() {
            for odd in [json!({}), json!({"metadata": {"name": "x"}}), json!({"spec": 1, "status": [], "data": "no"})] {
                let cells = resource.rules.cells(&odd, now);
                assert_eq!(cells.len(), resource.columns.len(), "{}", resource.kind.kind);
            }
        }
    }
}
