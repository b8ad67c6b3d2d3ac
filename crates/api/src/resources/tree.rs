//! Reading and filling object trees. A missing field, `null` and a field of another type all read as empty: the codec has
//! already refused wrong types, and a tree that slips past it must not stop the server.

use std::sync::LazyLock;

use serde_json::{Map, Value};

static NO_FIELDS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// Reads of a JSON tree that cannot fail.
pub(crate) trait Tree {
    /// The text of a field; empty where there is none.
    fn text(&self, field: &str) -> &str;
    /// The whole number in a field.
    fn int(&self, field: &str) -> Option<i64>;
    /// Whether a field is `true`.
    fn flag(&self, field: &str) -> bool;
    /// The items of a list field; none where there is no list.
    fn items(&self, field: &str) -> &[Value];
    /// The entries of a map field; none where there is no map.
    fn entries(&self, field: &str) -> &Map<String, Value>;
    /// Whether a field is there and not `null`.
    fn is_set(&self, field: &str) -> bool;
}

impl Tree for Value {
    fn text(&self, field: &str) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, field: &str) -> Option<i64> {
        self.get(field).and_then(Value::as_i64)
    }

    fn flag(&self, field: &str) -> bool {
        self.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    fn items(&self, field: &str) -> &[Value] {
        self.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn entries(&self, field: &str) -> &Map<String, Value> {
        self.get(field).and_then(Value::as_object).unwrap_or_else(|| &NO_FIELDS)
    }

    fn is_set(&self, field: &str) -> bool {
        self.get(field).is_some_and(|value| !value.is_null())
    }
}

/// The map in a field, made if there is none. `None` only if the tree or the field has another type.
pub(crate) fn map_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let slot = slot_mut(object, field)?;
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

/// A field that holds a map, made if there is none. `None` only if the tree or the field has another type.
pub(crate) fn part_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let slot = slot_mut(object, field)?;
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.is_object().then_some(slot)
}

fn slot_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let fields = object.as_object_mut()?;
    if !fields.contains_key(field) {
        fields.insert(field.to_owned(), Value::Null);
    }
    fields.get_mut(field)
}

/// The items of a list field, to change in place; none where there is no list.
pub(crate) fn items_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut [Value] {
    object.get_mut(field).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// Sets a field that is missing or `null`.
pub(crate) fn fill(object: &mut Value, field: &str, value: impl Into<Value>) {
    if object.is_object() && !object.is_set(field) {
        object[field] = value.into();
    }
}

/// Sets a text field that is missing, `null` or empty: Kubernetes does not tell these apart.
pub(crate) fn fill_text(object: &mut Value, field: &str, value: &str) {
    if object.is_object() && object.get(field).is_none_or(|found| found.is_null() || found.as_str() == Some("")) {
        object[field] = Value::from(value);
    }
}

/// Sets a number field that is missing, `null` or zero: Kubernetes does not tell these apart.
pub(crate) fn fill_number(object: &mut Value, field: &str, value: i64) {
    if object.is_object() && object.get(field).is_none_or(|found| found.is_null() || found.as_i64() == Some(0)) {
        object[field] = Value::from(value);
    }
}

/// Removes a field.
pub(crate) fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Makes a field what it was in `old`: copied, or removed where `old` has none.
pub(crate) fn carry_over(object: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) if object.is_object() => object[field] = value.clone(),
        _ => remove(object, field),
    }
}

#[cfg(test)]
mod tests {
    use super::{Tree, fill, fill_number, fill_text, map_mut, part_mut};
    use serde_json::json;

    #[test]
    fn a_field_of_another_type_reads_as_empty() {
        let odd = json!({"a": 5, "b": "text", "c": null});
        assert_eq!((odd.text("a"), odd.int("b"), odd.items("b").len(), odd.entries("a").len()), ("", None, 0, 0));
        assert!(!odd.is_set("c") && !odd.flag("b"));
        assert_eq!(json!([1]).text("a"), "");
    }

    #[test]
    fn only_what_is_left_out_is_filled() {
        let mut object = json!({"kept": "x", "empty": "", "zero": 0, "null": null});
        fill_text(&mut object, "kept", "y");
        fill_text(&mut object, "empty", "y");
        fill_number(&mut object, "zero", 7);
        fill(&mut object, "null", 1);
        assert_eq!(object, json!({"kept": "x", "empty": "y", "zero": 7, "null": 1}));
        assert!(map_mut(&mut object, "kept").is_none() && part_mut(&mut json!(3), "a").is_none());
    }
}
