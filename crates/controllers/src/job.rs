//! Job: pods that run until enough of them have succeeded.
//!
//! Goal        `completions` pods have succeeded (each index once), at most `parallelism` at a time; or it says why not
//! Watches     Job; Pod (owned, or nobody's and matching)
//! Writes      Pod: create, delete, owner reference, finalizer `batch.kubernetes.io/job-tracking` · Job: status, delete
//! Relies on   nobody else takes the finalizer off: a pod that has it was not counted yet
//!
//! Rules, in order
//!   R1 stray       pods whose job is gone, ending or finished lose the finalizer, so that they can go
//!   R2 managed by  a job that another controller manages is left alone
//!   R3 expiry      a finished job is deleted ttlSecondsAfterFinished after its end
//!   R4 adopt       matching orphans are adopted, owned strangers released, with the finalizer
//!   R5 count       each ended pod counts exactly once: it is noted in the status, then loses the finalizer, then is
//!                  added to its counter. An index that has succeeded is noted by its number (`count`)
//!   R6 index       a failed index is tried again up to backoffLimitPerIndex; its last pod stays until the next is there
//!   R7 failures    podFailurePolicy says what a failure means (`policy`)
//!   R8 success     enough completions, or a rule of successPolicy, ends the job well
//!   R9 limits      backoffLimit, maxFailedIndexes, activeDeadlineSeconds and FailJob end it badly
//!   R10 end        the end is announced (SuccessCriteriaMet, FailureTarget), the pods that still run are deleted, and
//!                  when all have ended and are counted it is final (Complete, Failed)
//!   R11 suspend    a suspended job has no pods and no clock; those that it loses are not failures
//!   R12 pods       missing pods are created and surplus ones deleted, at most BURST_MAX a pass (`run`)
//!   R13 back-off   10 s after a failure, doubled with each that follows up to 10 min, per index where it has a limit
//!   R14 replaced   a pod that is on its way out is replaced at once, or (podReplacementPolicy Failed) after its end
//! Not here       placement (scheduler) · restarts of containers within a pod (node agent)
//! Source: API reference, batch/v1 Job; KEP-2307, KEP-3329, KEP-3850, KEP-3939, KEP-3998.

mod count;
mod end;
mod index;
mod pod;
mod policy;
mod run;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Header, Object, kinds};
use windlass_client::{Cache, Cached, Caches, DeleteOptions, Key, Propagation};

use crate::claim::{Claimant, Claims, candidates, owner_json, owners_patch};
use crate::condition;
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Action, Guard, Item, Plan, Target};
use crate::selector::Selector;
use count::Counted;
use pod::JobPod;

/// A pod that has it was not counted yet.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The value of `managedBy` that means this controller.
const SELF: &str = "kubernetes.io/job-controller";
/// Pods created, deleted or counted by one pass; the next goes on.
const BURST_MAX: usize = 500;

/// The controller of Jobs.
pub(crate) struct Jobs {
    jobs: Cache,
    pods: Cache,
}

/// What a decision depends on.
pub(crate) enum View {
    /// Pods of a namespace whose job is gone.
    Strays(Vec<Arc<Cached>>),
    Job(Box<JobView>),
}

/// What a decision about one job depends on.
pub(crate) struct JobView {
    header: Header,
    job: Arc<Facts>,
    /// Owned pods and orphans of the namespace.
    pods: Vec<Arc<Cached>>,
    /// Our copy of the pods is as new as the job: who is not in it is gone.
    pods_are_current: bool,
    now: Timestamp,
}

/// The job as its controller reads it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Facts {
    spec: Spec,
    status: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    parallelism: Option<i64>,
    completions: Option<i64>,
    completion_mode: String,
    backoff_limit: Option<i64>,
    backoff_limit_per_index: Option<i64>,
    max_failed_indexes: Option<i64>,
    active_deadline_seconds: Option<i64>,
    ttl_seconds_after_finished: Option<i64>,
    suspend: bool,
    managed_by: Option<String>,
    pod_replacement_policy: String,
    pod_failure_policy: Option<policy::FailurePolicy>,
    success_policy: Option<policy::SuccessPolicy>,
    selector: Selector,
    template: Value,
}

impl Spec {
    fn is_indexed(&self) -> bool {
        self.completion_mode == "Indexed"
    }

    /// R14.
    fn replaces_only_failed(&self) -> bool {
        self.pod_replacement_policy == "Failed"
    }

    /// An indexed job's indexes are below this.
    fn indexes(&self) -> i64 {
        self.completions.unwrap_or(0)
    }
}

impl Jobs {
    pub(crate) fn new(caches: &Caches) -> Jobs {
        Jobs { jobs: caches.of(&kinds::JOB), pods: caches.of(&kinds::POD) }
    }
}

fn facts(job: &Cached) -> Arc<Facts> {
    job.memo(|job: &Object| {
        job.decode().unwrap_or_else(|error| {
            tracing::error!(job = job.header.key(), %error, "a job that cannot be read is left alone");
            Facts::default()
        })
    })
}

/// The key under which a namespace's pods without a job are looked at.
fn strays(namespace: &str) -> Key {
    Key::new(namespace, "")
}

/// Whether the pod's job is the one there is.
fn has_job(jobs: &Cache, pod: &Header) -> bool {
    match pod.controller() {
        Some(owner) if owner.kind == "Job" => {
            jobs.get(pod.namespace(), &owner.name).is_some_and(|job| job.header.uid() == owner.uid)
        }
        Some(_) => true,
        None => selecting(jobs, pod).next().is_some(),
    }
}

/// The jobs that select a pod.
fn selecting(jobs: &Cache, pod: &Header) -> impl Iterator<Item = Arc<Cached>> {
    let found = if pod.labels().is_empty() { Vec::new() } else { jobs.in_namespace(pod.namespace()) };
    found.into_iter().filter(|job| {
        let selector = &facts(job).spec.selector;
        !selector.is_empty() && selector.matches(&pod.labels())
    })
}

impl Controller for Jobs {
    type View = View;
    const NAME: &'static str = "job";

    fn wakes(&self) -> Vec<Wake> {
        let jobs = self.jobs.clone();
        let others = Wake::new(&kinds::POD, move |change, wake| {
            let Some(pod) = &change.new else { return };
            if pod.header.controller().is_none() {
                selecting(&jobs, &pod.header).for_each(|job| wake(Key::of(&job.header)));
            }
            if pod.header.has_finalizer(FINALIZER) && !has_job(&jobs, &pod.header) {
                wake(strays(pod.header.namespace()));
            }
        });
        let gone = Wake::new(&kinds::JOB, |change, wake| {
            wake(change.key.clone());
            if change.new.is_none() {
                wake(strays(change.key.namespace()));
            }
        });
        vec![gone, Wake::owner(&kinds::POD, &kinds::JOB), others]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        if key.name().is_empty() {
            let mut pods = self.pods.in_namespace(key.namespace());
            pods.retain(|pod| pod.header.has_finalizer(FINALIZER) && !has_job(&self.jobs, &pod.header));
            return (!pods.is_empty()).then_some(View::Strays(pods));
        }
        let job = self.jobs.get_key(key.as_str())?;
        let pods_are_current = self.pods.revision() >= job.header.revision;
        let pods = candidates(&self.pods, &job.header);
        Some(View::Job(Box::new(JobView {
            header: job.header.clone(),
            job: facts(&job),
            pods,
            pods_are_current,
            now: look.now,
        })))
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        match view {
            View::Strays(pods) => {
                for pod in pods.iter().take(BURST_MAX) {
                    let item = release(pod, "its job is gone", &mut plan);
                    // Our copy of the jobs may be older than that of the pods.
                    if let Some(owner) = pod.header.controller() {
                        let key = Key::new(pod.header.namespace(), &owner.name);
                        let job = Target { kind: kinds::JOB.clone(), key, uid: owner.uid.clone() };
                        item.guard(Guard::Absent(vec![job]));
                    }
                }
                if pods.len() > BURST_MAX {
                    plan.look_again(Duration::from_secs(1), "more pods of jobs that are gone are to be let go");
                }
            }
            View::Job(view) => plan_job(view, &mut plan),
        }
        plan
    }
}

fn plan_job(view: &JobView, plan: &mut Plan) {
    let (spec, status) = (&view.job.spec, &view.job.status);
    if let Some(finished) = finished_at(status) {
        expire(view, finished, plan);
        release_all(view, "its job has finished", plan);
        return;
    }
    // R2.
    if spec.selector.is_empty() || spec.managed_by.as_ref().is_some_and(|manager| manager != SELF) {
        return;
    }
    if view.header.is_ending() {
        release_all(view, "its job is ending", plan);
        return;
    }
    let claims = Claimant { kind: &kinds::JOB, header: &view.header, selector: &spec.selector }.sort(&view.pods);
    claim(view, &claims, plan);
    let pods: Vec<JobPod> = claims.owned.iter().map(JobPod::of).collect();
    let adopted = claims.orphans.iter().filter(|pod| JobPod::of(pod).is_active()).count();
    let mut counted = Counted::read(view);
    counted.count(view, &pods, plan);
    end::decide(view, &pods, &mut counted, plan);
    end::plan_status(view, &pods, &counted, plan);
    counted.release(view, &pods, plan);
    run::plan(view, &pods, adopted, &counted, plan);
}

/// When the job ended, if it did.
fn finished_at(status: &Value) -> Option<Timestamp> {
    let conditions = status["conditions"].as_array()?;
    let is_final = |condition: &&Value| {
        (condition["type"] == "Complete" || condition["type"] == "Failed") && condition["status"] == "True"
    };
    let found = conditions.iter().find(is_final)?;
    Some(condition::time(found, "lastTransitionTime").unwrap_or(Timestamp::UNIX_EPOCH))
}

/// R3.
fn expire(view: &JobView, finished: Timestamp, plan: &mut Plan) {
    let Some(ttl) = view.job.spec.ttl_seconds_after_finished.filter(|_| !view.header.is_ending()) else { return };
    let left = left_of(finished, ttl, view.now);
    if left.is_zero() {
        let target = Target::of(&kinds::JOB, &view.header);
        let options = DeleteOptions::of_uid(&target.uid).propagate(Propagation::Foreground);
        plan.add(Action::Delete { target, options }, format!("it finished {ttl} s ago, as long as it is kept"));
    } else {
        plan.look_again(left, "ttlSecondsAfterFinished will have passed");
    }
}

/// What is left of so many seconds since then.
fn left_of(since: Timestamp, seconds: i64, now: Timestamp) -> Duration {
    let passed = now.duration_since(since);
    Duration::try_from(SignedDuration::from_secs(seconds).saturating_sub(passed)).unwrap_or(Duration::ZERO)
}

/// R1.
fn release_all(view: &JobView, why: &str, plan: &mut Plan) {
    let own = |pod: &&Arc<Cached>| pod.header.controller().is_none_or(|owner| owner.uid == view.header.uid());
    let selected =
        |pod: &&Arc<Cached>| pod.header.controller().is_some() || view.job.spec.selector.matches(&pod.header.labels());
    let tracked = view.pods.iter().filter(|pod| pod.header.has_finalizer(FINALIZER));
    for pod in tracked.filter(own).filter(selected).take(BURST_MAX) {
        release(pod, why, plan);
    }
}

/// Takes the finalizer off a pod.
fn release<'a>(pod: &Cached, why: &str, plan: &'a mut Plan) -> &'a mut Item {
    let patch = json!({"metadata": {
        "resourceVersion": pod.header.revision.to_string(), "uid": pod.header.uid(), "finalizers": untracked(&pod.header),
    }});
    plan.patch(Target::of(&kinds::POD, &pod.header), patch, format!("Pod {} is let go: {why}", pod.header.name()))
}

/// The pod's other finalizers.
fn untracked(pod: &Header) -> Value {
    let others: Vec<&str> = pod.finalizers().filter(|finalizer| *finalizer != FINALIZER).collect();
    if others.is_empty() { Value::Null } else { json!(others) }
}

/// R4.
fn claim(view: &JobView, claims: &Claims, plan: &mut Plan) {
    let own = crate::claim::controller_reference(&kinds::JOB, &view.header);
    for orphan in &claims.orphans {
        let header = &orphan.header;
        let others = header.owners().iter().filter(|owner| owner.uid != view.header.uid());
        let owners = others.map(owner_json).chain([own.clone()]).collect();
        let mut patch = owners_patch(header, owners);
        if !header.has_finalizer(FINALIZER) {
            let finalizers: Vec<&str> = header.finalizers().chain([FINALIZER]).collect();
            patch["metadata"]["finalizers"] = json!(finalizers);
        }
        let why = format!("Pod {} is selected and nobody's", header.name());
        plan.patch(Target::of(&kinds::POD, header), patch, why);
    }
    for stranger in &claims.strangers {
        let header = &stranger.header;
        let others = header.owners().iter().filter(|owner| owner.uid != view.header.uid());
        let mut patch = owners_patch(header, others.map(owner_json).collect());
        patch["metadata"]["finalizers"] = untracked(header);
        let why = format!("Pod {} is not selected any more", header.name());
        plan.patch(Target::of(&kinds::POD, header), patch, why);
    }
}

#[cfg(test)]
mod tests;
