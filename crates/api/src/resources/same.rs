//! Whether two trees mean the same to Kubernetes, whose typed clients do not send back what is empty.

use serde_json::Value;

use crate::quantity::Quantity;

/// Fields in which false, zero or an empty text is a choice of its own, not the same as saying nothing.
const OPTIONAL: &[&str] = &[
    "activeDeadlineSeconds",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "defaultMode",
    "enableServiceLinks",
    "fsGroup",
    "hostUsers",
    "immutable",
    "mode",
    "optional",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
];

/// Maps whose values are quantities.
const QUANTITIES: &[&str] = &["requests", "limits", "overhead", "capacity", "allocatable"];
/// Fields that hold one quantity.
const QUANTITY: &[&str] = &["sizeLimit", "divisor"];

/// Whether two trees say the same. Nothing, `null`, an empty list and an empty map are one; so are false, zero and an empty
/// text, except where they are a choice; quantities are compared by what they amount to.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    same_in("", "", left, right)
}

fn same_in(outer: &str, field: &str, left: &Value, right: &Value) -> bool {
    if left == right {
        return true;
    }
    match (left, right) {
        (Value::Object(left_fields), Value::Object(right_fields)) => {
            let missing = &Value::Null;
            left_fields
                .iter()
                .all(|(name, value)| same_in(field, name, value, right_fields.get(name).unwrap_or(missing)))
                && right_fields
                    .iter()
                    .filter(|(name, _)| !left_fields.contains_key(*name))
                    .all(|(name, value)| same_in(field, name, missing, value))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_in(outer, field, left, right))
        }
        _ if is_empty(field, left) && is_empty(field, right) => true,
        (Value::String(_) | Value::Number(_), Value::String(_) | Value::Number(_))
            if QUANTITIES.contains(&outer) || QUANTITY.contains(&field) =>
        {
            matches!((Quantity::from_json(left), Quantity::from_json(right)), (Ok(left), Ok(right)) if left == right)
        }
        _ => false,
    }
}

fn is_empty(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.iter().all(|(name, value)| value.is_null() || is_empty(name, value)),
        _ if OPTIONAL.contains(&field) => false,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::same;
    use serde_json::json;

    #[test]
    fn what_is_empty_is_the_same_as_nothing_unless_it_is_a_choice() {
        for (left, right, expected) in [
            (json!({"a": [], "b": {}, "c": "", "d": 0, "e": false, "f": null}), json!({}), true),
            (json!({"hostNetwork": true}), json!({}), false),
            (json!({"runAsUser": 0}), json!({}), false),
            (json!({"readOnlyRootFilesystem": false}), json!({}), false),
            (json!({"a": {"b": {"c": ""}}}), json!({}), true),
            (json!({"a": [1, 2]}), json!({"a": [2, 1]}), false),
            (json!({"requests": {"cpu": "1000m"}}), json!({"requests": {"cpu": 1}}), true),
            (json!({"requests": {"cpu": "1000m"}}), json!({"requests": {"cpu": "2"}}), false),
            (json!({"name": "1000m"}), json!({"name": "1"}), false),
            (json!({"emptyDir": {"sizeLimit": "1024Mi"}}), json!({"emptyDir": {"sizeLimit": "1Gi"}}), true),
        ] {
            assert_eq!(same(&left, &right), expected, "{left} and {right}");
            assert_eq!(same(&right, &left), expected, "{right} and {left}");
        }
    }
}
