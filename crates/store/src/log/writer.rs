//! The one owner of the log's files.
//!
//! Rules
//!   R1 appends that wait together share one write and one sync
//!   R2 an append is reported durable only after its sync succeeded
//!   R3 a failed sync, or any other failed write than for want of space, stops the store: nothing is tried again,
//!      because after it nobody knows what is on disk
//!   R4 a write that fails for want of space is cut back and tried again until there is space
//!   R5 when nothing more waits, a mark makes the end of what is durable recognisable
//!   R6 the next segment is prepared beside the writer's work once half of the active one is used

mod files;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::body::Body;
use super::index::{Index, Place};
use super::record::{self, Progress};
use super::room::Room;
use super::segment::{Segment, Spare};
use super::{LogConfig, Space};
use crate::consensus::{LogId, Types, Vote};
use crate::disk::Disk;
use crate::hard_state;
use crate::shared::End;

/// Requests that are worked on together.
const REQUESTS_AT_ONCE_MAX: usize = 256;
/// Pause before a write that found the disk full is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// Told when entries are durable, or why they are not.
pub(crate) type Flushed = IOFlushed<Types>;
type Reply<T> = oneshot::Sender<io::Result<T>>;

/// Entries to be made durable.
pub(crate) struct Appended {
    pub(crate) records: Vec<(LogId, Body)>,
    pub(crate) flushed: Flushed,
}

pub(crate) enum Request {
    Append(Appended),
    Vote {
        vote: Vote,
        reply: Reply<()>,
    },
    Truncate {
        last: Option<LogId>,
        reply: Reply<()>,
    },
    Purge {
        upto: LogId,
        reply: Reply<()>,
    },
    Room {
        need: u64,
        may_use_reserve: bool,
        reply: Reply<Space>,
    },
    /// A segment was prepared, or could not be.
    Prepared(io::Result<Spare>),
    Close {
        reply: Reply<()>,
    },
}

pub(crate) struct Writer {
    config: LogConfig,
    disk: Arc<dyn Disk>,
    active: Segment,
    spare: Option<Spare>,
    /// Numbers the names of segments in preparation.
    prepared: u64,
    is_preparing: bool,
    /// There was no space for the next segment; it is tried again after the next append.
    spare_refused: bool,
    /// Entries with an index below this are durable.
    durable: u64,
    /// The last durable entry, or the one before the first.
    durable_id: Option<LogId>,
    /// Records in the buffer.
    unsynced: Vec<(LogId, Place)>,
    index: Arc<Mutex<Index>>,
    room: Arc<Room>,
    buffer: Vec<u8>,
    /// The mark at the active segment's end is up to date.
    is_marked: bool,
    closed: bool,
}

impl Writer {
    pub(crate) fn new(config: LogConfig, disk: Arc<dyn Disk>, active: Segment, last: Option<LogId>) -> Writer {
        let room = Arc::new(Room::new(config.limits.segment_bytes_min));
        let writer = Writer {
            config,
            disk,
            active,
            spare: None,
            prepared: 0,
            is_preparing: false,
            spare_refused: false,
            durable: last.map_or(0, |last| last.index + 1),
            durable_id: last,
            unsynced: Vec::new(),
            index: Arc::default(),
            room,
            buffer: Vec::new(),
            is_marked: false,
            closed: false,
        };
        writer.publish_room();
        writer
    }

    pub(crate) fn with_index(self, index: Arc<Mutex<Index>>) -> Writer {
        Writer { index, ..self }
    }

    pub(crate) fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    fn publish_room(&self) {
        let spare = self.spare.as_ref().map_or(0, Spare::free);
        self.room.set_free(self.active.free().max(spare));
    }

    fn progress(&self) -> Progress {
        let committed = self.index.lock().expect("nothing panics while holding the log's index").committed;
        Progress { durable: self.durable, committed }
    }

    /// Works on requests in order. What could not be done for want of space comes back.
    fn work(&mut self, requests: Vec<Request>) -> io::Result<Vec<Request>> {
        let mut requests = requests.into_iter().peekable();
        while let Some(request) = requests.next() {
            match request {
                Request::Append(first) => {
                    let mut batch = vec![first];
                    while let Some(Request::Append(next)) = requests.next_if(|next| matches!(next, Request::Append(_)))
                    {
                        batch.push(next);
                    }
                    if let Some(undone) = self.append(batch)? {
                        return Ok(undone.into_iter().map(Request::Append).chain(requests).collect());
                    }
                }
                Request::Vote { vote, reply } => match hard_state::save(&*self.disk, &self.config.dir, vote) {
                    Ok(()) => answer(reply, Ok(())),
                    Err(error) if is_full(&error) => {
                        return Ok(std::iter::once(Request::Vote { vote, reply }).chain(requests).collect());
                    }
                    Err(error) => return Err(error),
                },
                Request::Truncate { last, reply } => answer(reply, Ok(self.truncate(last)?)),
                Request::Purge { upto, reply } => match self.purge(upto) {
                    Ok(()) => answer(reply, Ok(())),
                    Err(error) if is_full(&error) => {
                        return Ok(std::iter::once(Request::Purge { upto, reply }).chain(requests).collect());
                    }
                    Err(error) => return Err(error),
                },
                Request::Room { need, may_use_reserve, reply } => {
                    let space = self.make_room(self.room.wanted(need, may_use_reserve))?;
                    answer(reply, Ok(space));
                }
                Request::Prepared(result) => self.take_prepared(result)?,
                Request::Close { reply } => {
                    self.write_mark()?;
                    self.active.file.sync_data()?;
                    self.closed = true;
                    answer(reply, Ok(()));
                }
            }
        }
        self.write_mark()?;
        self.publish_room();
        Ok(Vec::new())
    }

    /// R1, R2. `Some` when the disk is full: what is not durable is not on disk either.
    fn append(&mut self, batch: Vec<Appended>) -> io::Result<Option<Vec<Appended>>> {
        match self.write_records(&batch) {
            Ok(()) => {
                batch.into_iter().for_each(|appended| appended.flushed.io_completed(Ok(())));
                Ok(None)
            }
            Err(error) if is_full(&error) => {
                self.cut_back(self.active.position)?;
                tracing::warn!(dir = %self.config.dir.display(), "the disk is full; the log waits for space");
                Ok(Some(batch))
            }
            Err(error) => {
                let why = error.to_string();
                batch.into_iter().for_each(|it| it.flushed.io_completed(Err(io::Error::other(why.clone()))));
                Err(error)
            }
        }
    }

    /// Writes the records of a batch, but for those that are durable from an earlier try, and syncs them.
    fn write_records(&mut self, batch: &[Appended]) -> io::Result<()> {
        self.spare_refused = false;
        self.unsynced.clear();
        self.buffer.clear();
        let mut progress = self.progress();
        for (id, body) in batch.iter().flat_map(|appended| &appended.records) {
            if id.index < self.durable {
                continue;
            }
            let span = record::span(body.len()) as u64;
            if self.buffer.len() as u64 + span > self.active.free() {
                self.flush()?;
                self.roll(span, self.durable_id, false)?;
                progress.durable = self.durable;
            }
            let place = Place {
                segment: self.active.header.number,
                offset: (self.active.position + self.buffer.len() as u64) as u32,
                body_len: body.len() as u32,
            };
            self.unsynced.push((*id, place));
            let seed = self.active.header.seed();
            record::write_record(&mut self.buffer, id.index, progress, &[&body.head, &body.payload], seed);
        }
        self.flush()
    }

    /// Makes the buffered records durable.
    fn flush(&mut self) -> io::Result<()> {
        let Some(&(last, _)) = self.unsynced.last() else { return Ok(()) };
        self.is_marked = false;
        self.active.file.write_at(self.active.position, &self.buffer)?;
        self.active.file.sync_data()?;
        self.active.position += self.buffer.len() as u64;
        self.durable = last.index + 1;
        self.durable_id = Some(last);
        self.room.add_written(self.buffer.len() as u64);
        self.buffer.clear();
        let mut index = self.index.lock().expect("nothing panics while holding the log's index");
        self.unsynced.drain(..).for_each(|(_, place)| index.settle(place));
        index.trim_cache();
        Ok(())
    }

    /// R5. Not synced: it is lost only together with the memory that a crash of the machine takes.
    fn write_mark(&mut self) -> io::Result<()> {
        if self.is_marked || self.active.size - self.active.position < record::HEADER_BYTES as u64 {
            return Ok(());
        }
        let mark = record::mark(self.progress(), self.active.header.seed());
        match self.active.file.write_at(self.active.position, &mark) {
            Ok(()) => self.is_marked = true,
            // It is only a hint; the next record finds out whether there is space.
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Runs the writer until the log is closed, dropped or broken.
pub(crate) async fn run(
    writer: Writer,
    mut queue: mpsc::Receiver<Request>,
    back: mpsc::WeakSender<Request>,
    end: Arc<End>,
) {
    let mut writer = writer;
    let mut requests = Vec::new();
    loop {
        if queue.recv_many(&mut requests, REQUESTS_AT_ONCE_MAX).await == 0 {
            return;
        }
        while !requests.is_empty() {
            let batch = std::mem::take(&mut requests);
            let disk = writer.disk.clone();
            let (reply, done) = oneshot::channel();
            disk.run(Box::new(move || {
                let mut writer = writer;
                let result = writer.work(batch);
                // The receiver waits below.
                let _unwanted = reply.send((writer, result));
            }))
            .await;
            let Ok((returned, result)) = done.await else {
                return end.fail("the log's writer panicked");
            };
            writer = returned;
            match result {
                Ok(undone) => requests = undone,
                Err(error) => {
                    // R3. Whoever still waits learns it from the closed queue.
                    return end.fail(&format!("writing the log in {} failed: {error}", writer.config.dir.display()));
                }
            }
            if !requests.is_empty() {
                tokio::select! {
                    biased;
                    _ = end.ended() => return,
                    () = tokio::time::sleep(FULL_RETRY) => {}
                }
            }
        }
        if writer.closed {
            return;
        }
        if let Some((path, size)) = writer.wants_spare() {
            tokio::spawn(prepare_beside(writer.disk.clone(), path, size, back.clone()));
        }
    }
}

async fn prepare_beside(disk: Arc<dyn Disk>, path: PathBuf, size: u64, back: mpsc::WeakSender<Request>) {
    let (reply, prepared) = oneshot::channel();
    let run_on = disk.clone();
    let job = move || {
        // Only tried when the file system says that it could succeed.
        let prepared = match path.parent().map(|dir| run_on.free_bytes(dir)) {
            Some(Ok(free)) if free < size => Err(io::ErrorKind::StorageFull.into()),
            Some(Err(error)) => Err(error),
            _ => Spare::prepare(&*run_on, path, size),
        };
        // The receiver waits below.
        let _unwanted = reply.send(prepared);
    };
    disk.run(Box::new(job)).await;
    if let Ok(prepared) = prepared.await
        && let Some(back) = back.upgrade()
    {
        // A log that was closed meanwhile needs no segment; the next start removes the file.
        let _unwanted = back.send(Request::Prepared(prepared)).await;
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn answer<T>(reply: Reply<T>, result: io::Result<T>) {
    // Whoever asked may have been cancelled; the work is done all the same.
    let _unwanted = reply.send(result);
}
