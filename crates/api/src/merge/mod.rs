//! Patches: what a client wants changed, in the three forms that need no memory of who owns which field.
//!
//! Goal        the object as the client wants it, or an error that names the field or operation at fault
//! Relies on   the schema table, for strategic merge
//! Not here    checking the result: it goes through `codec::check_fields`, defaults and validation like any write ·
//!             who owns which field: `apply`
//!
//! A patch is hostile: what it copies, how deep it nests and how much work it makes are bounded before they happen.

pub mod apply;
mod json_patch;
mod plain;
#[cfg(test)]
mod properties;
mod strategic;
mod three_way;

use serde_json::Value;

use crate::ApiError;
use crate::codec::{self, DecodeError, Limits};
use crate::error::Reason;
use crate::schema::Message;

pub use json_patch::{JSON_PATCH_COPIED_BYTES_MAX, JSON_PATCH_OPERATIONS_MAX};
pub use plain::merge;
pub use strategic::strategic_merge;
pub use three_way::three_way;

/// The forms of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7386: an object laid over the object.
    Merge,
    /// Kubernetes' own: like merge, but lists merge by key.
    Strategic,
    /// Server-side apply, in YAML or JSON.
    Apply,
}

impl PatchType {
    /// The form that a `Content-Type` names.
    pub fn of_content_type(content_type: &str) -> Option<PatchType> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(PatchType::Json),
            "application/merge-patch+json" => Some(PatchType::Merge),
            "application/strategic-merge-patch+json" => Some(PatchType::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+json" => Some(PatchType::Apply),
            _ => None,
        }
    }

    /// The media type.
    pub fn as_str(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
            PatchType::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The patch's text cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The patch has another shape than its form asks for.
    #[error("patch{}: expected {expected}, found {found}", at(.path))]
    Shape {
        /// The field, or the operation's position; empty for the whole patch.
        path: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// More operations than a JSON patch may have.
    #[error("the allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, found {found}")]
    TooManyOperations {
        /// How many there are.
        found: usize,
    },
    /// The patch copies more, or makes more work, than any edit needs.
    #[error("operation {index} of the JSON patch: {what}; split the patch")]
    TooMuch {
        /// The operation's position, from 0.
        index: usize,
        /// The bound that was hit.
        what: &'static str,
    },
    /// An operation does not fit the object.
    #[error("operation {index} of the JSON patch ({operation} {path:?}) does not apply: {why}")]
    Operation {
        /// The operation's position, from 0.
        index: usize,
        /// `add`, `test`….
        operation: &'static str,
        /// The JSON pointer.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Server-side apply is another path.
    #[error("expected a JSON, merge or strategic merge patch, found an apply patch")]
    Unmergeable,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" at {path}") }
}

impl From<MergeError> for ApiError {
    fn from(error: MergeError) -> ApiError {
        let reason = match &error {
            MergeError::Decode(inner) => return inner.clone().into(),
            MergeError::Shape { .. } => Reason::BadRequest,
            MergeError::Operation { .. } => Reason::Invalid,
            MergeError::TooManyOperations { .. } | MergeError::TooMuch { .. } => Reason::RequestEntityTooLarge,
            MergeError::Unmergeable => Reason::UnsupportedMediaType,
        };
        ApiError::new(reason, error.to_string())
    }
}

/// A patched object.
#[derive(Debug, Clone, PartialEq)]
pub struct Patched {
    /// The object, unchecked.
    pub value: Value,
    /// Fields that the patch itself wrote twice, for `codec::check_fields`.
    pub duplicates: Vec<String>,
}

/// Applies a patch's text to an object. `message` is needed by strategic merge only; without it (custom resources),
/// strategic merge is refused, as Kubernetes refuses it.
pub fn patch(
    patch_type: PatchType,
    target: &Value,
    body: &[u8],
    message: Option<Message>,
) -> Result<Patched, MergeError> {
    let decoded = codec::json::decode(body, Limits::default())?;
    let duplicates = decoded.duplicates;
    let value = match (patch_type, message) {
        (PatchType::Json, _) => json_patch::apply(target, &decoded.value)?,
        (PatchType::Merge, _) => {
            expect_object(&decoded.value)?;
            let mut value = target.clone();
            merge(&mut value, decoded.value);
            value
        }
        (PatchType::Strategic, Some(message)) => {
            expect_object(&decoded.value)?;
            strategic_merge(target, decoded.value, message)?
        }
        (PatchType::Strategic, None) | (PatchType::Apply, _) => return Err(MergeError::Unmergeable),
    };
    if !value.is_object() {
        let (expected, found) = ("an object as the result".to_owned(), type_of(&value).to_owned());
        return Err(MergeError::Shape { path: String::new(), expected, found });
    }
    Ok(Patched { value, duplicates })
}

fn expect_object(patch: &Value) -> Result<(), MergeError> {
    if patch.is_object() {
        return Ok(());
    }
    let (expected, found) = ("an object".to_owned(), type_of(patch).to_owned());
    Err(MergeError::Shape { path: String::new(), expected, found })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::{MergeError, PatchType, patch};
    use crate::ApiError;
    use crate::schema::kubernetes;
    use serde_json::json;

    #[test]
    fn the_content_type_names_the_form() {
        for form in [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply] {
            assert_eq!(PatchType::of_content_type(&format!("{}; charset=utf-8", form.as_str())), Some(form));
        }
        assert_eq!(PatchType::of_content_type("application/json"), None);
    }

    #[test]
    fn a_patch_of_the_wrong_shape_is_refused_with_its_code() {
        let pods = kubernetes().find("k8s.io.api.core.v1.Pod");
        for (form, body, code) in [
            (PatchType::Merge, "[]", 400),
            (PatchType::Strategic, "null", 400),
            (PatchType::Json, "{}", 400),
            (PatchType::Merge, "{", 400),
            (PatchType::Json, r#"[{"op":"remove","path":""},{"op":"add","path":"","value":[]}]"#, 422),
            (PatchType::Json, r#"[{"op":"replace","path":"","value":[]}]"#, 400),
            (PatchType::Apply, "{}", 415),
        ] {
            let error: ApiError = patch(form, &json!({}), body.as_bytes(), pods).expect_err(body).into();
            assert_eq!(error.code(), code, "{body}: {error}");
        }
        assert_eq!(patch(PatchType::Strategic, &json!({}), b"{}", None), Err(MergeError::Unmergeable));
    }

    #[test]
    fn fields_written_twice_are_passed_on() {
        let patched = patch(PatchType::Merge, &json!({"a": 1}), br#"{"a":2,"a":3}"#, None).expect("a patch");
        assert_eq!((patched.value, patched.duplicates), (json!({"a": 3}), vec!["a".to_owned()]));
    }
}
