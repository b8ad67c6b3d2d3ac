//! JSON merge patch: an object laid over an object. Null removes, lists are replaced.
//!
//! Source: RFC 7386.

use serde_json::{Map, Value};

/// Lays `patch` over `target`.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(&name)),
            Value::Object(_) => merge(fields.entry(name).or_insert(Value::Null), value),
            other => drop(fields.insert(name, other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::merge;
    use crate::merge::properties::Draw;
    use serde_json::{Map, Value, json};

    #[test]
    fn the_examples_of_the_rfc() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} and {patch}");
        }
    }

    /// The merge patch that makes `to` of `from`.
    fn diff(from: &Value, to: &Value) -> Value {
        let (Value::Object(old), Value::Object(new)) = (from, to) else { return to.clone() };
        let mut patch = Map::new();
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            patch.insert(name.clone(), Value::Null);
        }
        for (name, value) in new {
            match old.get(name) {
                Some(before) if before == value => {}
                Some(before) => drop(patch.insert(name.clone(), diff(before, value))),
                None => drop(patch.insert(name.clone(), value.clone())),
            }
        }
        Value::Object(patch)
    }

    #[test]
    fn the_difference_of_two_objects_makes_one_the_other() {
        for seed in 0..2_000 {
            let mut draw = Draw::new(seed);
            let (from, to) = (draw.object(4), draw.object(4));
            let patch = diff(&from, &to);
            let mut merged = from.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, to, "seed {seed}: {from} and {patch}");
            merge(&mut merged, patch);
            assert_eq!(merged, to, "seed {seed}: a second time changes nothing");
        }
    }
}
