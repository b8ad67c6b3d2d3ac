//! Placement: what a pod says about where it may run.
//!
//! Source: API reference, core/v1 Affinity, Toleration, TopologySpreadConstraint.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::check::{named, optional_word, required_name, required_word};
use super::super::metadata::validate_labels;
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;
use crate::selector::LabelSelector;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// Checks all that a pod spec says about its place.
pub(super) fn validate(spec: &Value, at: &Path, errors: &mut Errors) {
    validate_labels(spec.entries("nodeSelector"), &at.child("nodeSelector"), errors);
    validate_tolerations(spec, at, errors);
    if spec.is_set("affinity") {
        validate_affinity(&spec["affinity"], &at.child("affinity"), errors);
    }
    validate_spread(spec, &at.child("topologySpreadConstraints"), errors);
    let mut gates = BTreeSet::new();
    for (index, gate) in spec.items("schedulingGates").iter().enumerate() {
        let path = at.child("schedulingGates").index(index);
        named(name::label_key, gate.text("name"), &path.child("name"), errors);
        if !gates.insert(gate.text("name")) {
            errors.duplicate(&path, gate.text("name"));
        }
    }
    if !gates.is_empty() && !spec.text("nodeName").is_empty() {
        errors.forbidden(&at.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

/// Checks `tolerations`, of a pod or of what adds to one.
pub(in super::super) fn validate_tolerations(spec: &Value, at: &Path, errors: &mut Errors) {
    for (index, toleration) in spec.items("tolerations").iter().enumerate() {
        let path = at.child("tolerations").index(index);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        if !key.is_empty() {
            named(name::label_key, key, &path.child("key"), errors);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), operator, detail);
        }
        if toleration.is_set("tolerationSeconds") && toleration.text("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), toleration.text("effect"), detail);
        }
        match operator {
            "" | "Equal" => named(name::label_value, toleration.text("value"), &path.child("operator"), errors),
            "Exists" if !toleration.text("value").is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&path.child("operator"), toleration.clone(), detail);
            }
            _ => optional_word(toleration, "operator", &["Equal", "Exists"], &path, errors),
        }
        optional_word(toleration, "effect", EFFECTS, &path, errors);
    }
}

/// Checks the taints of a node, which tolerations answer.
pub(in super::super) fn validate_taints(taints: &[Value], at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = at.index(index);
        required_name(taint, "key", name::label_key, &path, errors);
        named(name::label_value, taint.text("value"), &path.child("value"), errors);
        required_word(taint, "effect", EFFECTS, &path, errors);
        if !seen.insert((taint.text("key"), taint.text("effect"))) {
            errors.duplicate(&path, taint.clone());
        }
    }
}

fn validate_affinity(affinity: &Value, at: &Path, errors: &mut Errors) {
    let node = &affinity["nodeAffinity"];
    let path = at.child("nodeAffinity");
    if node.is_set("requiredDuringSchedulingIgnoredDuringExecution") {
        let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        validate_node_selector(required, &path, errors);
    }
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, preferred) in node.items("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        let path = path.index(index);
        validate_weight(preferred, &path, errors);
        validate_node_term(&preferred["preference"], &path.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (&affinity[kind], at.child(kind));
        let required = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in terms.items("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            validate_pod_term(term, &required.index(index), errors);
        }
        let preferred = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in terms.items("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let path = preferred.index(index);
            validate_weight(term, &path, errors);
            validate_pod_term(&term["podAffinityTerm"], &path.child("podAffinityTerm"), errors);
        }
    }
}

/// Checks a NodeSelector: which nodes something can be on.
pub(in super::super) fn validate_node_selector(selector: &Value, at: &Path, errors: &mut Errors) {
    let (terms, path) = (selector.items("nodeSelectorTerms"), at.child("nodeSelectorTerms"));
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        validate_node_term(term, &path.index(index), errors);
    }
}

fn validate_weight(preferred: &Value, at: &Path, errors: &mut Errors) {
    let weight = preferred.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&at.child("weight"), weight, "must be in the range 1-100");
    }
}

fn validate_node_term(term: &Value, at: &Path, errors: &mut Errors) {
    for (index, expression) in term.items("matchExpressions").iter().enumerate() {
        let path = at.child("matchExpressions").index(index);
        named(name::label_key, expression.text("key"), &path.child("key"), errors);
        validate_node_operator(expression, &path, errors);
    }
    for (index, field) in term.items("matchFields").iter().enumerate() {
        let path = at.child("matchFields").index(index);
        let values = field.items("values");
        match field.text("operator") {
            "In" | "NotIn" if values.len() != 1 => {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&path.child("values"), detail);
            }
            "In" | "NotIn" => {}
            operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        if field.text("key") != "metadata.name" {
            errors.invalid(&path.child("key"), field.text("key"), "not a valid field selector key");
        }
    }
}

fn validate_node_operator(expression: &Value, at: &Path, errors: &mut Errors) {
    let values = expression.items("values");
    let path = at.child("values");
    match expression.text("operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.required(&path, NEEDS_VALUES);
            }
            for (index, value) in values.iter().enumerate() {
                named(name::label_value, value.as_str().unwrap_or_default(), &path.index(index), errors);
            }
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(&path, NO_VALUES),
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" => match values {
            [value] if value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()) => {}
            [value] => errors.invalid(&path.index(0), value.clone(), "must be an integer"),
            _ => errors.required(&path, "must be specified single value when `operator` is 'Lt' or 'Gt'"),
        },
        operator => errors.invalid(&at.child("operator"), operator, "not a valid selector operator"),
    }
}

fn validate_pod_term(term: &Value, at: &Path, errors: &mut Errors) {
    LabelSelector::from_json(&term["labelSelector"], &at.child("labelSelector"), errors);
    LabelSelector::from_json(&term["namespaceSelector"], &at.child("namespaceSelector"), errors);
    for (index, namespace) in term.items("namespaces").iter().enumerate() {
        named(name::label, namespace.as_str().unwrap_or_default(), &at.child("namespaces").index(index), errors);
    }
    validate_topology_key(term, at, errors);
}

fn validate_topology_key(term: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("topologyKey");
    match term.text("topologyKey") {
        "" => errors.required(&path, "can not be empty"),
        key => named(name::label_key, key, &path, errors),
    }
}

fn validate_spread(spec: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let path = at.index(index);
        let skew = constraint.int("maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        validate_topology_key(constraint, &path, errors);
        required_word(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], &path, errors);
        let (key, when) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if !seen.insert((key, when)) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&path, json!(format!("{{{key}, {when}}}")));
        }
        if let Some(domains) = constraint.int("minDomains") {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, "must be greater than 0");
            }
            if when != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(&path, domains, &detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            optional_word(constraint, field, &["Honor", "Ignore"], &path, errors);
        }
        LabelSelector::from_json(&constraint["labelSelector"], &path.child("labelSelector"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::{validate, validate_taints};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn compare(errors: &Errors, expected: &[&str]) {
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    fn check(spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(&spec, &Path::new("s"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn tolerations_can_match_taints() {
        check(
            json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]}),
            &[],
        );
        check(
            json!({"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "x"},
                {"key": "a", "tolerationSeconds": 5, "effect": "NoSchedule"}, {"key": "a", "operator": "In", "effect": "Never"}]}),
            &[
                "s.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
                "s.tolerations[1].operator: Invalid value",
                "s.tolerations[2].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute'",
                "s.tolerations[3].operator: Unsupported value: \"In\"",
                "s.tolerations[3].effect: Unsupported value: \"Never\"",
            ],
        );
        let mut errors = Errors::new();
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        validate_taints(&[taint.clone(), taint, json!({"key": "b"})], &Path::new("t"), &mut errors);
        compare(&errors, &["t[1]: Duplicate value", "t[2].effect: Required value"]);
    }

    #[test]
    fn affinity_terms_can_be_evaluated() {
        let node = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        check(node(json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["5"]}]})), &[]);
        let at = "s.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        check(
            node(json!({"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "b", "operator": "Is"}],
                "matchFields": [{"key": "spec.x", "operator": "In", "values": ["n"]}]})),
            &[
                &format!("{at}.matchExpressions[0].values: Required value"),
                &format!("{at}.matchExpressions[1].operator: Invalid value: \"Is\": not a valid selector operator"),
                &format!("{at}.matchFields[0].key: Invalid value: \"spec.x\""),
            ],
        );
        check(
            json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 101, "podAffinityTerm": {"labelSelector": {"matchLabels": {"a b": "c"}}}}]}}}),
            &[
                "s.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101",
                "s.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchLabels: Invalid value: \"a b\"",
                "s.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value",
            ],
        );
    }

    #[test]
    fn spread_constraints_and_gates() {
        check(
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Later"}],
                "schedulingGates": [{"name": "a"}, {"name": "a"}], "nodeName": "n"}),
            &[
                "s.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "s.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Later\"",
                "s.schedulingGates[1]: Duplicate value: \"a\"",
                "s.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            ],
        );
    }
}
