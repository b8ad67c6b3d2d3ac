//! Deployment: the pods of an application, and how they are replaced when it changes.
//!
//! Rules, beside those of every workload
//!   D1 strategy    Recreate, or RollingUpdate that may add or miss at least one pod
//!   D2 deadline    progress is waited for longer than a pod needs to count as available
//! Source: API reference, apps/v1 Deployment.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::amount::{self, Amount};
use super::check::not_negative;
use super::tree::{Tree, carry_over, fill, part_mut};
use super::{age, age_column, column, label_selector, name_column, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// Seconds without progress after which a rollout counts as failed.
const PROGRESS_SECONDS_DEFAULT: i64 = 600;
/// Pods that a rollout may add, and miss, at a time.
const ROLLING_SHARE_DEFAULT: &str = "25%";

/// The row of Deployment.
pub(super) fn resource() -> Resource {
    let columns = workload::columns_selected(vec![
        name_column(),
        column("Ready", "string", "ready pods of those wanted"),
        column("Up-to-date", "integer", "pods made from the present template"),
        column("Available", "integer", "pods that have been ready long enough"),
        age_column(),
    ]);
    row(&kinds::DEPLOYMENT, columns, Deployment)
        .short_names(&["deploy"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Scale])
        .counts_generations()
}

/// The counts in a status; none is more than the first.
const COUNTS: &[&str] = &["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];

struct Deployment;

impl Rules for Deployment {
    fn default(&self, object: &mut Value) {
        let Some(spec) = part_mut(object, "spec") else { return };
        workload::fill_spec(spec);
        fill(spec, "revisionHistoryLimit", workload::HISTORY_DEFAULT);
        fill(spec, "progressDeadlineSeconds", PROGRESS_SECONDS_DEFAULT);
        if let Some(rolling) = workload::fill_strategy(spec, "strategy") {
            fill(rolling, "maxUnavailable", ROLLING_SHARE_DEFAULT);
            fill(rolling, "maxSurge", ROLLING_SHARE_DEFAULT);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        workload::start(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        workload::validate_replicas(spec, errors);
        workload::validate_pods(spec, ("deployment", "ReplicaSet"), errors);
        validate_strategy(&spec["strategy"], &at.child("strategy"), errors);
        not_negative(spec, "revisionHistoryLimit", &at, errors);
        not_negative(spec, "progressDeadlineSeconds", &at, errors);
        if let Some(deadline) = spec.int("progressDeadlineSeconds")
            && deadline <= spec.int("minReadySeconds").unwrap_or(0)
        {
            errors.invalid(&at.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
        }
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
        let ready = format!("{}/{}", status.int("readyReplicas").unwrap_or(0), spec.int("replicas").unwrap_or(0));
        let own = vec![
            json!(object["metadata"].text("name")),
            json!(ready),
            json!(status.int("updatedReplicas").unwrap_or(0)),
            json!(status.int("availableReplicas").unwrap_or(0)),
            age::of(object, now),
        ];
        workload::cells_selected(own, spec, label_selector::shown(&spec["selector"]))
    }
}

/// D1.
fn validate_strategy(strategy: &Value, at: &Path, errors: &mut Errors) {
    let (rolling, path) = (&strategy["rollingUpdate"], at.child("rollingUpdate"));
    match strategy.text("type") {
        "Recreate" if rolling.is_object() => {
            errors.forbidden(&path, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => validate_rolling(rolling, &path, errors),
        other => errors.not_supported(&at.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_rolling(rolling: &Value, at: &Path, errors: &mut Errors) {
    let unavailable = amount::read_part(&rolling["maxUnavailable"], &at.child("maxUnavailable"), errors);
    let surge = amount::read(&rolling["maxSurge"], &at.child("maxSurge"), errors);
    if unavailable.is_some_and(Amount::is_zero) && surge.is_some_and(Amount::is_zero) {
        let found = rolling["maxUnavailable"].clone();
        errors.invalid(&at.child("maxUnavailable"), found, "may not be 0 when `maxSurge` is 0");
    }
}

#[cfg(test)]
mod tests {
    use super::Deployment;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}},
        });
        Deployment.default(&mut deployment);
        deployment
    }

    fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut deployment = good();
        change(&mut deployment["spec"]);
        let mut errors = Errors::new();
        Deployment.validate(&deployment, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn a_small_deployment_is_filled_in() {
        assert_eq!(
            good()["spec"],
            json!({
                "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                    "terminationGracePeriodSeconds": 30, "securityContext": {},
                    "containers": [{"name": "c", "image": "a:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}]}},
            })
        );
        let mut recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
        Deployment.default(&mut recreate);
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn w1_to_w3_what_every_workload_needs() {
        check(|_| {}, &[]);
        check(
            |spec| spec["replicas"] = json!(-1),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(|spec| spec["selector"] = json!(null), &["spec.selector: Required value"]);
        check(|spec| spec["selector"] = json!({}), &["spec.selector: Invalid value: {}: empty selector is invalid"]);
        check(
            |spec| spec["selector"] = json!({"matchLabels": {"app": "db"}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            |spec| {
                spec["template"]["spec"]["restartPolicy"] = json!("Never");
                spec["template"]["spec"]["activeDeadlineSeconds"] = json!(5);
                spec["template"]["spec"]["containers"][0]["image"] = json!("");
            },
            &[
                "spec.template.spec.containers[0].image: Required value",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden",
            ],
        );
    }

    #[test]
    fn d1_a_rollout_can_move() {
        let rolling = |unavailable: Value, surge: Value| {
            move |spec: &mut Value| {
                spec["strategy"]["rollingUpdate"] = json!({"maxUnavailable": unavailable, "maxSurge": surge})
            }
        };
        let at = "spec.strategy.rollingUpdate.maxUnavailable: Invalid value";
        check(rolling(json!(1), json!("0%")), &[]);
        check(rolling(json!(0), json!("150%")), &[]);
        check(rolling(json!(0), json!("0%")), &[&format!("{at}: 0: may not be 0 when `maxSurge` is 0")]);
        check(rolling(json!("101%"), json!(1)), &[&format!("{at}: \"101%\": must not be greater than 100%")]);
        check(rolling(json!("half"), json!(1)), &[&format!("{at}: \"half\": a valid percent string")]);
        check(rolling(json!(-1), json!(1)), &[&format!("{at}: -1: must be greater than or equal to 0")]);
        check(
            |spec| spec["strategy"]["type"] = json!("Recreate"),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        );
        check(|spec| spec["strategy"] = json!({"type": "Blue"}), &["spec.strategy.type: Unsupported value: \"Blue\""]);
    }

    #[test]
    fn d2_progress_takes_longer_than_readiness() {
        check(
            |spec| spec["minReadySeconds"] = json!(600),
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn the_selector_never_changes_and_status_is_not_written_beside_the_spec() {
        let mut new = good();
        new["spec"]["selector"] = json!({"matchLabels": {"app": "web", "tier": "front"}});
        new["status"] = json!({"replicas": 9});
        let mut old = good();
        Deployment.prepare_create(&mut old);
        assert_eq!(old["status"], json!({}));
        Deployment.prepare_update(&mut new, &old);
        assert_eq!(new["status"], json!({}));
        let mut errors = Errors::new();
        Deployment.validate_update(&new, &old, &mut errors);
        assert_eq!(errors.iter().map(|error| error.path.as_str()).collect::<Vec<_>>(), ["spec.selector"]);
    }

    #[test]
    fn a_status_counts_no_more_than_there_is() {
        let mut new = good();
        new["status"] = json!({"replicas": 2, "readyReplicas": 3, "availableReplicas": -1});
        let mut errors = Errors::new();
        Deployment.validate_status(&new, &good(), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas",
            ]
        );
    }

    #[test]
    fn the_printed_row() {
        let mut deployment = good();
        deployment["spec"]["template"]["spec"]["containers"] =
            json!([{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]);
        deployment["status"] = json!({"readyReplicas": 1, "updatedReplicas": 1});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            Deployment.cells(&deployment, now),
            [
                json!("web"),
                json!("1/1"),
                json!(1),
                json!(0),
                json!("<unknown>"),
                json!("a,b"),
                json!("x:1,y"),
                json!("app=web")
            ]
        );
    }
}
