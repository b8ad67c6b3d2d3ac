//! The audit log: who asked for what, and what became of it, as far as a policy wants to know.
//!
//! Goal        every request that the policy names leaves its events, in the form of audit.k8s.io/v1, one a line
//! Rules
//!   L1 level      the first rule of the policy that matches decides how much is told; what no rule matches is not
//!   L2 stages     when a request has come, when a long answer begins, when it is over, or that it panicked, unless omitted
//!   L3 no wait    no request waits for its event: where the queue is full the event is counted as lost, and it is said
//!   L4 bounded    at most QUEUE_EVENTS_MAX events and QUEUE_BYTES_MAX bytes wait to be written
//!   L5 escaped    an event is one line of JSON, whatever a client sends (A52)
//! Relies on     the file system for what is written; a full one loses events, and each loss is counted
//! Not here      sending events elsewhere
//!
//! Source: auditing reference; API reference, audit.k8s.io/v1.

mod event;
mod file;
mod policy;
mod record;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use windlass_stdx::World;

pub(crate) use event::Peer;
pub use file::Rotation;
pub use policy::{Policy, PolicyError};
pub(crate) use record::Record;

/// Events that wait to be written.
const QUEUE_EVENTS_MAX: usize = 10_000;
/// Bytes that wait to be written.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events written in one go.
const BATCH_MAX: usize = 512;
/// How often lost events are said to be, while they are.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(60);

/// What the log is told.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// Where events go.
    pub path: PathBuf,
    /// Which events there are.
    pub policy: Policy,
    /// How much of the past is kept.
    pub rotation: Rotation,
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log {}", path.display())]
pub struct AuditError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// The audit log. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct Audit(Arc<Log>);

struct Log {
    policy: Policy,
    /// `None` once the log is closed.
    queue: Mutex<Option<mpsc::Sender<Bytes>>>,
    waiting_bytes: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What became of the events.
#[derive(Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

impl Audit {
    /// Opens the log. Must be called inside a tokio runtime.
    pub fn open(config: AuditConfig, world: &World) -> Result<Audit, AuditError> {
        let AuditConfig { path, policy, rotation } = config;
        let file = file::File::open(&path, rotation, world.clone())
            .map_err(|source| AuditError { path: path.clone(), source })?;
        let (queue, events) = mpsc::channel(QUEUE_EVENTS_MAX);
        let (counts, waiting_bytes) = (Arc::<Counts>::default(), Arc::<AtomicUsize>::default());
        let writer = tokio::spawn(write(file, events, Arc::clone(&waiting_bytes), Arc::clone(&counts)));
        let log =
            Log { policy, queue: Mutex::new(Some(queue)), waiting_bytes, counts, writer: Mutex::new(Some(writer)) };
        Ok(Audit(Arc::new(log)))
    }

    /// Writes what waits and ends. Events of requests that are still under way are lost, and counted so.
    pub async fn close(&self) {
        self.0.queue.lock().expect("nothing panics while holding the queue").take();
        let writer = self.0.writer.lock().expect("nothing panics while holding the writer").take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the audit log ended");
        }
    }

    /// Events written, and events lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.counts.written.load(Ordering::Relaxed), self.0.counts.lost.load(Ordering::Relaxed))
    }

    fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// L3 and L4.
    fn send(&self, event: Vec<u8>) {
        let bytes = event.len();
        let waiting = self.0.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queue = self.0.queue.lock().expect("nothing panics while holding the queue");
        let is_taken = waiting + bytes <= QUEUE_BYTES_MAX
            && queue.as_ref().is_some_and(|queue| queue.try_send(event.into()).is_ok());
        if !is_taken {
            self.0.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.0.counts.lose(1, "the queue is full");
        }
    }
}

impl Counts {
    fn lose(&self, events: u64, why: &str) {
        let lost = self.lost.fetch_add(events, Ordering::Relaxed) + events;
        let mut complained = self.complained.lock().expect("nothing panics while holding the time");
        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_INTERVAL) {
            *complained = Some(Instant::now());
            tracing::error!(lost, why, "audit events are lost");
        }
    }
}

async fn write(
    mut file: file::File,
    mut events: mpsc::Receiver<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
    counts: Arc<Counts>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        if events.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        let lines = std::mem::take(&mut batch);
        // The disk may be slow; the runtime's own threads do not wait for it.
        let written = tokio::task::spawn_blocking(move || {
            let written: Vec<_> = lines.iter().map(|line| file.write(line)).collect();
            (file, written)
        });
        match written.await {
            Ok((back, written)) => {
                file = back;
                for result in written {
                    match result {
                        Ok(()) => {
                            counts.written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => counts.lose(1, &error.to_string()),
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the writer of the audit log panicked");
                return;
            }
        }
        waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
