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
pub(super) mod tests {
    use super::merge;
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

    /// A small reproducible generator: the same seed gives the same trees on every machine.
    pub(in crate::merge) struct Draw(pub u64);

    impl Draw {
        pub(in crate::merge) fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }

        fn tree(&mut self, depth: u32) -> Value {
            match self.below(if depth == 0 { 3 } else { 6 }) {
                0 => json!(self.below(3)),
                1 => json!(format!("s{}", self.below(3))),
                2 => json!(self.below(2) == 0),
                3 => Value::Array((0..self.below(3)).map(|_| self.tree(depth - 1)).collect()),
                _ => self.object(depth - 1),
            }
        }

        fn object(&mut self, depth: u32) -> Value {
            (0..self.below(4)).map(|_| (format!("k{}", self.below(4)), self.tree(depth))).collect::<Map<_, _>>().into()
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
            let mut draw = Draw(seed);
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
