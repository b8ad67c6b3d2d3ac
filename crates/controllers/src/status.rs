//! Statuses: whether there is anything to write.

use serde_json::Value;

/// Whether a status says something else than is desired. Zero, absent and empty are the same; without any status the first
/// is written, so that `observedGeneration` says: seen.
pub(crate) fn differs(found: &Value, desired: &Value) -> bool {
    desired.as_object().into_iter().flatten().any(|(field, value)| match value {
        Value::Object(_) => differs(&found[field], value),
        value => found[field] != *value && !(says_nothing(&found[field]) && says_nothing(value)),
    })
}

fn says_nothing(value: &Value) -> bool {
    value.is_null() || value == 0 || value == "" || value.as_array().is_some_and(Vec::is_empty)
}
