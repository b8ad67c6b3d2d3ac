//! Pod templates: are two the same, and what is one's short name.

use serde_json::{Map, Value};

/// The label that tells the pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// Whether two templates mean the same pods: the hash label does not count, nor does what is empty.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    same_value(&without_hash(one), &without_hash(other))
}

/// A short name of a template: eight to ten characters that cannot spell a word. `collisions` makes another one of the
/// same template when a different template already has the name.
///
/// FNV-1a over the template's fields in the order of their names, written with the alphabet of generated names.
pub(crate) fn hash(template: &Value, collisions: i64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = Fnv(0x811c_9dc5);
    hash.value(&without_hash(template));
    if collisions > 0 {
        hash.bytes(&collisions.to_le_bytes());
    }
    hash.0.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// Null, `{}` and `[]` say nothing.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => same_fields(one, other) && same_fields(other, one),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_value(one, other))
        }
        _ => one == other || says_nothing(one) && says_nothing(other),
    }
}

/// Whether all fields of `one` are the same in `other`. An `emptyDir: {}` beside nothing is a difference, so an empty
/// object only counts as absent where the other side has nothing either or is a scalar-free default.
fn same_fields(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.iter().all(|(name, value)| match other.get(name) {
        Some(found) => same_value(value, found),
        None => value.is_null() || value.as_array().is_some_and(Vec::is_empty) || is_optional_map(name, value),
    })
}

/// Maps that mean the same empty or absent. Other empty objects (`emptyDir: {}`) are choices.
fn is_optional_map(name: &str, value: &Value) -> bool {
    const OPTIONAL: [&str; 7] =
        ["metadata", "labels", "annotations", "resources", "securityContext", "nodeSelector", "limits"];
    (OPTIONAL.contains(&name) || name == "requests") && says_nothing(value)
}

struct Fnv(u32);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Nulls and empty lists are left out, as `same` does not see them. Fields come by name, whatever their order.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort();
                self.bytes(b"{");
                for name in names {
                    let field = &fields[name];
                    if field.is_null() || field.as_array().is_some_and(Vec::is_empty) || is_optional_map(name, field) {
                        continue;
                    }
                    self.bytes(name.as_bytes());
                    self.bytes(b":");
                    self.value(field);
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                for item in items {
                    self.value(item);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            scalar => self.bytes(scalar.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{hash, same};
    use serde_json::json;

    #[test]
    fn the_hash_label_and_what_is_empty_do_not_count() {
        let one = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {}}], "securityContext": {}}});
        let other = json!({"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}},
            "spec": {"containers": [{"name": "c"}], "volumes": []}});
        assert!(same(&one, &other) && same(&other, &one));
        assert_eq!(hash(&one, 0), hash(&other, 0));
    }

    #[test]
    fn a_changed_field_makes_another_template() {
        let template = |image: &str| json!({"spec": {"containers": [{"image": image}]}});
        assert!(!same(&template("a"), &template("b")));
        assert_ne!(hash(&template("a"), 0), hash(&template("b"), 0));
        let volume = |source: serde_json::Value| json!({"spec": {"volumes": [source]}});
        assert!(!same(&volume(json!({"name": "v", "emptyDir": {}})), &volume(json!({"name": "v"}))));
    }

    #[test]
    fn a_collision_gives_another_name() {
        let template = json!({"spec": {"containers": []}});
        assert_ne!(hash(&template, 0), hash(&template, 1));
        assert!(hash(&template, 0).bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)));
    }
}
