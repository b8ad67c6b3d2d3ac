//! Bodies in, trees out: JSON, YAML and protobuf become one checked tree; answers may become protobuf again.
//!
//! Goal        a tree that holds only fields of its message, each of its type, in the API's canonical form
//! Relies on   the schema table; the caller has bounded the size of the body
//! Not here    what the values mean: defaults and validation are the kinds' own (`resources`)
//!
//! Bodies are hostile. Depth and the memory of the tree are bounded while it grows, not after.

mod check;
mod encode;
pub(crate) mod form;
pub mod json;
pub mod print;
pub mod protobuf;
mod tree;
pub mod wire;
pub mod yaml;

use serde_json::Value;

use crate::ApiError;
use crate::error::Reason;
use crate::schema::{META, Message};

pub use check::{Validation, check_fields};
pub use encode::{ENVELOPE_END, EncodeError, encode_bare, encode_protobuf, item_head, list_head, watch_frame};

/// Objects and lists inside each other, at most. Go's JSON allows 10,000; no kind needs 100.
pub const DEPTH_MAX: usize = 128;
/// Memory of one tree, at most: twelve times a body of 3 MiB, which honest objects stay far below, while bodies made of
/// empty objects would take a hundred times their size.
pub const TREE_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Bounds of one decoding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Objects and lists inside each other.
    pub depth_max: usize,
    /// Estimated memory of the tree.
    pub tree_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { depth_max: DEPTH_MAX, tree_bytes_max: TREE_BYTES_MAX }
    }
}

/// A tree as the body wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The tree; of fields written twice it has the last.
    pub value: Value,
    /// Paths of fields written twice, such as `spec.replicas`.
    pub duplicates: Vec<String>,
}

/// Why a body is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It breaks the syntax of its format.
    #[error("expected valid {format}, found an error: {message}")]
    Syntax {
        /// `JSON`, `YAML` or `protobuf`.
        format: &'static str,
        /// What and where.
        message: String,
    },
    /// It nests deeper than any object needs.
    #[error("expected at most {max} levels of nesting, found more")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// Its tree would take more memory than any object needs.
    #[error("expected an object of at most {max} bytes in memory, found more; split it")]
    TooComplex {
        /// The bound.
        max: usize,
    },
    /// The machine gives no thread to decode in.
    #[error("expected a thread to decode the body in, found none: {why}; try again later")]
    NoThread {
        /// What the system says.
        why: String,
    },
    /// A protobuf body names a kind that is not in the schema table.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// As the envelope says.
        api_version: String,
        /// As the envelope says.
        kind: String,
    },
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> ApiError {
        match error {
            DecodeError::TooComplex { .. } => ApiError::new(Reason::RequestEntityTooLarge, error.to_string()),
            DecodeError::NoThread { .. } => ApiError::new(Reason::ServiceUnavailable, error.to_string()),
            other => ApiError::bad_request(other.to_string()),
        }
    }
}

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Media {
    /// The form that a `Content-Type` names; JSON where there is none. Parameters are not looked at.
    pub fn of_content_type(content_type: Option<&str>) -> Option<Media> {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "" | "*/*" | "application/json" => Some(Media::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Media::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Media::Protobuf),
            _ => None,
        }
    }
}

/// A body that was decoded and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The tree: known fields only, canonical values.
    pub value: Value,
    /// What `Warning` headers tell the client.
    pub warnings: Vec<String>,
}

/// Decodes a body that should hold `message` and checks every field: the way of every write.
///
/// A body that names no kind is taken as one of `message`; the caller fills the names in.
///
/// Errors: 400 for syntax, another kind, types and, when strict, unknown and duplicate fields; 413 for trees beyond `TREE_BYTES_MAX`.
pub fn decode(media: Media, bytes: &[u8], message: Message, validation: Validation) -> Result<Body, ApiError> {
    let limits = Limits::default();
    let mut decoded = match media {
        Media::Json => json::decode(bytes, limits)?,
        Media::Yaml => yaml::decode(bytes, limits)?,
        Media::Protobuf => protobuf::decode(bytes, Some(message), limits)?,
    };
    check_kind(&decoded.value, message)?;
    let warnings = check_fields(&mut decoded.value, message, &decoded.duplicates, validation)?;
    Ok(Body { value: decoded.value, warnings })
}

/// Whether a text is standard base64.
pub(crate) fn is_base64(text: &str) -> bool {
    form::read_base64(text).is_ok()
}

/// Whether a text is a Go duration.
pub(crate) fn is_duration(text: &str) -> bool {
    form::read_duration(text).is_some()
}

/// Refuses an object of another kind, or of another group version. What all groups share (`DeleteOptions`…) may name any.
fn check_kind(value: &Value, message: Message) -> Result<(), ApiError> {
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let other_kind = !kind.is_empty() && kind != message.name();
    let other_version = !api_version.is_empty() && message.package() != META && api_version != message.api_version();
    if !message.is_kind() || !(other_kind || other_version) {
        return Ok(());
    }
    let cut = |text: &str| text.chars().take(128).collect::<String>();
    let (kind, api_version, name) = (cut(kind), cut(api_version), message.name());
    let expected =
        if message.package() == META { String::new() } else { format!(" in version {:?}", message.api_version()) };
    Err(ApiError::bad_request(format!(
        "{kind} in version {api_version:?} cannot be handled as a {name}: expected {name}{expected}"
    )))
}

#[cfg(test)]
mod tests {
    use super::{Media, Validation, decode};
    use crate::schema::kubernetes;
    use serde_json::json;

    #[test]
    fn content_types_name_a_form() {
        for (content_type, media) in [
            (None, Some(Media::Json)),
            (Some("application/json; charset=utf-8"), Some(Media::Json)),
            (Some("Application/YAML"), Some(Media::Yaml)),
            (Some("application/vnd.kubernetes.protobuf"), Some(Media::Protobuf)),
            (Some("text/html"), None),
        ] {
            assert_eq!(Media::of_content_type(content_type), media, "{content_type:?}");
        }
    }

    #[test]
    fn one_object_is_the_same_in_json_and_yaml() {
        let message = kubernetes().find("k8s.io.api.core.v1.ConfigMap").expect("config maps exist");
        let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: null}\ndata:\n  a: |\n    x\n";
        let json = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"x\n"}}"#;
        for (media, body) in [(Media::Yaml, &yaml[..]), (Media::Json, &json[..])] {
            let body = decode(media, body, message, Validation::Strict).expect("a config map");
            let expected =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "x\n"}});
            assert_eq!((body.value, body.warnings.len()), (expected, 0));
        }
    }

    #[test]
    fn the_deepest_body_fits_on_the_stack_of_a_task() {
        let message =
            kubernetes().find("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition");
        let message = message.expect("definitions exist");
        let schema = format!("{}{{}}{}", r#"{"not":"#.repeat(118), "}".repeat(118));
        let open = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","spec":{"versions":[{"schema":{"openAPIV3Schema":"#;
        let json = format!("{open}{schema}}}}}]}}}}");
        let work = move || {
            let from_json =
                decode(Media::Json, json.as_bytes(), message, Validation::Strict).expect("valid JSON").value;
            let protobuf = super::encode_protobuf(&from_json, message).expect("a checked object encodes");
            let from_protobuf =
                decode(Media::Protobuf, &protobuf, message, Validation::Strict).expect("valid protobuf").value;
            let patched = crate::merge::strategic_merge(&from_json, from_protobuf.clone(), message);
            assert_eq!((Ok(&from_json), &from_json), (patched.as_ref(), &from_protobuf));
        };
        // half of what tokio gives a worker
        let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).expect("a thread");
        thread.join().expect("no stack overflow, which would abort the process, and no failed assertion");
    }

    #[test]
    fn an_object_of_another_kind_is_refused() {
        let schema = kubernetes();
        let (map, options) = (schema.find_kind("v1", "ConfigMap"), schema.find_kind("v1", "DeleteOptions"));
        for (message, body, refused) in [
            (map, r#"{"data":{}}"#, None),
            (map, r#"{"kind":"ConfigMap","apiVersion":"v1"}"#, None),
            (
                map,
                r#"{"kind":"Pod","apiVersion":"v1"}"#,
                Some("Pod in version \"v1\" cannot be handled as a ConfigMap"),
            ),
            (
                map,
                r#"{"kind":"ConfigMap","apiVersion":"apps/v1"}"#,
                Some("ConfigMap in version \"apps/v1\" cannot be handled"),
            ),
            (options, r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":0}"#, None),
            (options, r#"{"kind":"Pod","apiVersion":"v1"}"#, Some("cannot be handled as a DeleteOptions")),
        ] {
            let message = message.expect("both kinds exist");
            match (decode(Media::Json, body.as_bytes(), message, Validation::Strict), refused) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => assert!(error.message.contains(part) && error.code() == 400, "{error}"),
                (found, _) => panic!("{body}: {found:?}"),
            }
        }
    }

    #[test]
    fn field_validation_has_three_modes() {
        assert_eq!(Validation::parse(None).ok(), Some(Validation::Warn));
        assert_eq!(Validation::parse(Some("Strict")).ok(), Some(Validation::Strict));
        assert!(Validation::parse(Some("strict")).is_err_and(|error| error.message.contains("supported values")));
    }
}
