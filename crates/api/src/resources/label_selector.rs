//! LabelSelector as objects carry it: checked, compared with labels, and shown in columns. What a selector means is said in
//! `crate::selector`.

use serde_json::{Map, Value};

use crate::field::{Errors, Path};
use crate::selector::LabelSelector;

/// A selector as text: `app=web,tier in (a,b)`, by key; `<none>` for one that is empty.
pub(crate) fn shown(selector: &Value) -> String {
    match text(selector) {
        Some(text) if text.is_empty() => "<none>".to_owned(),
        Some(text) => text,
        None => "<error>".to_owned(),
    }
}

/// A selector as text, or `None` if it is not a valid one.
pub(crate) fn text(selector: &Value) -> Option<String> {
    let mut errors = Errors::new();
    let selector = LabelSelector::from_json(selector, &Path::root(), &mut errors);
    errors.is_empty().then(|| selector.to_string())
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

#[cfg(test)]
mod tests {
    use super::{shown, shown_labels};
    use serde_json::json;

    #[test]
    fn a_selector_is_shown_by_key() {
        let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "aa", "operator": "DoesNotExist"}]});
        assert_eq!(shown(&selector), "a=1,!aa,b=2,c in (x,y)");
        assert_eq!(shown(&json!({})), "<none>");
        assert_eq!(shown(&json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})), "<error>");
        assert_eq!(shown_labels(json!({"b": "2", "a": "1"}).as_object().expect("a map")), "a=1,b=2");
    }
}
