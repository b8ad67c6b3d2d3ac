//! The log: entries in order, durable before they count, in segments of preallocated files.
//!
//! Goal        an acknowledged entry is never lost and never silently skipped
//! Relies on   `Disk`; `docs/decisions/001-log.md` says why this is not a crate
//!
//! One task owns the files (`writer`). It takes whatever has been asked for since its last sync and makes it durable
//! with one write and one sync; the work itself runs where [`Disk::run`] puts it.

pub(crate) mod body;
mod index;
mod record;
mod recovery;
mod room;
pub(crate) mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, oneshot};

use crate::config::Limits;
use crate::consensus::{LogEntry, LogId, Vote};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::hard_state;
use crate::log::body::Body;
use crate::log::index::{Index, Place, SegmentRef};
use crate::log::recovery::{Recovered, io_error};
use crate::log::room::Room;
use crate::log::segment::{Segment, SegmentHeader};
use crate::log::writer::{Appended, Flushed, Request, Writer};
use crate::shared::End;

/// Requests that wait for the writer. The engine has few under way; beyond this it waits.
const REQUESTS_MAX: usize = 1024;

/// Where and whose a log is.
pub(crate) struct LogConfig {
    pub(crate) dir: PathBuf,
    /// The cluster id, hashed.
    pub(crate) cluster: u64,
    pub(crate) limits: Limits,
}

/// A handle on the log. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    index: Arc<Mutex<Index>>,
    requests: mpsc::Sender<Request>,
    room: Arc<Room>,
}

/// Whether entries find a place on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Ready,
    Full,
}

impl Log {
    /// Reads the log of a directory, makes a first segment if there is none, and starts the writer.
    ///
    /// `begins_new` says that the directory has never held a log; without it, an absent log is damage.
    pub(crate) async fn open(
        config: LogConfig,
        disk: Arc<dyn Disk>,
        end: Arc<End>,
        begins_new: bool,
    ) -> Result<Log, OpenError> {
        let (reply, opened) = oneshot::channel();
        let run_on = disk.clone();
        disk.run(Box::new(move || {
            // The receiver only goes away with the whole attempt to open.
            let _unwanted = reply.send(open_files(config, run_on, begins_new));
        }))
        .await;
        let (writer, index) =
            opened.await.map_err(|_| OpenError::Consensus("reading the log panicked".to_owned()))??;
        let index = Arc::new(Mutex::new(index));
        let room = writer.room();
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let log = Log { index: index.clone(), requests: requests.clone(), room };
        tokio::spawn(writer::run(writer.with_index(index), queue, requests.downgrade(), end));
        Ok(log)
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nothing panics while holding the log's index")
    }

    /// Takes entries in order; they can be read at once and `flushed` is told when they are durable.
    pub(crate) async fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> io::Result<()> {
        let records = entries.iter().map(|entry| (entry.log_id, Body::of(entry))).collect();
        {
            let mut index = self.index();
            entries.into_iter().for_each(|entry| index.push(entry));
        }
        self.request(Request::Append(Appended { records, flushed })).await
    }

    /// Makes a vote durable.
    pub(crate) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.ask(|reply| Request::Vote { vote, reply }).await?;
        self.index().vote = Some(vote);
        Ok(())
    }

    /// Removes the entries after `last`.
    pub(crate) async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        self.ask(|reply| Request::Truncate { last, reply }).await
    }

    /// Removes the entries up to `upto`, as whole segments become free.
    pub(crate) async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.ask(|reply| Request::Purge { upto, reply }).await
    }

    /// Makes sure that a group of `group_len` bytes finds a place on disk. `may_use_reserve` is for groups that free
    /// memory and, in time, disk: deletions.
    pub(crate) async fn make_room(&self, group_len: usize, may_use_reserve: bool) -> io::Result<Space> {
        let need = record::span(body::HEAD_BYTES + group_len) as u64;
        if self.room.has(need, may_use_reserve) {
            return Ok(Space::Ready);
        }
        self.ask(|reply| Request::Room { need, may_use_reserve, reply }).await
    }

    /// Bytes that a group takes on disk.
    pub(crate) fn bytes_needed(group_len: usize) -> u64 {
        record::span(body::HEAD_BYTES + group_len) as u64
    }

    /// Bytes written to the log since it was opened.
    pub(crate) fn written(&self) -> u64 {
        self.room.written()
    }

    /// Counts the entries from `next` on as written, so that a snapshot falls due as if the store had not been closed.
    pub(crate) fn count_as_written(&self, next: u64) {
        self.room.add_written(self.index().bytes_from(next));
    }

    /// Lets go of what recovery read, once it was replayed: its entries share the memory of whole segments.
    pub(crate) fn forget_replayed(&self) {
        self.index().forget_cached();
    }

    /// Finishes what was asked for, makes the end recognisable and stops the writer.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.ask(|reply| Request::Close { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Request) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.request(request(reply)).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn request(&self, request: Request) -> io::Result<()> {
        self.requests.send(request).await.map_err(|_| stopped())
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log's writer has stopped")
}

fn open_files(config: LogConfig, disk: Arc<dyn Disk>, begins_new: bool) -> Result<(Writer, Index), OpenError> {
    let dir = config.dir.clone();
    let recovered = recovery::recover(&*disk, &dir, config.cluster)?;
    if recovered.segments.is_empty() && !begins_new {
        let what = "expected at least one log segment (log-*.wal), found none".to_owned();
        return Err(OpenError::Damaged { path: dir, offset: 0, what });
    }
    let mut index = index_of(&recovered);
    index.vote = hard_state::load(&*disk, &dir)?;
    let active = match recovered.segments.into_iter().next_back() {
        Some(found) => {
            Segment { file: found.file, path: found.path, header: found.header, size: found.size, position: found.end }
        }
        None => {
            let header = SegmentHeader { number: 1, cluster: config.cluster, previous: None, is_jump: false };
            let segment = Segment::first(&*disk, &dir, header, config.limits.segment_bytes_min)
                .map_err(|source| io_error("make the first log segment in", &dir, source))?;
            index.segments.insert(1, segment_ref(&segment));
            segment
        }
    };
    let last = index.last;
    Ok((Writer::new(config, disk, active, last), index))
}

fn segment_ref(segment: &Segment) -> SegmentRef {
    SegmentRef {
        file: segment.file.clone(),
        path: segment.path.clone(),
        seed: segment.header.seed(),
        previous: segment.header.previous,
    }
}

fn index_of(recovered: &Recovered) -> Index {
    let mut index = Index::default();
    index.reset(recovered.segments.first().and_then(|found| found.header.previous));
    index.committed = recovered.committed;
    for found in &recovered.segments {
        let segment = SegmentRef {
            file: found.file.clone(),
            path: found.path.clone(),
            seed: found.header.seed(),
            previous: found.header.previous,
        };
        index.segments.insert(found.header.number, segment);
        for entry in &found.entries {
            index.push(entry.entry.clone());
            index.settle(Place { segment: found.header.number, offset: entry.offset as u32, body_len: entry.body_len });
        }
    }
    index
}
