//! R5 and R6: every ended pod counts exactly once, whatever happens in between.
//!
//! ```text
//! ended, tracked ── noted in status.uncountedTerminatedPods ── finalizer taken off ── counter up, note gone
//!                └─ an index that succeeded: noted in completedIndexes (the counter is their number)
//! ```
//! Each arrow is one write. A pod loses the finalizer only when the note is in the status that the API holds, and a note
//! becomes a number in the same write that takes it away; so a crash anywhere repeats a step and changes no count.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::index::Indexes;
use super::pod::JobPod;
use super::policy::{self, Meaning};
use super::{BURST_MAX, JobView, release};
use crate::plan::Plan;

/// What a job has counted, as of this pass.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) succeeded: i64,
    pub(super) failed: i64,
    /// Uids of ended pods that are in no counter yet.
    pub(super) uncounted_succeeded: Vec<String>,
    pub(super) uncounted_failed: Vec<String>,
    pub(super) completed: Indexes,
    pub(super) failed_indexes: Indexes,
    /// R7: why the job has failed by its policy.
    pub(super) fail_job: Option<String>,
    /// Uids of pods that count nothing (more).
    idle: BTreeSet<String>,
    /// How the job is to end, once that is known.
    pub(super) end: Option<super::end::End>,
}

impl Counted {
    /// What the status says.
    pub(super) fn read(view: &JobView) -> Counted {
        let (spec, status) = (&view.job.spec, &view.job.status);
        let uids = |list: &str| {
            let listed = status["uncountedTerminatedPods"][list].as_array().into_iter().flatten();
            listed.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let indexes = |field: &str| Indexes::read(status[field].as_str().unwrap_or_default(), spec.indexes());
        Counted {
            succeeded: status["succeeded"].as_i64().unwrap_or(0),
            failed: status["failed"].as_i64().unwrap_or(0),
            uncounted_succeeded: uids("succeeded"),
            uncounted_failed: uids("failed"),
            completed: indexes("completedIndexes"),
            failed_indexes: indexes("failedIndexes"),
            fail_job: None,
            idle: BTreeSet::new(),
            end: super::end::announced(status),
        }
    }

    /// Those that have failed, in a counter or not.
    pub(super) fn failures(&self) -> i64 {
        self.failed + i64::try_from(self.uncounted_failed.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn successes(&self) -> i64 {
        self.succeeded + i64::try_from(self.uncounted_succeeded.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn has_uncounted(&self) -> bool {
        !self.uncounted_succeeded.is_empty() || !self.uncounted_failed.is_empty()
    }

    /// Adds up what was let go, and notes what has ended since.
    pub(super) fn count(&mut self, view: &JobView, pods: &[JobPod], plan: &mut Plan) {
        self.settle(view, pods, plan);
        let spec = &view.job.spec;
        let noted: BTreeSet<String> = self.uncounted_succeeded.iter().chain(&self.uncounted_failed).cloned().collect();
        let latest = latest_attempts(pods);
        let mut ended: Vec<&JobPod> =
            pods.iter().filter(|pod| pod.is_tracked() && !noted.contains(pod.uid())).collect();
        ended.retain(|pod| pod.is_terminal() || pod.is_ending() && !spec.replaces_only_failed());
        for pod in ended.into_iter().take(BURST_MAX) {
            match (pod.has_succeeded(), spec.is_indexed()) {
                (true, false) => self.uncounted_succeeded.push(pod.uid().to_owned()),
                (true, true) => self.note_index(view, pod),
                (false, _) => self.note_failure(view, pod, &latest),
            }
        }
        if spec.is_indexed() {
            self.succeeded = self.completed.len();
        }
    }

    /// A note whose pod is let go becomes a number.
    fn settle(&mut self, view: &JobView, pods: &[JobPod], plan: &mut Plan) {
        let tracked: BTreeMap<&str, bool> = pods.iter().map(|pod| (pod.uid(), pod.is_tracked())).collect();
        let mut waits = false;
        let mut settled = |uids: &mut Vec<String>| {
            let before = uids.len();
            uids.retain(|uid| match tracked.get(uid.as_str()) {
                Some(is_tracked) => *is_tracked,
                // Not in our copy: gone, unless the copy is older than the note.
                None => {
                    waits |= !view.pods_are_current;
                    !view.pods_are_current
                }
            });
            i64::try_from(before - uids.len()).unwrap_or(i64::MAX)
        };
        self.succeeded += settled(&mut self.uncounted_succeeded);
        self.failed += settled(&mut self.uncounted_failed);
        if waits {
            plan.look_again(std::time::Duration::from_secs(1), "our copy of the pods will be as new as the job");
        }
    }

    /// A pod of an index that has succeeded before, or that there is not, counts nothing.
    fn note_index(&mut self, view: &JobView, pod: &JobPod) {
        match pod.index().filter(|index| *index < view.job.spec.indexes()) {
            // It is let go once the API holds the note.
            Some(index) if self.completed.insert(index) => {}
            _ => {
                self.idle.insert(pod.uid().to_owned());
            }
        }
    }

    fn note_failure(&mut self, view: &JobView, pod: &JobPod, latest: &BTreeMap<i64, i64>) {
        let spec = &view.job.spec;
        let meaning = policy::meaning(spec.pod_failure_policy.as_ref(), pod);
        if let Some(limit) = spec.backoff_limit_per_index
            && let Some(index) = pod.index().filter(|index| *index < spec.indexes())
            && !self.completed.contains(index)
            && !self.failed_indexes.contains(index)
        {
            // R6.
            let is_over = meaning == Meaning::FailIndex || meaning == Meaning::Count && pod.failures() >= limit;
            let is_replaced = latest.get(&index).is_some_and(|attempt| *attempt > pod.attempt());
            if is_over {
                self.failed_indexes.insert(index);
            } else if !is_replaced && self.end.is_none() && !matches!(meaning, Meaning::FailJob(_)) {
                return;
            }
        }
        match meaning {
            Meaning::Ignore => {
                self.idle.insert(pod.uid().to_owned());
                return;
            }
            Meaning::FailJob(why) => {
                self.fail_job.get_or_insert(why);
            }
            Meaning::Count | Meaning::FailIndex => {}
        }
        self.uncounted_failed.push(pod.uid().to_owned());
    }

    /// Lets go of those that the status in the API names, and of those that count nothing.
    pub(super) fn release(&self, view: &JobView, pods: &[JobPod], plan: &mut Plan) {
        let held = Counted::read(view);
        let noted = held.uncounted_succeeded.iter().chain(&held.uncounted_failed);
        let noted: BTreeSet<&str> = noted.map(String::as_str).collect();
        let is_counted = |pod: &JobPod| {
            let has_index = pod.has_succeeded() && pod.index().is_some_and(|index| held.completed.contains(index));
            noted.contains(pod.uid()) || self.idle.contains(pod.uid()) || has_index
        };
        for pod in pods.iter().filter(|pod| pod.is_tracked()).filter(|pod| is_counted(pod)).take(BURST_MAX) {
            release(&pod.object, "it has ended and is counted", plan);
        }
    }
}

/// The latest attempt of each index.
fn latest_attempts(pods: &[JobPod]) -> BTreeMap<i64, i64> {
    let mut latest = BTreeMap::new();
    for pod in pods {
        if let Some(index) = pod.index() {
            let attempt = latest.entry(index).or_insert(0);
            *attempt = pod.attempt().max(*attempt);
        }
    }
    latest
}
