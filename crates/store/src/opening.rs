//! Opening a data directory: lock, identity, newest whole snapshot, log.
//!
//! Rules
//!   R1 nobody else has the directory open, and it is this member's
//!   R2 the newest snapshot that is whole is taken; a damaged one is passed over only if the log covers the difference
//!   R3 what earlier processes left half-written is removed

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;
use windlass_stdx::World;

use crate::config::Config;
use crate::consensus::{LogId, Payload};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::hard_state;
use crate::identity::{self, Identity};
use crate::log::{Log, LogConfig};
use crate::shared::{End, Shared};
use crate::snapshot::{self, Image};
use crate::snapshots::Snapshots;
use crate::state::State;

/// Held by whoever has the directory open.
pub(crate) const LOCK_FILE: &str = "lock";

/// A directory that is ready for the engine.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) identity: Identity,
    pub(crate) lock: Box<dyn Any + Send + Sync>,
    /// This member is the only voter, so far as it knows.
    pub(crate) is_sole_voter: bool,
}

/// What the directory holds besides the log.
struct Prepared {
    lock: Box<dyn Any + Send + Sync>,
    identity: Identity,
    begins_new: bool,
    image: Option<Image>,
    /// Whole snapshots, newest first, as far as they were looked at.
    good: Vec<LogId>,
    /// Why the newest snapshot was passed over.
    passed_over: Option<OpenError>,
}

pub(crate) async fn open(config: &Config, disk: Arc<dyn Disk>, world: &World) -> Result<Opened, OpenError> {
    let prepared = run_on_disk(&disk, {
        let (config, disk, world) = (config.clone(), disk.clone(), world.clone());
        move || prepare(&config, &*disk, &world)
    })
    .await?;
    let cluster = prepared.identity.cluster_hash();
    let end = Arc::new(End::default());
    let log_config = LogConfig { dir: config.dir.clone(), cluster, limits: config.limits.clone() };
    let log = Log::open(log_config, disk.clone(), end.clone(), prepared.begins_new).await?;
    let applied = prepared.image.as_ref().map(|image| image.applied);
    check_covered(&log, applied, prepared.passed_over, &config.dir)?;
    log.count_as_written(applied.map_or(0, |applied| applied.index + 1));
    let where_to = (disk, config.dir.clone(), cluster);
    let snapshots = Snapshots::new(where_to, log.clone(), &config.limits, prepared.good, prepared.image.as_ref());
    let mut state = State::new(&config.limits);
    if let Some(image) = prepared.image {
        state.restore(image);
    }
    let is_sole_voter = is_sole_voter(&log, &state, config.member)?;
    Ok(Opened {
        shared: Arc::new(Shared::new(state, end)),
        log,
        snapshots: Arc::new(snapshots),
        identity: prepared.identity,
        lock: prepared.lock,
        is_sole_voter,
    })
}

fn prepare(config: &Config, disk: &dyn Disk, world: &World) -> Result<Prepared, OpenError> {
    let dir = &config.dir;
    let io_error = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { verb, path, source }
    };
    disk.create_dir(dir).map_err(io_error("make", dir))?;
    let lock_path = dir.join(LOCK_FILE);
    let lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: lock_path.clone() },
        _ => io_error("lock", &lock_path)(error),
    })?;
    let (identity, is_new) = identity::load_or_make(disk, config, world)?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = dir.join(name);
        disk.remove(&path).map_err(io_error("remove", &path))?;
    }
    let snapshots = snapshot::list(disk, dir).map_err(io_error("list", dir))?;
    // Nothing is acknowledged before the first vote.
    let begins_new = snapshots.is_empty() && hard_state::load(disk, dir)?.is_none();
    if is_new {
        if !begins_new {
            let what = "the directory holds a vote or a snapshot, but no identity".to_owned();
            return Err(OpenError::Damaged { path: dir.join("identity"), offset: 0, what });
        }
        // A first opening broke off, and with its identity its segment has no meaning.
        for name in names.iter().filter(|name| name.ends_with(".wal")) {
            let path = dir.join(name);
            disk.remove(&path).map_err(io_error("remove", &path))?;
        }
        identity::save(disk, dir, &identity)?;
    }
    let mut prepared = Prepared { lock, identity, begins_new, image: None, good: Vec::new(), passed_over: None };
    load_snapshot(disk, dir, &snapshots, &mut prepared)?;
    Ok(prepared)
}

/// R2: the newest whole snapshot.
fn load_snapshot(disk: &dyn Disk, dir: &Path, found: &[LogId], prepared: &mut Prepared) -> Result<(), OpenError> {
    let cluster = prepared.identity.cluster_hash();
    for (order, &applied) in found.iter().enumerate() {
        match snapshot::load(disk, &dir.join(snapshot::file_name(applied)), applied, cluster) {
            Ok(image) => {
                prepared.image = Some(image);
                // The older one is trusted until it is needed; it is then looked at as this one was.
                prepared.good = found[order..].iter().copied().take(snapshot::KEPT).collect();
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%error, "passing over a snapshot");
                prepared.passed_over.get_or_insert(error);
            }
        }
    }
    Ok(())
}

/// R2: the log must begin where the state ends, or before.
fn check_covered(
    log: &Log,
    applied: Option<LogId>,
    passed_over: Option<OpenError>,
    dir: &Path,
) -> Result<(), OpenError> {
    let purged = log.index().purged;
    if purged.map(|id| id.index) <= applied.map(|id| id.index) {
        return Ok(());
    }
    Err(passed_over.unwrap_or_else(|| {
        let what = format!(
            "the log begins after entry {purged:?}, and no snapshot reaches it; the newest ends with {applied:?}"
        );
        OpenError::Damaged { path: dir.to_owned(), offset: 0, what }
    }))
}

fn is_sole_voter(log: &Log, state: &State, member: u64) -> Result<bool, OpenError> {
    let after = state.applied.map_or(0, |applied| applied.index + 1);
    let sources = log.index().read(after, u64::MAX);
    let mut membership = state.membership.membership().clone();
    for source in sources {
        let entry = source.load().map_err(|error| OpenError::Consensus(error.to_string()))?;
        if let Payload::Membership(newer) = entry.payload {
            membership = newer;
        }
    }
    let mut voters = membership.voter_ids();
    // Without any membership this is a new cluster, which begins with this member alone.
    Ok(voters.next().is_none_or(|first| first == member) && voters.next().is_none())
}

async fn run_on_disk<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    job: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let (reply, done) = oneshot::channel();
    disk.run(Box::new(move || {
        // The receiver only goes away with the whole attempt to open.
        let _unwanted = reply.send(job());
    }))
    .await;
    done.await.map_err(|_| OpenError::Consensus("reading the directory panicked".to_owned()))?
}
