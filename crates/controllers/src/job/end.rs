//! R8 to R11: whether and how a job ends, and what its status says.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::{EventKind, ObjectRef, Patch};

use super::count::Counted;
use super::pod::JobPod;
use super::{JobView, left_of, policy};
use crate::condition::{self, Wanted};
use crate::plan::{Event, Plan, Target};

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) is_good: bool,
    reason: String,
    message: String,
}

impl End {
    fn bad(reason: &str, message: impl Into<String>) -> Option<End> {
        Some(End { is_good: false, reason: reason.to_owned(), message: message.into() })
    }

    fn good(reason: &str, message: impl Into<String>) -> Option<End> {
        Some(End { is_good: true, reason: reason.to_owned(), message: message.into() })
    }
}

fn conditions(status: &Value) -> &[Value] {
    status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn holds<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    condition::find(conditions, kind).filter(|condition| condition["status"] == "True")
}

/// The end that an earlier pass has announced.
pub(super) fn announced(status: &Value) -> Option<End> {
    [("FailureTarget", false), ("SuccessCriteriaMet", true)].into_iter().find_map(|(kind, is_good)| {
        let found = holds(conditions(status), kind)?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some(End { is_good, reason: text("reason"), message: text("message") })
    })
}

/// Since when the job runs; suspended it does not.
fn started(view: &JobView) -> Option<Timestamp> {
    if view.job.spec.suspend {
        return None;
    }
    condition::time(&view.job.status, "startTime").or(Some(view.now))
}

/// R8, R9.
pub(super) fn decide(view: &JobView, pods: &[JobPod], counted: &mut Counted, plan: &mut Plan) {
    if counted.end.is_none() {
        counted.end =
            failed(view, pods, counted).or_else(|| late(view, plan)).or_else(|| succeeded(view, pods, counted));
    }
}

fn failed(view: &JobView, pods: &[JobPod], counted: &Counted) -> Option<End> {
    let spec = &view.job.spec;
    if let Some(why) = &counted.fail_job {
        return End::bad("PodFailurePolicy", why.clone());
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if counted.failures() > limit || restarts_exceed(view, pods, limit) {
        return End::bad("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    spec.backoff_limit_per_index?;
    let failed = counted.failed_indexes.len();
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        return End::bad("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
    }
    if failed > 0 && failed + counted.completed.len() >= spec.indexes() {
        return End::bad("FailedIndexes", "Job has failed indexes");
    }
    None
}

/// Containers that are restarted in their pods count as failures too.
fn restarts_exceed(view: &JobView, pods: &[JobPod], limit: i64) -> bool {
    if view.job.spec.template["spec"]["restartPolicy"] != "OnFailure" {
        return false;
    }
    let restarts: i64 = pods.iter().filter(|pod| !pod.is_terminal()).map(JobPod::restarts).sum();
    restarts > 0 && restarts >= limit
}

fn late(view: &JobView, plan: &mut Plan) -> Option<End> {
    let (seconds, started) = (view.job.spec.active_deadline_seconds?, started(view)?);
    let left = left_of(started, seconds, view.now);
    if left.is_zero() {
        return End::bad("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    plan.look_again(left, "activeDeadlineSeconds will have passed");
    None
}

fn succeeded(view: &JobView, pods: &[JobPod], counted: &Counted) -> Option<End> {
    let spec = &view.job.spec;
    if let Some(policy) = &spec.success_policy
        && let Some(rule) = policy::met(policy, &counted.completed, spec.indexes())
    {
        return End::good("SuccessPolicy", format!("Matched rules at index {rule}"));
    }
    let is_enough = match spec.completions {
        // Any success says that there is no more to do; those that run may finish.
        None => counted.successes() > 0 && pods.iter().all(|pod| pod.is_terminal()),
        Some(wanted) => counted.successes() >= wanted,
    };
    if is_enough { End::good("CompletionsReached", "Reached expected number of succeeded pods") } else { None }
}

/// R10: nothing runs any more and everything is counted.
fn is_over(pods: &[JobPod], counted: &Counted) -> bool {
    let is_waited_for = |pod: &JobPod| !pod.is_terminal() || pod.has_failed() && pod.is_tracked();
    !counted.has_uncounted() && !pods.iter().any(is_waited_for)
}

/// Writes the status when it says something else. An event goes with what has been decided.
pub(super) fn plan_status(view: &JobView, pods: &[JobPod], counted: &Counted, plan: &mut Plan) {
    let (spec, found) = (&view.job.spec, &view.job.status);
    let amount = |is: fn(&JobPod) -> bool| pods.iter().filter(|pod| is(pod)).count();
    let mut list = conditions(found).to_vec();
    let told = set_conditions(view, pods, counted, &mut list);
    let is_complete = holds(&list, "Complete").is_some();
    let has_started = started(view);
    let start = match (found["startTime"].as_str(), has_started) {
        (Some(text), _) if !spec.suspend || counted.end.is_some() => json!(text),
        (_, Some(start)) => json!(condition::text(start)),
        (_, None) if counted.end.is_some() => json!(condition::text(view.now)),
        (_, None) => Value::Null,
    };
    let uncounted = |uids: &[String]| if uids.is_empty() { Value::Null } else { json!(uids) };
    let indexes = |text: String| if text.is_empty() { Value::Null } else { json!(text) };
    let desired = json!({
        "active": amount(JobPod::is_active),
        "ready": amount(|pod| pod.is_active() && pod.is_ready()),
        "terminating": amount(JobPod::is_terminating),
        "succeeded": counted.succeeded,
        "failed": counted.failed,
        "completedIndexes": indexes(counted.completed.to_string()),
        "failedIndexes": indexes(counted.failed_indexes.to_string()),
        "startTime": start,
        "completionTime": if is_complete { json!(condition::text(view.now)) } else { Value::Null },
        "conditions": if list.is_empty() { Value::Null } else { json!(list) },
        "uncountedTerminatedPods": {
            "succeeded": uncounted(&counted.uncounted_succeeded), "failed": uncounted(&counted.uncounted_failed),
        },
    });
    if !crate::status::differs(found, &desired) {
        return;
    }
    let why = match &told {
        Some((_, _, message)) => message.clone(),
        None => format!(
            "status: {} active, {} succeeded, {} failed",
            desired["active"],
            counted.successes(),
            counted.failures()
        ),
    };
    let patch = json!({"metadata": {"resourceVersion": view.header.revision.to_string()}, "status": desired});
    let item = plan.patch_status(Target::of(&kinds::JOB, &view.header), Patch::Merge(patch), why);
    if let Some((kind, reason, _)) = told {
        item.event =
            Some(Event { about: ObjectRef::of(&view.header), kind, reason: Some(reason), failed_reason: None });
    }
}

/// Sets the conditions; what people are told about it.
fn set_conditions(
    view: &JobView,
    pods: &[JobPod],
    counted: &Counted,
    list: &mut Vec<Value>,
) -> Option<(EventKind, &'static str, String)> {
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        let wanted = Wanted { kind, status, reason, message: message.to_owned() };
        condition::set(list, &wanted, view.now, false);
    };
    if let Some(end) = &counted.end {
        set(if end.is_good { "SuccessCriteriaMet" } else { "FailureTarget" }, "True", &end.reason, &end.message);
        if !is_over(pods, counted) {
            return None;
        }
        set(if end.is_good { "Complete" } else { "Failed" }, "True", &end.reason, &end.message);
        return Some(if end.is_good {
            (EventKind::Normal, "Completed", "Job completed".to_owned())
        } else {
            (EventKind::Warning, known_reason(&end.reason), end.message.clone())
        });
    }
    // R11.
    let is_suspended = holds(conditions(&view.job.status), "Suspended").is_some();
    if view.job.spec.suspend && !is_suspended {
        set("Suspended", "True", "JobSuspended", "Job suspended");
        return Some((EventKind::Normal, "Suspended", "Job suspended".to_owned()));
    }
    if !view.job.spec.suspend && is_suspended {
        set("Suspended", "False", "JobResumed", "Job resumed");
        return Some((EventKind::Normal, "Resumed", "Job resumed".to_owned()));
    }
    None
}

/// The reasons of bad ends, as Events have them.
fn known_reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] =
        ["PodFailurePolicy", "BackoffLimitExceeded", "MaxFailedIndexesExceeded", "FailedIndexes", "DeadlineExceeded"];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}
