//! Any kind, field by field: names become words, maps and lists are indented.

use serde_json::Value;

use super::sheet::{Sheet, plain};

/// Shown already, or not for people.
const HIDDEN: &[&str] =
    &[".metadata.managedFields", ".metadata.name", ".metadata.namespace", ".metadata.labels", ".metadata.annotations"];

pub(super) fn describe(sheet: &mut Sheet, object: &Value) -> bool {
    sheet.identity(object);
    fields(sheet, 0, object, "");
    true
}

fn fields(sheet: &mut Sheet, level: usize, object: &Value, path: &str) {
    for (key, value) in object.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        if HIDDEN.contains(&path.as_str()) {
            continue;
        }
        let title = title(key);
        match value {
            Value::Object(_) => {
                sheet.line(level, format_args!("{title}:"));
                fields(sheet, level + 1, value, &path);
            }
            Value::Array(list) => {
                sheet.line(level, format_args!("{title}:"));
                for item in list {
                    match item {
                        Value::Object(_) => fields(sheet, level + 1, item, &path),
                        scalar => sheet.line(level + 1, plain(scalar)),
                    }
                }
            }
            Value::Null => sheet.field(level, &title, "<nil>"),
            scalar => sheet.field(level, &title, plain(scalar)),
        }
    }
}

/// `leaseDurationSeconds` is `Lease Duration Seconds`, `apiVersion` is `API Version`. Names that are no words stay.
fn title(key: &str) -> String {
    const ACRONYMS: &[&str] = &["API", "URL", "UID", "OSB", "GUID"];
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut before = 'a';
    for character in key.chars() {
        let begins = words.is_empty()
            || (character.is_ascii_uppercase() && !before.is_ascii_uppercase())
            || (character.is_ascii_digit() != before.is_ascii_digit());
        match words.last_mut() {
            Some(word) if !begins => word.push(character),
            _ => words.push(character.to_string()),
        }
        before = character;
    }
    let shown: Vec<String> = words
        .iter()
        .map(|word| {
            let upper = word.to_uppercase();
            if ACRONYMS.contains(&upper.as_str()) {
                return upper;
            }
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
        })
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{describe, title};
    use crate::cli::describe::sheet::{Sheet, check};
    use serde_json::json;

    #[test]
    fn names_become_words() {
        for (key, shown) in [
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("leaseDurationSeconds", "Lease Duration Seconds"),
            ("kind", "Kind"),
            ("app.x/y", "app.x/y"),
        ] {
            assert_eq!(title(key), shown);
        }
    }

    #[test]
    fn maps_and_lists_are_indented() {
        let mut sheet = Sheet::default();
        describe(
            &mut sheet,
            &json!({"kind": "X", "metadata": {"name": "a", "uid": "u"}, "spec": {"list": [{"a": 1}, "b"], "on": true}}),
        );
        let expected = "Name:         a\nLabels:       <none>\nAnnotations:  <none>\nKind:         X\nMetadata:\n  UID:  u\nSpec:\n  List:\n    A:  1\n    b\n  On:  true\n";
        check(&sheet.text, expected);
    }
}
