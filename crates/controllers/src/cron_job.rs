//! CronJob: a Job at each time of a schedule.
//!
//! Goal        for each time that is due there is one Job, named by the minute; several missed ones make one
//! Watches     CronJob; Job (owned)
//! Writes      Job: create, delete · CronJob: status
//! Relies on   the API to hold at most one Job of a name: a time never makes two, whatever is written twice
//!
//! Rules, in order
//!   R1 ending       a CronJob being deleted is left alone
//!   R2 active       status.active names the Jobs that have not finished; lastSuccessfulTime is the latest good end
//!   R3 history      finished Jobs beyond successfulJobsHistoryLimit and failedJobsHistoryLimit go, oldest first
//!   R4 suspended    nothing is started while suspended
//!   R5 due          the latest time since the last one that was made (or the creation) is due; the ones before it are
//!                   missed. More than MISSED_MAX are said once, and still only the latest is made
//!   R6 deadline     a time that is longer ago than startingDeadlineSeconds is missed
//!   R7 concurrency  Forbid waits for the last Job to end, Replace deletes it, Allow starts beside it
//!   R8 zone         the schedule is read in spec.timeZone, else in UTC
//! Not here       pods (job) · the grammar of schedules and their times (api's schedule)
//! Source: API reference, batch/v1 CronJob.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::schedule::Schedule;
use windlass_api::{Header, Object, find_zone, kinds};
use windlass_client::{Cache, Cached, Caches, DeleteOptions, Key, ObjectRef, Patch, Propagation};

use crate::claim::controller_reference;
use crate::condition;
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Action, Plan, Target};

/// Times that may be missed before it is told: more says that a clock jumped or that nobody was at work for long.
const MISSED_MAX: usize = 100;
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// A look just before its time would find nothing due.
const SLACK: Duration = Duration::from_millis(100);
/// Longest part of a CronJob's name in those of its Jobs: the API allows no more.
const NAME_BYTES_MAX: usize = 52;

/// The controller of CronJobs.
pub(crate) struct CronJobs {
    crons: Cache,
    jobs: Cache,
}

/// What a decision about one CronJob depends on.
pub(crate) struct View {
    header: Header,
    cron: Arc<Facts>,
    jobs: Vec<Arc<Cached>>,
    now: Timestamp,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Facts {
    spec: Spec,
    status: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    schedule: String,
    time_zone: Option<String>,
    starting_deadline_seconds: Option<i64>,
    concurrency_policy: String,
    suspend: bool,
    job_template: Value,
    successful_jobs_history_limit: Option<i64>,
    failed_jobs_history_limit: Option<i64>,
}

/// What the controller reads of a Job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct JobFacts {
    status: JobStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobStatus {
    start_time: Option<Timestamp>,
    completion_time: Option<Timestamp>,
    conditions: Option<Vec<Value>>,
}

impl CronJobs {
    pub(crate) fn new(caches: &Caches) -> CronJobs {
        CronJobs { crons: caches.of(&kinds::CRON_JOB), jobs: caches.of(&kinds::JOB) }
    }
}

fn facts(cron: &Cached) -> Arc<Facts> {
    cron.memo(|cron: &Object| {
        cron.decode().unwrap_or_else(|error| {
            tracing::error!(cron_job = cron.header.key(), %error, "a cron job that cannot be read is left alone");
            Facts::default()
        })
    })
}

/// A Job of the CronJob.
struct Run<'a> {
    object: &'a Cached,
    facts: Arc<JobFacts>,
}

impl<'a> Run<'a> {
    fn of(object: &'a Cached) -> Run<'a> {
        let facts = object.memo(|job: &Object| {
            job.decode().unwrap_or_else(|error| {
                tracing::error!(job = job.header.key(), %error, "a job that cannot be read counts as one that runs");
                JobFacts::default()
            })
        });
        Run { object, facts }
    }

    fn has(&self, kind: &str) -> bool {
        let conditions = self.facts.status.conditions.as_deref().unwrap_or_default();
        condition::find(conditions, kind).is_some_and(|condition| condition["status"] == "True")
    }

    fn has_finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }
}

impl Controller for CronJobs {
    type View = View;
    const NAME: &'static str = "cronjob";

    fn wakes(&self) -> Vec<Wake> {
        vec![Wake::itself(&kinds::CRON_JOB), Wake::owner(&kinds::JOB, &kinds::CRON_JOB)]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let cron = self.crons.get_key(key.as_str())?;
        let mut jobs = self.jobs.owned_by(cron.header.uid());
        let is_own = |job: &Arc<Cached>| job.header.controller().is_some_and(|owner| owner.uid == cron.header.uid());
        jobs.retain(|job| is_own(job) && job.header.namespace() == cron.header.namespace());
        jobs.sort_by(|one, other| {
            let by = |job: &Cached| (job.header.created().to_owned(), job.header.name().to_owned());
            by(one).cmp(&by(other))
        });
        Some(View { header: cron.header.clone(), cron: facts(&cron), jobs, now: look.now })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        let spec = &view.cron.spec;
        if view.header.is_ending() || spec.schedule.is_empty() {
            return plan;
        }
        let runs: Vec<Run> = view.jobs.iter().map(|job| Run::of(job)).collect();
        forget(view, &runs, &mut plan);
        let made = if spec.suspend { None } else { start(view, &runs, &mut plan) };
        plan_status(view, &runs, made, &mut plan);
        plan
    }
}

/// R3.
fn forget(view: &View, runs: &[Run], plan: &mut Plan) {
    let spec = &view.cron.spec;
    let limits = [("Complete", spec.successful_jobs_history_limit, 3), ("Failed", spec.failed_jobs_history_limit, 1)];
    for (kind, limit, usual) in limits {
        let limit = usize::try_from(limit.unwrap_or(usual)).unwrap_or(0);
        let mut ended: Vec<&Run> = runs.iter().filter(|run| run.has(kind) && !run.object.header.is_ending()).collect();
        ended.sort_by_key(|run| run.facts.status.start_time);
        for run in ended.iter().take(ended.len().saturating_sub(limit)) {
            delete(view, run, format!("Deleted job {}", run.object.header.name()), plan);
        }
    }
}

fn delete(view: &View, run: &Run, why: String, plan: &mut Plan) {
    let target = Target::of(&kinds::JOB, &run.object.header);
    let options = DeleteOptions::of_uid(&target.uid).propagate(Propagation::Background);
    plan.add(Action::Delete { target, options }, why)
        .tell(ObjectRef::of(&view.header), "SuccessfulDelete")
        .tell_failure("FailedDelete");
}

/// Warns people about why nothing is started.
fn warn(view: &View, reason: &'static str, why: String, plan: &mut Plan) {
    plan.say(ObjectRef::of(&view.header), reason, why).as_warning();
}

/// R5 to R8: makes the Job that is due, if one is; the time for which there is one now.
fn start(view: &View, runs: &[Run], plan: &mut Plan) -> Option<Timestamp> {
    let spec = &view.cron.spec;
    let schedule = match Schedule::read(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => {
            warn(view, "UnparseableSchedule", format!("unparseable schedule {:?}: {why}", spec.schedule), plan);
            return None;
        }
    };
    let zone = match &spec.time_zone {
        None => TimeZone::UTC,
        Some(name) => match find_zone(name) {
            Some(zone) => zone,
            None => {
                warn(view, "UnknownTimeZone", format!("invalid timeZone: {name:?}"), plan);
                return None;
            }
        },
    };
    if let Some(next) = schedule.after(view.now, &zone) {
        let wait = Duration::try_from(next.duration_since(view.now)).unwrap_or_default();
        plan.look_again(wait + SLACK, "the schedule's next time will have come");
    }
    let Due { at, missed } = due(view, &schedule, &zone)?;
    if missed > MISSED_MAX {
        let why = "too many missed start times: set or decrease .spec.startingDeadlineSeconds or check clock skew";
        warn(view, "TooManyMissedTimes", why.to_owned(), plan);
    }
    let name = name(&view.header, at);
    if runs.iter().any(|run| run.object.header.name() == name) {
        return Some(at);
    }
    let active: Vec<&Run> = runs.iter().filter(|run| !run.has_finished()).collect();
    match spec.concurrency_policy.as_str() {
        "Forbid" if !active.is_empty() => {
            let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.say(ObjectRef::of(&view.header), "JobAlreadyActive", why);
            return None;
        }
        "Replace" => {
            for run in active.iter().filter(|run| !run.object.header.is_ending()) {
                delete(view, run, format!("Deleted job {}", run.object.header.name()), plan);
            }
        }
        _ => {}
    }
    plan.create(&kinds::JOB, view.header.namespace(), new(view, &name, at, &zone), format!("Created job {name}"))
        .tell(ObjectRef::of(&view.header), "SuccessfulCreate")
        .tell_failure("FailedCreate");
    // Whether it could be made the next pass sees.
    None
}

/// What is due, and how many times there were since the last.
struct Due {
    at: Timestamp,
    missed: usize,
}

/// R5.
fn due(view: &View, schedule: &Schedule, zone: &TimeZone) -> Option<Due> {
    let created = view.header.created().parse().ok();
    let mut since = condition::time(&view.cron.status, "lastScheduleTime").or(created).unwrap_or(view.now);
    if let Some(deadline) = view.cron.spec.starting_deadline_seconds {
        // R6: what is longer ago is missed for good.
        let earliest = view.now.checked_sub(SignedDuration::from_secs(deadline)).unwrap_or(Timestamp::MIN);
        since = since.max(earliest);
    }
    let next = |time: Timestamp| schedule.after(time, zone).filter(|next| *next <= view.now);
    let mut at = next(since)?;
    for missed in 1..=MISSED_MAX {
        match next(at) {
            Some(later) => at = later,
            None => return Some(Due { at, missed }),
        }
    }
    // Many: the latest is looked for from the end, in windows that double until there is a time in one.
    let mut window = SignedDuration::from_mins(1);
    let latest = loop {
        let start = view.now.checked_sub(window).unwrap_or(Timestamp::MIN);
        match next(start.max(at)) {
            Some(found) => break found,
            None if start <= at => break at,
            None => window = window.saturating_mul(2),
        }
    };
    let mut at = latest;
    while let Some(later) = next(at) {
        at = later;
    }
    Some(Due { at, missed: MISSED_MAX + 1 })
}

/// The name of the Job for a time: a time that is no whole minute (`@every 10s`) has its seconds too.
fn name(cron: &Header, at: Timestamp) -> String {
    let cron = &cron.name()[..cron.name().len().min(NAME_BYTES_MAX)];
    match (at.as_second() / 60, at.as_second() % 60) {
        (minutes, 0) => format!("{cron}-{minutes}"),
        (minutes, seconds) => format!("{cron}-{minutes}{seconds:02}"),
    }
}

fn new(view: &View, name: &str, at: Timestamp, zone: &TimeZone) -> Value {
    let template = &view.cron.spec.job_template;
    let mut annotations = template["metadata"]["annotations"].clone();
    let zoned = at.to_zoned(zone.clone());
    let offset = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    annotations[SCHEDULED_AT] = json!(format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S")));
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": view.header.namespace(), "labels": template["metadata"]["labels"],
            "annotations": annotations, "ownerReferences": [controller_reference(&kinds::CRON_JOB, &view.header)],
        },
        "spec": template["spec"],
    })
}

/// R2. `made` is the latest time for which there is a Job.
fn plan_status(view: &View, runs: &[Run], made: Option<Timestamp>, plan: &mut Plan) {
    let found = &view.cron.status;
    let active = runs.iter().filter(|run| !run.has_finished());
    let active: Vec<Value> = active.map(|run| reference(&run.object.header)).collect();
    let good = runs.iter().filter(|run| run.has("Complete")).filter_map(|run| run.facts.status.completion_time);
    let latest = |field: &str, new: Option<Timestamp>| match (condition::time(found, field), new) {
        (Some(found), Some(new)) if new > found => json!(condition::text(new)),
        (None, Some(new)) => json!(condition::text(new)),
        _ => found[field].clone(),
    };
    let active = if active.is_empty() { Value::Null } else { Value::Array(active) };
    let status = json!({
        "active": active,
        "lastScheduleTime": latest("lastScheduleTime", made),
        "lastSuccessfulTime": latest("lastSuccessfulTime", good.max()),
    });
    let was = found["active"].as_array().map_or(0, Vec::len);
    let same = |field: &str| found[field] == status[field] || was == 0 && field == "active" && status[field].is_null();
    if ["active", "lastScheduleTime", "lastSuccessfulTime"].into_iter().all(same) {
        return;
    }
    let ended = found["active"].as_array().into_iter().flatten().filter_map(|job| {
        let run = runs.iter().find(|run| job["uid"] == run.object.header.uid())?;
        let end = if run.has("Complete") { "Complete" } else { "Failed" };
        run.has_finished().then(|| (run.object.header.name().to_owned(), end))
    });
    for (name, end) in ended.collect::<Vec<_>>() {
        let why = format!("Saw completed job: {name}, condition: {end}");
        plan.say(ObjectRef::of(&view.header), "SawCompletedJob", why);
    }
    let why = format!("status: {} jobs run", status["active"].as_array().map_or(0, Vec::len));
    plan.patch_status(Target::of(&kinds::CRON_JOB, &view.header), Patch::Merge(json!({"status": status})), why);
}

fn reference(job: &Header) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": job.namespace(), "name": job.name(), "uid": job.uid()})
}

#[cfg(test)]
mod tests;
