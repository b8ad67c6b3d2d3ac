//! Defaults of a custom kind, and nulls.
//!
//! Rules
//!   R1 defaults    a field that is missing gets its default, from the outside in, so that a default's own parts are filled
//!   R2 null        a null that may not be one gives way to the default, or goes where there is none; a null that may be
//!                  one stays
//! Source: custom resources, "Defaulting", "Defaulting and Nullable".

use serde_json::Value;

use super::node::{Additional, Node};

/// Fills in defaults and drops nulls, in place. Idempotent.
pub(crate) fn fill(value: &mut Value, node: &Node) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let inner = node.field(name);
                !value.is_null() || inner.is_none_or(|inner| inner.nullable || inner.default.is_some())
            });
            for (name, inner) in &node.properties {
                let Some(default) = &inner.default else { continue };
                if fields.get(name).is_none_or(|found| found.is_null() && !inner.nullable) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                let Some(inner) = node.field(name) else { continue };
                fill_null(value, inner);
                fill(value, inner);
            }
        }
        Value::Array(items) => {
            let Some(inner) = &node.items else { return };
            for item in items {
                fill_null(item, inner);
                fill(item, inner);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn fill_null(value: &mut Value, node: &Node) {
    if let (Value::Null, false, Some(default)) = (&*value, node.nullable, &node.default) {
        *value = default.clone();
    }
}

/// Whether a schema has any default, so that objects need not be walked for nothing.
pub(super) fn has_defaults(node: &Node) -> bool {
    let in_others = match &node.additional {
        Additional::Each(inner) => has_defaults(inner),
        Additional::None | Additional::Any => false,
    };
    node.default.is_some()
        || in_others
        || node.properties.values().any(has_defaults)
        || node.items.as_ref().is_some_and(|items| has_defaults(items))
}

#[cfg(test)]
mod tests {
    use super::fill;
    use crate::custom::Node;
    use serde_json::{Value, json};

    fn check(schema: &Value, mut value: Value, expected: Value) {
        let node = Node::compile(schema);
        fill(&mut value, &node);
        assert_eq!(value, expected);
        let before = value.clone();
        fill(&mut value, &node);
        assert_eq!(value, before, "a second time changes nothing");
    }

    #[test]
    fn r1_defaults_come_from_the_outside_in() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 5}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string", "default": "x"}}}},
            "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"d": {"default": true}}}},
        }});
        check(&schema, json!({}), json!({"a": {"b": 5}}));
        check(&schema, json!({"a": {"b": 1}}), json!({"a": {"b": 1}}));
        check(
            &schema,
            json!({"a": {"b": 0}, "l": [{}, {"c": ""}], "m": {"k": {}}}),
            json!({"a": {"b": 0}, "l": [{"c": "x"}, {"c": ""}], "m": {"k": {"d": true}}}),
        );
    }

    #[test]
    fn r2_a_null_gives_way_unless_it_may_be_one() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"}, "b": {"type": "string", "nullable": true, "default": "y"},
            "c": {"type": "string"}, "d": {"type": "string", "nullable": true},
            "l": {"type": "array", "items": {"type": "integer", "default": 1}},
        }});
        check(
            &schema,
            json!({"a": null, "b": null, "c": null, "d": null, "l": [null, 2]}),
            json!({"a": "x", "b": null, "d": null, "l": [1, 2]}),
        );
    }
}
