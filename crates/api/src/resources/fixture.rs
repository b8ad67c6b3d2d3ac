//! What the tests of kinds share: an object in, what is said of it out.

use serde_json::Value;

use crate::field::Errors;
use crate::resource::Rules;

/// Fills an object in, validates it, and compares what is said of it: each error by its beginning.
pub(crate) fn check(rules: &dyn Rules, mut object: Value, expected: &[&str]) {
    let mut errors = Errors::new();
    rules.default(&mut object);
    rules.validate(&object, &mut errors);
    compare(&errors, expected);
}

/// The same for a change.
pub(crate) fn check_update(rules: &dyn Rules, object: &Value, old: &Value, expected: &[&str]) {
    let mut errors = Errors::new();
    rules.validate_update(object, old, &mut errors);
    compare(&errors, expected);
}

/// The same for a change of the status.
pub(crate) fn check_status(rules: &dyn Rules, object: &Value, old: &Value, expected: &[&str]) {
    let mut errors = Errors::new();
    rules.validate_status(object, old, &mut errors);
    compare(&errors, expected);
}

/// Compares errors with how each of them begins.
pub(crate) fn compare(errors: &Errors, expected: &[&str]) {
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}, expected {expected}");
    }
}

/// What a kind fills in.
pub(crate) fn filled(rules: &dyn Rules, mut object: Value) -> Value {
    rules.default(&mut object);
    object
}

/// The printed row, a minute after the start of 2026.
pub(crate) fn cells(rules: &dyn Rules, object: &Value) -> Vec<Value> {
    rules.cells(object, "2026-01-01T00:01:00Z".parse().expect("a timestamp"))
}
