//! DaemonSet: one pod on each node that it chooses.
//!
//! Rules, beside those of every workload
//!   D1 update   pods are replaced when somebody deletes them, or rolling: some may be missing, or some may be doubled
//! Not here      the annotation that counted templates before there were revisions
//! Source: API reference, apps/v1 DaemonSet.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::amount::{self, Amount};
use super::check::not_negative;
use super::tree::{Tree, carry_over, fill, part_mut};
use super::{age, age_column, column, label_selector, name_column, pod, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of DaemonSet.
pub(super) fn resource() -> Resource {
    let columns = workload::columns_selected(vec![
        name_column(),
        column("Desired", "integer", "nodes that should run a pod"),
        column("Current", "integer", "nodes that run one and should"),
        column("Ready", "integer", "nodes with a ready pod"),
        column("Up-to-date", "integer", "nodes with a pod of the present template"),
        column("Available", "integer", "nodes with a pod that has been ready long enough"),
        column("Node Selector", "string", "the labels of the nodes that are chosen"),
        age_column(),
    ]);
    row(&kinds::DAEMON_SET, columns, DaemonSet)
        .short_names(&["ds"])
        .in_all()
        .subresources(&[Subresource::Status])
        .counts_generations()
}

const COUNTS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

struct DaemonSet;

impl Rules for DaemonSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = part_mut(object, "spec") else { return };
        if let Some(template) = part_mut(spec, "template") {
            pod::fill_template(template);
        }
        fill(spec, "revisionHistoryLimit", workload::HISTORY_DEFAULT);
        if let Some(rolling) = workload::fill_strategy(spec, "updateStrategy") {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        workload::start_counting(
            object,
            &["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"],
        );
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        workload::validate_pods(spec, ("daemonset", "DaemonSet"), errors);
        not_negative(spec, "minReadySeconds", &at, errors);
        validate_strategy(&spec["updateStrategy"], &at.child("updateStrategy"), errors);
        not_negative(spec, "revisionHistoryLimit", &at, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_update(object, old, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_not_negative(object, COUNTS, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old, false)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let count = |field: &str| json!(status.int(field).unwrap_or(0));
        let own = vec![
            json!(object["metadata"].text("name")),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            json!(label_selector::shown_labels(spec["template"]["spec"].entries("nodeSelector"))),
            age::of(object, now),
        ];
        workload::cells_selected(own, spec, label_selector::shown(&spec["selector"]))
    }
}

/// D1.
fn validate_strategy(strategy: &Value, at: &Path, errors: &mut Errors) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if strategy["rollingUpdate"].is_object() => {
            validate_rolling(&strategy["rollingUpdate"], &at.child("rollingUpdate"), errors);
        }
        "RollingUpdate" => errors.required(&at.child("rollingUpdate"), ""),
        other => errors.not_supported(&at.child("type"), other, &["RollingUpdate", "OnDelete"]),
    }
}

fn validate_rolling(rolling: &Value, at: &Path, errors: &mut Errors) {
    let (missing, doubled) = (at.child("maxUnavailable"), at.child("maxSurge"));
    let unavailable = amount::read_part(&rolling["maxUnavailable"], &missing, errors).map(Amount::is_zero);
    let surge = amount::read_part(&rolling["maxSurge"], &doubled, errors).map(Amount::is_zero);
    match (unavailable, surge) {
        (Some(false), Some(false)) => {
            errors.invalid(&doubled, rolling["maxSurge"].clone(), "may not be set when maxUnavailable is non-zero");
        }
        (Some(true), Some(true)) => errors.required(&missing, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::DaemonSet;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut set = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "i:1"}]}}}});
        DaemonSet.default(&mut set);
        set
    }

    fn check(strategy: Value, expected: &[&str]) {
        let mut set = good();
        set["spec"]["updateStrategy"] = strategy;
        let mut errors = Errors::new();
        DaemonSet.validate(&set, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn d1_an_update_can_move_and_takes_no_room_twice() {
        let rolling = |unavailable: Value, surge: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        assert_eq!(good()["spec"]["updateStrategy"], rolling(json!(1), json!(0)));
        assert_eq!(good()["spec"].get("replicas"), None);
        check(json!({"type": "OnDelete"}), &[]);
        check(rolling(json!("10%"), json!(0)), &[]);
        check(rolling(json!(0), json!("10%")), &[]);
        let at = "spec.updateStrategy.rollingUpdate";
        check(
            rolling(json!(0), json!(0)),
            &[&format!("{at}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0")],
        );
        check(
            rolling(json!(1), json!(1)),
            &[&format!("{at}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")],
        );
        check(rolling(json!(0), json!("101%")), &[&format!("{at}.maxSurge: Invalid value: \"101%\"")]);
        check(json!({"type": "RollingUpdate"}), &["spec.updateStrategy.rollingUpdate: Required value"]);
        check(json!({}), &["spec.updateStrategy.type: Unsupported value: \"\""]);
    }

    #[test]
    fn the_selector_never_changes() {
        let mut new = good();
        new["spec"]["selector"] = json!({"matchLabels": {"a": "c"}});
        let mut errors = Errors::new();
        DaemonSet.validate_update(&new, &good(), &mut errors);
        compare(&errors, &["spec.selector: Invalid value"]);
        new["status"] = json!({"numberReady": -1});
        let mut errors = Errors::new();
        DaemonSet.validate_status(&new, &good(), &mut errors);
        compare(&errors, &["status.numberReady: Invalid value: -1"]);
    }

    #[test]
    fn the_printed_row() {
        let mut set = good();
        set["status"] = json!({"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3,
            "updatedNumberScheduled": 2, "numberAvailable": 1});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            Value::from(DaemonSet.cells(&set, now)),
            json!(["d", 5, 4, 3, 2, 1, "disk=ssd", "<unknown>", "c", "i:1", "a=b"])
        );
    }
}
