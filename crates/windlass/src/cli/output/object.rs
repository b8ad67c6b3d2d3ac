//! Objects as they are, in every form but the table.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::align::Rows;
use super::form::Form;
use super::{escape, json, yaml};

/// Prints one object, or a `List` of several as if it were one.
pub fn print(form: &Form, object: &Value) -> Result<String> {
    match form {
        Form::Json => Ok(json::pretty(object)),
        Form::Yaml => Ok(yaml::print(object)),
        Form::Name => Ok(items(object).iter().map(|item| format!("{}\n", escape::text(&name(item)))).collect()),
        Form::JsonPath(template) => template.print(object, false),
        Form::JsonPathAsJson(template) => Ok(json::pretty(&template.results(object)?)),
        Form::Columns(columns) => {
            let mut rows = vec![columns.titles()];
            rows.extend(items(object).iter().map(|item| columns.row(item)));
            Ok(Rows::default().align(&rows, |_, _, cell| cell.to_owned()))
        }
        Form::Table { .. } => bail!("a table is made by the server, not from an object"),
    }
}

/// The objects of a list, or the one object.
fn items(object: &Value) -> &[Value] {
    match object["items"].as_array() {
        Some(items) => items,
        None => std::slice::from_ref(object),
    }
}

/// `deployment.apps/web`.
pub fn name(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    qualified(kind, group) + "/" + object["metadata"]["name"].as_str().unwrap_or_default()
}

/// `deployment.apps`.
pub fn qualified(kind: &str, group: &str) -> String {
    let kind = kind.to_lowercase();
    if group.is_empty() { kind } else { format!("{kind}.{group}") }
}

/// Several objects as one.
pub fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// Takes out what the server notes down about who owns which field: long, and rarely meant.
pub fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(hide_managed_fields);
    }
}

#[cfg(test)]
mod tests {
    use super::{hide_managed_fields, list_of, name, print};
    use crate::cli::output::form::Form;
    use serde_json::json;

    #[test]
    fn names_carry_their_group() {
        assert_eq!(
            name(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}})),
            "deployment.apps/web"
        );
        let list = list_of(vec![json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})]);
        assert_eq!(print(&Form::Name, &list).expect("names"), "pod/a\n");
    }

    #[test]
    fn managed_fields_are_hidden_in_lists_too() {
        let mut list = list_of(vec![json!({"metadata": {"name": "a", "managedFields": []}})]);
        hide_managed_fields(&mut list);
        assert_eq!(list["items"][0], json!({"metadata": {"name": "a"}}));
    }
}
