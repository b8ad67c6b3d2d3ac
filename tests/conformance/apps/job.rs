//! Job: its life while suspended, its status, and how it runs to its end.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::MERGE;
use crate::running::{UNTIL_TOLD, container};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn row(test: &Test) -> Walk {
    let mut template = pod::template("job");
    template["spec"]["restartPolicy"] = json!("Never");
    Walk::namespaced(test, "batch/v1", "jobs", json!({"spec": {"suspend": true, "template": template}}))
        .change(json!({"spec": {"parallelism": 2}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn a_suspended_job_lives(test: &Test) {
    let row = row(test);
    row.lives(test).await;
    row.collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

/// Creates a job whose pods run a script; `more` goes into its specification.
async fn start(test: &Test, name: &str, script: &str, more: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1, "containers": [container("main", script)]}});
    let mut spec = json!({"template": template});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    test.api.create(&jobs(test), &json!({"metadata": {"name": name}, "spec": spec})).await.ok()
}

fn jobs(test: &Test) -> String {
    test.path("batch/v1", "jobs")
}

/// The reason of a condition that holds.
fn reason(job: &Value, kind: &str) -> Option<String> {
    let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind && condition["status"] == "True")?;
    Some(found["reason"].as_str().unwrap_or_default().to_owned())
}

/// Waits for the end, which must be the good or the bad one.
async fn until_ended(test: &Test, name: &str, kind: &str) -> Value {
    let ended = |job: &Value| reason(job, "Complete").is_some() || reason(job, "Failed").is_some();
    let job = test.api.seen(&jobs(test), name, "ended", ended).await;
    assert!(reason(&job, kind).is_some(), "{:#}", job["status"]);
    job
}

async fn pods(test: &Test, name: &str) -> Vec<Value> {
    let listed = test.api.get(&format!("{}?labelSelector=job-name%3D{name}", test.path("v1", "pods"))).await.ok();
    listed["items"].as_array().cloned().unwrap_or_default()
}

async fn until_active(test: &Test, name: &str, count: u64) {
    let ready = |job: &Value| job["status"]["active"] == count && job["status"]["ready"] == count;
    test.api.seen(&jobs(test), name, "running", ready).await;
}

pub async fn tasks_that_fail_are_restarted(test: &Test) {
    let script = "if [ -e /data/once ]; then exit 0; fi; touch /data/once; exit 1";
    let mut restarted = container("main", script);
    restarted["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let spec = json!({"restartPolicy": "OnFailure", "containers": [restarted],
        "volumes": [{"name": "data", "emptyDir": {}}]});
    let more = json!({"parallelism": 2, "completions": 2, "template": {"spec": spec}});
    start(test, "restarted", "", more).await;
    let job = until_ended(test, "restarted", "Complete").await;
    assert_eq!(job["status"]["succeeded"], 2);
    let pods = pods(test, "restarted").await;
    assert!(pods.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1), "{pods:#?}");
}

pub async fn every_index_has_a_pod_of_its_own(test: &Test) {
    let script = "test \"$(hostname)\" = \"indexed-$JOB_COMPLETION_INDEX\"";
    let more = json!({"parallelism": 2, "completions": 4, "completionMode": "Indexed"});
    start(test, "indexed", script, more).await;
    let job = until_ended(test, "indexed", "Complete").await;
    assert_eq!((&job["status"]["succeeded"], &job["status"]["completedIndexes"]), (&json!(4), &json!("0-3")));
    let pods = pods(test, "indexed").await;
    let index = |pod: &Value| {
        pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().map(str::to_owned)
    };
    let found: BTreeSet<Option<String>> = pods.iter().map(index).collect();
    assert_eq!(found, ["0", "1", "2", "3"].map(|index| Some(index.to_owned())).into());
}

pub async fn a_deleted_job_takes_its_pods_along(test: &Test) {
    start(test, "deleted", UNTIL_TOLD, json!({"parallelism": 2, "completions": 4})).await;
    until_active(test, "deleted", 2).await;
    assert_eq!(pods(test, "deleted").await.len(), 2);
    let path = format!("{}/deleted", jobs(test));
    test.api.delete_with(&path, &json!({"propagationPolicy": "Foreground"})).await.ok();
    test.api.until_gone(&path).await;
    assert!(pods(test, "deleted").await.is_empty());
}

pub async fn orphans_are_adopted_and_strangers_released(test: &Test) {
    let job = start(test, "adopting", UNTIL_TOLD, json!({"parallelism": 2, "completions": 2})).await;
    until_active(test, "adopting", 2).await;
    let name = pods(test, "adopting").await[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let is_owned = |pod: &Value| {
        let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.into_iter().any(|owner| owner["uid"] == job["metadata"]["uid"])
    };
    test.api.patch(&test.pod(&name), MERGE, &json!({"metadata": {"ownerReferences": null}})).await.ok();
    test.until_pod(&name, "adopted", is_owned).await;
    test.api.patch(&test.pod(&name), MERGE, &json!({"metadata": {"labels": null}})).await.ok();
    test.until_pod(&name, "released", |pod| !is_owned(pod)).await;
}

fn failure_policy(rule: &Value) -> Value {
    json!({"rules": [rule]})
}

pub async fn an_exit_code_fails_the_job_early(test: &Test) {
    let rule = json!({"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}});
    let more =
        json!({"parallelism": 1, "completions": 2, "backoffLimit": 6, "podFailurePolicy": failure_policy(&rule)});
    start(test, "early", "exit 42", more).await;
    let job = until_ended(test, "early", "Failed").await;
    assert_eq!(reason(&job, "Failed").as_deref(), Some("PodFailurePolicy"));
    assert_eq!(job["status"]["failed"], 1);
}

pub async fn an_eviction_is_ignored(test: &Test) {
    let rule = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    // The second pod of an index finds what the first did not.
    let script = format!("if [ -e /marker/evicted ]; then exit 0; fi; {}", UNTIL_TOLD.replace("exit 0", "exit 1"));
    let mut main = container("main", &script);
    main["volumeMounts"] = json!([{"name": "marker", "mountPath": "/marker"}]);
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [main],
        "volumes": [{"name": "marker", "configMap": {"name": "evictions", "optional": true}}]});
    let more = json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": 0,
        "podFailurePolicy": failure_policy(&rule), "template": {"spec": spec}});
    start(test, "ignoring", "", more).await;
    until_active(test, "ignoring", 2).await;
    let marker = json!({"metadata": {"name": "evictions"}, "data": {"evicted": "yes"}});
    test.api.create(&test.path("v1", "configmaps"), &marker).await.ok();
    for pod in pods(test, "ignoring").await {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        test.api.create(&format!("{}/eviction", test.pod(name)), &eviction).await.ok();
    }
    let job = until_ended(test, "ignoring", "Complete").await;
    assert_eq!(job["status"]["succeeded"], 2);
    assert!(job["status"]["failed"].as_i64().unwrap_or(0) == 0, "{:#}", job["status"]);
}

/// An indexed job of four whose odd indexes fail.
async fn odd_ones_fail(test: &Test, name: &str, code: u32, more: Value) {
    let mut spec = json!({"parallelism": 4, "completions": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let script = format!("if [ $((JOB_COMPLETION_INDEX % 2)) = 1 ]; then exit {code}; fi");
    start(test, name, &script, spec).await;
}

pub async fn every_index_is_executed_despite_failures(test: &Test) {
    odd_ones_fail(test, "per-index", 1, json!({})).await;
    let job = until_ended(test, "per-index", "Failed").await;
    let status = &job["status"];
    assert_eq!(reason(&job, "Failed").as_deref(), Some("FailedIndexes"));
    assert_eq!((&status["completedIndexes"], &status["failedIndexes"]), (&json!("0,2"), &json!("1,3")));
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(2), &json!(4)));
}

pub async fn a_rule_fails_an_index_at_once(test: &Test) {
    let rule = json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}});
    odd_ones_fail(test, "fail-index", 42, json!({"podFailurePolicy": failure_policy(&rule)})).await;
    let job = until_ended(test, "fail-index", "Failed").await;
    let status = &job["status"];
    assert_eq!((&status["completedIndexes"], &status["failedIndexes"]), (&json!("0,2"), &json!("1,3")));
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(2), &json!(2)));
}

pub async fn too_many_failed_indexes_end_the_job(test: &Test) {
    let more = json!({"parallelism": 2, "completions": 10, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "maxFailedIndexes": 1});
    start(test, "max-failed", "exit 1", more).await;
    let job = until_ended(test, "max-failed", "Failed").await;
    assert_eq!(reason(&job, "Failed").as_deref(), Some("MaxFailedIndexesExceeded"));
    assert!(job["status"]["failed"].as_i64().is_some_and(|failed| failed < 10), "{:#}", job["status"]);
}

/// An indexed job that succeeds by a rule although only index 0 succeeds, or all do.
async fn succeeds_by(test: &Test, name: &str, rule: Value, others: &str) -> Value {
    let script = format!("if [ $JOB_COMPLETION_INDEX != 0 ]; then {others}; fi");
    let more = json!({"parallelism": 2, "completions": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [rule]}});
    start(test, name, &script, more).await;
    let job = until_ended(test, name, "Complete").await;
    assert_eq!(reason(&job, "SuccessCriteriaMet").as_deref(), Some("SuccessPolicy"));
    assert_eq!(reason(&job, "Complete").as_deref(), Some("SuccessPolicy"));
    assert!(job["status"]["active"].as_i64().unwrap_or(0) == 0, "{:#}", job["status"]);
    job
}

pub async fn all_indexes_succeed(test: &Test) {
    let job = succeeds_by(test, "all-succeed", json!({"succeededIndexes": "0-2"}), "exit 0").await;
    assert_eq!(job["status"]["completedIndexes"], "0-2");
}

pub async fn enough_indexes_succeed(test: &Test) {
    let job = succeeds_by(test, "enough-succeed", json!({"succeededCount": 1}), UNTIL_TOLD).await;
    assert_eq!(job["status"]["completedIndexes"], "0");
}

pub async fn the_named_indexes_succeed(test: &Test) {
    let job = succeeds_by(test, "named-succeed", json!({"succeededIndexes": "0"}), UNTIL_TOLD).await;
    assert_eq!(job["status"]["completedIndexes"], "0");
}
