//! Field paths and the errors found at them, in Kubernetes' own wording, so that clients and people recognise them.
//!
//! Source: apimachinery `field.Error` as it appears in the `causes` of a 422 Status (API reference, meta/v1 Status).

use std::fmt;

use serde_json::Value;

/// Where in an object something is: `spec.containers[0].name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// The path of a top-level field.
    pub fn new(name: &str) -> Path {
        Path(name.to_owned())
    }

    /// The path of no field, as Kubernetes writes it where an object as a whole is at fault.
    pub fn whole() -> Path {
        Path("[]".to_owned())
    }

    /// The path of the whole object, which prints as nothing.
    pub fn root() -> Path {
        Path(String::new())
    }

    /// The path of a field of this.
    #[must_use]
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }

    /// The path of a list element of this.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// The path of a map entry of this.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What kind of wrong a field is; the name is the `reason` of the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// A value is needed and there is none.
    Required,
    /// The value is malformed or out of range.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// The value may not be set here.
    Forbidden,
    /// The value must be unique and is not.
    Duplicate,
    /// The value refers to something that does not exist.
    NotFound,
    /// The text is longer than allowed.
    TooLong,
    /// The list has more items than allowed.
    TooMany,
    /// The value has another type than the field.
    TypeInvalid,
}

impl FieldReason {
    /// The `reason` of a Status cause.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldReason::Required => "FieldValueRequired",
            FieldReason::Invalid => "FieldValueInvalid",
            FieldReason::NotSupported => "FieldValueNotSupported",
            FieldReason::Forbidden => "FieldValueForbidden",
            FieldReason::Duplicate => "FieldValueDuplicate",
            FieldReason::NotFound => "FieldValueNotFound",
            FieldReason::TooLong => "FieldValueTooLong",
            FieldReason::TooMany => "FieldValueTooMany",
            FieldReason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// What kind of wrong.
    pub reason: FieldReason,
    /// Where.
    pub path: Path,
    /// The sentence after the path, such as `Required value: name is needed`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.message)
    }
}

/// Errors kept per object: enough to mend it, bounded against hostile input.
pub const FIELD_ERRORS_MAX: usize = 256;

/// The wrong fields of one object, in the order found.
#[derive(Debug, Clone, Default)]
pub struct Errors {
    found: Vec<FieldError>,
}

impl Errors {
    /// No errors.
    pub fn new() -> Errors {
        Errors::default()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All errors.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.found.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Adds those of another check, as far as they fit.
    pub fn extend(&mut self, other: Errors) {
        let room = FIELD_ERRORS_MAX.saturating_sub(self.found.len());
        self.found.extend(other.found.into_iter().take(room));
    }

    fn push(&mut self, reason: FieldReason, path: &Path, message: String) {
        if self.found.len() < FIELD_ERRORS_MAX {
            self.found.push(FieldError { reason, path: path.clone(), message });
        }
    }

    /// A value is needed.
    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push(FieldReason::Required, path, with_detail("Required value", detail));
    }

    /// A value is malformed or out of range.
    pub fn invalid(&mut self, path: &Path, found: impl Into<Value>, detail: &str) {
        self.push(FieldReason::Invalid, path, with_detail(&format!("Invalid value: {}", shown(&found.into())), detail));
    }

    /// A value is malformed or out of range, and clients know it by how it is printed.
    pub fn invalid_printed(&mut self, path: &Path, printed: &str, detail: &str) {
        self.push(FieldReason::Invalid, path, with_detail(&format!("Invalid value: {printed}"), detail));
    }

    /// A value has the wrong JSON type.
    pub fn type_invalid(&mut self, path: &Path, found: impl Into<Value>, detail: &str) {
        let message = with_detail(&format!("Invalid value: {}", shown(&found.into())), detail);
        self.push(FieldReason::TypeInvalid, path, message);
    }

    /// A value is not among those supported.
    pub fn not_supported(&mut self, path: &Path, found: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!("Unsupported value: {found:?}: supported values: {}", supported.join(", "));
        self.push(FieldReason::NotSupported, path, message);
    }

    /// A field may not be set or changed here.
    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.push(FieldReason::Forbidden, path, with_detail("Forbidden", detail));
    }

    /// A value appears twice.
    pub fn duplicate(&mut self, path: &Path, found: impl Into<Value>) {
        self.push(FieldReason::Duplicate, path, format!("Duplicate value: {}", shown(&found.into())));
    }

    /// A value names something that does not exist.
    pub fn not_found(&mut self, path: &Path, found: impl Into<Value>) {
        self.push(FieldReason::NotFound, path, format!("Not found: {}", shown(&found.into())));
    }

    /// A value names something that does not exist, and this is where it would have to.
    pub fn not_found_because(&mut self, path: &Path, found: impl Into<Value>, detail: &str) {
        let message = with_detail(&format!("Not found: {}", shown(&found.into())), detail);
        self.push(FieldReason::NotFound, path, message);
    }

    /// A value appears twice, and this is why it may not.
    pub fn duplicate_because(&mut self, path: &Path, found: impl Into<Value>, detail: &str) {
        let message = with_detail(&format!("Duplicate value: {}", shown(&found.into())), detail);
        self.push(FieldReason::Duplicate, path, message);
    }

    /// A text is longer than `bytes_max`.
    pub fn too_long(&mut self, path: &Path, bytes_max: usize) {
        self.push(FieldReason::TooLong, path, format!("Too long: may not be more than {bytes_max} bytes"));
    }

    /// A list is longer than `items_max`.
    pub fn too_many(&mut self, path: &Path, found: usize, items_max: usize) {
        self.push(FieldReason::TooMany, path, format!("Too many: {found}: must have at most {items_max} items"));
    }

    /// A value that may never change was changed.
    pub fn immutable(&mut self, path: &Path, found: impl Into<Value>) {
        self.invalid(path, found, "field is immutable");
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

/// A value as an error shows it: JSON, cut short so that hostile input does not come back whole.
fn shown(value: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 256;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{Errors, Path};

    #[test]
    fn wording_is_kubernetes_own() {
        let mut errors = Errors::new();
        let containers = Path::new("spec").child("containers");
        errors.required(&containers.index(0).child("name"), "");
        errors.invalid(&Path::new("spec").child("replicas"), -1, "must be greater than or equal to 0");
        errors.not_supported(&containers.index(1).child("imagePullPolicy"), "Often", &["Always", "Never"]);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.containers[0].name: Required value",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[1].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"Never\"",
            ]
        );
    }
}
