//! StorageVersionMigration: that objects of a resource are to be written again, in the version that is stored now.
//!
//! Rules
//!   R1 resource    it says which resource is meant, and never another
//!   R2 revision    the revision that the migration began at is a number, set once
//!   R3 conditions  of running, succeeded and failed at most one holds; what has ended does not begin again
//! Source: API reference, storagemigration.k8s.io/v1 StorageVersionMigration; KEP-4192.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::conditions;
use super::tree::{Tree, carry_over, remove};
use super::{column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of StorageVersionMigration.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Resource", "string", "whose objects are written again")];
    row(&kinds::STORAGE_VERSION_MIGRATION, columns, StorageVersionMigration)
        .needs_revision()
        .subresources(&[Subresource::Status])
}

struct StorageVersionMigration;

impl Rules for StorageVersionMigration {
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        if object["spec"]["resource"].text("resource").is_empty() {
            errors.required(&Path::new("spec").child("resource").child("resource"), "resource is required");
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (now, before) = (&object["spec"]["resource"], &old["spec"]["resource"]);
        for field in ["group", "resource"] {
            if now.text(field) != before.text(field) {
                errors.immutable(&Path::new("spec").child("resource").child(field), now.text(field));
            }
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (status, at) = (&object["status"], Path::new("status"));
        validate_revision(status, &old["status"], &at.child("resourceVersion"), errors);
        let path = at.child("conditions");
        conditions(status.items("conditions"), &path, errors);
        let shown = || status["conditions"].clone();
        let holds = |kind: &str| is_true(status, kind);
        for (one, other, why) in [
            ("Succeeded", "Failed", "Both success and failed conditions cannot be true at the same time"),
            ("Succeeded", "Running", "Running condition cannot be true when success condition is true"),
            ("Failed", "Running", "Running condition cannot be true when failed condition is true"),
        ] {
            if holds(one) && holds(other) {
                errors.invalid(&path, shown(), why);
            }
        }
        for (kind, why) in [
            ("Succeeded", "Success condition cannot be set to false once it is true"),
            ("Failed", "Failed condition cannot be set to false once it is true"),
        ] {
            if is_true(&old["status"], kind) && !holds(kind) {
                errors.invalid(&path, shown(), why);
            }
        }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let resource = &object["spec"]["resource"];
        let (name, group) = (resource.text("resource"), resource.text("group"));
        let shown = if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") };
        vec![json!(object["metadata"].text("name")), json!(shown)]
    }
}

/// R2.
fn validate_revision(status: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let (now, before) = (status.text("resourceVersion"), before.text("resourceVersion"));
    match now.parse::<i64>() {
        _ if now.is_empty() => {}
        Ok(0..) => {}
        Ok(_) => errors.invalid(at, now, "must be greater than or equal to 0"),
        Err(error) => errors.invalid(at, now, &format!("failed to parse resource version {now:?}: {error}")),
    }
    if !before.is_empty() && now != before {
        errors.invalid(at, now, "cannot be updated");
    }
}

fn is_true(status: &Value, kind: &str) -> bool {
    status.items("conditions").iter().any(|found| found.text("type") == kind && found.text("status") == "True")
}

#[cfg(test)]
mod tests {
    use super::StorageVersionMigration;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::check;
    use serde_json::{Value, json};

    fn status(revision: &str, conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({"status": {"resourceVersion": revision, "conditions": conditions}})
    }

    fn changed(object: &Value, old: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        StorageVersionMigration.validate_status(object, old, &mut errors);
        errors.iter().map(|error| error.to_string().replace(&object["status"]["conditions"].to_string(), "…")).collect()
    }

    #[test]
    fn r1_it_says_which_resource_and_never_another() {
        check(
            &StorageVersionMigration,
            json!({"spec": {}}),
            &["spec.resource.resource: Required value: resource is required"],
        );
        let of = |group: &str, resource: &str| json!({"spec": {"resource": {"group": group, "resource": resource}}});
        check(&StorageVersionMigration, of("", "secrets"), &[]);
        let mut errors = Errors::new();
        StorageVersionMigration.validate_update(&of("apps", "deployments"), &of("", "secrets"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.resource.group: Invalid value: \"apps\": field is immutable",
                "spec.resource.resource: Invalid value: \"deployments\": field is immutable"
            ]
        );
    }

    #[test]
    fn r2_the_revision_is_set_once() {
        assert!(changed(&status("7", &[]), &status("", &[])).is_empty());
        assert_eq!(
            changed(&status("8", &[]), &status("7", &[])),
            ["status.resourceVersion: Invalid value: \"8\": cannot be updated"]
        );
        assert_eq!(changed(&status("-1", &[]), &status("", &[])).len(), 1);
        assert_eq!(changed(&status("x", &[]), &status("", &[])).len(), 1);
    }

    #[test]
    fn r3_what_has_ended_does_not_run() {
        let (running, done) = (("Running", "True"), ("Succeeded", "True"));
        assert!(changed(&status("", &[("Running", "False"), done]), &status("", &[running])).is_empty());
        assert_eq!(changed(&status("", &[running, done]), &status("", &[])).len(), 1);
        assert_eq!(changed(&status("", &[done, ("Failed", "True")]), &status("", &[])).len(), 1);
        assert_eq!(changed(&status("", &[("Succeeded", "False")]), &status("", &[done])).len(), 1);
    }
}
