//! What a pod's task is waiting for: at most one thing for each slot, all within the task itself.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use windlass_api::Object;
use windlass_client::ClientError;

use crate::machine::{CpuSet, MachineError};
use crate::probe::{ProbeKind, ProbeResult};
use crate::steps::container::{StartError, Started};
use crate::steps::{Ground, StepError};

/// What work is about. Two works of one slot never overlap; the order of slots is the order in which results are seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Volumes, network, sandbox: up, cleared or down.
    Ground,
    /// Starting or stopping a container.
    Container(String),
    /// A probe.
    Probe(String, ProbeKind),
    /// Removing what an earlier attempt left.
    Sweep(String),
    /// Filling the volumes anew.
    Volumes,
    /// Changing limits.
    Resize,
    /// Counting what it has on disk.
    Usage,
    /// Keeping what drivers have lent up to date.
    Lent,
    /// Writing the status.
    Status,
    /// Writing the record.
    Record,
    /// Removing everything from the machine.
    Remove,
    /// Deleting the pod object.
    Delete,
}

/// How work ended.
#[derive(Debug)]
pub enum Outcome {
    /// The ground is up, or not.
    Raised(Result<Ground, StepError>),
    /// The broken sandbox is gone, or not.
    Cleared(Result<(), MachineError>),
    /// Sandbox and network are given back, or not.
    Left(Result<(), MachineError>),
    /// A container was started, or not.
    Started(Result<Started, StartError>),
    /// A container was stopped, or not.
    Stopped(Result<(), String>),
    /// What a probe found.
    Probed(ProbeResult),
    /// What an earlier attempt left is gone, or not.
    Swept(Result<(), MachineError>),
    /// The volumes are as they should be, or not.
    Filled(Result<(), StepError>),
    /// The limits are as they should be, or not; of which containers the CPUs.
    Resized(Result<Vec<(String, CpuSet)>, MachineError>),
    /// What the pod has on disk was counted.
    Counted(Counted),
    /// What drivers have lent has been looked at; whether to look again.
    Tended(bool),
    /// The likeness of a static pod is deleted, or not.
    MirrorDeleted(Result<(), ClientError>),
    /// The status is written, or not.
    Written(Result<Box<Object>, ClientError>),
    /// The record is kept, or not.
    Saved(Result<(), MachineError>),
    /// The machine is rid of the pod, or not.
    Removed(Result<(), MachineError>),
    /// The object is deleted, or not.
    Deleted(Result<(), ClientError>),
}

/// What counting has found.
#[derive(Debug)]
pub struct Counted {
    /// Why the pod must go, if it must.
    pub over: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Work under way. Dropping it abandons all of it.
#[derive(Default)]
pub struct Work(BTreeMap<Slot, BoxFuture<'static, Outcome>>);

impl Work {
    /// Begins work; what was under way in this slot is abandoned.
    pub fn begin(&mut self, slot: Slot, work: impl Future<Output = Outcome> + Send + 'static) {
        self.0.insert(slot, Box::pin(work));
    }

    /// Whether something is under way in this slot.
    pub fn is_busy(&self, slot: &Slot) -> bool {
        self.0.contains_key(slot)
    }

    /// Abandons what is under way in this slot.
    pub fn abandon(&mut self, slot: &Slot) {
        self.0.remove(slot);
    }

    /// The next work that ends. Cancel safe; waits for ever when nothing is under way.
    pub async fn next(&mut self) -> (Slot, Outcome) {
        poll_fn(|context| {
            for (slot, work) in &mut self.0 {
                if let Poll::Ready(outcome) = work.as_mut().poll(context) {
                    let slot = slot.clone();
                    self.0.remove(&slot);
                    return Poll::Ready((slot, outcome));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Slot, Work};
    use std::time::Duration;

    async fn after(seconds: u64) -> Outcome {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Outcome::Stopped(Ok(()))
    }

    #[tokio::test(start_paused = true)]
    async fn new_work_in_a_slot_takes_the_place_of_the_old() {
        let mut work = Work::default();
        work.begin(Slot::Status, after(1));
        work.begin(Slot::Ground, after(5));
        work.begin(Slot::Status, after(9));
        assert_eq!(work.next().await.0, Slot::Ground);
        assert!(work.is_busy(&Slot::Status));
        work.abandon(&Slot::Status);
        assert!(!work.is_busy(&Slot::Status));
    }
}
