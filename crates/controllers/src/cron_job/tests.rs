//! Each rule of the cron job controller, by its number.

use serde_json::{Value, json};
use windlass_client::Patch;

use super::{Controller, CronJobs, View, facts};
use crate::fixture::{change, now, object};
use crate::plan::{Action, Plan};

/// A CronJob that was made five minutes ago and has started its last Job at 11:59.
fn cron(changes: Value) -> Value {
    let mut cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "a", "uid": "t", "creationTimestamp": "2026-01-01T11:55:00Z", "resourceVersion": "5"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow",
            "jobTemplate": {"metadata": {"labels": {"l": "m"}}, "spec": {"template": {}}}},
        "status": {"lastScheduleTime": "2026-01-01T11:59:00Z"},
    });
    change(&mut cron, changes);
    cron
}

/// A Job; `end` is the condition that it has.
fn job(name: &str, end: Option<&str>) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": "a", "uid": name, "creationTimestamp": "2026-01-01T11:58:00Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "t", "controller": true}]},
        "status": {"startTime": format!("2026-01-01T11:58:{:02}Z", name.len())}});
    if let Some(end) = end {
        job["status"]["conditions"] = json!([{"type": end, "status": "True"}]);
        job["status"]["completionTime"] = json!("2026-01-01T11:59:30Z");
    }
    job
}

fn plan(cron: &Value, jobs: &[Value]) -> Plan {
    let cron = object(cron);
    let jobs = jobs.iter().map(object).collect();
    CronJobs::plan(&View { header: cron.header.clone(), cron: facts(&cron), jobs, now: now() })
}

/// The plan without its status and its next look.
fn moves(plan: &Plan) -> Vec<String> {
    let text = plan.to_string();
    text.lines().filter(|line| !line.contains(" status: ") && !line.starts_with("again")).map(str::to_owned).collect()
}

fn status(plan: &Plan) -> Value {
    let status = plan.items.iter().find_map(|item| match &item.action {
        Action::Patch { patch: Patch::Merge(patch), subresource: Some(_), .. } => Some(patch["status"].clone()),
        _ => None,
    });
    status.unwrap_or_default()
}

/// 2026-01-01T12:00 in minutes.
const NOON: &str = "29454480";

fn made() -> String {
    format!("create jobs a/tick-{NOON}: Created job tick-{NOON}")
}

#[test]
fn r1_one_that_is_ending_is_left_alone() {
    let plan = plan(&cron(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"})), &[]);
    assert_eq!(plan.to_string(), "");
}

#[test]
fn r2_the_status_names_what_runs_and_the_latest_good_end() {
    let told = cron(json!({"/status/lastScheduleTime": "2026-01-01T12:00:00Z", "/status/active": [{"uid": "old"}]}));
    let plan = plan(&told, &[job("old", Some("Complete")), job("runs", None)]);
    assert_eq!(moves(&plan), ["tell a/tick SawCompletedJob: Saw completed job: old, condition: Complete"]);
    assert_eq!(status(&plan)["active"][0]["name"], "runs");
    assert_eq!(status(&plan)["lastSuccessfulTime"], "2026-01-01T11:59:30Z");
}

#[test]
fn r3_finished_jobs_go_beyond_their_limits_oldest_first() {
    let quiet =
        cron(json!({"/spec/suspend": true, "/spec/successfulJobsHistoryLimit": 1, "/spec/failedJobsHistoryLimit": 0}));
    let jobs =
        [job("second", Some("Complete")), job("first", Some("Complete")), job("bad", Some("Failed")), job("run", None)];
    assert_eq!(
        moves(&plan(&quiet, &jobs)),
        ["delete jobs a/first: Deleted job first", "delete jobs a/bad: Deleted job bad"]
    );
}

#[test]
fn r4_while_suspended_nothing_is_started() {
    assert!(moves(&plan(&cron(json!({"/spec/suspend": true})), &[])).is_empty());
}

#[test]
fn r5_the_latest_time_is_made_once_and_the_missed_ones_are_not() {
    let due = plan(&cron(json!({})), &[]);
    assert_eq!(moves(&due), [made()]);
    assert!(due.to_string().contains("again after 60.1s"), "{due}");
    let Action::Create { object, .. } = &due.items[0].action else { panic!("a job is made") };
    assert_eq!(object["metadata"]["annotations"][super::SCHEDULED_AT], "2026-01-01T12:00:00Z");
    assert_eq!(object["metadata"]["labels"]["l"], "m");
    assert_eq!(moves(&plan(&cron(json!({"/status/lastScheduleTime": "2026-01-01T11:30:00Z"})), &[])), [made()]);
    // The Job is there: only the status still has to say so.
    let seen = plan(&cron(json!({})), &[job(&format!("tick-{NOON}"), None)]);
    assert!(moves(&seen).is_empty());
    assert_eq!(status(&seen)["lastScheduleTime"], "2026-01-01T12:00:00Z");
    assert!(moves(&plan(&cron(json!({"/status/lastScheduleTime": "2026-01-01T12:00:00Z"})), &[])).is_empty());
}

#[test]
fn r5_after_a_jump_of_the_clock_one_job_is_made_and_it_is_said() {
    for since in ["2025-12-31T12:00:00Z", "1996-01-01T00:00:00Z"] {
        let moves = moves(&plan(&cron(json!({"/status/lastScheduleTime": since})), &[]));
        assert!(moves[0].starts_with("tell a/tick TooManyMissedTimes"), "{moves:?}");
        assert_eq!(moves[1..], [made()]);
    }
    let rare = json!({"/status/lastScheduleTime": "1900-01-01T00:00:00Z", "/spec/schedule": "0 0 1 * *"});
    let moves = moves(&plan(&cron(rare), &[]));
    assert_eq!(moves[1], "create jobs a/tick-29453760: Created job tick-29453760");
}

#[test]
fn r6_a_time_is_missed_after_its_deadline() {
    let hourly = |deadline: u32| {
        json!({"/spec/schedule": "30 * * * *", "/status/lastScheduleTime": "2026-01-01T10:30:00Z",
            "/spec/startingDeadlineSeconds": deadline})
    };
    assert!(moves(&plan(&cron(hourly(60)), &[])).is_empty());
    assert_eq!(moves(&plan(&cron(hourly(1801)), &[])), ["create jobs a/tick-29454450: Created job tick-29454450"]);
}

#[test]
fn r7_the_concurrency_policy_says_what_becomes_of_a_job_that_runs() {
    let with = |policy: &str| plan(&cron(json!({"/spec/concurrencyPolicy": policy})), &[job("runs", None)]);
    assert_eq!(moves(&with("Allow")), [made()]);
    assert_eq!(moves(&with("Replace")), ["delete jobs a/runs: Deleted job runs".to_owned(), made()]);
    let forbidden = moves(&with("Forbid"));
    assert!(forbidden.len() == 1 && forbidden[0].starts_with("tell a/tick JobAlreadyActive"), "{forbidden:?}");
}

#[test]
fn r8_the_schedule_is_read_in_its_zone() {
    let vienna = json!({"/spec/schedule": "0 13 * * *", "/spec/timeZone": "Europe/Vienna"});
    let plan = plan(&cron(vienna), &[]);
    assert_eq!(moves(&plan), [made()]);
    let Action::Create { object, .. } = &plan.items[0].action else { panic!("a job is made") };
    assert_eq!(object["metadata"]["annotations"][super::SCHEDULED_AT], "2026-01-01T13:00:00+01:00");
    let nowhere = moves(&super::tests::plan(&cron(json!({"/spec/timeZone": "Mars/Olympus"})), &[]));
    assert_eq!(nowhere, ["tell a/tick UnknownTimeZone: invalid timeZone: \"Mars/Olympus\""]);
}
