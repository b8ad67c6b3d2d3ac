//! StatefulSet: pods with names and volumes of their own, made and ended in order.
//!
//! Rules, beside those of every workload
//!   T1 order      pods come one after the other or all at once
//!   T2 update     by rolling, perhaps from a number upwards, or when somebody deletes pods
//!   T3 claims     are kept or deleted with what used them
//!   T4 constant   only counts, template, update, history, retention and numbering may change
//!   T5 name       a DNS label, because pods' host names begin with it; so is its service's
//! Source: API reference, apps/v1 StatefulSet.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{not_negative, optional_name, optional_word, required_text};
use super::same::same;
use super::tree::{Tree, carry_over, fill, fill_text, items_mut, part_mut};
use super::{age, age_column, amount, column, name_column, persistent_volume_claim, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name::{self, NameRule};
use crate::resource::{Resource, Rules, Subresource};

const MAY_CHANGE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const ONLY_THESE_CHANGE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                                 'minReadySeconds' are forbidden";

/// The row of StatefulSet.
pub(super) fn resource() -> Resource {
    let columns =
        workload::columns(vec![name_column(), column("Ready", "string", "ready pods of those wanted"), age_column()]);
    row(&kinds::STATEFUL_SET, columns, StatefulSet)
        .short_names(&["sts"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Scale])
        .counts_generations()
}

/// The counts in a status; none is more than the first.
const COUNTS: &[&str] = &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];

struct StatefulSet;

impl Rules for StatefulSet {
    /// T5.
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = part_mut(object, "spec") else { return };
        workload::fill_spec(spec);
        fill_text(spec, "podManagementPolicy", "OrderedReady");
        fill(spec, "revisionHistoryLimit", workload::HISTORY_DEFAULT);
        if let Some(retention) = part_mut(spec, "persistentVolumeClaimRetentionPolicy") {
            fill_text(retention, "whenDeleted", "Retain");
            fill_text(retention, "whenScaled", "Retain");
        }
        for claim in items_mut(spec, "volumeClaimTemplates") {
            fill_text(claim, "apiVersion", "v1");
            fill_text(claim, "kind", "PersistentVolumeClaim");
            persistent_volume_claim::fill_claim(claim);
        }
        if let Some(rolling) = workload::fill_strategy(spec, "updateStrategy") {
            fill(rolling, "partition", 0);
            fill(rolling, "maxUnavailable", 1);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        workload::start_counting(object, &["replicas", "availableReplicas"]);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_order(spec, &at, errors);
        validate_strategy(&spec["updateStrategy"], &at.child("updateStrategy"), errors);
        let (retention, path) =
            (&spec["persistentVolumeClaimRetentionPolicy"], at.child("persistentVolumeClaimRetentionPolicy"));
        for field in ["whenDeleted", "whenScaled"] {
            optional_word(retention, field, &["Retain", "Delete"], &path, errors);
        }
        workload::validate_replicas(spec, errors);
        not_negative(spec, "revisionHistoryLimit", &at, errors);
        not_negative(&spec["ordinals"], "start", &at.child("ordinals"), errors);
        workload::validate_pods(spec, ("statefulset", "StatefulSet"), errors);
        optional_name(spec, "serviceName", name::label, &at, errors);
    }

    /// T4.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let mut then = old["spec"].clone();
        for field in MAY_CHANGE {
            carry_over(&mut then, &object["spec"], field);
        }
        if !same(&object["spec"], &then) {
            errors.forbidden(&Path::new("spec"), ONLY_THESE_CHANGE);
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_counts(object, COUNTS, errors);
        workload::validate_not_negative(object, &["collisionCount"], errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old, false)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ready = format!("{}/{}", status.int("readyReplicas").unwrap_or(0), spec.int("replicas").unwrap_or(0));
        let own = vec![json!(object["metadata"].text("name")), json!(ready), age::of(object, now)];
        workload::cells(own, spec)
    }
}

/// T1.
fn validate_order(spec: &Value, at: &Path, errors: &mut Errors) {
    match spec.text("podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        "" => required_text(spec, "podManagementPolicy", at, errors),
        other => errors.invalid(&at.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
}

/// T2.
fn validate_strategy(strategy: &Value, at: &Path, errors: &mut Errors) {
    let (rolling, path) = (&strategy["rollingUpdate"], at.child("rollingUpdate"));
    match strategy.text("type") {
        "" => errors.required(at, ""),
        "OnDelete" if rolling.is_object() => {
            errors.invalid(&path, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            not_negative(rolling, "partition", &path, errors);
            if rolling.is_set("maxUnavailable") {
                let (given, path) = (&rolling["maxUnavailable"], path.child("maxUnavailable"));
                if amount::read_part(given, &path, errors).is_some_and(amount::Amount::is_zero) {
                    errors.invalid(&path, given.clone(), "cannot be 0");
                }
            }
        }
        _ => errors.invalid(at, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

#[cfg(test)]
mod tests {
    use super::StatefulSet;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut set = json!({"metadata": {"name": "db"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}});
        StatefulSet.default(&mut set);
        StatefulSet.prepare_create(&mut set);
        set
    }

    fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut set = good();
        change(&mut set["spec"]);
        let mut errors = Errors::new();
        StatefulSet.validate(&set, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn a_small_set_is_filled_in() {
        let spec = &good()["spec"];
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        let rolling = json!({"partition": 0, "maxUnavailable": 1});
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(
            spec["volumeClaimTemplates"],
            json!([{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}])
        );
    }

    #[test]
    fn t1_to_t3_words_are_known() {
        check(|_| {}, &[]);
        check(
            |spec| {
                spec["podManagementPolicy"] = json!("Sometimes");
                spec["updateStrategy"] = json!({"type": "Blue"});
                spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = json!("Keep");
                spec["ordinals"] = json!({"start": -1});
                spec["selector"] = json!({});
                spec["serviceName"] = json!("a.b");
            },
            &[
                "spec.podManagementPolicy: Invalid value: \"Sometimes\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy: Invalid value: {\"type\":\"Blue\"}: must be 'RollingUpdate' or 'OnDelete'",
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
                "spec.serviceName: Invalid value: \"a.b\"",
            ],
        );
        check(
            |spec| spec["updateStrategy"]["type"] = json!("OnDelete"),
            &["spec.updateStrategy.rollingUpdate: Invalid value"],
        );
        check(
            |spec| spec["updateStrategy"]["rollingUpdate"] = json!({"partition": -1, "maxUnavailable": "0%"}),
            &[
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
            ],
        );
        check(
            |spec| spec["template"]["spec"]["restartPolicy"] = json!("Never"),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\""],
        );
    }

    #[test]
    fn t4_the_rest_is_constant() {
        let update = |change: fn(&mut Value), expected: &[&str]| {
            let mut new = good();
            change(&mut new["spec"]);
            let mut errors = Errors::new();
            StatefulSet.validate_update(&new, &good(), &mut errors);
            compare(&errors, expected);
        };
        update(|spec| spec["replicas"] = json!(5), &[]);
        update(|spec| spec["template"]["metadata"]["labels"]["b"] = json!("c"), &[]);
        let refusal =
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'";
        update(|spec| spec["serviceName"] = json!("other"), &[refusal]);
        update(|spec| spec["volumeClaimTemplates"] = json!([]), &[refusal]);
    }

    #[test]
    fn t5_names_become_host_names() {
        assert!(!StatefulSet.name_rule().errors("a.b").is_empty());
    }

    #[test]
    fn the_printed_row() {
        let mut set = good();
        set["status"] = json!({"readyReplicas": 1});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(StatefulSet.cells(&set, now), ["db", "1/1", "<unknown>", "c", "a:1"].map(Value::from));
    }
}
