//! The snapshots of a running store: when one is due, writing it, and which ones are kept.
//!
//! Rules
//!   R1 one is due when the log has grown by so many bytes or entries since the last one, and by half of the state, so
//!      that a large state is not written over and over
//!   R2 a full disk costs the snapshot in progress, not the store; it is tried again later
//!   R3 the log is purged behind the older of the two that are kept, so that damage to the newer loses nothing

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::config::Limits;
use crate::consensus::{Consensus, LogId, Snapshot, SnapshotMeta};
use crate::disk::Disk;
use crate::entry::Revision;
use crate::log::Log;
use crate::shared::Shared;
use crate::snapshot::{self, Encoder, Image};

/// Pause before a snapshot that found the disk full is tried again.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// A snapshot on disk: one of ours, or one that a transport received.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    applied: LogId,
}

pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cluster: u64,
    log: Log,
    bytes_due: u64,
    entries_due: u64,
    /// Snapshots known to be whole, newest first.
    kept: Mutex<Kept>,
    /// One at a time: they share a file in progress.
    turn: tokio::sync::Mutex<()>,
    /// `Log::written` when the newest one was taken.
    written_then: AtomicU64,
    due: Notify,
}

#[derive(Default)]
struct Kept {
    good: Vec<LogId>,
    newest: Option<SnapshotMeta>,
}

/// How much a snapshot would hold.
#[derive(Clone, Copy)]
pub(crate) struct StateSize {
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
}

/// Asks for a snapshot now; answered with the revision it holds.
pub(crate) type SnapshotRequest = oneshot::Sender<io::Result<Revision>>;

impl Snapshots {
    /// The snapshots of a store that was opened from `image`; `good` are the ones known to be whole.
    pub(crate) fn new(
        (disk, dir, cluster): (Arc<dyn Disk>, PathBuf, u64),
        log: Log,
        limits: &Limits,
        good: Vec<LogId>,
        image: Option<&Image>,
    ) -> Snapshots {
        Snapshots {
            disk,
            dir,
            cluster,
            log,
            bytes_due: limits.snapshot_log_bytes,
            entries_due: limits.snapshot_log_entries,
            kept: Mutex::new(Kept { good, newest: image.map(meta_of) }),
            turn: tokio::sync::Mutex::default(),
            written_then: AtomicU64::new(0),
            due: Notify::new(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while holding the list of snapshots")
    }

    /// The newest whole snapshot.
    pub(crate) fn current(&self) -> Option<Snapshot> {
        let meta = self.kept().newest.clone()?;
        let applied = meta.last_log_id?;
        Some(Snapshot { meta, snapshot: self.file(applied) })
    }

    fn file(&self, applied: LogId) -> SnapshotFile {
        SnapshotFile { disk: self.disk.clone(), path: self.dir.join(snapshot::file_name(applied)), applied }
    }

    /// A clone of the state to be written; `None` before the first entry.
    pub(crate) fn image(&self, shared: &Shared) -> Option<Image> {
        let state = shared.read();
        Some(Image {
            cluster: self.cluster,
            revision: state.revision,
            applied: state.applied?,
            membership: state.membership.clone(),
            entries: state.entries.clone(),
        })
    }

    /// R1; called after every applied entry.
    pub(crate) fn note_applied(&self, applied: LogId, state: StateSize) {
        let bytes = self.log.written() - self.written_then.load(Ordering::SeqCst);
        let taken = self.kept().good.first().map_or(0, |newest| newest.index);
        let entries = applied.index.saturating_sub(taken);
        if bytes >= self.bytes_due.max(state.bytes / 2) || entries >= self.entries_due.max(state.keys / 2) {
            self.due.notify_one();
        }
    }

    /// Writes a snapshot; on an error nothing of it is left.
    pub(crate) async fn write(&self, image: Image) -> io::Result<Snapshot> {
        let _turn = self.turn.lock().await;
        if let Some(current) = self.current().filter(|current| current.snapshot.applied.index >= image.applied.index) {
            return Ok(current);
        }
        let written = self.log.written();
        let meta = meta_of(&image);
        let applied = image.applied;
        let keep: Vec<LogId> =
            std::iter::once(applied).chain(self.kept().good.iter().copied()).take(snapshot::KEPT).collect();
        self.on_disk({
            let (disk, dir, keep) = (self.disk.clone(), self.dir.clone(), keep.clone());
            move || write_file(&*disk, &dir, &image, &keep)
        })
        .await?;
        self.written_then.store(written, Ordering::SeqCst);
        let mut kept = self.kept();
        kept.good = keep;
        kept.newest = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: self.file(applied) })
    }

    /// Writes a snapshot as soon as there is space for it: for a member that cannot do without.
    pub(crate) async fn write_until_done(&self, image: Image) -> io::Result<Snapshot> {
        loop {
            match self.write(image.clone()).await {
                Err(error) if is_full(&error) => tokio::time::sleep(FULL_RETRY).await,
                result => return result,
            }
        }
    }

    /// Takes a snapshot that came from elsewhere into use: it is checked, and kept as our only one.
    pub(crate) async fn adopt(&self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<Image> {
        let _turn = self.turn.lock().await;
        let applied = file.applied;
        let image = self
            .on_disk({
                let (disk, dir, cluster) = (self.disk.clone(), self.dir.clone(), self.cluster);
                move || {
                    let image = snapshot::load(&*file.disk, &file.path, applied, cluster).map_err(io::Error::other)?;
                    write_file(&*disk, &dir, &image, &[applied])?;
                    Ok(image)
                }
            })
            .await?;
        let mut kept = self.kept();
        kept.good = vec![applied];
        kept.newest = Some(meta.clone());
        Ok(image)
    }

    /// What the log may forget (R3).
    fn purgeable(&self) -> Option<LogId> {
        self.kept().good.get(snapshot::KEPT - 1).copied()
    }

    async fn on_disk<T: Send + 'static>(&self, job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (reply, done) = oneshot::channel();
        self.disk
            .run(Box::new(move || {
                // Whoever asked may be gone; the file is then simply there.
                let _unwanted = reply.send(job());
            }))
            .await;
        done.await.map_err(|_| io::Error::other("writing or reading a snapshot panicked"))?
    }
}

fn meta_of(image: &Image) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(image.applied), last_membership: image.membership.clone() }
}

/// Writes a snapshot's file, and removes those that are not to be kept.
pub(crate) fn write_file(disk: &dyn Disk, dir: &std::path::Path, image: &Image, keep: &[LogId]) -> io::Result<()> {
    let path = snapshot::path_in_progress(dir);
    let write = || {
        let file = disk.create(&path)?;
        let mut encoder = Encoder::new(image.clone());
        let mut at = 0;
        while let Some(piece) = encoder.next()? {
            file.write_at(at, &piece)?;
            at += piece.len() as u64;
        }
        file.sync_data()?;
        disk.rename(&path, &dir.join(snapshot::file_name(image.applied)))?;
        disk.sync_dir(dir)
    };
    match write() {
        Ok(()) => snapshot::remove_others(disk, dir, keep),
        Err(error) => {
            if let Err(remove_error) = disk.remove(&path) {
                tracing::warn!(path = %path.display(), %remove_error, "a half-written snapshot was left behind");
            }
            Err(error)
        }
    }
}

/// Takes snapshots when they are due or asked for, until the store ends.
pub(crate) async fn run(
    snapshots: Arc<Snapshots>,
    shared: Arc<Shared>,
    consensus: Arc<Consensus>,
    mut requests: mpsc::Receiver<SnapshotRequest>,
) {
    let mut not_before = Instant::now();
    loop {
        let request = tokio::select! {
            biased;
            _ = shared.end.ended() => return,
            request = requests.recv() => match request {
                Some(request) => Some(request),
                None => return,
            },
            () = snapshots.due.notified() => None,
        };
        if request.is_none() && Instant::now() < not_before {
            continue;
        }
        let result = take(&snapshots, &shared, &consensus).await;
        if let Err(error) = &result {
            tracing::warn!(%error, "no snapshot was taken");
            not_before = Instant::now() + FULL_RETRY;
            if !is_full(error) {
                // The disk does not keep what it is given: the log is not safe either.
                shared.end.fail(&format!("writing a snapshot failed: {error}"));
            }
        }
        if let Some(request) = request {
            // Whoever asked may be gone.
            let _unwanted = request.send(result);
        }
    }
}

async fn take(snapshots: &Snapshots, shared: &Shared, consensus: &Consensus) -> io::Result<Revision> {
    let Some(image) = snapshots.image(shared) else { return Ok(0) };
    let (revision, applied) = (image.revision, image.applied);
    snapshots.write(image).await?;
    tracing::info!(revision, entry = applied.index, "snapshot written");
    consensus.snapshot_written(snapshots.purgeable()).await;
    Ok(revision)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
