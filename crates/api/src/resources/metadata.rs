//! Metadata: what every object has, whatever its kind.
//!
//! Rules
//!   M1 name          by the kind's rule; generateName leads to such a name
//!   M2 namespace     a DNS label on kinds that live in one, nothing on others
//!   M3 labels        keys and values as selectors can match them
//!   M4 annotations   keys as labels, in any case; 256 KiB in all
//!   M5 owners        complete, at most one controls, no Event owns anything
//!   M6 finalizers    qualified names; orphaning and deleting dependents exclude each other; none new once ending
//!   M7 identity      name, namespace, uid and the times never change
//! Source: API reference, meta/v1 ObjectMeta.

use serde_json::{Map, Value, json};

use super::same::same;
use super::tree::{Tree, carry_over, remove};
use crate::field::{Errors, Path};
use crate::name;
use crate::resource::Resource;

/// Bytes of all annotations of an object, keys and values.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Adds an error for each broken rule of an object's metadata. Runs on every write of every kind, after a generated name
/// has been filled in.
pub fn validate_metadata(resource: &Resource, object: &Value, errors: &mut Errors) {
    let metadata = &object["metadata"];
    let path = Path::new("metadata");
    if !metadata.is_object() {
        errors.required(&path, "");
        return;
    }
    validate_name(resource, metadata, &path, errors);
    validate_namespace(resource, metadata, &path, errors);
    if let Some(generation) = metadata.int("generation").filter(|&generation| generation < 0) {
        errors.invalid(&path.child("generation"), generation, "must be greater than or equal to 0");
    }
    validate_labels(metadata.entries("labels"), &path.child("labels"), errors);
    validate_annotations(metadata.entries("annotations"), &path.child("annotations"), errors);
    validate_owners(metadata.items("ownerReferences"), &path.child("ownerReferences"), errors);
    validate_finalizers(metadata.items("finalizers"), &path.child("finalizers"), errors);
    if resource.custom.is_none() {
        validate_plain_finalizers(metadata.items("finalizers"), &path.child("finalizers"), errors);
    }
}

/// What whoever writes an object is told of its metadata, though it is valid.
pub fn metadata_warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    if resource.custom.is_none() {
        return Vec::new();
    }
    let before = old.map_or(&[][..], |old| old["metadata"].items("finalizers"));
    let finalizers = object["metadata"].items("finalizers").iter().filter(|finalizer| !before.contains(finalizer));
    let plain = finalizers.filter_map(Value::as_str).filter(|finalizer| !finalizer.contains('/'));
    let warning = |finalizer: &str| {
        format!(
            "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name including a path (/) to avoid \
             accidental conflicts with other finalizer writers"
        )
    };
    plain.map(warning).collect()
}

/// Adds an error for each change of metadata that is not allowed.
pub fn validate_metadata_update(object: &Value, old: &Value, errors: &mut Errors) {
    let (metadata, before) = (&object["metadata"], &old["metadata"]);
    let path = Path::new("metadata");
    if before.is_set("deletionTimestamp") {
        let finalizers = before.items("finalizers");
        let added = metadata.items("finalizers").iter().filter(|finalizer| !finalizers.contains(finalizer));
        let added: Vec<String> = added.map(Value::to_string).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&path.child("finalizers"), &detail);
        }
    }
    let generation = metadata.int("generation").unwrap_or(0);
    if generation < before.int("generation").unwrap_or(0) {
        errors.invalid(&path.child("generation"), generation, "must not be decremented");
    }
    for field in ["name", "namespace", "uid"] {
        if metadata.text(field) != before.text(field) {
            errors.immutable(&path.child(field), metadata.text(field));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if metadata[field] != before[field] {
            errors.immutable(&path.child(field), metadata[field].clone());
        }
    }
}

/// Fills in what a client may leave out of an update because it can only be what it was: uid and times. A time of deletion
/// is taken from `old` whatever the client says, since only a delete sets it.
pub fn keep_system_metadata(object: &mut Value, old: &Value) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    let before = &old["metadata"];
    for field in ["uid", "creationTimestamp"] {
        if metadata.text(field).is_empty() {
            carry_over(metadata, before, field);
        }
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if !before.is_set(field) {
            remove(metadata, field);
        } else if !metadata.is_set(field) {
            carry_over(metadata, before, field);
        }
    }
}

/// M1.
fn validate_name(resource: &Resource, metadata: &Value, path: &Path, errors: &mut Errors) {
    let rule = resource.rules.name_rule();
    let generate_name = metadata.text("generateName");
    if !generate_name.is_empty() {
        for error in rule.prefix_errors(generate_name) {
            errors.invalid(&path.child("generateName"), generate_name, &error);
        }
    }
    let name = metadata.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
        return;
    }
    let mut reasons = rule.errors(name);
    if reasons.is_empty() {
        // Every rule but the widest already says this. A name ends up in URLs and in the keys of the store.
        reasons = name::path_segment(name);
    }
    for reason in reasons {
        errors.invalid(&path.child("name"), name, &reason);
    }
}

/// M2.
fn validate_namespace(resource: &Resource, metadata: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("namespace");
    match (resource.kind.namespaced, metadata.text("namespace")) {
        (true, "") => errors.required(&path, ""),
        (true, namespace) => name::label(namespace).iter().for_each(|error| errors.invalid(&path, namespace, error)),
        (false, "") => {}
        (false, _) => errors.forbidden(&path, "not allowed on this type"),
    }
}

/// M3, also for the labels of templates and selectors.
pub(crate) fn validate_labels(labels: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels {
        for error in name::label_key(key) {
            errors.invalid(path, key.as_str(), &error);
        }
        let value = value.as_str().unwrap_or_default();
        for error in name::label_value(value) {
            errors.invalid(path, value, &error);
        }
    }
}

/// M4, also for the annotations of templates.
pub(crate) fn validate_annotations(annotations: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations {
        for error in name::label_key(&key.to_ascii_lowercase()) {
            errors.invalid(path, key.as_str(), &error);
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

/// Checks the metadata of a template, of which only labels and annotations are taken over.
pub(crate) fn validate_template_metadata(metadata: &Value, path: &Path, errors: &mut Errors) {
    validate_annotations(metadata.entries("annotations"), &path.child("annotations"), errors);
    validate_labels(metadata.entries("labels"), &path.child("labels"), errors);
    for (field, value) in metadata.as_object().into_iter().flatten() {
        let is_taken = matches!(field.as_str(), "annotations" | "labels");
        if !is_taken && !same(value, &Value::Null) {
            errors.forbidden(&path.child(field), "cannot be set");
        }
    }
}

/// M5.
fn validate_owners(owners: &[Value], path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for (index, owner) in owners.iter().enumerate() {
        let path_of_owner = path.index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                errors.required(&path_of_owner.child(field), "must not be empty");
            }
        }
        let api_version = owner.text("apiVersion");
        if !api_version.is_empty() && (api_version.ends_with('/') || api_version.matches('/').count() > 1) {
            let detail = "must be <group>/<version> or <version>";
            errors.invalid(&path_of_owner.child("apiVersion"), api_version, detail);
        }
        if (api_version, owner.text("kind")) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.invalid(&path_of_owner, owner.clone(), detail);
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    );
                    errors.invalid(path, json!(owners), &detail);
                }
                None => controller = Some(this),
            }
        }
    }
}

/// M6 for built-in kinds, on which whoever adds one says who he is.
fn validate_plain_finalizers(finalizers: &[Value], path: &Path, errors: &mut Errors) {
    for (index, finalizer) in finalizers.iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        if !finalizer.contains('/') && !["kubernetes", ORPHAN, FOREGROUND].contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(index), finalizer, detail);
        }
    }
}

/// M6.
fn validate_finalizers(finalizers: &[Value], path: &Path, errors: &mut Errors) {
    let names = || finalizers.iter().filter_map(Value::as_str);
    for finalizer in names() {
        for error in name::label_key(finalizer) {
            errors.invalid(path, finalizer, &error);
        }
    }
    if names().any(|name| name == ORPHAN) && names().any(|name| name == FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.invalid(path, json!(finalizers), &detail);
    }
}
