//! PodDisruptionBudget: how many pods of an application may be missing because somebody wants them away.
//!
//! Rules
//!   B1 one      either how many stay or how many may be missing
//!   B2 amount   a count or a share of at most all
//!   B3 words    selector and policy for unhealthy pods are well-formed
//! Not here      what an eviction does with it (apiserver: eviction) and who counts (its controller)
//! Source: API reference, policy/v1 PodDisruptionBudget.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::optional_word;
use super::tree::{Tree, carry_over};
use super::{age, age_column, amount, column, name_column, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};
use crate::selector::LabelSelector;

/// The row of PodDisruptionBudget.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Min Available", "string", "pods that must stay"),
        column("Max Unavailable", "string", "pods that may be missing"),
        column("Allowed Disruptions", "integer", "pods that may be evicted now"),
        age_column(),
    ];
    row(&kinds::POD_DISRUPTION_BUDGET, columns, PodDisruptionBudget)
        .needs_revision()
        .short_names(&["pdb"])
        .subresources(&[Subresource::Status])
        .counts_generations()
}

struct PodDisruptionBudget;

impl Rules for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Value) {
        workload::start_counting(object, &["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"]);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        if spec.is_set("minAvailable") && spec.is_set("maxUnavailable") {
            errors.invalid(&at, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
        }
        for field in ["minAvailable", "maxUnavailable"] {
            if spec.is_set(field) {
                amount::read_part(&spec[field], &at.child(field), errors);
            }
        }
        LabelSelector::from_json(&spec["selector"], &at.child("selector"), errors);
        optional_word(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], &at, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        workload::validate_not_negative(object, &counts, errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let shown = |field: &str| match &spec[field] {
            Value::String(share) => share.clone(),
            Value::Number(count) => count.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            json!(object["metadata"].text("name")),
            json!(shown("minAvailable")),
            json!(shown("maxUnavailable")),
            json!(object["status"].int("disruptionsAllowed").unwrap_or(0)),
            age::of(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::PodDisruptionBudget;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        PodDisruptionBudget.validate(&json!({"spec": spec}), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn b1_to_b3_a_budget_says_one_amount() {
        check(json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}), &[]);
        check(json!({"maxUnavailable": 0, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), &[]);
        check(
            json!({"minAvailable": 1, "maxUnavailable": "101%", "selector": {"matchLabels": {"a b": ""}}, "unhealthyPodEvictionPolicy": "Never"}),
            &[
                "spec: Invalid value",
                "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                "spec.selector.matchLabels: Invalid value: \"a b\"",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
        let mut errors = Errors::new();
        PodDisruptionBudget.validate_status(&json!({"status": {"disruptionsAllowed": -1}}), &json!({}), &mut errors);
        compare(&errors, &["status.disruptionsAllowed: Invalid value: -1"]);
    }

    #[test]
    fn the_printed_row() {
        let budget =
            json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(Value::from(PodDisruptionBudget.cells(&budget, now)), json!(["b", "50%", "N/A", 2, "<unknown>"]));
    }
}
