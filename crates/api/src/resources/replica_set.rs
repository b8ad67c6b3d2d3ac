//! ReplicaSet: a number of equal pods. Its rules are those of every workload.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{Tree, carry_over, part_mut};
use super::{age, age_column, column, label_selector, name_column, row, workload};
use crate::field::Errors;
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of ReplicaSet.
pub(super) fn resource() -> Resource {
    let columns = workload::columns_selected(vec![
        name_column(),
        column("Desired", "integer", "pods wanted"),
        column("Current", "integer", "pods that exist"),
        column("Ready", "integer", "pods that are ready"),
        age_column(),
    ]);
    row(&kinds::REPLICA_SET, columns, ReplicaSet)
        .short_names(&["rs"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Scale])
        .counts_generations()
}

/// The counts in a status; none is more than the first.
const COUNTS: &[&str] = &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

struct ReplicaSet;

impl Rules for ReplicaSet {
    fn default(&self, object: &mut Value) {
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
        workload::validate_replicas(&object["spec"], errors);
        // The words are Kubernetes' own.
        workload::validate_pods(&object["spec"], ("deployment", "ReplicaSet"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_update(object, old, errors);
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
        workload::cells_selected(own, spec, label_selector::shown(&spec["selector"]))
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicaSet;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::json;

    #[test]
    fn a_small_set_is_filled_in_and_breaks_no_rule() {
        let mut set = json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}}});
        ReplicaSet.default(&mut set);
        ReplicaSet.prepare_create(&mut set);
        assert_eq!((&set["spec"]["replicas"], &set["status"]), (&json!(1), &json!({"replicas": 0})));
        assert_eq!(set["spec"].get("strategy"), None);
        let mut errors = Errors::new();
        ReplicaSet.validate(&set, &mut errors);
        assert_eq!(errors.len(), 0);
        let mut bare = json!({});
        ReplicaSet.default(&mut bare);
        ReplicaSet.validate(&bare, &mut errors);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["spec.selector", "spec.template.spec.containers"]);
    }

    #[test]
    fn the_printed_row() {
        let set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"replicas": 2, "readyReplicas": 1}});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            ReplicaSet.cells(&set, now),
            [json!("r"), json!(3), json!(2), json!(1), json!("<unknown>"), json!("c"), json!("i"), json!("a=b")]
        );
    }
}
