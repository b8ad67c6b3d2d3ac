//! ControllerRevision: what a StatefulSet or DaemonSet was at one time, to go back to.
//!
//! Rules
//!   R1 data       there, and never changes
//!   R2 revision   not negative
//! Source: API reference, apps/v1 ControllerRevision.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::not_negative;
use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of ControllerRevision.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Controller", "string", "whose revision it is"),
        column("Revision", "string", "its number"),
        age_column(),
    ];
    row(&kinds::CONTROLLER_REVISION, columns, ControllerRevision)
}

struct ControllerRevision;

impl Rules for ControllerRevision {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        if !object.is_set("data") {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        not_negative(object, "revision", &Path::root(), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object["data"] != old["data"] {
            errors.immutable(&Path::new("data"), object["data"].clone());
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            json!(object["metadata"].text("name")),
            json!(controller(object)),
            json!(object.int("revision").unwrap_or(0)),
            age::of(object, now),
        ]
    }
}

/// `statefulset.apps/web`.
fn controller(object: &Value) -> String {
    let owners = object["metadata"].items("ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner.flag("controller")) else { return "<none>".to_owned() };
    let kind = owner.text("kind").to_lowercase();
    match owner.text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", owner.text("name")),
        None => format!("{kind}/{}", owner.text("name")),
    }
}

#[cfg(test)]
mod tests {
    use super::ControllerRevision;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    #[test]
    fn r1_and_r2_a_revision_stays_what_it_was() {
        let mut errors = Errors::new();
        ControllerRevision.validate(&json!({"revision": -1}), &mut errors);
        compare(&errors, &["data: Required value: data is mandatory", "revision: Invalid value: -1"]);
        let mut errors = Errors::new();
        ControllerRevision.validate_update(&json!({"data": {"a": 1}}), &json!({"data": {"a": 2}}), &mut errors);
        compare(&errors, &["data: Invalid value: {\"a\":1}: field is immutable"]);
    }

    #[test]
    fn the_printed_row() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true});
        let revision = json!({"metadata": {"name": "web-1", "ownerReferences": [owner]}, "revision": 3});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            Value::from(ControllerRevision.cells(&revision, now)),
            json!(["web-1", "statefulset.apps/web", 3, "<unknown>"])
        );
        assert_eq!(ControllerRevision.cells(&json!({}), now)[1], "<none>");
    }
}
