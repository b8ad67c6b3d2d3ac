//! The sheet that a description is written on: lines with cells, and the pieces that many kinds share.

use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// What stands where there is nothing.
pub const NONE: &str = "<none>";
/// Longer annotations are cut.
const ANNOTATION_CHARS_MAX: usize = 140;
/// What `apply` notes down: the object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Lines whose cells are separated by tabs.
#[derive(Default)]
pub struct Sheet {
    pub text: String,
}

impl Sheet {
    /// A line, indented by levels of two blanks.
    pub fn line(&mut self, level: usize, text: impl Display) {
        self.text.push_str(&format!("{:indent$}{text}\n", "", indent = 2 * level));
    }

    /// `Title:  value`.
    pub fn field(&mut self, level: usize, title: &str, value: impl Display) {
        self.line(level, format_args!("{title}:\t{value}"));
    }

    /// `Title:  value`, or `<none>`.
    pub fn field_or_none(&mut self, level: usize, title: &str, value: &str) {
        self.field(level, title, if value.is_empty() { NONE } else { value });
    }

    /// Several values under each other behind one title.
    pub fn column(&mut self, level: usize, title: &str, values: &[String]) {
        match values.split_first() {
            None => self.field(level, title, NONE),
            Some((first, rest)) => {
                self.field(level, title, first);
                rest.iter().for_each(|value| self.line(0, format_args!("\t{value}")));
            }
        }
    }

    /// `Labels:` and the like.
    pub fn labels(&mut self, level: usize, title: &str, labels: &Value) {
        let entries: Vec<String> = pairs(labels).map(|(key, value)| format!("{key}={value}")).collect();
        self.column(level, title, &entries);
    }

    /// `Annotations:`; long ones are cut, those of several lines get lines of their own.
    pub fn annotations(&mut self, level: usize, annotations: &Value) {
        let mut entries = Vec::new();
        for (key, value) in pairs(annotations).filter(|(key, _)| *key != LAST_APPLIED) {
            if value.chars().count() + key.chars().count() + 2 <= ANNOTATION_CHARS_MAX && !value.contains('\n') {
                entries.push(format!("{key}: {value}"));
                continue;
            }
            entries.push(format!("{key}:"));
            entries.extend(value.split('\n').map(|line| format!("  {}", shorten(line, ANNOTATION_CHARS_MAX - 2))));
        }
        self.column(level, "Annotations", &entries);
    }

    /// Name, namespace, labels and annotations: how most descriptions begin.
    pub fn identity(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.field(0, "Name", text(metadata, "name"));
        if let Some(namespace) = metadata["namespace"].as_str() {
            self.field(0, "Namespace", namespace);
        }
        self.labels(0, "Labels", &metadata["labels"]);
        self.annotations(0, &metadata["annotations"]);
    }

    /// `Controlled By:`, if somebody does.
    pub fn controller(&mut self, object: &Value) {
        let owners = object["metadata"]["ownerReferences"].as_array();
        if let Some(owner) = owners.into_iter().flatten().find(|owner| owner["controller"] == true) {
            self.field(0, "Controlled By", format_args!("{}/{}", text(owner, "kind"), text(owner, "name")));
        }
    }

    /// Conditions with their reasons.
    pub fn conditions(&mut self, object: &Value) {
        let Some(conditions) = object["status"]["conditions"].as_array().filter(|list| !list.is_empty()) else {
            return;
        };
        self.line(0, "Conditions:\n  Type\tStatus\tReason");
        self.line(1, "----\t------\t------");
        for condition in conditions {
            let cells = (text(condition, "type"), text(condition, "status"), text(condition, "reason"));
            self.line(1, format_args!("{} \t{}\t{}", cells.0, cells.1, cells.2));
        }
    }
}

/// The text of a field, or nothing.
pub fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object[key].as_str().unwrap_or_default()
}

/// A whole number, or zero.
pub fn number(object: &Value, key: &str) -> i64 {
    object[key].as_i64().unwrap_or(0)
}

/// The items of a list field, or none.
pub fn items<'v>(object: &'v Value, key: &str) -> &'v [Value] {
    object[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Entries of a map of texts.
pub fn pairs(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    map.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// A value in one line.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A time as `Mon, 30 Nov 2026 08:26:19 +0000`, where this machine is.
pub fn date(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        Err(_) => "<unset>".to_owned(),
    }
}

/// A selector `{matchLabels, matchExpressions}` in its text form.
pub fn selector(selector: &Value) -> String {
    let mut terms: Vec<String> = pairs(&selector["matchLabels"]).map(|(key, value)| format!("{key}={value}")).collect();
    for expression in items(selector, "matchExpressions") {
        let key = text(expression, "key");
        let values: Vec<&str> = items(expression, "values").iter().filter_map(Value::as_str).collect();
        terms.push(match text(expression, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    if terms.is_empty() { NONE.to_owned() } else { terms.join(",") }
}

/// Cut, and said so.
pub fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max).collect::<String>() + "..."
}

#[cfg(test)]
pub fn check(text: &str, expected: &str) {
    use crate::cli::output::align::{SHEET, align};
    assert_eq!(align(text, SHEET), expected);
}

#[cfg(test)]
mod tests {
    use super::{Sheet, check, date, selector};
    use serde_json::json;

    #[test]
    fn what_most_descriptions_begin_with() {
        let mut sheet = Sheet::default();
        sheet.identity(&json!({"metadata": {"name": "a", "namespace": "n", "labels": {"x": "1", "y": "2"},
            "annotations": {"k": "one\ntwo", "l": "v", "kubectl.kubernetes.io/last-applied-configuration": "{}"}}}));
        let expected = "Name:         a\nNamespace:    n\nLabels:       x=1\n              y=2\nAnnotations:  k:\n                one\n                two\n              l: v\n";
        check(&sheet.text, expected);
    }

    #[test]
    fn a_time_that_is_not_there_is_unset() {
        assert_eq!(date(""), "<unset>");
        assert!(date("2026-11-30T08:26:19Z").contains("2026"));
    }

    #[test]
    fn selectors_have_their_text_form() {
        let value = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]});
        assert_eq!(selector(&value), "a=b,c in (d,e)");
        assert_eq!(selector(&json!({})), "<none>");
    }
}
