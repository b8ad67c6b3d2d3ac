//! The state as the consensus engine wants to see it: entries in, outcomes out, snapshots on request.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::{LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::group::Outcomes;
use crate::shared::Shared;
use crate::snapshot::Image;
use crate::snapshots::{SnapshotFile, Snapshots, StateSize};

/// The state of this member.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    snapshots: Arc<Snapshots>,
}

impl Machine {
    pub(crate) fn new(shared: Arc<Shared>, snapshots: Arc<Snapshots>) -> Machine {
        Machine { shared, snapshots }
    }

    /// Applies one entry under the lock.
    fn apply_entry(&self, id: LogId, payload: Payload) -> (Outcomes, StateSize) {
        let mut state = self.shared.write();
        state.applied = Some(id);
        let outcomes = match payload {
            Payload::Blank => Outcomes(Vec::new()),
            Payload::Normal(group) => state.apply(&group),
            Payload::Membership(membership) => {
                state.membership = StoredMembership::new(Some(id), membership);
                Outcomes(Vec::new())
            }
        };
        (outcomes, StateSize { bytes: state.bytes, keys: state.entries.len() as u64 })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.shared.read();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let (outcomes, size) = self.apply_entry(entry.log_id, entry.payload);
            self.shared.published.notify_one();
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
            self.snapshots.note_applied(entry.log_id, size);
        }
        Ok(())
    }

    /// Snapshots are written by us, where a full disk is no disaster; the engine is given those that are there. Only
    /// for a member that needs one (`force`) one is made on the spot.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let ready = self.snapshots.current();
        let image = self.snapshots.image(&self.shared);
        match (ready, image, force) {
            (Some(ready), _, false) => Some(Builder { snapshots: self.snapshots.clone(), work: Work::Ready(ready) }),
            (_, Some(image), true) => Some(Builder { snapshots: self.snapshots.clone(), work: Work::Write(image) }),
            _ => None,
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let image = self.snapshots.image(&self.shared).expect("the engine asks for snapshots of applied entries only");
        Builder { snapshots: self.snapshots.clone(), work: Work::Write(image) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let image = self.snapshots.adopt(meta, snapshot).await?;
        let mut state = self.shared.write();
        state.restore(image);
        drop(state);
        self.shared.published.notify_one();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.current())
    }
}

/// Hands the engine a snapshot.
pub(crate) struct Builder {
    snapshots: Arc<Snapshots>,
    work: Work,
}

enum Work {
    Ready(Snapshot),
    Write(Image),
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        match &self.work {
            Work::Ready(snapshot) => Ok(snapshot.clone()),
            Work::Write(image) => self.snapshots.write_until_done(image.clone()).await,
        }
    }
}
