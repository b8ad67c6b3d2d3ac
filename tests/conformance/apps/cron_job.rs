//! CronJob: the walk, and what becomes of a Job that still runs when the next is due.
//!
//! Schedules go by the minute. A time is due at once where the status says that the last one was long ago; for the next
//! one a test waits, up to a minute.

use serde_json::{Value, json};

use crate::api::{MERGE, Reply};
use crate::walk::Walk;
use crate::{Test, pod};

/// A suspended one, whose status nobody else writes.
pub fn row(test: &Test) -> Walk {
    let mut template = pod::template("cron");
    template["spec"]["restartPolicy"] = json!("OnFailure");
    let spec = json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": template}}});
    let at = |time: &str| json!({"metadata": {"annotations": {"at": time}}, "status": {"lastScheduleTime": time}});
    Walk::namespaced(test, "batch/v1", "cronjobs", json!({"spec": spec}))
        .change(json!({"spec": {"successfulJobsHistoryLimit": 7}}))
        .status(at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"))
}

fn crons(test: &Test) -> String {
    test.path("batch/v1", "cronjobs")
}

/// Creates a CronJob whose Jobs do not end, and for which a time is due at once unless it is suspended.
async fn start(test: &Test, name: &str, change: Value) {
    let mut template = pod::template(name);
    template["spec"]["restartPolicy"] = json!("Never");
    let mut spec = json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}});
    for (field, value) in change.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    test.api.create(&crons(test), &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
    let long_ago = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    test.api.patch(&format!("{}/{name}/status", crons(test)), MERGE, &long_ago).await.ok();
}

fn names(reply: &Reply) -> Vec<String> {
    let jobs = reply.json()["items"].as_array().cloned().unwrap_or_default();
    let alive = jobs.iter().filter(|job| job["metadata"]["deletionTimestamp"].is_null());
    alive.filter_map(|job| job["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

/// Waits until the Jobs satisfy a condition; gives their names. The minute before the next one may be as long as the
/// suite's patience, so it is waited for twice.
async fn until_jobs(test: &Test, what: &str, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
    let path = test.path("batch/v1", "jobs");
    let waiting = test.api.until(&path, what, |reply| condition(&names(reply)));
    let halves = std::time::Duration::from_secs(50);
    if let Ok(found) = tokio::time::timeout(halves, waiting).await {
        return names(&found);
    }
    names(&test.api.until(&path, what, |reply| condition(&names(reply))).await)
}

pub async fn jobs_run_beside_each_other(test: &Test) {
    start(test, "allowing", json!({"concurrencyPolicy": "Allow"})).await;
    until_jobs(test, "two", |names| names.len() >= 2).await;
    let both = |cron: &Value| cron["status"]["active"].as_array().is_some_and(|active| active.len() >= 2);
    test.api.seen(&crons(test), "allowing", "two active", both).await;
}

/// The names of the Jobs that a CronJob says are active.
fn active(cron: &Value) -> Vec<&str> {
    let active = cron["status"]["active"].as_array().into_iter().flatten();
    active.filter_map(|job| job["name"].as_str()).collect()
}

pub async fn a_job_that_runs_forbids_the_next(test: &Test) {
    start(test, "forbidding", json!({"concurrencyPolicy": "Forbid"})).await;
    let first = until_jobs(test, "one", |names| !names.is_empty()).await;
    test.api.seen(&crons(test), "forbidding", "one active", |cron| active(cron) == first).await;
    let said = |reply: &Reply| {
        let events = reply.json()["items"].as_array().cloned().unwrap_or_default();
        events.iter().any(|event| event["reason"] == "JobAlreadyActive")
    };
    // The next minute: see `until_jobs`.
    let events = test.path("v1", "events");
    let waiting = test.api.until(&events, "told", said);
    if tokio::time::timeout(std::time::Duration::from_secs(50), waiting).await.is_err() {
        test.api.until(&events, "told", said).await;
    }
    assert_eq!(names(&test.api.get(&test.path("batch/v1", "jobs")).await), first);
    let cron = test.api.get(&format!("{}/forbidding", crons(test))).await.ok();
    assert_eq!(active(&cron), first, "the previous one is the single active one still");
}

pub async fn a_new_job_replaces_the_one_that_runs(test: &Test) {
    start(test, "replacing", json!({"concurrencyPolicy": "Replace"})).await;
    let first = until_jobs(test, "one", |names| !names.is_empty()).await;
    let next = until_jobs(test, "another", |names| names.len() == 1 && names != first).await;
    test.api.until_gone(&format!("{}/{}", test.path("batch/v1", "jobs"), first[0])).await;
    test.api.seen(&crons(test), "replacing", "only the newer one active", |cron| active(cron) == next).await;
    let of_first = format!("{}?labelSelector=job-name%3D{}", test.path("v1", "pods"), first[0]);
    test.api.until(&of_first, "gone with their Job", |reply| reply.json()["items"] == json!([])).await;
}

pub async fn a_suspended_one_makes_no_jobs(test: &Test) {
    start(test, "suspended", json!({"suspend": true})).await;
    // Another one with the same schedule shows that the time came twice: at once, and with the next minute.
    start(test, "beside", json!({"concurrencyPolicy": "Allow"})).await;
    let made = until_jobs(test, "two of the other", |names| names.len() >= 2).await;
    assert!(made.iter().all(|name| name.starts_with("beside-")), "{made:?}");
    let cron = test.api.get(&format!("{}/suspended", crons(test))).await.ok();
    assert!(active(&cron).is_empty(), "{cron:#}");
    test.api.delete(&format!("{}/beside", crons(test))).await.ok();
    // It was due all the time: as soon as it may, it makes one.
    test.api.patch(&format!("{}/suspended", crons(test)), MERGE, &json!({"spec": {"suspend": false}})).await.ok();
    until_jobs(test, "its own", |names| names.iter().any(|name| name.starts_with("suspended-"))).await;
}
