//! What the tests of all controllers use: objects from JSON, one moment in time, plans compared as text.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::Object;
use windlass_client::Cached;

use crate::plan::Plan;

/// The time at which tests take place.
pub(crate) fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

/// An object as it is in a cache.
pub(crate) fn object(json: &Value) -> Arc<Cached> {
    Arc::new(Object::parse(Bytes::from(json.to_string())).expect("an object"))
}

/// Sets fields by their JSON pointers; the last field may be new.
pub(crate) fn change(object: &mut Value, change: Value) {
    for (pointer, value) in change.as_object().expect("a map of pointers") {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
        match object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} exists")) {
            Value::Array(items) => items[field.parse::<usize>().expect("an index")] = value.clone(),
            parent => parent[field] = value.clone(),
        }
    }
}

/// Compares a plan with its lines; indentation does not count.
#[track_caller]
pub(crate) fn check(plan: &Plan, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let found = plan.to_string();
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found, expected, "\nfound:\n{}", found.join("\n"));
}
