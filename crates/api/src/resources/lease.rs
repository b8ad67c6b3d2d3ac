//! Lease: who holds something, and until when others must believe it.
//!
//! Source: API reference, coordination.k8s.io/v1 Lease.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::not_negative;
use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of Lease.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Holder", "string", "who holds the lease now"), age_column()];
    row(&kinds::LEASE, columns, Lease).created_by_update().needs_revision()
}

struct Lease;

impl Rules for Lease {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|&seconds| seconds <= 0) {
            errors.invalid(&at.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        not_negative(spec, "leaseTransitions", &at, errors);
        if spec.is_set("strategy") && spec.text("strategy").is_empty() {
            errors.invalid(&at.child("strategy"), "", "must not be empty");
        }
        if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
            errors.forbidden(&at.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = object["spec"].text("holderIdentity");
        vec![json!(object["metadata"].text("name")), json!(holder), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::Lease;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::json;

    #[test]
    fn a_lease_lasts() {
        let mut errors = Errors::new();
        Lease.validate(&json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 40}}), &mut errors);
        assert!(errors.is_empty());
        Lease.validate(
            &json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "b"}}),
            &mut errors,
        );
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["spec.leaseDurationSeconds", "spec.leaseTransitions", "spec.preferredHolder"]);
    }
}
