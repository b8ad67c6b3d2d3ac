//! JSON patch: a list of operations, applied one after the other, all or none.
//!
//! Source: RFC 6902. The bounds are kube-apiserver's; what it does not bound (nesting by `move`, shifting long lists)
//! is bounded here as well.

use json_patch::{AddOperation, Patch, PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::{MergeError, type_of};
use crate::codec::DEPTH_MAX;

/// Operations of one patch.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes that the `copy` operations of one patch may copy in all (CVE-2019-1002100).
pub const JSON_PATCH_COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Values visited and list items shifted by one patch: a fraction of a second.
const STEPS_MAX: usize = 20_000_000;

pub(super) fn apply(target: &Value, patch: &Value) -> Result<Value, MergeError> {
    let Value::Array(operations) = patch else {
        let found = type_of(patch).to_owned();
        return Err(MergeError::Shape { path: String::new(), expected: "a list of operations".to_owned(), found });
    };
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(MergeError::TooManyOperations { found: operations.len() });
    }
    let mut value = target.clone();
    let mut guard = Guard { copied_bytes: 0, steps: 0 };
    for (index, operation) in operations.iter().enumerate() {
        let operation: PatchOperation =
            serde_json::from_value(operation.clone()).map_err(|error| MergeError::Shape {
                path: format!("operation {index}"),
                expected: "an operation with op, path and what the op needs".to_owned(),
                found: error.to_string().chars().take(256).collect(),
            })?;
        guard.check(&value, &operation).map_err(|what| MergeError::TooMuch { index, what })?;
        if is_test_of_absence(&value, &operation) {
            continue;
        }
        let operation = match operation {
            PatchOperation::Replace(replace) if is_absent(&value, replace.path.as_str()) => {
                PatchOperation::Add(AddOperation { path: replace.path, value: replace.value })
            }
            other => other,
        };
        let patch = Patch(vec![operation]);
        json_patch::patch_unsafe(&mut value, &patch).map_err(|error| MergeError::Operation {
            index,
            operation: name_of(&patch.0[0]),
            path: patch.0[0].path().to_string().chars().take(256).collect(),
            why: why(&error.kind).to_owned(),
        })?;
    }
    Ok(value)
}

/// A `test` for null of a field that its object does not have. RFC 6902 lets it fail; kube-apiserver lets it pass, and
/// clients rely on it to add the first finalizer.
fn is_test_of_absence(value: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    test.value.is_null() && is_absent(value, test.path.as_str())
}

/// A field that its object does not have. To `replace` one is an error in RFC 6902; kube-apiserver adds it, and clients
/// rely on it: the snapshotter of CSI drivers writes its first annotation and its first status so.
fn is_absent(value: &Value, path: &str) -> bool {
    let parent = path.rsplit_once('/').and_then(|(parent, _)| value.pointer(parent));
    parent.is_some_and(Value::is_object) && value.pointer(path).is_none()
}

fn name_of(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

fn why(kind: &PatchErrorKind) -> &'static str {
    match kind {
        PatchErrorKind::TestFailed => "the value there is another",
        PatchErrorKind::InvalidFromPointer => "there is nothing at its from path",
        PatchErrorKind::InvalidPointer => "there is nothing at its path",
        PatchErrorKind::CannotMoveInsideItself => "a value cannot move into itself",
        _ => "the operation failed",
    }
}

/// What a patch has used up.
struct Guard {
    copied_bytes: usize,
    steps: usize,
}

impl Guard {
    /// Checks an operation before it happens.
    fn check(&mut self, value: &Value, operation: &PatchOperation) -> Result<(), &'static str> {
        let path = operation.path().as_str();
        match operation {
            PatchOperation::Copy(copy) => {
                if let Some(source) = value.pointer(copy.from.as_str()) {
                    self.copied_bytes += crate::codec::json::size(source);
                    self.nest(path, source)?;
                }
                if self.copied_bytes > JSON_PATCH_COPIED_BYTES_MAX {
                    return Err("expected at most 3145728 bytes copied, found more");
                }
                self.shift(value, path)?;
            }
            PatchOperation::Move(moved) => {
                if let Some(source) = value.pointer(moved.from.as_str()) {
                    self.nest(path, source)?;
                }
                self.shift(value, moved.from.as_str())?;
                self.shift(value, path)?;
            }
            PatchOperation::Add(add) => {
                self.nest(path, &add.value)?;
                self.shift(value, path)?;
            }
            PatchOperation::Replace(replace) => self.nest(path, &replace.value)?,
            PatchOperation::Remove(_) => self.shift(value, path)?,
            PatchOperation::Test(test) => self.step(1 + path.len() + count(&test.value).0)?,
        }
        Ok(())
    }

    fn step(&mut self, steps: usize) -> Result<(), &'static str> {
        self.steps += steps;
        if self.steps > STEPS_MAX { Err("expected less work, found operations on many or long lists") } else { Ok(()) }
    }

    /// A value that will lie at `path`.
    fn nest(&mut self, path: &str, value: &Value) -> Result<(), &'static str> {
        let (values, depth) = count(value);
        self.step(values)?;
        let above = path.bytes().filter(|byte| *byte == b'/').count();
        if above + depth > DEPTH_MAX { Err("expected at most 128 levels of nesting, found more") } else { Ok(()) }
    }

    /// An insertion or removal at `path`, which shifts the rest of a list.
    fn shift(&mut self, value: &Value, path: &str) -> Result<(), &'static str> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        match value.pointer(parent) {
            Some(Value::Array(items)) => self.step(items.len()),
            _ => self.step(1),
        }
    }
}

/// How many values a tree has, and how many levels.
fn count(value: &Value) -> (usize, usize) {
    let (mut values, mut depth) = (1, 0);
    let mut add = |inner: &Value| {
        let (more, below) = count(inner);
        values += more;
        depth = depth.max(below);
    };
    match value {
        Value::Array(items) => items.iter().for_each(&mut add),
        Value::Object(fields) => fields.values().for_each(&mut add),
        _ => return (1, 0),
    }
    (values, depth + 1)
}

#[cfg(test)]
mod tests {
    use super::{JSON_PATCH_OPERATIONS_MAX, apply};
    use crate::merge::MergeError;
    use serde_json::{Value, json};

    #[test]
    fn operations_change_the_object() {
        let object = json!({"a": [1, 2], "b": {"c/d": "x", "e~f": "y"}});
        for (patch, result) in [
            (json!([]), object.clone()),
            (
                json!([{"op": "add", "path": "/a/-", "value": 3}, {"op": "add", "path": "/a/0", "value": 0}]),
                json!({"a": [0, 1, 2, 3], "b": {"c/d": "x", "e~f": "y"}}),
            ),
            (
                json!([{"op": "remove", "path": "/b"}, {"op": "replace", "path": "/a/1", "value": null}]),
                json!({"a": [1, null]}),
            ),
            (
                json!([{"op": "test", "path": "/b/c~1d", "value": "x"}, {"op": "move", "from": "/b/e~0f", "path": "/a"}]),
                json!({"a": "y", "b": {"c/d": "x"}}),
            ),
            (json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": [1, 2], "b": [1, 2]})),
        ] {
            assert_eq!(apply(&object, &patch), Ok(result), "{patch}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_null_to_a_test() {
        let patch =
            |path: &str| super::apply(&json!({"a": {"b": 1}}), &json!([{"op": "test", "path": path, "value": null}]));
        assert_eq!(patch("/a/c"), Ok(json!({"a": {"b": 1}})));
        assert!(patch("/a/b").is_err(), "what is there is not null");
        assert!(patch("/c/d").is_err(), "the object that would hold it is not there");
    }

    #[test]
    fn to_replace_a_field_that_is_not_there_adds_it() {
        let patch = |path: &str| {
            super::apply(&json!({"a": {"b": 1}, "l": []}), &json!([{"op": "replace", "path": path, "value": 2}]))
        };
        assert_eq!(patch("/a/c"), Ok(json!({"a": {"b": 1, "c": 2}, "l": []})));
        assert_eq!(patch("/status"), Ok(json!({"a": {"b": 1}, "l": [], "status": 2})));
        for path in ["/c/d", "/l/0", "/l/-"] {
            assert!(patch(path).is_err(), "{path}: what would hold it is not there, or is a list");
        }
    }

    #[test]
    fn an_operation_that_does_not_fit_is_named() {
        let object = json!({"a": [1]});
        for (operation, part) in [
            (
                json!({"op": "test", "path": "/a/0", "value": 2}),
                "(test \"/a/0\") does not apply: the value there is another",
            ),
            (json!({"op": "remove", "path": "/x"}), "(remove \"/x\") does not apply: there is nothing at its path"),
            (json!({"op": "add", "path": "/x/y", "value": 1}), "nothing at its path"),
            (json!({"op": "replace", "path": "/a/1", "value": 1}), "nothing at its path"),
            (json!({"op": "copy", "from": "/x", "path": "/y"}), "nothing at its from path"),
            (json!({"op": "move", "from": "/a", "path": "/a/0"}), "cannot move into itself"),
            (json!({"op": "jump", "path": "/x"}), "at operation 1: expected an operation"),
            (json!({"op": "add", "path": "no-slash", "value": 1}), "at operation 1: expected an operation"),
            (json!({"op": "add", "path": "/x"}), "at operation 1: expected an operation"),
            (json!(7), "at operation 1: expected an operation"),
        ] {
            let patch = json!([{"op": "add", "path": "/b", "value": 1}, operation]);
            let error = apply(&object, &patch).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn copy_bombs_are_refused_before_they_grow() {
        let bomb: Vec<Value> = (0..24).map(|n| json!({"op": "copy", "from": "", "path": format!("/x{n}")})).collect();
        let object = json!({"data": "x".repeat(1_000)});
        assert!(matches!(apply(&object, &json!(bomb)), Err(MergeError::TooMuch { .. })));
        let add = json!({"op": "add", "path": "/a", "value": 1});
        assert!(apply(&json!({}), &json!(vec![add.clone(); JSON_PATCH_OPERATIONS_MAX])).is_ok());
        let many = json!(vec![add; JSON_PATCH_OPERATIONS_MAX + 1]);
        assert_eq!(apply(&json!({}), &many), Err(MergeError::TooManyOperations { found: 10_001 }));
    }

    #[test]
    fn nesting_by_moves_is_refused() {
        let mut patch = Vec::new();
        for _ in 0..1_000 {
            patch.push(json!({"op": "add", "path": "/y", "value": {}}));
            patch.push(json!({"op": "move", "from": "/x", "path": "/y/x"}));
            patch.push(json!({"op": "move", "from": "/y", "path": "/x"}));
        }
        assert!(matches!(apply(&json!({"x": 1}), &json!(patch)), Err(MergeError::TooMuch { .. })));
    }

    #[test]
    fn shifting_a_long_list_again_and_again_is_refused() {
        let object = json!({"a": vec![0; 100_000]});
        let patch = vec![json!({"op": "add", "path": "/a/0", "value": 0}); 9_000];
        assert!(matches!(apply(&object, &json!(patch)), Err(MergeError::TooMuch { .. })));
    }
}
