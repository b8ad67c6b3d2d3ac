//! LabelSelector: which labels an object must have, as objects carry it.

use serde_json::{Map, Value};

use super::tree::Tree;

/// A selector as text: `app=web,tier in (a,b)`, by key; `<none>` for one that is empty.
pub(crate) fn shown(selector: &Value) -> String {
    match text(selector) {
        Some(text) if text.is_empty() => "<none>".to_owned(),
        Some(text) => text,
        None => "<error>".to_owned(),
    }
}

/// A selector as text, or `None` if it has an operator that does not exist.
pub(crate) fn text(selector: &Value) -> Option<String> {
    let mut terms: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.entries("matchLabels") {
        terms.push((key, format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        let mut values: Vec<&str> = expression.items("values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        terms.push((key, term));
    }
    terms.sort();
    Some(terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(","))
}

/// Labels as text: `app=web,tier=front`, by key; `<none>` without any.
pub(crate) fn shown_labels(labels: &Map<String, Value>) -> String {
    if labels.is_empty() {
        return "<none>".to_owned();
    }
    let mut terms: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    terms.sort();
    terms.join(",")
}
