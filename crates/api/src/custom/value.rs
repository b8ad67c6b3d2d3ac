//! Values against a schema: OpenAPI's keywords in Kubernetes' words.
//!
//! Rules
//!   R1 type        a value has its type; an integer may be written `1.0`; int-or-string takes both
//!   R2 null        only where it may be one
//!   R3 keywords    format, enum, bounds, lengths, pattern, items, properties, required; a keyword looks only at values of
//!                  its own type
//!   R4 junctors    allOf, anyOf, oneOf, not
//!   R5 lists       a set has no item twice, a map list no two items with the same keys
//!   R6 embedded    what must be a whole object is one
//!   R7 ratchet     what an update leaves as it was stays accepted: a value equal to the one before is not looked at.
//!                  Fields are found by name, items of a map list by their keys; items of other lists are all new
//! Source: custom resources, "Validation", "Validation ratcheting"; KEP-4008. OpenAPI 3.0, Schema Object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::node::{Checks, List, Node, Type};
use super::{embedded, format};
use crate::field::{Errors, Path};

/// Schemas inside junctors inside junctors that a value is held against: a schema nests no deeper than a body may.
const JUNCTORS_MAX: usize = 64;

/// Where a check is: a value with the one that stood there before the update, if it can be told.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) value: &'a Value,
    pub(crate) old: Option<&'a Value>,
    pub(crate) path: &'a Path,
    depth: usize,
}

impl<'a> Place<'a> {
    /// A value by itself, or beside the one before.
    pub(crate) fn new(value: &'a Value, old: Option<&'a Value>, path: &'a Path) -> Place<'a> {
        Place { value, old, path, depth: 0 }
    }

    fn at<'b>(&self, value: &'b Value, old: Option<&'b Value>, path: &'b Path) -> Place<'b> {
        Place { value, old, path, depth: self.depth }
    }

    /// The same value as a junctor's schema sees it: nothing stood there before.
    fn anew(&self) -> Place<'a> {
        Place { old: None, depth: self.depth + 1, ..*self }
    }

    /// What the sentence after a path says of it.
    fn name(&self) -> &str {
        if self.path.as_str().is_empty() { "<nil>" } else { self.path.as_str() }
    }
}

/// Adds an error for each part of a value that breaks the schema.
pub(crate) fn check(place: Place<'_>, node: &Node, errors: &mut Errors) {
    let Place { value, old, path, .. } = place;
    if old == Some(value) || place.depth > JUNCTORS_MAX {
        return; // R7.
    }
    if value.is_null() && node.nullable {
        return;
    }
    if !has_type(value, node) {
        let wanted = if node.int_or_string { "integer,string" } else { node.of.as_str() };
        let found = type_of(value);
        let detail = format!("{} in body must be of type {wanted}: {found:?}", place.name());
        return errors.type_invalid(path, found, &detail);
    }
    if let Some(checks) = &node.checks {
        check_value(place, checks, errors);
        check_junctors(place, checks, errors);
    }
    match value {
        Value::Object(fields) => check_fields(place, fields, node, errors),
        Value::Array(items) => check_items(place, items, node, errors),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    embedded::check(value, node, path, errors);
}

/// R1 and R2.
fn has_type(value: &Value, node: &Node) -> bool {
    if node.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match node.of {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0 && !value.is_string())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// R3.
fn check_value(place: Place<'_>, checks: &Checks, errors: &mut Errors) {
    let Place { value, path, .. } = place;
    if !checks.words.is_empty() && !checks.words.iter().any(|word| same(word, value)) {
        let shown: Vec<String> =
            checks.words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        errors.not_supported(path, value.as_str().unwrap_or(&value.to_string()), &shown);
    }
    match value {
        Value::String(text) => check_text(place, text, checks, errors),
        Value::Number(number) => check_number(place, number.as_f64().unwrap_or(f64::NAN), checks, errors),
        Value::Array(items) => {
            let (least, most) = checks.items;
            if let Some(most) = most.filter(|most| items.len() as u64 > *most) {
                errors.too_many(path, items.len(), most as usize);
            }
            if let Some(least) = least.filter(|least| (items.len() as u64) < *least) {
                say(place, &format!("should have at least {least} items"), errors);
            }
            if checks.unique && repeated(items).is_some() {
                say(place, "shouldn't contain duplicates", errors);
            }
        }
        Value::Object(fields) => {
            let (least, most) = checks.properties;
            if let Some(most) = most.filter(|most| fields.len() as u64 > *most) {
                errors.too_many(path, fields.len(), most as usize);
            }
            if let Some(least) = least.filter(|least| (fields.len() as u64) < *least) {
                say(place, &format!("should have at least {least} properties"), errors);
            }
            for name in checks.required.iter().filter(|name| !fields.contains_key(*name)) {
                errors.required(&path.child(name), "");
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether a value is one of an enum's: `1` and `1.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

fn say(place: Place<'_>, rule: &str, errors: &mut Errors) {
    errors.invalid(place.path, place.value.clone(), &format!("{} in body {rule}", place.name()));
}

fn check_text(place: Place<'_>, text: &str, checks: &Checks, errors: &mut Errors) {
    let (least, most) = checks.length;
    let chars = || text.chars().count() as u64;
    if let Some(most) = most.filter(|most| text.len() as u64 > *most && chars() > *most) {
        errors.too_long(place.path, most as usize);
    }
    if let Some(least) = least.filter(|least| chars() < *least) {
        say(place, &format!("should be at least {least} chars long"), errors);
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        say(place, &format!("should match '{}'", pattern.as_str()), errors);
    }
    if !checks.format.is_empty() && !format::holds(&checks.format, text) {
        let detail = format!("{} in body must be of type {}: {text:?}", place.name(), checks.format);
        errors.type_invalid(place.path, text, &detail);
    }
}

fn check_number(place: Place<'_>, number: f64, checks: &Checks, errors: &mut Errors) {
    if let Some((most, exclusive)) = checks.most.filter(|(most, ex)| number > *most || (*ex && number == *most)) {
        let or_equal = if exclusive { "" } else { " or equal to" };
        say(place, &format!("should be less than{or_equal} {most}"), errors);
    }
    if let Some((least, exclusive)) = checks.least.filter(|(least, ex)| number < *least || (*ex && number == *least)) {
        let or_equal = if exclusive { "" } else { " or equal to" };
        say(place, &format!("should be greater than{or_equal} {least}"), errors);
    }
    if let Some(step) = checks.multiple_of.filter(|step| *step > 0.0 && (number / step).fract() != 0.0) {
        say(place, &format!("should be a multiple of {step}"), errors);
    }
}

/// R4.
fn check_junctors(place: Place<'_>, checks: &Checks, errors: &mut Errors) {
    let found = |node: &Node| {
        let mut errors = Errors::new();
        check(place.anew(), node, &mut errors);
        errors
    };
    let holding = |nodes: &[Node]| nodes.iter().filter(|node| found(node).is_empty()).count();
    let say = |rule: &str, errors: &mut Errors| {
        errors.invalid(place.path, place.value.clone(), &format!("{:?} {rule}", place.name()));
    };
    if !checks.any_of.is_empty() && holding(&checks.any_of) == 0 {
        say("must validate at least one schema (anyOf)", errors);
    }
    if !checks.one_of.is_empty() {
        match holding(&checks.one_of) {
            1 => {}
            0 => say("must validate one and only one schema (oneOf). Found none valid", errors),
            many => {
                say(&format!("must validate one and only one schema (oneOf). Found {many} valid alternatives"), errors)
            }
        }
    }
    let before = errors.len();
    for node in &checks.all_of {
        check(Place { depth: place.depth + 1, ..place }, node, errors);
    }
    if errors.len() > before {
        say("must validate all the schemas (allOf)", errors);
    }
    if checks.not.as_ref().is_some_and(|node| found(node).is_empty()) {
        say("must not validate the schema (not)", errors);
    }
}

fn check_fields(place: Place<'_>, fields: &Map<String, Value>, node: &Node, errors: &mut Errors) {
    for (name, value) in fields {
        let Some(inner) = node.field(name) else { continue };
        let path = place.path.child(name);
        check(place.at(value, place.old.and_then(|old| old.get(name)), &path), inner, errors);
    }
}

fn check_items(place: Place<'_>, items: &[Value], node: &Node, errors: &mut Errors) {
    check_list(place, items, node, errors);
    let Some(inner) = &node.items else { return };
    let before = match &node.list {
        List::Map(keys) => by_keys(place.old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default(), keys),
        List::Atomic | List::Set => BTreeMap::new(),
    };
    for (index, value) in items.iter().enumerate() {
        let old = match &node.list {
            List::Map(keys) => before.get(&key_of(value, keys)).copied(),
            List::Atomic | List::Set => None,
        };
        let path = place.path.index(index);
        check(place.at(value, old, &path), inner, errors);
    }
}

/// R5.
fn check_list(place: Place<'_>, items: &[Value], node: &Node, errors: &mut Errors) {
    match &node.list {
        List::Atomic => {}
        List::Set => {
            if let Some(index) = repeated(items) {
                errors.duplicate(&place.path.index(index), items[index].clone());
            }
        }
        List::Map(keys) => {
            let mut seen = BTreeMap::new();
            for (index, item) in items.iter().enumerate() {
                if seen.insert(key_of(item, keys), index).is_some() {
                    let shown: Map<String, Value> =
                        keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
                    errors.duplicate(&place.path.index(index), Value::Object(shown));
                }
            }
        }
    }
}

/// The first item that stood in the list before.
fn repeated(items: &[Value]) -> Option<usize> {
    let mut seen = std::collections::BTreeSet::new();
    items.iter().position(|item| !seen.insert(item.to_string()))
}

/// What tells an item of a map list apart.
pub(crate) fn key_of(item: &Value, keys: &[String]) -> String {
    let values: Vec<String> = keys.iter().map(|key| item.get(key).map_or_else(String::new, Value::to_string)).collect();
    values.join("\u{0}")
}

/// The items of a map list by what tells them apart.
pub(crate) fn by_keys<'a>(items: &'a [Value], keys: &[String]) -> BTreeMap<String, &'a Value> {
    items.iter().map(|item| (key_of(item, keys), item)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Place, check};
    use crate::custom::Node;
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn found(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors = Errors::new();
        check(Place::new(value, old, &Path::new("spec")), &Node::compile(schema), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn says(schema: Value, value: Value, expected: &str) {
        let found = found(&schema, &value, None);
        assert_eq!(found.join("; "), expected, "{value} against {schema}");
    }

    #[test]
    fn r1_and_r2_a_value_has_its_type() {
        says(
            json!({"type": "integer"}),
            json!("a"),
            "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
        );
        says(json!({"type": "integer"}), json!(1.0), "");
        says(
            json!({"type": "integer"}),
            json!(1.5),
            "spec: Invalid value: \"number\": spec in body must be of type integer: \"number\"",
        );
        says(json!({"type": "number"}), json!(1), "");
        says(json!({"x-kubernetes-int-or-string": true}), json!("50%"), "");
        says(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
        );
        for either in [json!("50%"), json!(50)] {
            says(json!({"x-kubernetes-int-or-string": true, "type": "string"}), either, "");
        }
        says(json!({"type": "string", "nullable": true}), Value::Null, "");
        says(
            json!({"type": "string"}),
            Value::Null,
            "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
        );
        says(
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string"}}}}),
            json!({"l": ["a", 1]}),
            "spec.l[1]: Invalid value: \"integer\": spec.l[1] in body must be of type string: \"integer\"",
        );
    }

    #[test]
    fn r3_keywords_say_what_kubernetes_says() {
        for (schema, value, expected) in [
            (json!({"enum": ["a", "b"]}), json!("c"), "spec: Unsupported value: \"c\": supported values: \"a\", \"b\""),
            (json!({"enum": [1, 2]}), json!(2), ""),
            (
                json!({"maximum": 10}),
                json!(11),
                "spec: Invalid value: 11: spec in body should be less than or equal to 10",
            ),
            (
                json!({"maximum": 10, "exclusiveMaximum": true}),
                json!(10),
                "spec: Invalid value: 10: spec in body should be less than 10",
            ),
            (
                json!({"minimum": 1}),
                json!(0),
                "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
            ),
            (json!({"multipleOf": 3}), json!(4), "spec: Invalid value: 4: spec in body should be a multiple of 3"),
            (json!({"maxLength": 2}), json!("abc"), "spec: Too long: may not be more than 2 bytes"),
            (json!({"maxLength": 2}), json!("ää"), ""),
            (
                json!({"minLength": 2}),
                json!("a"),
                "spec: Invalid value: \"a\": spec in body should be at least 2 chars long",
            ),
            (json!({"pattern": "^a+$"}), json!("b"), "spec: Invalid value: \"b\": spec in body should match '^a+$'"),
            (
                json!({"format": "ipv4"}),
                json!("x"),
                "spec: Invalid value: \"x\": spec in body must be of type ipv4: \"x\"",
            ),
            (json!({"maxItems": 1}), json!([1, 2]), "spec: Too many: 2: must have at most 1 items"),
            (json!({"minItems": 1}), json!([]), "spec: Invalid value: []: spec in body should have at least 1 items"),
            (json!({"maxProperties": 0}), json!({"a": 1}), "spec: Too many: 1: must have at most 0 items"),
            (json!({"required": ["a"]}), json!({}), "spec.a: Required value"),
            (json!({"required": ["a"]}), json!("text"), ""),
        ] {
            says(schema, value, expected);
        }
    }

    #[test]
    fn r4_junctors_count_what_holds() {
        let either = json!([{"required": ["a"]}, {"required": ["b"]}]);
        says(json!({"anyOf": either}), json!({"a": 1, "b": 1}), "");
        says(
            json!({"anyOf": either}),
            json!({}),
            "spec: Invalid value: {}: \"spec\" must validate at least one schema (anyOf)",
        );
        says(
            json!({"oneOf": either}),
            json!({"a": 1, "b": 1}),
            "spec: Invalid value: {\"a\":1,\"b\":1}: \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        );
        says(
            json!({"not": {"required": ["a"]}}),
            json!({"a": 1}),
            "spec: Invalid value: {\"a\":1}: \"spec\" must not validate the schema (not)",
        );
        says(
            json!({"allOf": [{"minimum": 1}]}),
            json!(0),
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1; spec: Invalid value: 0: \"spec\" must validate all the schemas (allOf)",
        );
    }

    #[test]
    fn r5_sets_and_maps_hold_nothing_twice() {
        says(
            json!({"type": "array", "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            "spec[2]: Duplicate value: \"a\"",
        );
        says(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            json!([{"k": 1, "v": 1}, {"k": 1, "v": 2}]),
            "spec[1]: Duplicate value: {\"k\":1}",
        );
    }

    #[test]
    fn r6_an_embedded_object_says_what_it_is() {
        says(
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            json!({"kind": "A"}),
            "spec.apiVersion: Required value: must not be empty",
        );
    }

    #[test]
    fn r7_what_an_update_leaves_as_it_was_stays_accepted() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        }});
        let old = json!({"a": "long", "m": [{"k": "x", "v": 5}]});
        let changed = json!({"a": "long", "b": "long", "m": [{"k": "y", "v": 0}, {"k": "x", "v": 5}]});
        assert_eq!(found(&schema, &changed, Some(&old)), ["spec.b: Too long: may not be more than 1 bytes"]);
        assert_eq!(found(&schema, &changed, None).len(), 3);
    }
}
