//! The rules of a job, each shown by a table of what is said.

use serde_json::{Value, json};

use super::Job;
use crate::field::Errors;
use crate::resource::Rules;
use crate::resources::fixture::compare;

fn good() -> Value {
    let mut job = json!({"metadata": {"name": "j", "uid": "u-1"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "a:1"}]}}}});
    Job.default(&mut job);
    Job.prepare_create(&mut job);
    job
}

fn indexed() -> Value {
    let mut job = good();
    job["spec"]["completionMode"] = json!("Indexed");
    job["spec"]["completions"] = json!(5);
    job["spec"]["parallelism"] = json!(5);
    job
}

fn check_of(mut job: Value, change: impl FnOnce(&mut Value), expected: &[&str]) {
    change(&mut job["spec"]);
    let mut errors = Errors::new();
    Job.validate(&job, &mut errors);
    compare(&errors, expected);
}

fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
    check_of(good(), change, expected);
}

fn check_update(old: Value, change: impl FnOnce(&mut Value), expected: &[&str]) {
    let mut new = old.clone();
    change(&mut new["spec"]);
    let mut errors = Errors::new();
    Job.validate_update(&new, &old, &mut errors);
    compare(&errors, expected);
}

fn check_status(job: Value, status: Value, expected: &[&str]) {
    let mut new = job.clone();
    new["status"] = status;
    let mut errors = Errors::new();
    Job.validate_status(&new, &job, &mut errors);
    compare(&errors, expected);
}

#[test]
fn a_small_job_is_filled_in_and_finds_its_own_pods() {
    let job = good();
    let spec = &job["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]), (&json!(1), &json!(1), &json!(6)));
    assert_eq!((&spec["completionMode"], &spec["suspend"]), (&json!("NonIndexed"), &json!(false)));
    assert_eq!(spec["podReplacementPolicy"], "TerminatingOrFailed");
    assert_eq!(spec["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}));
    assert_eq!(
        spec["template"]["metadata"]["labels"],
        json!({"batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "j", "controller-uid": "u-1", "job-name": "j"})
    );
    let mut open = json!({"spec": {"parallelism": 3}});
    Job.default(&mut open);
    assert_eq!(open["spec"].get("completions"), None);
    let mut per_index = json!({"spec": {"backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [{"onPodConditions": [{"type": "x"}]}]}}});
    Job.default(&mut per_index);
    assert_eq!(per_index["spec"]["backoffLimit"], i32::MAX);
    assert_eq!(per_index["spec"]["podReplacementPolicy"], "Failed");
    assert_eq!(per_index["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
}

#[test]
fn j1_and_j3_numbers_fit_the_mode() {
    check(|_| {}, &[]);
    check(
        |spec| {
            spec["parallelism"] = json!(-1);
            spec["completionMode"] = json!("Odd");
            spec["managedBy"] = json!("me");
        },
        &[
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path",
            "spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\"",
        ],
    );
    check(
        |spec| spec["maxFailedIndexes"] = json!(1),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ],
    );
    check_of(indexed(), |_| {}, &[]);
    check_of(
        indexed(),
        |spec| spec["completions"] = json!(null),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    check_of(
        indexed(),
        |spec| {
            spec["completions"] = json!(200_000);
            spec["parallelism"] = json!(100_001);
            spec["backoffLimitPerIndex"] = json!(1);
        },
        &[
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 10000 when completions are above",
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ],
    );
}

#[test]
fn j2_pods_end_and_belong_to_one_job() {
    check(
        |spec| spec["template"]["spec"]["restartPolicy"] = json!("Always"),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    check(|spec| spec["selector"] = json!(null), &["spec.selector: Required value"]);
    check(
        |spec| spec["selector"] = json!({"matchLabels": {"job-name": "j"}}),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"job-name\":\"j\"}}: `selector` not auto-generated"],
    );
    check(
        |spec| {
            spec["selector"] = json!({"matchLabels": {"a": "b"}});
            spec["template"]["metadata"]["labels"] = json!({"a": "b"});
            spec["manualSelector"] = json!(true);
        },
        &[],
    );
    check(
        |spec| spec["template"]["metadata"]["labels"]["job-name"] = json!("other"),
        &["spec.template.metadata.labels[job-name]: Invalid value: \"other\": must be 'j'"],
    );
}

#[test]
fn j4_a_failure_policy_can_be_evaluated() {
    let policy = |rule: Value| {
        move |spec: &mut Value| {
            spec["podFailurePolicy"] = json!({"rules": [rule]});
            spec["podReplacementPolicy"] = json!("Failed");
        }
    };
    check(
        policy(
            json!({"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1, 42]}}),
        ),
        &[],
    );
    check(
        policy(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})),
        &[],
    );
    let at = "spec.podFailurePolicy.rules[0]";
    check(
        policy(
            json!({"action": "FailIndex", "onExitCodes": {"containerName": "x", "operator": "In", "values": [1, 0, 1]}}),
        ),
        &[
            &format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
            &format!("{at}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container"),
            &format!("{at}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator"),
            &format!("{at}.onExitCodes.values[2]: Duplicate value: 1"),
            &format!("{at}.onExitCodes.values: Invalid value: [1,0,1]: must be ordered"),
        ],
    );
    check(
        policy(json!({})),
        &[
            &format!("{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            &format!("{at}: Invalid value: {{}}: specifying one of OnExitCodes and OnPodConditions is required"),
        ],
    );
    check(
        |spec| {
            spec["podFailurePolicy"] = json!({"rules": []});
            spec["template"]["spec"]["restartPolicy"] = json!("OnFailure");
        },
        &[
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
            "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported",
        ],
    );
}

#[test]
fn j5_a_success_policy_can_be_met() {
    let policy = |rule: Value| move |spec: &mut Value| spec["successPolicy"] = json!({"rules": [rule]});
    check_of(indexed(), policy(json!({"succeededIndexes": "0,2-4", "succeededCount": 2})), &[]);
    check(policy(json!({"succeededCount": 1})), &["spec.successPolicy: Invalid value"]);
    let at = "spec.successPolicy.rules[0]";
    check_of(indexed(), policy(json!({})), &[&format!("{at}: Required value: at least one of succeededCount")]);
    for odd in ["a", "3-1", "2,1", "5", "1,,2"] {
        let refusal = format!("{at}.succeededIndexes: Invalid value: {odd:?}: error parsing succeededIndexes: ");
        check_of(indexed(), policy(json!({ "succeededIndexes": odd })), &[&refusal]);
    }
    check_of(
        indexed(),
        policy(json!({"succeededIndexes": "1", "succeededCount": 2})),
        &[&format!("{at}.succeededCount: Invalid value: 2: must be less than or equal to 1 (the number of indexes")],
    );
    check_of(
        indexed(),
        policy(json!({"succeededCount": 6})),
        &[&format!("{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified")],
    );
}

#[test]
fn j6_what_a_job_is_never_changes() {
    check_update(good(), |spec| spec["parallelism"] = json!(3), &[]);
    check_update(good(), |spec| spec["suspend"] = json!(true), &[]);
    check_update(
        good(),
        |spec| {
            spec["completions"] = json!(3);
            spec["completionMode"] = json!("NonIndexed");
            spec["selector"] = json!({});
            spec["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        },
        &[
            "spec.completions: Invalid value: 3: field is immutable",
            "spec.selector: Invalid value: {}: field is immutable",
            "spec.template: Invalid value",
        ],
    );
    check_update(
        indexed(),
        |spec| spec["completions"] = json!(3),
        &["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"],
    );
    let mut held_back = good();
    held_back["spec"]["suspend"] = json!(true);
    check_update(held_back, |spec| spec["template"]["spec"]["nodeSelector"] = json!({"a": "b"}), &[]);
    let mut again = good();
    again["spec"]["selector"] = json!(null);
    Job.prepare_update(&mut again, &good());
    assert_eq!(again["spec"]["selector"], good()["spec"]["selector"]);
}

#[test]
fn j7_a_job_ends_in_one_way() {
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    check_status(good(), json!({"active": 1, "ready": 1}), &[]);
    check_status(
        good(),
        json!({"active": -1, "ready": 2, "completedIndexes": "0", "uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}}),
        &[
            "status.active: Invalid value: -1",
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
            "status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty",
            "status.ready: Invalid value: 2: cannot set more ready pods than active",
            "status.completedIndexes: Invalid value: \"0\"",
        ],
    );
    let done = json!({"conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z", "succeeded": 1});
    check_status(good(), done.clone(), &[]);
    check_status(
        good(),
        json!({"conditions": [condition("Complete"), condition("Failed")], "active": 1}),
        &[
            "status.conditions: Invalid value",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.startTime: Required value: startTime is required for finished job",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
        ],
    );
    let mut finished = good();
    finished["status"] = done;
    check_status(
        finished,
        json!({}),
        &[
            "status.conditions: Invalid value: null: cannot disable the terminal Complete condition",
            "status.conditions: Invalid value: null: cannot disable the terminal SuccessCriteriaMet condition",
        ],
    );
}

#[test]
fn the_printed_row() {
    let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
    let mut job = good();
    job["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    job["status"] = json!({"startTime": "2026-01-01T00:09:00Z", "succeeded": 1});
    let expected = ["j", "Running", "1/1", "60s", "10m", "c", "a:1", "batch.kubernetes.io/controller-uid=u-1"];
    assert_eq!(Job.cells(&job, now), expected.map(Value::from));
    let shown = |status: Value, spec: Value| {
        let cells = Job.cells(&json!({"metadata": {"deletionTimestamp": null}, "spec": spec, "status": status}), now);
        format!("{} {} {}", cells[1].as_str().unwrap(), cells[2].as_str().unwrap(), cells[3].as_str().unwrap())
    };
    let ended = json!({"conditions": [{"type": "Failed", "status": "True"}], "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:05Z"});
    assert_eq!(shown(ended, json!({"parallelism": 3})), "Failed 0/1 of 3 5s");
    assert_eq!(shown(json!({"conditions": [{"type": "Suspended", "status": "True"}]}), json!({})), "Suspended 0/1 ");
}
