//! Whether an autoscaler's spec is one (rules H2 to H4 of `mod`).

use serde_json::Value;

use super::super::check::{named, optional_word, quantity, required_name};
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// The types of metrics, and the field that says more about each.
pub(super) const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// H2 to H4.
pub(super) fn validate(spec: &Value, errors: &mut Errors) {
    let at = Path::new("spec");
    let (least, most) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        errors.invalid(&at.child("minReplicas"), least, "must be greater than or equal to 1");
    }
    if most < 1 {
        errors.invalid(&at.child("maxReplicas"), most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        errors.invalid(&at.child("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
    }
    validate_reference(&spec["scaleTargetRef"], &at.child("scaleTargetRef"), errors);
    for (index, metric) in spec.items("metrics").iter().enumerate() {
        validate_metric(metric, &at.child("metrics").index(index), errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if rules.is_object() {
            validate_scaling(rules, &at.child("behavior").child(direction), errors);
        }
    }
}

/// H2.
fn validate_reference(reference: &Value, at: &Path, errors: &mut Errors) {
    required_name(reference, "kind", name::path_segment, at, errors);
    required_name(reference, "name", name::path_segment, at, errors);
    let version = reference.text("apiVersion");
    if version.matches('/').count() > 1 {
        errors.invalid(&at.child("apiVersion"), version, &format!("unexpected GroupVersion string: {version}"));
    }
}

/// H3.
fn validate_metric(metric: &Value, at: &Path, errors: &mut Errors) {
    let kind = metric.text("type");
    let known = SOURCES.map(|(kind, _)| kind);
    if kind.is_empty() {
        errors.required(&at.child("type"), "must specify a metric source type");
    }
    optional_word(metric, "type", &known, at, errors);
    let expected = SOURCES.iter().find(|(known, _)| *known == kind).map(|(_, field)| *field);
    let given: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.is_set(field)).collect();
    if let Some(field) = given.first() {
        validate_source(field, &metric[*field], &at.child(field), errors);
    }
    let Some(expected) = expected else { return };
    if !given.contains(&expected) {
        errors.required(&at.child(expected), "must populate information for the given metric source");
    }
    for other in given.into_iter().filter(|field| *field != expected) {
        errors.forbidden(&at.child(other), "must populate the given metric source only");
    }
}

fn validate_source(field: &str, source: &Value, at: &Path, errors: &mut Errors) {
    match field {
        "resource" | "containerResource" => {
            if source.text("name").is_empty() {
                errors.required(&at.child("name"), "must specify a resource name");
            }
            if field == "containerResource" && source.text("container").is_empty() {
                errors.required(&at.child("container"), "must specify a container");
            }
        }
        _ => {
            if field == "object" {
                validate_reference(&source["describedObject"], &at.child("describedObject"), errors);
            }
            validate_identifier(&source["metric"], &at.child("metric"), errors);
        }
    }
    let path = at.child("target");
    validate_target(&source["target"], &path, errors);
    validate_choice(field, &source["target"], &path, errors);
}

fn validate_identifier(metric: &Value, at: &Path, errors: &mut Errors) {
    match metric.text("name") {
        "" => errors.required(&at.child("name"), "must specify a metric name"),
        text => named(name::path_segment, text, &at.child("name"), errors),
    }
    if metric.is_set("selector") {
        LabelSelector::from_json(&metric["selector"], &at.child("selector"), errors);
    }
}

fn validate_target(target: &Value, at: &Path, errors: &mut Errors) {
    match target.text("type") {
        "" => errors.required(&at.child("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => errors.invalid(&at.child("type"), other, "must be either Utilization, Value, or AverageValue"),
    }
    for field in ["value", "averageValue"] {
        if target.is_set(field) && !is_positive(&target[field]) {
            errors.invalid(&at.child(field), target[field].clone(), "must be positive");
        }
    }
    if let Some(share) = target.int("averageUtilization").filter(|share| *share < 1) {
        errors.invalid(&at.child("averageUtilization"), share, "must be greater than 0");
    }
}

fn is_positive(amount: &Value) -> bool {
    Quantity::from_json(amount).is_ok_and(|amount| !amount.is_zero() && !amount.is_negative())
}

/// H3: which of its targets each source may have.
fn validate_choice(field: &str, target: &Value, at: &Path, errors: &mut Errors) {
    let average = at.child("averageValue");
    let is_set = |field: &str| target.is_set(field);
    match field {
        "pods" => {
            if !is_set("averageValue") || !is_positive(&target["averageValue"]) {
                errors.required(&average, "must specify a positive target averageValue");
            }
        }
        "object" => match (is_set("value"), is_set("averageValue")) {
            (false, false) => errors.required(&average, "must set either a target value or averageValue"),
            (true, true) => errors.forbidden(&average, "may not set both a target value and averageValue"),
            _ => {}
        },
        "external" => match (is_set("value"), is_set("averageValue")) {
            (false, false) => {
                errors.required(&average, "must set either a target value for metric or a per-pod target");
            }
            (true, true) => {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.forbidden(&at.child("value"), detail);
            }
            _ => {}
        },
        _ => match (is_set("averageUtilization"), is_set("averageValue")) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.required(&at.child("averageUtilization"), detail);
            }
            (true, true) => errors.forbidden(&average, "may not set both a target raw value and a target utilization"),
            _ => {}
        },
    }
}

/// H4.
fn validate_scaling(rules: &Value, at: &Path, errors: &mut Errors) {
    if let Some(seconds) = rules.int("stabilizationWindowSeconds") {
        let path = at.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&path, seconds, "must be greater than or equal to zero");
        } else if seconds > WINDOW_SECONDS_MAX {
            errors.invalid(&path, seconds, &format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
        }
    }
    if rules.is_set("selectPolicy") {
        let (word, words) = (rules.text("selectPolicy"), ["Disabled", "Max", "Min"]);
        if !words.contains(&word) {
            errors.not_supported(&at.child("selectPolicy"), word, &words);
        }
    }
    if rules.items("policies").is_empty() {
        errors.required(&at.child("policies"), "must specify at least one Policy");
    }
    for (index, policy) in rules.items("policies").iter().enumerate() {
        validate_policy(policy, &at.child("policies").index(index), errors);
    }
    if rules.is_set("tolerance") {
        quantity(&rules["tolerance"], &at.child("tolerance"), errors);
    }
}

fn validate_policy(policy: &Value, at: &Path, errors: &mut Errors) {
    let (word, words) = (policy.text("type"), ["Percent", "Pods"]);
    if !words.contains(&word) {
        errors.not_supported(&at.child("type"), word, &words);
    }
    for field in ["value", "periodSeconds"] {
        let number = policy.int(field).unwrap_or(0);
        if number <= 0 {
            errors.invalid(&at.child(field), number, "must be greater than zero");
        }
    }
    if let Some(seconds) = policy.int("periodSeconds").filter(|seconds| *seconds > PERIOD_SECONDS_MAX) {
        let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
        errors.invalid(&at.child("periodSeconds"), seconds, &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::validate;
    use crate::field::Errors;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(mut spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        for (field, value) in
            [("maxReplicas", json!(3)), ("scaleTargetRef", json!({"kind": "Deployment", "name": "d"}))]
        {
            if spec.get(field).is_none() {
                spec[field] = value;
            }
        }
        validate(&spec, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn h2_the_target_and_its_bounds() {
        check(json!({}), &[]);
        check(
            json!({"minReplicas": 0, "maxReplicas": -1, "scaleTargetRef": {"kind": "a/b", "apiVersion": "a/b/c"}}),
            &[
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.maxReplicas: Invalid value: -1: must be greater than 0",
                "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.kind: Invalid value: \"a/b\"",
                "spec.scaleTargetRef.name: Required value",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            ],
        );
    }

    #[test]
    fn h3_a_metric_says_one_source_and_one_target() {
        let metric = |metric: Value, expected: &[&str]| check(json!({"metrics": [metric]}), expected);
        metric(
            json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                "metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}}),
            &[],
        );
        metric(json!({}), &["spec.metrics[0].type: Required value: must specify a metric source type"]);
        metric(
            json!({"type": "Pod"}),
            &[
                "spec.metrics[0].type: Unsupported value: \"Pod\": supported values: \"ContainerResource\", \"External\"",
            ],
        );
        metric(
            json!({"type": "Pods", "resource": {"name": "cpu", "target": {"type": "Share", "averageUtilization": 0}}}),
            &[
                "spec.metrics[0].resource.target.type: Invalid value: \"Share\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                "spec.metrics[0].resource: Forbidden: must populate the given metric source only",
            ],
        );
        metric(
            json!({"type": "ContainerResource", "containerResource": {"target": {"type": "Utilization"}}}),
            &[
                "spec.metrics[0].containerResource.name: Required value: must specify a resource name",
                "spec.metrics[0].containerResource.container: Required value: must specify a container",
                "spec.metrics[0].containerResource.target.averageUtilization: Required value: must set either",
            ],
        );
        metric(
            json!({"type": "External", "external": {"metric": {},
                "target": {"type": "Value", "value": "0", "averageValue": "1"}}}),
            &[
                "spec.metrics[0].external.metric.name: Required value: must specify a metric name",
                "spec.metrics[0].external.target.value: Invalid value: \"0\": must be positive",
                "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric",
            ],
        );
        metric(
            json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue"}}}),
            &["spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue"],
        );
    }

    #[test]
    fn h4_policies_stay_within_their_bounds() {
        let policy = json!({"type": "Pods", "value": 1, "periodSeconds": 1800});
        check(json!({"behavior": {"scaleUp": {"policies": [policy], "tolerance": "0.1"}}}), &[]);
        check(
            json!({"behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Any", "tolerance": "-1"},
                "scaleDown": {"stabilizationWindowSeconds": -1,
                    "policies": [{"type": "Node", "value": 0, "periodSeconds": 1801}]}}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Any\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
                "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
                "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Node\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        );
    }
}
