//! Namespace: a room for names.
//!
//! Rules
//!   N1 name         a DNS label: it becomes part of DNS names
//!   N2 finalizers   set when it is made, removed through `/finalize` only; nothing is left in it when the last is gone
//!   N3 phase        Terminating exactly while it is being deleted
//! Source: API reference, core/v1 Namespace.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::named;
use super::tree::{Tree, carry_over, map_mut, part_mut};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name::{self, NameRule};
use crate::resource::{Resource, Rules, Subresource};

/// The finalizer that empties a namespace before it goes.
pub const FINALIZER: &str = "kubernetes";
/// The label by which selectors find a namespace by its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The row of Namespace.
pub(super) fn resource() -> Resource {
    let columns =
        vec![name_column(), column("Status", "string", "whether the namespace is active or ending"), age_column()];
    row(&kinds::NAMESPACE, columns, Namespace)
        .short_names(&["ns"])
        .subresources(&[Subresource::Status, Subresource::Finalize])
        .selectable(&["status.phase"])
}

struct Namespace;

impl Rules for Namespace {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, object: &mut Value) {
        let Some(metadata) = part_mut(object, "metadata") else { return };
        let name = metadata.text("name").to_owned();
        if name.is_empty() {
            return;
        }
        if let Some(labels) = map_mut(metadata, "labels") {
            labels.insert(NAME_LABEL.to_owned(), Value::from(name));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if !object.is_object() {
            return;
        }
        object["status"] = json!({"phase": "Active"});
        let Some(spec) = part_mut(object, "spec") else { return };
        let mut finalizers = spec.items("finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(Value::from(FINALIZER));
        }
        spec["finalizers"] = Value::Array(finalizers);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
        if let Some(spec) = part_mut(object, "spec") {
            carry_over(spec, &old["spec"], "finalizers");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        // Kubernetes names the list, not which of its items is wrong, where the namespace as a whole is written.
        for finalizer in object["spec"].items("finalizers") {
            validate_finalizer(finalizer, &Path::new("spec").child("finalizers"), errors);
        }
    }

    fn validate_part(&self, _part: Subresource, object: &Value, _old: &Value, errors: &mut Errors) {
        for (index, finalizer) in object["spec"].items("finalizers").iter().enumerate() {
            validate_finalizer(finalizer, &Path::new("spec").child("finalizers").index(index), errors);
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (phase, path) = (object["status"].text("phase"), Path::new("status").child("Phase"));
        let ending = old["metadata"].is_set("deletionTimestamp");
        if ending && phase != "Terminating" {
            errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        } else if !ending && phase != "Active" {
            errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), json!(object["status"].text("phase")), age::of(object, now)]
    }
}

/// N2.
fn validate_finalizer(finalizer: &Value, path: &Path, errors: &mut Errors) {
    let finalizer = finalizer.as_str().unwrap_or_default();
    named(name::label_key, finalizer, path, errors);
    if !finalizer.contains('/') && ![FINALIZER, "orphan", "foregroundDeletion"].contains(&finalizer) {
        errors.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

#[cfg(test)]
mod tests {
    use super::Namespace;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::json;

    #[test]
    fn n1_and_n2_a_new_namespace_can_be_found_and_emptied() {
        let mut namespace = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "b"}}, "status": {"phase": "Gone"}});
        Namespace.default(&mut namespace);
        Namespace.prepare_create(&mut namespace);
        assert_eq!(
            namespace,
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
        let mut emptied = json!({"metadata": {"name": "a"}, "spec": {"finalizers": []}});
        Namespace.prepare_update(&mut emptied, &namespace);
        assert_eq!((&emptied["spec"], &emptied["status"]), (&namespace["spec"], &namespace["status"]));
        let mut errors = Errors::new();
        Namespace.validate(&json!({"spec": {"finalizers": ["kubernetes", "a.b/c", "other"]}}), &mut errors);
        assert_eq!(errors.iter().map(|error| error.path.as_str()).collect::<Vec<_>>(), ["spec.finalizers"]);
        assert!(!Namespace.name_rule().errors("a.b").is_empty());
    }

    #[test]
    fn n3_the_phase_follows_the_deletion() {
        let check = |old: serde_json::Value, phase: &str, wrong: usize| {
            let mut errors = Errors::new();
            Namespace.validate_status(&json!({"status": {"phase": phase}}), &old, &mut errors);
            assert_eq!(errors.len(), wrong, "{old} {phase}");
        };
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        check(json!({"metadata": {}}), "Active", 0);
        check(json!({"metadata": {}}), "Terminating", 1);
        check(ending.clone(), "Terminating", 0);
        check(ending, "Active", 1);
    }
}
