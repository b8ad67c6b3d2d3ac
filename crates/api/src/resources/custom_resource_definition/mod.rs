//! CustomResourceDefinition: a kind that users bring.
//!
//! Rules
//!   C1 defaults      singular and list kind follow the kind; objects of all versions are alike unless a webhook is named
//!   C2 status        is the server's: a new definition has none but the version that is stored
//!   C3 stored        a version that becomes the stored one is added to `status.storedVersions`, and goes from there only by
//!                    hand; what is listed there stays in the spec
//!   C4 names         (`validate`) the object is called plural.group; names are DNS labels
//!   C5 versions      (`validate`) one is stored, each has a schema, columns and paths that can be read
//!   C6 structural    (`structural`) the schema says one type for each field, and nothing that cannot be pruned, merged
//!                    or checked in time linear in the object
//!   C7 immutable     (`validate`) group and plural never change, scope and kind not once the names are established
//!   C8 names taken   (`names`) of two definitions in a group the first keeps the name; conditions say so
//!   C9 rules         (`rule`) those in CEL compile, and cost no more than they may
//! Not here           asking the webhook between versions, cleaning up (apiserver) · the kinds that definitions make (`custom`)
//!
//! Source: API reference, apiextensions.k8s.io/v1 CustomResourceDefinition; custom resources guide.

pub mod names;
mod rule;
mod structural;
mod validate;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{Tree, carry_over, fill, fill_text, part_mut, remove};
use super::{column, name_column, row};
use crate::field::Errors;
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// Keeps an ending definition until the last object of its kind is gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The row of CustomResourceDefinition.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Created At", "date", "when the definition was created")];
    let mut row = row(&kinds::CUSTOM_RESOURCE_DEFINITION, columns, Definition)
        .needs_revision()
        .short_names(&["crd", "crds"])
        .subresources(&[Subresource::Status])
        .counts_generations();
    row.categories.push("api-extensions".to_owned());
    row
}

struct Definition;

impl Rules for Definition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = part_mut(object, "spec") else { return };
        if let Some(names) = spec.get_mut("names") {
            let kind = names.text("kind").to_owned();
            if !kind.is_empty() {
                fill_text(names, "singular", &kind.to_lowercase());
                fill_text(names, "listKind", &format!("{kind}List"));
            }
        }
        fill(spec, "conversion", json!({"strategy": "None"}));
        let service = &mut spec["conversion"]["webhook"]["clientConfig"]["service"];
        if service.is_object() {
            fill(service, "port", 443);
        }
        drop_nulls(&mut spec["conversion"]);
        if spec["preserveUnknownFields"] == json!(false) {
            remove(spec, "preserveUnknownFields");
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
        remember_stored(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate::validate(object, errors);
    }

    fn validate_changed(&self, object: &Value, old: &Value, errors: &mut Errors) {
        // What was accepted stays so: an update that leaves the schemas alone is not held against newer rules.
        validate::validate_names(object, errors);
        if object["spec"] != old["spec"] {
            validate::validate(object, errors);
        }
        validate::validate_update(object, old, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        validate::validate_status(object, errors);
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let metadata = &object["metadata"];
        vec![json!(metadata.text("name")), json!(metadata.text("creationTimestamp"))]
    }
}

/// C2: the status of a new definition, before its names are decided.
pub fn begin(object: &mut Value) {
    if object.is_object() {
        object["status"] = json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
        remember_stored(object);
    }
}

/// A definition that is deleted stays until its objects are gone, and says so. `now` is in RFC 3339.
pub fn begin_deletion(object: &mut Value, now: &str) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let status = names::ending(object, "InstanceDeletionPending", message, now);
    object["status"] = status;
    let Some(metadata) = part_mut(object, "metadata") else { return };
    let mut finalizers = metadata.items("finalizers").to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
        finalizers.push(Value::from(CLEANUP_FINALIZER));
    }
    metadata["finalizers"] = Value::Array(finalizers);
}

/// Indexing a tree makes nulls on the way; what is null was not there.
fn drop_nulls(value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    fields.values_mut().for_each(drop_nulls);
    fields.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|inner| !inner.is_empty()));
}

/// C3.
fn remember_stored(object: &mut Value) {
    let storage = object["spec"].items("versions").iter().find(|version| version.flag("storage"));
    let Some(name) = storage.map(|version| version.text("name").to_owned()) else { return };
    let Some(status) = part_mut(object, "status") else { return };
    let mut stored = status.items("storedVersions").to_vec();
    if !stored.iter().any(|version| *version == name) {
        stored.push(Value::from(name));
        status["storedVersions"] = Value::Array(stored);
    }
}

#[cfg(test)]
mod tests;
