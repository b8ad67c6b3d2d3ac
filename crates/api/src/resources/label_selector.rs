//! LabelSelector: which labels an object must have, as objects carry it.

use serde_json::{Map, Value};

use super::check::named;
use super::metadata::validate_labels;
use super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

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

/// Adds an error for each term that no label could be compared with.
pub(crate) fn validate(selector: &Value, at: &Path, errors: &mut Errors) {
    validate_labels(selector.entries("matchLabels"), &at.child("matchLabels"), errors);
    for (index, expression) in selector.items("matchExpressions").iter().enumerate() {
        let path = at.child("matchExpressions").index(index);
        let values = expression.items("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.child("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        named(name::label_key, expression.text("key"), &path.child("key"), errors);
        for (index, value) in values.iter().enumerate() {
            named(name::label_value, value.as_str().unwrap_or_default(), &path.child("values").index(index), errors);
        }
    }
}

/// Whether a selector says nothing, and so selects everything.
pub(crate) fn is_empty(selector: &Value) -> bool {
    selector.entries("matchLabels").is_empty() && selector.items("matchExpressions").is_empty()
}

/// Whether labels are what a valid selector asks for.
pub(crate) fn matches(selector: &Value, labels: &Map<String, Value>) -> bool {
    let wanted = |expression: &Value| {
        let found = labels.get(expression.text("key"));
        let listed = || found.is_some_and(|value| expression.items("values").contains(value));
        match expression.text("operator") {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    };
    selector.entries("matchLabels").iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.items("matchExpressions").iter().all(wanted)
}

#[cfg(test)]
mod tests {
    use super::{matches, shown, validate};
    use crate::field::{Errors, Path};
    use serde_json::json;

    #[test]
    fn a_selector_is_shown_by_key() {
        let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "aa", "operator": "DoesNotExist"}]});
        assert_eq!(shown(&selector), "a=1,!aa,b=2,c in (x,y)");
        assert_eq!(shown(&json!({})), "<none>");
        assert_eq!(shown(&json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})), "<error>");
    }

    #[test]
    fn labels_match_when_every_term_does() {
        let labels = json!({"app": "web", "tier": "front"});
        let labels = labels.as_object().expect("a map");
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}), true),
        ] {
            assert_eq!(matches(&selector, labels), expected, "{selector}");
        }
    }

    #[test]
    fn terms_that_cannot_be_compared_are_refused() {
        let selector = json!({"matchLabels": {"a": "b c"}, "matchExpressions": [
            {"key": "", "operator": "In"}, {"key": "k", "operator": "Exists", "values": ["v"]}, {"key": "k", "operator": "in"}]});
        let mut errors = Errors::new();
        validate(&selector, &Path::new("s"), &mut errors);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "s.matchLabels",
                "s.matchExpressions[0].values",
                "s.matchExpressions[0].key",
                "s.matchExpressions[0].key",
                "s.matchExpressions[1].values",
                "s.matchExpressions[2].operator",
            ]
        );
    }
}
