//! Each rule of the job controller, by its number.

use serde_json::{Value, json};
use windlass_client::Patch;

use super::{Controller, FINALIZER, JobView, Jobs, View, facts};
use crate::fixture::{change, check, now, object};
use crate::plan::{Action, Plan};

/// A job that has started a minute ago, except for `changes`.
fn job(changes: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "sum", "namespace": "a", "uid": "job", "generation": 1, "resourceVersion": "50"},
        "spec": {"parallelism": 1, "completions": 1, "completionMode": "NonIndexed", "backoffLimit": 6,
            "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"job": "sum"}},
            "template": {"metadata": {"labels": {"job": "sum"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {"startTime": "2026-01-01T11:59:00Z"},
    });
    change(&mut job, changes);
    job
}

fn indexed(completions: u32, changes: Value) -> Value {
    let mut job = job(
        json!({"/spec/completionMode": "Indexed", "/spec/completions": completions, "/spec/parallelism": completions}),
    );
    change(&mut job, changes);
    job
}

/// A tracked pod of the job in this phase; it ended ten minutes ago if it ended.
fn pod(name: &str, phase: &str, changes: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"job": "sum"}, "resourceVersion": "40",
            "annotations": {}, "finalizers": [FINALIZER], "creationTimestamp": "2026-01-01T11:00:00Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "sum", "uid": "job", "controller": true}]},
        "status": {"phase": phase},
    });
    if phase == "Failed" || phase == "Succeeded" {
        let code = u32::from(phase == "Failed");
        pod["status"]["containerStatuses"] = json!([{"name": "c", "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T11:50:00Z"}}}]);
    }
    change(&mut pod, changes);
    pod
}

fn at_index(name: &str, phase: &str, index: u32, failures: u32) -> Value {
    pod(
        name,
        phase,
        json!({"/metadata/annotations": {"batch.kubernetes.io/job-completion-index": index.to_string(),
        "batch.kubernetes.io/job-index-failure-count": failures.to_string()}}),
    )
}

fn view(job: &Value, pods: &[Value]) -> JobView {
    let job = object(job);
    let pods = pods.iter().map(object).collect();
    JobView { header: job.header.clone(), job: facts(&job), pods, pods_are_current: true, now: now() }
}

fn plan(job: &Value, pods: &[Value]) -> Plan {
    Jobs::plan(&View::Job(Box::new(view(job, pods))))
}

fn status(plan: &Plan) -> Value {
    let mut patches = plan.items.iter().filter_map(|item| match &item.action {
        Action::Patch { patch: Patch::Merge(patch), subresource: Some(_), .. } => Some(patch["status"].clone()),
        _ => None,
    });
    patches.next().unwrap_or(Value::Null)
}

fn conditions(plan: &Plan) -> Vec<String> {
    let status = status(plan);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = status["conditions"].as_array().into_iter().flatten();
    listed
        .map(|found| format!("{}={} {}", text(&found["type"]), text(&found["status"]), text(&found["reason"])))
        .collect()
}

/// The plan without its status line.
fn moves(plan: &Plan) -> Vec<String> {
    plan.to_string().lines().filter(|line| !line.contains(" status: ")).map(str::to_owned).collect()
}

/// The pods that are made, by their prefixes.
fn created(plan: &Plan) -> Vec<String> {
    let created = plan.items.iter().filter_map(|item| match &item.action {
        Action::Create { object, .. } => object["metadata"]["generateName"].as_str().map(str::to_owned),
        _ => None,
    });
    created.collect()
}

/// Carries a plan out on the job and its pods.
fn carry_out(plan: &Plan, job: &mut Value, pods: &mut Vec<Value>) {
    for item in &plan.items {
        match &item.action {
            Action::Patch { patch: Patch::Merge(patch), target, .. } => {
                let found = pods.iter_mut().find(|pod| pod["metadata"]["uid"] == json!(target.uid));
                merge(found.unwrap_or(job), patch);
            }
            Action::Create { object, .. } => {
                let mut pod = object.clone();
                let number = pods.len();
                pod["metadata"]["name"] = json!(format!("made-{number}"));
                pod["metadata"]["uid"] = json!(format!("made-{number}"));
                pod["metadata"]["resourceVersion"] = json!("1");
                pod["status"] = json!({"phase": "Pending"});
                pods.push(pod);
            }
            _ => {}
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    for (field, value) in patch.as_object().expect("a map") {
        match value {
            Value::Null => drop(object.as_object_mut().expect("a map").remove(field)),
            Value::Object(_) => {
                if !object[field].is_object() {
                    object[field] = json!({});
                }
                merge(&mut object[field], value);
            }
            value => object[field] = value.clone(),
        }
    }
}

#[test]
fn r1_pods_without_a_job_are_let_go() {
    check(
        &Jobs::plan(&View::Strays(vec![object(&pod("p1", "Running", json!({})))])),
        "patch pods a/p1: Pod p1 is let go: its job is gone",
    );
    let ending = job(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"}));
    check(&plan(&ending, &[pod("p1", "Running", json!({}))]), "patch pods a/p1: Pod p1 is let go: its job is ending");
}

#[test]
fn r2_a_job_of_another_manager_is_left_alone() {
    check(&plan(&job(json!({"/spec/managedBy": "acme.io/foo"})), &[]), "");
    assert_eq!(created(&plan(&job(json!({"/spec/managedBy": "kubernetes.io/job-controller"})), &[])), ["sum-"]);
}

#[test]
fn r3_a_finished_job_goes_when_its_time_is_over() {
    let finished = |ttl: u32| {
        job(json!({"/spec/ttlSecondsAfterFinished": ttl, "/status/conditions":
            [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T11:59:30Z"}]}))
    };
    check(&plan(&finished(30), &[]), "delete jobs a/sum: it finished 30 s ago, as long as it is kept");
    check(&plan(&finished(40), &[]), "again after 10s: ttlSecondsAfterFinished will have passed");
}

#[test]
fn r4_orphans_are_adopted_and_strangers_released_with_the_finalizer() {
    let orphan = pod("orphan", "Running", json!({"/metadata/ownerReferences": null, "/metadata/finalizers": null}));
    let stranger = pod("stranger", "Running", json!({"/metadata/labels": {"job": "other"}}));
    let plan = plan(&job(json!({})), &[orphan, stranger]);
    let patches: Vec<&Value> = plan
        .items
        .iter()
        .filter_map(|item| match &item.action {
            Action::Patch { patch: Patch::Merge(patch), subresource: None, .. } => Some(patch),
            _ => None,
        })
        .collect();
    assert_eq!(patches[0]["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(patches[0]["metadata"]["ownerReferences"][0]["uid"], "job");
    assert_eq!(patches[1]["metadata"]["finalizers"], Value::Null);
    assert!(created(&plan).is_empty(), "the adopted pod counts:\n{plan}");
}

#[test]
fn r5_an_ended_pod_is_noted_then_let_go_then_counted() {
    let mut job = job(json!({"/spec/completions": 2}));
    let mut pods = vec![pod("p1", "Succeeded", json!({}))];
    let noted = plan(&job, &pods);
    assert_eq!(status(&noted)["uncountedTerminatedPods"]["succeeded"], json!(["p1"]));
    assert_eq!(status(&noted)["succeeded"], 0);
    assert!(!noted.to_string().contains("let go"), "the note is not in the API yet:\n{noted}");
    carry_out(&noted, &mut job, &mut pods);
    let let_go = plan(&job, &pods);
    assert!(let_go.to_string().contains("Pod p1 is let go: it has ended and is counted"), "{let_go}");
    assert_eq!(status(&let_go)["succeeded"].as_i64().unwrap_or(0), 0);
    carry_out(&let_go, &mut job, &mut pods);
    let counted = plan(&job, &pods);
    assert_eq!(status(&counted)["succeeded"], 1);
    carry_out(&counted, &mut job, &mut pods);
    for _ in 0..3 {
        let later = plan(&job, &pods);
        carry_out(&later, &mut job, &mut pods);
    }
    assert_eq!(job["status"]["succeeded"], 1, "never twice");
}

#[test]
fn r5_a_crash_before_any_write_repeats_a_step_and_changes_no_count() {
    // Each plan may be lost after any number of its items.
    let (mut job, mut pods) = (job(json!({"/spec/completions": 1})), vec![pod("p1", "Succeeded", json!({}))]);
    for pass in 0..20 {
        let mut lost = plan(&job, &pods);
        lost.items.truncate(pass % 3);
        carry_out(&lost, &mut job, &mut pods);
        assert!(job["status"]["succeeded"].as_i64().unwrap_or(0) <= 1);
    }
    assert_eq!(job["status"]["succeeded"], 1);
}

#[test]
fn r5_a_pod_that_our_copy_does_not_show_is_gone_only_in_a_copy_as_new_as_the_job() {
    let noted = job(json!({"/spec/completions": 2, "/status/uncountedTerminatedPods": {"succeeded": ["p9"]}}));
    let mut old = view(&noted, &[]);
    old.pods_are_current = false;
    let plan = Jobs::plan(&View::Job(Box::new(old)));
    assert!(plan.to_string().contains("our copy of the pods will be as new as the job"), "{plan}");
    assert_eq!(status(&plan)["succeeded"].as_i64().unwrap_or(0), 0);
    assert_eq!(status(&super::tests::plan(&noted, &[]))["succeeded"], 1);
}

#[test]
fn r5_an_index_counts_once_however_many_pods_succeeded() {
    let plan = plan(&indexed(3, json!({})), &[at_index("p1", "Succeeded", 0, 0), at_index("p2", "Succeeded", 0, 0)]);
    assert_eq!((&status(&plan)["completedIndexes"], &status(&plan)["succeeded"]), (&json!("0"), &json!(1)));
    assert_eq!(created(&plan), ["sum-1-", "sum-2-"]);
}

#[test]
fn r6_a_failed_index_is_tried_again_up_to_its_limit() {
    let job = indexed(2, json!({"/spec/backoffLimitPerIndex": 1, "/spec/backoffLimit": 2_147_483_647}));
    let first = plan(&job, &[at_index("p0", "Succeeded", 0, 0), at_index("p1", "Failed", 1, 0)]);
    assert_eq!(status(&first)["uncountedTerminatedPods"]["failed"], Value::Null, "it stays until the next is there");
    let made: Vec<&Value> = first
        .items
        .iter()
        .filter_map(|item| match &item.action {
            Action::Create { object, .. } => Some(object),
            _ => None,
        })
        .collect();
    assert_eq!(made[0]["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    let second = plan(
        &job,
        &[at_index("p0", "Succeeded", 0, 0), at_index("p1", "Failed", 1, 0), at_index("p2", "Failed", 1, 1)],
    );
    assert_eq!(status(&second)["failedIndexes"], "1");
    assert_eq!(status(&second)["uncountedTerminatedPods"]["failed"], json!(["p1", "p2"]));
    assert_eq!(conditions(&second), ["FailureTarget=True FailedIndexes"]);
}

#[test]
fn r7_the_policy_says_what_a_failure_means() {
    let policy = |action: &str| {
        json!({"/spec/podReplacementPolicy": "Failed", "/spec/backoffLimit": 0, "/spec/podFailurePolicy": {"rules": [
            {"action": action, "onExitCodes": {"operator": "In", "values": [1]}}]}})
    };
    let failed = [pod("p1", "Failed", json!({}))];
    let fail_job = plan(&job(policy("FailJob")), &failed);
    assert_eq!(conditions(&fail_job), ["FailureTarget=True PodFailurePolicy"]);
    let said = "Container c for pod a/p1 failed with exit code 1 matching FailJob rule at index 0";
    assert_eq!(status(&fail_job)["conditions"][0]["message"], said);
    let ignored = plan(&job(policy("Ignore")), &failed);
    assert!(conditions(&ignored).is_empty());
    assert_eq!(created(&ignored), ["sum-"]);
    assert!(ignored.to_string().contains("Pod p1 is let go"), "{ignored}");
    assert_eq!(conditions(&plan(&job(policy("Count")), &failed)), ["FailureTarget=True BackoffLimitExceeded"]);
    let mut job = indexed(2, policy("FailIndex"));
    job["spec"]["backoffLimitPerIndex"] = json!(5);
    job["spec"]["backoffLimit"] = json!(i32::MAX);
    let fail_index = plan(&job, &[at_index("p1", "Failed", 1, 0)]);
    assert_eq!(status(&fail_index)["failedIndexes"], "1");
    assert_eq!(created(&fail_index), ["sum-0-"]);
}

#[test]
fn r7_conditions_match_by_type_and_status() {
    let job = job(
        json!({"/spec/podReplacementPolicy": "Failed", "/spec/backoffLimit": 0, "/spec/podFailurePolicy": {"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}}),
    );
    let evicted = pod("p1", "Failed", json!({"/status/conditions": [{"type": "DisruptionTarget", "status": "True"}]}));
    assert!(conditions(&plan(&job, &[evicted])).is_empty());
    assert_eq!(conditions(&plan(&job, &[pod("p1", "Failed", json!({}))])), ["FailureTarget=True BackoffLimitExceeded"]);
}

#[test]
fn r8_a_rule_of_the_success_policy_ends_the_job_well() {
    let policy = |rule: Value| indexed(3, json!({"/spec/successPolicy": {"rules": [rule]}}));
    let pods = [at_index("p1", "Succeeded", 1, 0), at_index("p0", "Running", 0, 0), at_index("p2", "Running", 2, 0)];
    for rule in [
        json!({"succeededIndexes": "1"}),
        json!({"succeededCount": 1}),
        json!({"succeededIndexes": "0-1", "succeededCount": 1}),
    ] {
        let plan = plan(&policy(rule), &pods);
        assert_eq!(conditions(&plan), ["SuccessCriteriaMet=True SuccessPolicy"]);
        assert!(plan.to_string().contains("Deleted pod: p0"), "{plan}");
    }
    assert!(conditions(&plan(&policy(json!({"succeededIndexes": "0-1"})), &pods)).is_empty());
}

#[test]
fn r8_enough_completions_end_the_job_well() {
    let counted = json!({"/status/succeeded": 1});
    let mut done = pod("p1", "Succeeded", json!({}));
    done["metadata"]["finalizers"] = Value::Null;
    let complete = plan(&job(counted.clone()), &[done.clone()]);
    assert_eq!(
        conditions(&complete),
        ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]
    );
    assert_eq!(status(&complete)["completionTime"], "2026-01-01T12:00:00Z");
    // Of a queue of work one success says that there is no more, and the others may finish.
    let mut queue = job(counted);
    queue["spec"]["completions"] = Value::Null;
    queue["spec"]["parallelism"] = json!(2);
    let waits = plan(&queue, &[done, pod("p2", "Running", json!({}))]);
    assert!(conditions(&waits).is_empty() && created(&waits).is_empty(), "{waits}");
}

#[test]
fn r9_limits_end_the_job_badly() {
    let failed = |count: u32| json!({"/status/failed": count});
    assert!(conditions(&plan(&job(failed(6)), &[])).is_empty());
    assert_eq!(
        conditions(&plan(&job(failed(7)), &[])),
        ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]
    );
    let late = plan(&job(json!({"/spec/activeDeadlineSeconds": 60})), &[pod("p1", "Running", json!({}))]);
    assert_eq!(conditions(&late), ["FailureTarget=True DeadlineExceeded"]);
    let early = plan(&job(json!({"/spec/activeDeadlineSeconds": 90})), &[pod("p1", "Running", json!({}))]);
    assert!(early.to_string().contains("again after 30s"), "{early}");
    let many = indexed(
        4,
        json!({"/spec/backoffLimitPerIndex": 0, "/spec/maxFailedIndexes": 1, "/status/failedIndexes": "0,3"}),
    );
    assert_eq!(
        conditions(&plan(&many, &[at_index("p1", "Running", 1, 0)])),
        ["FailureTarget=True MaxFailedIndexesExceeded"]
    );
    let restarted = job(json!({"/spec/template/spec/restartPolicy": "OnFailure", "/spec/backoffLimit": 2}));
    let restarts =
        |count: u32| pod("p1", "Running", json!({"/status/containerStatuses": [{"name": "c", "restartCount": count}]}));
    assert!(conditions(&plan(&restarted, &[restarts(1)])).is_empty());
    assert_eq!(conditions(&plan(&restarted, &[restarts(2)])), ["FailureTarget=True BackoffLimitExceeded"]);
}

#[test]
fn r10_the_end_is_final_when_nothing_runs_and_all_is_counted() {
    let target = json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "late",
        "lastTransitionTime": "2026-01-01T11:59:50Z"}]);
    let announced = job(json!({"/status/conditions": target}));
    let running = plan(&announced, &[pod("p1", "Running", json!({}))]);
    assert!(running.to_string().contains("delete pods a/p1"), "{running}");
    let ending = pod(
        "p1",
        "Running",
        json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:30Z", "/metadata/finalizers": null}),
    );
    assert!(!conditions(&plan(&announced, &[ending])).contains(&"Failed=True DeadlineExceeded".to_owned()));
    assert_eq!(conditions(&plan(&announced, &[])).last().map(String::as_str), Some("Failed=True DeadlineExceeded"));
}

#[test]
fn r11_a_suspended_job_has_no_pods_and_no_clock() {
    let suspended = plan(&job(json!({"/spec/suspend": true})), &[pod("p1", "Running", json!({}))]);
    assert_eq!(conditions(&suspended), ["Suspended=True JobSuspended"]);
    assert_eq!(status(&suspended)["startTime"], Value::Null);
    assert_eq!(
        moves(&suspended),
        [
            "patch jobs a/sum status: Job suspended",
            "patch pods a/p1: Pod p1 is let go: it is not to run and counts nothing",
            "delete pods a/p1: Deleted pod: p1"
        ]
        .into_iter()
        .filter(|line| !line.contains(" status: "))
        .collect::<Vec<_>>()
    );
    let mut resumed = job(json!({"/status/conditions": [{"type": "Suspended", "status": "True"}]}));
    resumed["status"]["startTime"] = Value::Null;
    let resumed = plan(&resumed, &[]);
    assert_eq!(conditions(&resumed), ["Suspended=False JobResumed"]);
    assert_eq!(status(&resumed)["startTime"], "2026-01-01T12:00:00Z");
    assert_eq!(created(&resumed), ["sum-"]);
}

#[test]
fn r12_missing_pods_are_created_with_what_they_need_to_know() {
    let plan = plan(&indexed(2, json!({})), &[]);
    let Some(Action::Create { object, .. }) =
        plan.items.iter().map(|item| &item.action).find(|action| matches!(action, Action::Create { .. }))
    else {
        panic!("a pod is created:\n{plan}")
    };
    let index = "batch.kubernetes.io/job-completion-index";
    assert_eq!(
        (&object["metadata"]["labels"][index], &object["metadata"]["annotations"][index]),
        (&json!("0"), &json!("0"))
    );
    assert_eq!(
        (&object["spec"]["hostname"], &object["metadata"]["finalizers"]),
        (&json!("sum-0"), &json!([FINALIZER]))
    );
    assert_eq!(object["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    let surplus =
        super::tests::plan(&job(json!({})), &[pod("p1", "Running", json!({})), pod("p2", "Pending", json!({}))]);
    assert!(
        surplus.to_string().contains("delete pods a/p2") && !surplus.to_string().contains("delete pods a/p1"),
        "{surplus}"
    );
    let many = super::tests::plan(&job(json!({"/spec/parallelism": 900, "/spec/completions": 900})), &[]);
    assert_eq!(created(&many).len(), 500);
}

#[test]
fn r13_after_failures_pods_wait() {
    let failed_at = |name: &str, at: &str| {
        pod(name, "Failed", json!({"/status/containerStatuses/0/state/terminated/finishedAt": at}))
    };
    let one = plan(&job(json!({})), &[failed_at("p1", "2026-01-01T11:59:57Z")]);
    assert!(created(&one).is_empty() && one.to_string().contains("again after 7s"), "{one}");
    let two = [failed_at("p1", "2026-01-01T11:59:00Z"), failed_at("p2", "2026-01-01T11:59:57Z")];
    assert!(plan(&job(json!({})), &two).to_string().contains("again after 17s"));
    assert_eq!(created(&plan(&job(json!({})), &[failed_at("p1", "2026-01-01T11:59:50Z")])), ["sum-"]);
}

#[test]
fn r14_a_pod_that_is_ending_is_replaced_at_once_or_after_its_end() {
    let ending = [pod(
        "p1",
        "Running",
        json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:30Z", "/metadata/deletionGracePeriodSeconds": 30}),
    )];
    assert_eq!(created(&plan(&job(json!({})), &ending)), ["sum-"]);
    let waits = plan(&job(json!({"/spec/podReplacementPolicy": "Failed"})), &ending);
    assert!(created(&waits).is_empty());
    assert_eq!(status(&waits)["terminating"], 1);
}
