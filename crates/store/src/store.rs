//! The store's handle: open, commit, read, watch, close.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch as latest};
use windlass_stdx::World;

use crate::committer::{self, Committer, Proposal};
use crate::config::{COMMITS_WAITING_MAX, Config, KEY_BYTES_MAX, Limits, TRANSACTION_BYTES_MAX};
use crate::consensus::{Consensus, LogStorage, Machine, ProposeError};
use crate::disk::Disk;
use crate::entry::{Entry, Revision};
use crate::error::{CommitError, OpenError, ReadError};
use crate::export::Export;
use crate::group::encoded_len;
use crate::identity::cluster_hash;
use crate::log::Log;
use crate::op::{Committed, Op};
use crate::opening::{self, Opened};
use crate::range::{Page, Range, Scan, View};
use crate::shared::Shared;
use crate::snapshot::Image;
use crate::snapshots::{self, SnapshotRequest};
use crate::watch::{self, Watch};

/// Requests for a snapshot that wait for the one under way.
const SNAPSHOT_REQUESTS_MAX: usize = 16;

/// A handle on the store. Clones share it; when the last one is dropped the store closes by itself.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    consensus: Arc<Consensus>,
    limits: Limits,
    dir: PathBuf,
    cluster: String,
    member: u64,
    proposals: mpsc::Sender<Proposal>,
    snapshot_requests: mpsc::Sender<SnapshotRequest>,
    /// Becomes true when everything has stopped and the directory is free.
    stopped: latest::Receiver<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end.close();
    }
}

/// How large the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can be read or watched from.
    pub compacted: Revision,
    /// How many keys there are.
    pub keys: usize,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// How many events are kept.
    pub history_events: usize,
    /// Bytes that the kept events keep alive.
    pub history_bytes: u64,
    /// How many watches there are.
    pub watches: usize,
    /// Whether this member leads.
    pub is_leader: bool,
    /// The ids of the voting members.
    pub voters: Vec<u64>,
}

impl Store {
    /// Opens a data directory, replays its log and takes office if this is the only voter.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed in a directory that is damaged or belongs to somebody else.
    pub async fn open(config: Config, disk: Arc<dyn Disk>, world: World) -> Result<Store, OpenError> {
        let Opened { shared, log, snapshots, identity, lock, is_sole_voter } =
            opening::open(&config, disk.clone(), &world).await?;
        let storage = LogStorage::new(log.clone(), is_sole_voter);
        let machine = Machine::new(shared.clone(), snapshots.clone());
        let opened = Consensus::open(config.member, storage, machine, &world, is_sole_voter).await;
        let consensus = match opened {
            Ok(consensus) => {
                log.forget_replayed();
                Arc::new(consensus)
            }
            Err(error) => {
                // The log's writer stops when it sees the end; the directory is free when it has.
                let cause = shared.end.failure();
                shared.end.close();
                return Err(cause.map_or(error, |why| OpenError::Consensus(why.to_string())));
            }
        };
        let (proposals, proposal_queue) = mpsc::channel(COMMITS_WAITING_MAX);
        let (snapshot_requests, snapshot_queue) = mpsc::channel(SNAPSHOT_REQUESTS_MAX);
        let (stop, stopped) = latest::channel(false);
        tokio::spawn(watch::run_dispatcher(shared.clone()));
        tokio::spawn(snapshots::run(snapshots, shared.clone(), consensus.clone(), snapshot_queue));
        let committer = Committer {
            shared: shared.clone(),
            consensus: consensus.clone(),
            log: log.clone(),
            dir: config.dir.clone(),
        };
        let committing = tokio::spawn(committer::run(committer, proposal_queue));
        tokio::spawn(stop_in_order(shared.clone(), committing, consensus.clone(), log, lock, stop));
        let inner = Inner {
            shared,
            consensus,
            limits: config.limits,
            dir: config.dir,
            cluster: identity.cluster,
            member: config.member,
            proposals,
            snapshot_requests,
            stopped,
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The id of the cluster.
    pub fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    /// The id of this member.
    pub fn member(&self) -> u64 {
        self.inner.member
    }

    /// Commits a transaction: all of `ops`, if every expectation holds, or nothing.
    ///
    /// Dropping the future does not undo the transaction.
    ///
    /// # Errors
    /// See [`CommitError`]; only `Closed` leaves open whether the transaction took effect.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Committed, CommitError> {
        check(&ops, &self.inner.limits)?;
        let (reply, answer) = oneshot::channel();
        match self.inner.proposals.try_send(Proposal { ops, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.closed())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CommitError::Busy(COMMITS_WAITING_MAX)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.closed()),
        }
    }

    fn closed(&self) -> CommitError {
        CommitError::Closed(self.inner.shared.end.reason().unwrap_or_else(|| "it has stopped".into()))
    }

    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.inner.shared.read().entries.get(key).cloned()
    }

    /// A page of entries in key order.
    ///
    /// # Errors
    /// `Compacted` or `Future` when the wanted revision cannot be shown.
    pub fn range(&self, range: &Range) -> Result<Page, ReadError> {
        Ok(self.view(range)?.page(range))
    }

    /// The entries of a range in key order, read piece by piece; its limit does not count.
    ///
    /// # Errors
    /// As for [`Store::range`]. What has begun can be read to its end.
    pub fn scan(&self, range: &Range) -> Result<Scan, ReadError> {
        Ok(self.view(range)?.scan(range))
    }

    fn view(&self, range: &Range) -> Result<View, ReadError> {
        let state = self.inner.shared.read();
        let at = range.at.unwrap_or(state.revision);
        check_kept(at, state.history.compacted(), state.revision)?;
        Ok(View::new(&state, range, at))
    }

    /// How many keys start with `prefix`, by what follows it up to the next `/`.
    pub fn count_by_segment(&self, prefix: &str) -> BTreeMap<String, u64> {
        let entries = self.inner.shared.read().entries.clone();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for entry in entries.from(Bound::Included(prefix)) {
            let Some(rest) = entry.key().strip_prefix(prefix) else { break };
            let segment = rest.split('/').next().unwrap_or_default();
            match counts.get_mut(segment) {
                Some(count) => *count += 1,
                None => drop(counts.insert(segment.to_owned(), 1)),
            }
        }
        counts
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.inner.shared.read().revision
    }

    /// Returns when every transaction that was acknowledged anywhere before the call is visible to reads here.
    ///
    /// # Errors
    /// `NotLeader` or `Closed`.
    pub async fn read_barrier(&self) -> Result<(), CommitError> {
        if let Some(reason) = self.inner.shared.end.reason() {
            return Err(CommitError::Closed(reason));
        }
        self.inner.consensus.read_barrier().await.map_err(|error| match error {
            ProposeError::NotLeader(leader) => CommitError::NotLeader { leader },
            ProposeError::Unknown(why) | ProposeError::Stopped(why) => CommitError::Closed(why.into()),
        })
    }

    /// Watches the keys that start with `prefix` from the revision after `after` on.
    ///
    /// # Errors
    /// `Compacted` when changes after `after` are not kept any more, `Future` when `after` does not exist yet.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, ReadError> {
        if let Some(reason) = self.inner.shared.end.reason() {
            return Err(ReadError::Closed(reason));
        }
        let position = {
            let state = self.inner.shared.read();
            check_kept(after, state.history.compacted(), state.revision)?;
            state.history.position_after(after)
        };
        Ok(Watch::new(self.inner.shared.clone(), prefix, after, position))
    }

    /// Forgets the changes up to `up_to`; the entries themselves stay. Watches that have not seen them end.
    ///
    /// # Errors
    /// `Future` when `up_to` does not exist yet.
    pub fn compact(&self, up_to: Revision) -> Result<(), ReadError> {
        // Watches that sleep learn what concerns them before it is gone, so that the others sleep on.
        self.inner.shared.watchers.dispatch(&self.inner.shared);
        let mut state = self.inner.shared.write();
        let newest = state.revision;
        if up_to > newest {
            return Err(ReadError::Future { wanted: up_to, newest });
        }
        state.history.compact(up_to);
        drop(state);
        self.inner.shared.published.notify_one();
        Ok(())
    }

    /// Writes a snapshot now and lets go of the log that is not needed any more; returns the revision it holds.
    ///
    /// # Errors
    /// `StorageFull` or `Closed`.
    pub async fn snapshot(&self) -> Result<Revision, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.inner.snapshot_requests.send(reply).await.map_err(|_| self.closed())?;
        let result = answer.await.map_err(|_| self.closed())?;
        result.map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                CommitError::StorageFull { dir: self.inner.dir.clone(), needed: self.stats().bytes }
            }
            _ => CommitError::Closed(error.to_string().into()),
        })
    }

    /// The whole state of now, to be carried away piece by piece while others write; `None` before the first entry.
    pub fn export(&self) -> Option<Export> {
        let state = self.inner.shared.read();
        let image = Image {
            cluster: cluster_hash(&self.inner.cluster),
            revision: state.revision,
            applied: state.applied?,
            membership: state.membership.clone(),
            entries: state.entries.clone(),
        };
        Some(Export::new(image, state.bytes))
    }

    /// How large the store is.
    pub fn stats(&self) -> Stats {
        let state = self.inner.shared.read();
        Stats {
            revision: state.revision,
            compacted: state.history.compacted(),
            keys: state.entries.len(),
            bytes: state.bytes,
            history_events: state.history.len(),
            history_bytes: state.history.bytes(),
            watches: self.inner.shared.watchers.count(),
            is_leader: self.inner.consensus.is_leader(),
            voters: self.inner.consensus.voters(),
        }
    }

    /// Resolves, with the reason, when the store has failed or was closed. After a failure the process should exit:
    /// what is on disk is known again when it was read anew.
    pub async fn failed(&self) -> Arc<str> {
        self.inner.shared.end.ended().await
    }

    /// Closes the store: waits for the group under way, ends all watches, frees the directory.
    pub async fn close(&self) {
        self.inner.shared.end.close();
        let mut stopped = self.inner.stopped.clone();
        // The sender lives until it has sent true.
        let _done = stopped.wait_for(|stopped| *stopped).await;
    }
}

/// Everything stops in one order, however it comes about: commits, engine, log, lock.
async fn stop_in_order(
    shared: Arc<Shared>,
    committing: tokio::task::JoinHandle<()>,
    consensus: Arc<Consensus>,
    log: Log,
    lock: Box<dyn Any + Send + Sync>,
    stop: latest::Sender<bool>,
) {
    shared.end.ended().await;
    if let Err(error) = committing.await {
        tracing::error!(%error, "the committer did not stop cleanly");
    }
    consensus.shutdown().await;
    if let Err(error) = log.close().await {
        tracing::debug!(%error, "the log had stopped before");
    }
    drop(lock);
    stop.send_replace(true);
}

fn check_kept(wanted: Revision, oldest: Revision, newest: Revision) -> Result<(), ReadError> {
    if wanted < oldest {
        return Err(ReadError::Compacted { wanted, oldest });
    }
    if wanted > newest {
        return Err(ReadError::Future { wanted, newest });
    }
    Ok(())
}

fn check(ops: &[Op], limits: &Limits) -> Result<(), CommitError> {
    let too_large = |what: String, found, limit| Err(CommitError::TooLarge { what, found, limit });
    if ops.is_empty() {
        return Err(CommitError::Invalid("expected at least one operation, found none".to_owned()));
    }
    if ops.len() > limits.ops_max {
        return too_large("the number of operations".to_owned(), ops.len(), limits.ops_max);
    }
    let mut keys: Vec<&str> = Vec::with_capacity(ops.len());
    for op in ops {
        let key = op.key();
        if key.is_empty() {
            return Err(CommitError::Invalid("expected a key, found an empty one".to_owned()));
        }
        if key.len() > KEY_BYTES_MAX {
            return too_large("the length of a key".to_owned(), key.len(), KEY_BYTES_MAX);
        }
        if let Op::Put { value, .. } = op {
            let len = value.bytes.len();
            if len > limits.value_bytes_max {
                return too_large(format!("the value of {key:?}"), len, limits.value_bytes_max);
            }
            if value.revision_at.is_some_and(|at| at as usize > len) {
                let what = format!("the revision of {key:?} stands beyond its value of {len} bytes");
                return Err(CommitError::Invalid(what));
            }
        }
        keys.push(key);
    }
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CommitError::Invalid(format!("key {:?} is named twice", pair[0])));
    }
    let bytes = encoded_len(ops);
    if bytes > TRANSACTION_BYTES_MAX {
        return too_large("the size of the transaction".to_owned(), bytes, TRANSACTION_BYTES_MAX);
    }
    Ok(())
}
