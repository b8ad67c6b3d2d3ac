//! Placement: what a pod says about where it may run.
//!
//! Source: API reference, core/v1 Affinity, Toleration, TopologySpreadConstraint.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::check::{named, optional_word, required_word};
use super::super::tree::Tree;
use super::match_label;
use crate::field::{Errors, Path};
use crate::name;
use crate::selector::LabelSelector;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// Checks `schedulingGates`.
pub(super) fn validate_gates(spec: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, gate) in spec.items("schedulingGates").iter().enumerate() {
        let (name, path) = (gate.text("name"), at.child("schedulingGates").index(index));
        named(name::label_key, name, &path, errors);
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
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
        let (value, path_of_operator) = (toleration.text("value"), path.child("operator"));
        match operator {
            "" | "Equal" => joined(name::label_value, value, &path_of_operator, errors),
            "Exists" if !value.is_empty() => {
                errors.invalid(&path_of_operator, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            // Comparing numbers is not on in this version of the API, though it is known.
            "Lt" | "Gt" => errors.not_supported(&path_of_operator, operator, &["Equal", "Exists", "Lt", "Gt"]),
            _ => errors.not_supported(&path_of_operator, operator, &["Equal", "Exists"]),
        }
        optional_word(toleration, "effect", EFFECTS, &path, errors);
    }
}

/// Checks the taints of a node, which tolerations answer.
pub(in super::super) fn validate_taints(taints: &[Value], at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = at.index(index);
        named(name::label_key, taint.text("key"), &path.child("key"), errors);
        joined(name::label_value, taint.text("value"), &path.child("value"), errors);
        required_word(taint, "effect", EFFECTS, &path, errors);
        if !seen.insert((taint.text("key"), taint.text("effect"))) {
            errors.duplicate_because(&path, taint.clone(), "taints must be unique by key and effect pair");
        }
    }
}

/// A text that follows a naming rule; all that is wrong with it is one error.
fn joined(rule: fn(&str) -> Vec<String>, text: &str, path: &Path, errors: &mut Errors) {
    let reasons = rule(text);
    if !reasons.is_empty() {
        errors.invalid(path, text, &reasons.join(";"));
    }
}

/// Checks `affinity`.
pub(super) fn validate_affinity(spec: &Value, at: &Path, errors: &mut Errors) {
    let (affinity, at) = (&spec["affinity"], at.child("affinity"));
    let node = &affinity["nodeAffinity"];
    let path = at.child("nodeAffinity");
    if node.is_set(REQUIRED) {
        validate_node_selector(&node[REQUIRED], &path.child(REQUIRED), errors);
    }
    for (index, preferred) in node.items(PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        validate_weight(preferred, &path, errors);
        validate_node_term(&preferred["preference"], Labels::Any, &path.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (&affinity[kind], at.child(kind));
        for (index, term) in terms.items(REQUIRED).iter().enumerate() {
            validate_pod_term(term, &path.child(REQUIRED).index(index), errors);
        }
        for (index, term) in terms.items(PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
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
        validate_node_term(term, Labels::Valid, &path.index(index), errors);
    }
}

fn validate_weight(preferred: &Value, at: &Path, errors: &mut Errors) {
    let weight = preferred.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&at.child("weight"), weight, "must be in the range 1-100");
    }
}

/// What values a term may speak of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// Those that a label can have: another one would leave no node.
    Valid,
    /// Any: what is only preferred may be in vain.
    Any,
}

fn validate_node_term(term: &Value, labels: Labels, at: &Path, errors: &mut Errors) {
    for (index, expression) in term.items("matchExpressions").iter().enumerate() {
        let path = at.child("matchExpressions").index(index);
        validate_node_operator(expression, &path, errors);
        named(name::label_key, expression.text("key"), &path.child("key"), errors);
        for (index, value) in expression.items("values").iter().enumerate().filter(|_| labels == Labels::Valid) {
            let path = path.child("values").index(index);
            named(name::label_value, value.as_str().unwrap_or_default(), &path, errors);
        }
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
            continue;
        }
        for (index, value) in values.iter().enumerate() {
            let path = path.child("values").index(index);
            named(name::subdomain, value.as_str().unwrap_or_default(), &path, errors);
        }
    }
}

fn validate_node_operator(expression: &Value, at: &Path, errors: &mut Errors) {
    let (values, path) = (expression.items("values"), at.child("values"));
    match expression.text("operator") {
        "In" | "NotIn" if values.is_empty() => errors.required(&path, NEEDS_VALUES),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(&path, NO_VALUES),
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "Gt" | "Lt" => {}
        operator => errors.invalid(&at.child("operator"), operator, "not a valid selector operator"),
    }
}

fn validate_pod_term(term: &Value, at: &Path, errors: &mut Errors) {
    LabelSelector::from_json(&term["labelSelector"], &at.child("labelSelector"), errors);
    LabelSelector::from_json(&term["namespaceSelector"], &at.child("namespaceSelector"), errors);
    for namespace in term.items("namespaces") {
        named(name::label, namespace.as_str().unwrap_or_default(), &at.child("namespace"), errors);
    }
    match_label::validate(term, at, errors);
    let (key, path) = (term.text("topologyKey"), at.child("topologyKey"));
    if key.is_empty() {
        errors.required(&path, "can not be empty");
    }
    named(name::label_key, key, &path, errors);
}

/// Checks `topologySpreadConstraints`.
pub(super) fn validate_spread(spec: &Value, at: &Path, errors: &mut Errors) {
    const WHEN: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    let (constraints, at) = (spec.items("topologySpreadConstraints"), at.child("topologySpreadConstraints"));
    for (index, constraint) in constraints.iter().enumerate() {
        let path = at.index(index);
        validate_positive(constraint, "maxSkew", &path, errors);
        let (key, when) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !WHEN.contains(&when) {
            errors.not_supported(&path.child("whenUnsatisfiable"), when, WHEN);
        }
        let is_same = |other: &Value| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == when;
        if constraints[index + 1..].iter().any(is_same) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&path, json!(format!("{{{key}, {when}}}")));
        }
        if let Some(domains) = constraint.int("minDomains") {
            validate_positive(constraint, "minDomains", &path, errors);
            if when != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(&path.child("minDomains"), domains, &detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            optional_word(constraint, field, &["Honor", "Ignore"], &path, errors);
        }
        match_label::validate(constraint, &path, errors);
        LabelSelector::from_json(&constraint["labelSelector"], &path.child("labelSelector"), errors);
    }
}

fn validate_positive(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    let number = object.int(field).unwrap_or(0);
    if number <= 0 {
        errors.invalid(&at.child(field), number, "must be greater than zero");
    }
}

#[cfg(test)]
mod tests {
    use super::{validate_affinity, validate_gates, validate_spread, validate_taints, validate_tolerations};
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
        let at = Path::new("s");
        validate_affinity(&spec, &at, &mut errors);
        validate_gates(&spec, &at, &mut errors);
        validate_spread(&spec, &at, &mut errors);
        validate_tolerations(&spec, &at, &mut errors);
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
                {"key": "a", "tolerationSeconds": 5, "effect": "NoSchedule"}, {"key": "a", "operator": "In", "effect": "Never"},
                {"key": "a", "operator": "Gt", "value": "5"}]}),
            &[
                "s.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
                "s.tolerations[1].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
                "s.tolerations[2].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute'",
                "s.tolerations[3].operator: Unsupported value: \"In\"",
                "s.tolerations[3].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                "s.tolerations[4].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\"",
            ],
        );
        let mut errors = Errors::new();
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        validate_taints(&[taint.clone(), taint, json!({"key": "b"})], &Path::new("t"), &mut errors);
        let duplicate = "t[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair";
        compare(&errors, &[duplicate, "t[2].effect: Required value"]);
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
                "s.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
                "s.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty",
                "s.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist of",
            ],
        );
        check(
            node(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["N_1"]}]})),
            &[&format!("{at}.matchFields[0].values[0]: Invalid value: \"N_1\"")],
        );
        let vain = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["a b"]}]});
        check(
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": vain}]}}}),
            &[],
        );
        check(node(vain), &[&format!("{at}.matchExpressions[0].values[0]: Invalid value: \"a b\"")]);
    }

    #[test]
    fn spread_constraints_and_gates() {
        check(
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Later"}],
                "schedulingGates": [{"name": "a"}, {"name": "a"}]}),
            &[
                "s.schedulingGates[1]: Duplicate value: \"a\"",
                "s.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "s.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Later\"",
            ],
        );
        let twice = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
        let mut first = twice.clone();
        first["minDomains"] = json!(0);
        first["nodeTaintsPolicy"] = json!("Obey");
        check(
            json!({"topologySpreadConstraints": [first, twice]}),
            &[
                "s.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"",
                "s.topologySpreadConstraints[0].minDomains: Invalid value: 0: must be greater than zero",
                "s.topologySpreadConstraints[0].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule",
                "s.topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: \"Obey\": supported values: \"Honor\", \"Ignore\"",
            ],
        );
    }
}
