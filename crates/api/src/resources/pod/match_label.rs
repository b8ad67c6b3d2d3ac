//! `matchLabelKeys` and `mismatchLabelKeys`: terms that follow the labels of the pod they stand in.
//!
//! Rules
//!   L1 keys     label keys, next to a selector that they add to; none is both
//!   L2 merged   a new pod's own values for them become part of its selectors, so that whoever places it need not look
//! Source: API reference, core/v1 PodAffinityTerm and TopologySpreadConstraint; KEP-3633, KEP-3243.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::check::named;
use super::super::tree::{Tree, items_mut};
use crate::field::{Errors, Path};
use crate::name;

/// L1, for a term or a constraint at `at`.
pub(super) fn validate(term: &Value, at: &Path, errors: &mut Errors) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, path) = (term.items(field), at.child(field));
        if !keys.is_empty() && !term.is_set("labelSelector") {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            named(name::label_key, key.as_str().unwrap_or_default(), &path.index(index), errors);
        }
    }
    let keys = term.items("matchLabelKeys");
    let selector = &term["labelSelector"];
    // The selector has what L2 merged into it by now; more of the same key than that is the author's own.
    let mut selected: BTreeSet<&str> = selector.entries("matchLabels").keys().map(String::as_str).collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        let twice = !selected.insert(key);
        if let Some(index) = keys.iter().rposition(|found| *found == key).filter(|_| twice) {
            errors.invalid(&at.index(index), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
    for (index, key) in keys.iter().enumerate().filter(|(_, key)| term.items("mismatchLabelKeys").contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&at.child("matchLabelKeys").index(index), key.clone(), detail);
    }
}

/// L2.
pub(super) fn merge(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        merge_into(constraint, &labels);
    }
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = affinity.get_mut(kind) else { continue };
        for term in items_mut(terms, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_into(term, &labels);
        }
        for preferred in items_mut(terms, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = preferred.get_mut("podAffinityTerm") {
                merge_into(term, &labels);
            }
        }
    }
}

fn merge_into(term: &mut Value, labels: &Value) {
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.items(field).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let selector = match term.get_mut("labelSelector") {
        Some(selector) if selector.is_object() && !added.is_empty() => selector,
        _ => return,
    };
    let mut expressions = selector.items("matchExpressions").to_vec();
    expressions.append(&mut added);
    selector["matchExpressions"] = Value::Array(expressions);
}

#[cfg(test)]
mod tests {
    use super::{merge, validate};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(term: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(&term, &Path::new("t"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn l1_keys_add_to_a_selector() {
        check(json!({"matchLabelKeys": ["a"], "mismatchLabelKeys": ["b"], "labelSelector": {}}), &[]);
        check(
            json!({"matchLabelKeys": ["a"]}),
            &["t.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"],
        );
        check(
            json!({"matchLabelKeys": ["a b", "c"], "mismatchLabelKeys": ["c"], "labelSelector": {}}),
            &[
                "t.matchLabelKeys[0]: Invalid value: \"a b\": name part must consist",
                "t.matchLabelKeys[1]: Invalid value: \"c\": exists in both matchLabelKeys and mismatchLabelKeys",
            ],
        );
        let merged = json!({"key": "a", "operator": "In", "values": ["x"]});
        check(json!({"matchLabelKeys": ["a"], "labelSelector": {"matchExpressions": [merged]}}), &[]);
        check(
            json!({"matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "y"}, "matchExpressions": [merged]}}),
            &["t[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector"],
        );
    }

    #[test]
    fn l2_the_pods_own_labels_become_part_of_its_selectors() {
        let term = json!({"matchLabelKeys": ["hash", "none"], "mismatchLabelKeys": ["tenant"], "labelSelector": {"matchLabels": {"app": "web"}}});
        let mut pod = json!({"metadata": {"labels": {"hash": "h", "tenant": "t"}}, "spec": {
            "topologySpreadConstraints": [{"matchLabelKeys": ["hash"], "labelSelector": {}}, {"matchLabelKeys": ["hash"]}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}}});
        merge(&mut pod);
        let hash = json!({"key": "hash", "operator": "In", "values": ["h"]});
        let spread = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(spread[0]["labelSelector"], json!({"matchExpressions": [hash]}));
        assert_eq!(spread[1], json!({"matchLabelKeys": ["hash"]}));
        let terms = &pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(
            terms[0]["podAffinityTerm"]["labelSelector"],
            json!({"matchLabels": {"app": "web"},
                "matchExpressions": [hash, {"key": "tenant", "operator": "NotIn", "values": ["t"]}]})
        );
    }
}
