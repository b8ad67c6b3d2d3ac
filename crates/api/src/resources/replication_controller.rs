//! ReplicationController: a number of equal pods, from before there were ReplicaSets.
//!
//! Rules
//!   R1 selector   plain labels; those of the template unless said; the template's pods have them
//!   R2 template   a valid pod that is restarted whenever it ends
//! Source: API reference, core/v1 ReplicationController.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{Tree, carry_over, part_mut};
use super::{age, age_column, column, label_selector, name_column, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};
use crate::selector::LabelSelector;

/// The row of ReplicationController.
pub(super) fn resource() -> Resource {
    let columns = workload::columns_selected(vec![
        name_column(),
        column("Desired", "integer", "pods wanted"),
        column("Current", "integer", "pods that exist"),
        column("Ready", "integer", "pods that are ready"),
        age_column(),
    ]);
    row(&kinds::REPLICATION_CONTROLLER, columns, ReplicationController)
        .short_names(&["rc"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Scale])
        .selectable(&["status.replicas"])
        .counts_generations()
}

/// The counts in a status; none is more than the first.
const COUNTS: &[&str] = &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

struct ReplicationController;

impl Rules for ReplicationController {
    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"].entries("labels").clone();
        if !labels.is_empty() {
            for part in ["metadata", "spec"] {
                let field = if part == "spec" { "selector" } else { "labels" };
                if let Some(part) = part_mut(object, part).filter(|part| part.entries(field).is_empty()) {
                    part[field] = Value::Object(labels.clone());
                }
            }
        }
        if let Some(spec) = part_mut(object, "spec") {
            workload::fill_spec(spec);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        workload::start_counting(object, &["replicas"]);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        workload::validate_replicas(spec, errors);
        let labels = spec.entries("selector");
        if labels.is_empty() {
            errors.required(&at.child("selector"), "");
        } else {
            let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
            let selector = LabelSelector::from_labels(labels);
            workload::validate_selected(&selector, &spec["template"], &at.child("template"), errors);
        }
        let path = at.child("template");
        workload::validate_lasting_template(&spec["template"], "ReplicationController", &path, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_counts(object, COUNTS, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old, true)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let own = vec![
            json!(object["metadata"].text("name")),
            json!(spec.int("replicas").unwrap_or(0)),
            json!(status.int("replicas").unwrap_or(0)),
            json!(status.int("readyReplicas").unwrap_or(0)),
            age::of(object, now),
        ];
        workload::cells_selected(own, spec, label_selector::shown_labels(spec.entries("selector")))
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicationController;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut controller = json!({"metadata": {"name": "r"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        ReplicationController.default(&mut controller);
        controller
    }

    #[test]
    fn r1_the_selector_is_the_templates_labels() {
        let controller = good();
        assert_eq!(controller["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!((&controller["spec"]["selector"], &controller["spec"]["replicas"]), (&json!({"a": "b"}), &json!(1)));
        let check = |selector: Value, expected: &[&str]| {
            let mut controller = good();
            controller["spec"]["selector"] = selector;
            let mut errors = Errors::new();
            ReplicationController.validate(&controller, &mut errors);
            compare(&errors, expected);
        };
        check(json!({"a": "b"}), &[]);
        check(json!({}), &["spec.selector: Required value"]);
        check(
            json!({"a": "c"}),
            &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match"],
        );
    }

    #[test]
    fn r2_pods_are_restarted() {
        let mut controller = good();
        controller["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
        controller["spec"]["template"]["spec"]["activeDeadlineSeconds"] = json!(1);
        let mut errors = Errors::new();
        ReplicationController.validate(&controller, &mut errors);
        compare(
            &errors,
            &[
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let mut controller = good();
        controller["status"] = json!({"replicas": 2, "readyReplicas": 1});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            Value::from(ReplicationController.cells(&controller, now)),
            json!(["r", 1, 2, 1, "<unknown>", "c", "i:1", "a=b"])
        );
    }
}
