//! R11 to R14: the pods that run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use windlass_api::kinds;
use windlass_client::ObjectRef;

use super::count::Counted;
use super::pod::{self, Attempt, JobPod};
use super::policy::{self, Meaning};
use super::{BURST_MAX, JobView, release};
use crate::plan::{Plan, Target};

/// After the first failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// After many.
const BACKOFF_MOST: Duration = Duration::from_secs(600);

/// Plans what is to run and what is not to. `adopted` pods run too and are not among `pods` yet.
pub(super) fn plan(view: &JobView, pods: &[JobPod], adopted: usize, counted: &Counted, plan: &mut Plan) {
    let spec = &view.job.spec;
    let active: Vec<&JobPod> = pods.iter().filter(|pod| pod.is_active()).collect();
    if counted.end.is_some() {
        delete(view, active, plan);
        return;
    }
    if spec.suspend {
        drop_pods(view, active, plan);
        return;
    }
    let running = active.len() + adopted;
    let wanted = wanted(view, running, counted);
    let surplus = surplus(view, &active, running.saturating_sub(wanted), counted);
    if !surplus.is_empty() {
        drop_pods(view, surplus, plan);
        return;
    }
    let ending = if spec.replaces_only_failed() { pods.iter().filter(|pod| pod.is_terminating()).count() } else { 0 };
    let missing = wanted.saturating_sub(running + ending).min(BURST_MAX);
    if missing == 0 {
        return;
    }
    if spec.is_indexed() {
        create_indexes(view, pods, missing, counted, plan);
        return;
    }
    let left = backoff_left(pods, view.now);
    if left.is_zero() {
        (0..missing).for_each(|_| create(view, None, plan));
    } else {
        plan.look_again(left, "the back-off after the last failure will be over");
    }
}

/// How many pods are to run.
fn wanted(view: &JobView, running: usize, counted: &Counted) -> usize {
    let spec = &view.job.spec;
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        None if counted.successes() > 0 => parallelism.min(i64::try_from(running).unwrap_or(i64::MAX)),
        None => parallelism,
        Some(completions) => {
            let failed = if spec.backoff_limit_per_index.is_some() { counted.failed_indexes.len() } else { 0 };
            parallelism.min(completions - counted.successes() - failed)
        }
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// The pods that are too many: seconds of an index first, then indexes that are none (any more), then the youngest of
/// those that are furthest from being ready.
fn surplus<'a>(view: &JobView, active: &[&'a JobPod], count: usize, counted: &Counted) -> Vec<&'a JobPod> {
    let spec = &view.job.spec;
    let mut rest: Vec<&JobPod> = active.to_vec();
    rest.sort_by_key(|pod| std::cmp::Reverse((pod.is_ready(), pod.object.header.phase() == "Running")));
    let mut surplus = Vec::new();
    if spec.is_indexed() {
        let mut seen = BTreeSet::new();
        rest.retain(|pod| {
            let index = pod.index().filter(|index| *index < spec.indexes());
            let is_open = |index: &i64| !counted.completed.contains(*index) && !counted.failed_indexes.contains(*index);
            let stays = index.filter(is_open).is_some_and(|index| seen.insert(index));
            if !stays {
                surplus.push(*pod);
            }
            stays
        });
    }
    while surplus.len() < count
        && let Some(pod) = rest.pop()
    {
        surplus.push(pod);
    }
    surplus
}

fn delete(view: &JobView, pods: Vec<&JobPod>, plan: &mut Plan) {
    for pod in pods.into_iter().take(BURST_MAX) {
        let why = format!("Deleted pod: {}", pod.name());
        plan.delete(Target::of(&kinds::POD, &pod.object.header), why)
            .tell(ObjectRef::of(&view.header), "SuccessfulDelete")
            .tell_failure("FailedDelete");
    }
}

/// Deletes pods that are not to count as failures: they are let go first.
fn drop_pods(view: &JobView, pods: Vec<&JobPod>, plan: &mut Plan) {
    for pod in pods.iter().filter(|pod| pod.is_tracked()).take(BURST_MAX) {
        release(&pod.object, "it is not to run and counts nothing", plan);
    }
    delete(view, pods, plan);
}

fn create(view: &JobView, attempt: Option<&Attempt>, plan: &mut Plan) {
    let why = "Created pod: {name}";
    plan.create(&kinds::POD, view.header.namespace(), pod::new(view, attempt), why)
        .tell(ObjectRef::of(&view.header), "SuccessfulCreate")
        .tell_failure("FailedCreate");
}

/// The lowest indexes that have neither ended nor a pod.
fn create_indexes(view: &JobView, pods: &[JobPod], missing: usize, counted: &Counted, plan: &mut Plan) {
    let spec = &view.job.spec;
    let has_pod = |pod: &&JobPod| pod.is_active() || pod.is_terminating() && spec.replaces_only_failed();
    let taken: BTreeSet<i64> = pods.iter().filter(has_pod).filter_map(JobPod::index).collect();
    let is_open = |index: &i64| {
        !taken.contains(index) && !counted.completed.contains(*index) && !counted.failed_indexes.contains(*index)
    };
    let open = (0..spec.indexes()).filter(is_open);
    if spec.backoff_limit_per_index.is_none() {
        let left = backoff_left(pods, view.now);
        if !left.is_zero() {
            plan.look_again(left, "the back-off after the last failure will be over");
            return;
        }
        open.take(missing).for_each(|index| create(view, Some(&Attempt { index, failed: None }), plan));
        return;
    }
    let mut before: BTreeMap<i64, &JobPod> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.is_active() && !pod.has_succeeded()) {
        if let Some(index) = pod.index() {
            let latest = before.entry(index).or_insert(pod);
            if pod.attempt() > latest.attempt() {
                *latest = pod;
            }
        }
    }
    let mut created = 0;
    for index in open {
        if created == missing {
            return;
        }
        let failed = match before.get(&index) {
            None => (0, 0),
            Some(pod) => {
                let failed = match policy::meaning(spec.pod_failure_policy.as_ref(), pod) {
                    Meaning::Ignore => (pod.failures(), pod.ignored() + 1),
                    _ => (pod.failures() + 1, pod.ignored()),
                };
                let left = left_after(failed.0 + failed.1, pod.finished_at(view.now), view.now);
                if !left.is_zero() {
                    plan.look_again(left, format!("the back-off of index {index} will be over"));
                    continue;
                }
                failed
            }
        };
        create(view, Some(&Attempt { index, failed: Some(failed) }), plan);
        created += 1;
    }
}

/// R13: what is left of the wait after the failures since the last success.
fn backoff_left(pods: &[JobPod], now: Timestamp) -> Duration {
    let ended = pods.iter().filter(|pod| pod.is_terminal());
    let mut ends: Vec<(Timestamp, bool)> = ended.map(|pod| (pod.finished_at(now), pod.has_succeeded())).collect();
    ends.sort_unstable_by_key(|end| std::cmp::Reverse(*end));
    let failures = ends.iter().take_while(|(_, succeeded)| !succeeded).count();
    match ends.first() {
        Some((last, _)) if failures > 0 => left_after(i64::try_from(failures).unwrap_or(i64::MAX), *last, now),
        _ => Duration::ZERO,
    }
}

fn left_after(failures: i64, last: Timestamp, now: Timestamp) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let wait = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MOST);
    let passed = Duration::try_from(now.duration_since(last).max(SignedDuration::ZERO)).unwrap_or(Duration::ZERO);
    wait.saturating_sub(passed)
}
