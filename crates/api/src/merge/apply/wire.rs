//! FieldsV1: a set of fields as JSON.
//!
//! Rules
//!   R1 element    `f:name` a field, `k:{…}` an item by its keys, `v:…` an item that is this scalar, `i:0` an item by position
//!   R2 member     an empty object is a member; a member with members below it says so with `.`
//!   R3 canonical  equal sets print alike: keys sorted, numbers in one form
//!
//! Source: API reference, meta/v1 FieldsV1.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::set::{Element, FieldSet};

/// The key that says that the path itself is a member.
const SELF: &str = ".";

/// Why JSON is no set of fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected f:, k:, v:, i: or . with an object below it, found {found:?}")]
pub struct FieldsError {
    /// The key or value that cannot be read.
    found: String,
}

/// Reads a set that a client sent.
pub fn parse(fields: &Value) -> Result<FieldSet<'_>, FieldsError> {
    read(fields, parse_element).map(as_root)
}

/// Reads a set that was printed here, its texts borrowed as they stand. One that cannot be read was not printed here, and
/// says nothing.
pub(super) fn stored(fields: &Value) -> FieldSet<'_> {
    read(fields, split_element).map(as_root).unwrap_or_default()
}

/// The root is no path, so it is no member.
fn as_root(mut set: FieldSet<'_>) -> FieldSet<'_> {
    set.is_member = false;
    set
}

fn read<'a>(fields: &'a Value, element: fn(&'a str) -> Option<Element<'a>>) -> Result<FieldSet<'a>, FieldsError> {
    let wrong = |found: &str| FieldsError { found: found.chars().take(128).collect() };
    let map = fields.as_object().ok_or_else(|| wrong(&fields.to_string()))?;
    let mut set = FieldSet { is_member: map.is_empty(), ..FieldSet::default() };
    for (text, below) in map {
        if text == SELF {
            set.is_member = true;
        } else {
            set.put(element(text).ok_or_else(|| wrong(text))?, read(below, element)?);
        }
    }
    Ok(set)
}

/// R1, of a text that was printed here.
fn split_element(text: &str) -> Option<Element<'_>> {
    let (kind, rest) = text.split_at_checked(2)?;
    match kind {
        "f:" => Some(Element::field(rest)),
        "k:" => Some(Element::Key(Cow::Borrowed(rest))),
        "v:" => Some(Element::Value(Cow::Borrowed(rest))),
        "i:" => rest.parse().ok().map(Element::Index),
        _ => None,
    }
}

/// R1 and R3, of any text.
fn parse_element(text: &str) -> Option<Element<'_>> {
    match split_element(text)? {
        Element::Key(text) => match serde_json::from_str(&text).ok()? {
            Value::Object(keys) if !keys.is_empty() => Some(Element::keyed(keys)),
            _ => None,
        },
        Element::Value(text) => serde_json::from_str(&text).ok().map(|value: Value| Element::scalar(&value)),
        other => Some(other),
    }
}

/// Prints a set.
pub fn print(set: &FieldSet<'_>) -> Value {
    let mut map = Map::new();
    if set.is_member && !set.below.is_empty() {
        map.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    for (element, below) in &set.below {
        map.insert(text_of(element), print(below));
    }
    Value::Object(map)
}

fn text_of(element: &Element<'_>) -> String {
    let (kind, text) = match element {
        Element::Field(name) => ("f:", name),
        Element::Key(text) => ("k:", text),
        Element::Value(text) => ("v:", text),
        Element::Index(index) => return format!("i:{index}"),
    };
    [kind, text].concat()
}

/// Whether a printed set and a set have a member in common, found without reading the printed one.
pub(super) fn meets(fields: &Value, set: &FieldSet<'_>) -> bool {
    let Some(map) = fields.as_object() else { return false };
    if set.is_member && (map.is_empty() || map.contains_key(SELF)) {
        return true;
    }
    !map.is_empty()
        && set
            .below
            .iter()
            .any(|(element, below)| map.get(&text_of(element)).is_some_and(|fields| meets(fields, below)))
}

#[cfg(test)]
mod tests {
    use super::{meets, parse, print, stored};
    use crate::merge::apply::set::FieldSet;
    use serde_json::{Value, json};

    fn fields() -> Value {
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"x/y\"": {}}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}, "i:1": {}}},
        })
    }

    #[test]
    fn what_is_printed_is_what_was_read() {
        let fields = fields();
        let set = parse(&fields).expect("well-formed");
        assert_eq!(print(&set), fields);
        assert_eq!(stored(&fields), set);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers[=\"x/y\"]",
                ".metadata.finalizers",
                ".metadata.labels.app",
                ".metadata.labels",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].name",
                ".spec.ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.ports[1]",
            ]
        );
        assert!(parse(&json!({})).is_ok_and(|set| set.is_empty()));
    }

    #[test]
    fn other_spellings_become_canonical() {
        let spelt = json!({"f:a": {"k:{ \"b\": 1.0, \"a\":2 }": {}, "v: 3": {".": {}}}});
        let set = parse(&spelt).expect("well-formed");
        assert_eq!(print(&set), json!({"f:a": {"k:{\"a\":2,\"b\":1}": {}, "v:3": {}}}));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for fields in [
            json!([]),
            json!({"spec": {}}),
            json!({"f:spec": 1}),
            json!({"k:[]": {}}),
            json!({"k:{}": {}}),
            json!({"v:": {}}),
            json!({"i:x": {}}),
            json!({"é": {}}),
        ] {
            let error = parse(&fields).expect_err("no set").to_string();
            assert!(error.starts_with("expected f:, k:, v:, i: or ."), "{error}");
        }
    }

    #[test]
    fn common_members_are_found_without_reading() {
        let fields = fields();
        for (path, found) in [
            (&["metadata", "labels"][..], true),
            (&["metadata", "labels", "app"][..], true),
            (&["metadata"][..], false),
            (&["metadata", "labels", "other"][..], false),
            (&["spec", "ports"][..], false),
        ] {
            assert_eq!(meets(&fields, &FieldSet::of([path])), found, "{path:?}");
        }
    }
}
