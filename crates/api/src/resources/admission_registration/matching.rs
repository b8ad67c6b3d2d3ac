//! Matching: which requests a webhook, a policy or a binding looks at.
//!
//! Rules
//!   M1 rules        operations, groups, versions and resources are named; `*` stands alone where it says all
//!   M2 selectors    of objects and namespaces are well formed
//!   M3 conditions   at most 64, each with a name of its own and an expression
//! Source: API reference, admissionregistration.k8s.io/v1 RuleWithOperations, MatchResources, MatchCondition.

use serde_json::{Value, json};

use super::super::check::{named, optional_word};
use super::super::tree::{Tree, fill, fill_text, items_mut};
use super::validate_expression;
use crate::field::{Errors, Path};
use crate::name;
use crate::selector::LabelSelector;

/// Conditions of one webhook or policy.
pub(super) const CONDITIONS_MAX: usize = 64;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Fills in how requests are matched: by equivalent rules, in all namespaces, all objects.
pub(super) fn fill_matching(matching: &mut Value) {
    fill_text(matching, "matchPolicy", "Equivalent");
    fill(matching, "namespaceSelector", json!({}));
    fill(matching, "objectSelector", json!({}));
    for rules in ["rules", "resourceRules", "excludeResourceRules"] {
        items_mut(matching, rules).iter_mut().for_each(|rule| fill_text(rule, "scope", "*"));
    }
}

/// M2, and how rules are read.
pub(super) fn validate_selectors(matching: &Value, at: &Path, errors: &mut Errors) {
    optional_word(matching, "matchPolicy", &["Equivalent", "Exact"], at, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        if matching.is_set(field) {
            LabelSelector::from_json(&matching[field], &at.child(field), errors);
        }
    }
}

/// M1 and M2 of a policy or its binding.
pub(super) fn validate_resources(matching: &Value, at: &Path, errors: &mut Errors) {
    validate_selectors(matching, at, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in matching.items(field).iter().enumerate() {
            let at = at.child(field).index(index);
            validate_rule(rule, &at, errors);
            let names = rule.items("resourceNames");
            for (index, found) in names.iter().enumerate() {
                let path = at.child("resourceNames").index(index);
                named(name::path_segment, found.as_str().unwrap_or_default(), &path, errors);
                if names[..index].contains(found) {
                    errors.duplicate(&path, found.clone());
                }
            }
        }
    }
}

/// M1.
pub(super) fn validate_rule(rule: &Value, at: &Path, errors: &mut Errors) {
    validate_list(rule, "operations", "operations", at, errors);
    for (index, operation) in rule.items("operations").iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&at.child("operations").index(index), operation, &OPERATIONS);
        }
    }
    validate_list(rule, "apiGroups", "API groups", at, errors);
    validate_list(rule, "apiVersions", "API versions", at, errors);
    for field in ["apiVersions", "resources"] {
        for (index, _) in rule.items(field).iter().enumerate().filter(|(_, item)| **item == "") {
            errors.required(&at.child(field).index(index), "");
        }
    }
    validate_resource_names(rule.items("resources"), &at.child("resources"), errors);
    optional_word(rule, "scope", &["*", "Cluster", "Namespaced"], at, errors);
}

fn validate_list(rule: &Value, field: &str, plural: &str, at: &Path, errors: &mut Errors) {
    let (list, path) = (rule.items(field), at.child(field));
    if list.is_empty() {
        errors.required(&path, "");
    } else if list.len() > 1 && list.iter().any(|item| item == "*") {
        errors.invalid(&path, json!(list), &format!("if '*' is present, must not specify other {plural}"));
    }
}

/// M1: what a `*` already says is not said again.
fn validate_resource_names(resources: &[Value], at: &Path, errors: &mut Errors) {
    let names: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
    let has = |name: &str| names.contains(&name);
    if names.is_empty() {
        errors.required(at, "");
    }
    if names.len() > 1 && has("*/*") {
        errors.invalid(at, json!(names), "if '*/*' is present, must not specify other resources");
    }
    for (index, full) in names.iter().enumerate() {
        let path = at.index(index);
        match full.split_once('/') {
            Some((resource, sub)) if resource != "*" && has(&format!("*/{sub}")) => {
                errors.invalid(&path, *full, &format!("if '*/{sub}' is present, must not specify {full}"));
            }
            Some((resource, sub)) if sub != "*" && has(&format!("{resource}/*")) => {
                errors.invalid(&path, *full, &format!("if '{resource}/*' is present, must not specify {full}"));
            }
            None if *full != "*" && has("*") => {
                let detail = "if '*' is present, must not specify other resources without subresources";
                errors.invalid(at, json!(names), detail);
                return;
            }
            _ => {}
        }
    }
}

/// M3.
pub(super) fn validate_conditions(conditions: &[Value], at: &Path, errors: &mut Errors) {
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(at, conditions.len(), CONDITIONS_MAX);
        return;
    }
    for (index, condition) in conditions.iter().enumerate() {
        let at = at.index(index);
        let name = condition.text("name");
        validate_expression(condition, "expression", "", &at, errors);
        match name {
            "" => errors.required(&at.child("name"), ""),
            name => named(name::label_key, name, &at.child("name"), errors),
        }
        if !name.is_empty() && conditions[..index].iter().any(|before| before.text("name") == name) {
            errors.duplicate(&at.child("name"), name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{validate_conditions, validate_rule};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn compare(errors: &Errors, expected: &[&str]) {
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    fn check_rule(change: Value, expected: &[&str]) {
        let mut rule =
            json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        rule.as_object_mut().expect("a literal").extend(change.as_object().expect("a literal").clone());
        let mut errors = Errors::new();
        validate_rule(&rule, &Path::new("r"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn m1_rules_name_what_they_match_once() {
        check_rule(json!({}), &[]);
        check_rule(json!({"resources": ["*", "*/status"]}), &[]);
        check_rule(
            json!({"operations": [], "apiGroups": ["*", "a"], "apiVersions": [""], "resources": [], "scope": "World"}),
            &[
                "r.operations: Required value",
                "r.apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other API groups",
                "r.apiVersions[0]: Required value",
                "r.resources: Required value",
                "r.scope: Unsupported value: \"World\"",
            ],
        );
        check_rule(json!({"operations": ["MAKE"]}), &["r.operations[0]: Unsupported value: \"MAKE\""]);
        check_rule(json!({"resources": ["*/*", "x"]}), &["r.resources: Invalid value: [\"*/*\",\"x\"]: if '*/*'"]);
        check_rule(
            json!({"resources": ["*/a", "x/a"]}),
            &["r.resources[1]: Invalid value: \"x/a\": if '*/a' is present"],
        );
        check_rule(
            json!({"resources": ["x/*", "x/a"]}),
            &["r.resources[1]: Invalid value: \"x/a\": if 'x/*' is present"],
        );
        check_rule(json!({"resources": ["*", "x"]}), &["r.resources: Invalid value: [\"*\",\"x\"]: if '*' is present"]);
    }

    #[test]
    fn m3_conditions_have_names() {
        let mut errors = Errors::new();
        let conditions =
            json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}, {"expression": "x"}]);
        validate_conditions(conditions.as_array().expect("a literal"), &Path::new("c"), &mut errors);
        let expected =
            ["c[1].expression: Required value", "c[1].name: Duplicate value: \"a\"", "c[2].name: Required value"];
        compare(&errors, &expected);
        let many = vec![json!({}); 65];
        let mut errors = Errors::new();
        validate_conditions(&many, &Path::new("c"), &mut errors);
        compare(&errors, &["c: Too many: 65: must have at most 64 items"]);
    }
}
