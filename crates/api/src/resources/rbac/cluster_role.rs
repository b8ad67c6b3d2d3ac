//! ClusterRole: rights in the whole cluster, or in whichever namespace a binding names.
//!
//! Rules
//!   C1 rules         see `policy_rule`
//!   C2 aggregation   a role made of others selects them by label, with at least one selector
//! Not here           what an aggregated role holds (controllers: `cluster_role`)

use jiff::Timestamp;
use serde_json::Value;

use super::policy_rule::{self, Scope};
use super::{role_cells, role_columns};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name::NameRule;
use crate::resource::{Resource, Rules};
use crate::resources::row;
use crate::resources::tree::Tree;
use crate::selector::LabelSelector;

/// The row of ClusterRole.
pub(in crate::resources) fn resource() -> Resource {
    row(&kinds::CLUSTER_ROLE, role_columns(), ClusterRole).created_by_update()
}

struct ClusterRole;

impl Rules for ClusterRole {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        policy_rule::validate_all(object, Scope::Cluster, errors);
        if object.is_set("aggregationRule") {
            validate_aggregation(&object["aggregationRule"], errors);
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        role_cells(object, now)
    }
}

/// C2.
fn validate_aggregation(rule: &Value, errors: &mut Errors) {
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    let selectors = rule.items("clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        LabelSelector::from_json(selector, &path.index(index), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::ClusterRole;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn check(aggregation: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        ClusterRole.validate(&json!({ "aggregationRule": aggregation }), &mut errors);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, expected, "{aggregation}");
    }

    #[test]
    fn c2_a_role_made_of_others_selects_them() {
        check(Value::Null, &[]);
        check(json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}), &[]);
        check(json!({}), &["aggregationRule.clusterRoleSelectors"]);
        check(
            json!({"clusterRoleSelectors": [{}, {"matchExpressions": [{"key": "a", "operator": "Is"}]}]}),
            &["aggregationRule.clusterRoleSelectors[1].matchExpressions[0].operator"],
        );
    }

    #[test]
    fn the_printed_row_shows_when_a_role_was_made() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let role = json!({"metadata": {"name": "a:b", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(ClusterRole.cells(&role, now), [json!("a:b"), json!("2026-01-01T00:00:00Z")]);
    }
}
