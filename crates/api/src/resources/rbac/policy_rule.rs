//! PolicyRule: verbs on resources, or on paths that are no resource.
//!
//! Rules
//!   P1 verbs       every rule has some
//!   P2 paths       only in roles of the whole cluster, and never beside resources
//!   P3 resources   a rule about resources names their groups and the resources

use serde_json::Value;

use crate::field::{Errors, Path};
use crate::resources::tree::Tree;

/// Whether the role that holds a rule is one namespace's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Namespace,
    Cluster,
}

/// Adds an error for each broken rule of `role.rules`.
pub(super) fn validate_all(role: &Value, scope: Scope, errors: &mut Errors) {
    let path = Path::new("rules");
    for (index, rule) in role.items("rules").iter().enumerate() {
        validate(rule, scope, &path.index(index), errors);
    }
}

fn validate(rule: &Value, scope: Scope, at: &Path, errors: &mut Errors) {
    if rule.items("verbs").is_empty() {
        errors.required(&at.child("verbs"), "verbs must contain at least one value");
    }
    let has = |field: &str| !rule.items(field).is_empty();
    if has("nonResourceURLs") {
        let path = at.child("nonResourceURLs");
        if scope == Scope::Namespace {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(&path, rule["nonResourceURLs"].clone(), detail);
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path, rule["nonResourceURLs"].clone(), detail);
        }
        return;
    }
    if !has("apiGroups") {
        errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has("resources") {
        errors.required(&at.child("resources"), "resource rules must supply at least one resource");
    }
}

#[cfg(test)]
mod tests {
    use super::{Scope, validate_all};
    use crate::field::Errors;
    use serde_json::{Value, json};

    fn check(scope: Scope, rule: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate_all(&json!({"rules": [rule]}), scope, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{rule}");
    }

    #[test]
    fn p1_p3_a_rule_is_whole() {
        check(Scope::Namespace, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), &[]);
        check(
            Scope::Namespace,
            json!({}),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        );
    }

    #[test]
    fn p2_paths_are_the_clusters_and_stand_alone() {
        check(Scope::Cluster, json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}), &[]);
        check(
            Scope::Namespace,
            json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]}),
            &[
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and \
                 non-resource URLs",
            ],
        );
    }
}
