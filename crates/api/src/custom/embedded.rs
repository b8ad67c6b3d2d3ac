//! Objects inside objects: what says `x-kubernetes-embedded-resource` is a whole API object with its own metadata.
//!
//! Source: custom resources, "RawExtension".

use serde_json::Value;

use super::node::Node;
use crate::field::{Errors, Path};
use crate::name;
use crate::resources::tree::Tree;

/// Adds an error for each broken rule of an embedded object.
pub(super) fn check(object: &Value, node: &Node, path: &Path, errors: &mut Errors) {
    if !node.embedded || !object.is_object() {
        return;
    }
    for field in ["apiVersion", "kind"] {
        if object.text(field).is_empty() {
            errors.required(&path.child(field), "must not be empty");
        }
    }
    let (api_version, kind) = (object.text("apiVersion"), object.text("kind"));
    if api_version.matches('/').count() > 1 {
        errors.invalid(&path.child("apiVersion"), api_version, "must be <group>/<version> or <version>");
    }
    if !kind.is_empty() {
        for reason in name::letter_label(&kind.to_lowercase()) {
            errors.invalid(
                &path.child("kind"),
                kind,
                &format!("may have mixed case, but should otherwise match: {reason}"),
            );
        }
    }
    let (own, at) = (object["metadata"].text("name"), path.child("metadata").child("name"));
    if !own.is_empty() {
        for reason in name::path_segment(own) {
            errors.invalid(&at, own, &reason);
        }
    }
}
