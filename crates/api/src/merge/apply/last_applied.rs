//! Objects that were applied by the client, before the server could: kubectl kept its configuration in an annotation.
//!
//! Rules
//!   R1 allowed    where kubectl applies over its own client-side applies, what the annotation says and the object still
//!                 has is no conflict
//!   R2 kept       the annotation follows what kubectl applies, so that a client-side apply can come after
//!
//! Source: API concepts, "Upgrading from client-side apply"; kubectl's annotation `last-applied-configuration`.

use serde_json::Value;

use super::compare::compare;
use super::gather::gather;
use super::set::FieldSet;
use crate::codec::Limits;
use crate::codec::json;
use crate::schema::Message;

/// The manager whose applies continue those that the annotation tells of.
pub(super) const KUBECTL: &str = "kubectl";
/// Where the configuration lies.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations of one object may have so many bytes in all; a longer configuration is not kept.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()
}

/// The fields that client-side applies set and nobody changed since (R1).
pub(super) fn allowed(live: &Value, api_version: &str, message: Message<'_>) -> Option<FieldSet<'static>> {
    let config = json::decode(annotation(live)?.as_bytes(), Limits::default()).ok()?.value;
    if config["apiVersion"] != api_version {
        return None;
    }
    let mut fields = gather(&config, message);
    let changes = compare(&config, live, message);
    for differing in [&changes.added, &changes.modified, &changes.removed] {
        fields.subtract(differing);
    }
    Some(fields.into_owned())
}

/// Writes the applied configuration into the annotation, where there is one (R2).
pub(super) fn keep(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let text = config.to_string() + "\n";
    let text = if text.len() > ANNOTATION_BYTES_MAX { String::new() } else { text };
    object["metadata"]["annotations"][LAST_APPLIED] = Value::from(text);
}
