//! What the log knows in memory: where each entry lies, and the entries that are not yet, or just now, on disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::body;
use super::record::{self, Header};
use crate::consensus::{LogEntry, LogId, Vote};
use crate::disk::DiskFile;

/// Bytes of entries kept in memory after they are durable, for members that are only a little behind.
const CACHE_BYTES_MAX: usize = 1 << 20;

/// The log's table of contents.
#[derive(Default)]
pub(crate) struct Index {
    /// The entry before the first one; it and all before it are gone.
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) vote: Option<Vote>,
    /// Entries with an index below this are committed.
    pub(crate) committed: u64,
    pub(crate) segments: BTreeMap<u64, SegmentRef>,
    /// The place of every durable entry, the first one being at index `first`.
    places: VecDeque<Place>,
    first: u64,
    /// Entries in memory, the first one being at index `cache_first`; up to the last.
    cache: VecDeque<LogEntry>,
    cache_first: u64,
    cache_bytes: usize,
}

#[derive(Clone)]
pub(crate) struct SegmentRef {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) seed: u32,
    /// The entry before its first one.
    pub(crate) previous: Option<LogId>,
}

#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) body_len: u32,
}

impl Index {
    /// An empty log after `purged`.
    pub(crate) fn reset(&mut self, purged: Option<LogId>) {
        let next = purged.map_or(0, |id| id.index + 1);
        self.purged = purged;
        self.last = purged;
        self.places.clear();
        self.first = next;
        self.cache.clear();
        self.cache_first = next;
        self.cache_bytes = 0;
    }

    /// The index after the last durable entry.
    pub(crate) fn durable(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Takes an entry that is not on disk yet.
    pub(crate) fn push(&mut self, entry: LogEntry) {
        if self.last.is_none() {
            // The engine says where a log begins.
            self.first = entry.log_id.index;
            self.cache_first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.cache_bytes += weight(&entry);
        self.cache.push_back(entry);
    }

    /// The next entry is durable at `place`.
    pub(crate) fn settle(&mut self, place: Place) {
        self.places.push_back(place);
    }

    /// Forgets cached entries beyond the bound, as far as they can be read from disk.
    pub(crate) fn trim_cache(&mut self) {
        let next = self.durable().min(self.committed);
        while self.cache_bytes > CACHE_BYTES_MAX && self.cache_first < next && self.pop_cached() {}
    }

    /// Forgets all cached entries that can be read from disk.
    pub(crate) fn forget_cached(&mut self) {
        let next = self.durable();
        while self.cache_first < next && self.pop_cached() {}
        self.cache.shrink_to_fit();
    }

    fn pop_cached(&mut self) -> bool {
        let Some(entry) = self.cache.pop_front() else { return false };
        self.cache_bytes -= weight(&entry);
        self.cache_first += 1;
        true
    }

    /// Removes the entries from `next` on.
    pub(crate) fn truncate(&mut self, next: u64, last: Option<LogId>) {
        self.places.truncate(next.saturating_sub(self.first) as usize);
        while self.cache_first + self.cache.len() as u64 > next {
            let Some(entry) = self.cache.pop_back() else { break };
            self.cache_bytes -= weight(&entry);
        }
        self.cache_first = self.cache_first.min(next);
        self.last = last;
    }

    /// Forgets the entries up to `upto`, some of which exist.
    pub(crate) fn purge(&mut self, upto: LogId) {
        let next = upto.index + 1;
        while self.first < next && self.places.pop_front().is_some() {
            self.first += 1;
        }
        while self.cache_first < next && self.pop_cached() {}
        self.purged = Some(upto);
    }

    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        self.places.get(index.checked_sub(self.first)? as usize).copied()
    }

    /// Bytes of the durable entries from `next` on.
    pub(crate) fn bytes_from(&self, next: u64) -> u64 {
        let skip = next.saturating_sub(self.first) as usize;
        self.places.iter().skip(skip).map(|place| record::span(place.body_len as usize) as u64).sum()
    }

    /// Entries from `start` to before `end`, as far as they exist, in memory or to be read.
    pub(crate) fn read(&self, start: u64, end: u64) -> Vec<Source> {
        let end = end.min(self.last.map_or(0, |last| last.index + 1));
        let start = start.max(self.purged.map_or(0, |purged| purged.index + 1));
        (start..end).filter_map(|index| self.source(index)).collect()
    }

    fn source(&self, index: u64) -> Option<Source> {
        if let Some(entry) = index.checked_sub(self.cache_first).and_then(|at| self.cache.get(at as usize)) {
            return Some(Source::Memory(entry.clone()));
        }
        let place = self.place(index)?;
        let segment = self.segments.get(&place.segment)?.clone();
        Some(Source::Disk { index, segment, place })
    }
}

/// Where an entry is to be had.
pub(crate) enum Source {
    Memory(LogEntry),
    Disk { index: u64, segment: SegmentRef, place: Place },
}

impl Source {
    pub(crate) fn load(self) -> io::Result<LogEntry> {
        match self {
            Source::Memory(entry) => Ok(entry),
            Source::Disk { index, segment, place } => load(index, &segment, place),
        }
    }
}

fn load(index: u64, segment: &SegmentRef, place: Place) -> io::Result<LogEntry> {
    let mut bytes = vec![0; record::HEADER_BYTES + place.body_len as usize];
    segment.file.read_at(u64::from(place.offset), &mut bytes)?;
    let bytes = Bytes::from(bytes);
    let body = bytes.slice(record::HEADER_BYTES..);
    Header::read(&bytes, segment.seed)
        .filter(|header| header.index == index && header.matches(&body))
        .and_then(|_| body::decode(index, body))
        .ok_or_else(|| {
            let path = segment.path.display();
            let what = format!("{path} is damaged at byte {}: expected entry {index}", place.offset);
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
}

fn weight(entry: &LogEntry) -> usize {
    let payload = match &entry.payload {
        openraft::EntryPayload::Normal(group) => group.encoded().len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 0,
    };
    payload + std::mem::size_of::<LogEntry>()
}
