//! Reading the log back: what is whole is kept, a torn end is cut, damage is an error.
//!
//! Rules
//!   R1 segments follow each other without a gap, and so do entries
//!   R2 a segment ends at its first unreadable record; what the next segment says comes before it must be there
//!   R3 an unreadable record is torn, and the log ends before it, unless something after it proves that it had been
//!      durable; then it is damage
//!   R4 what was read is made durable before anybody relies on it: it may have survived in memory only

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::body;
use super::record::{self, Header};
use super::segment::{self, SegmentHeader};
use crate::consensus::{LogEntry, LogId};
use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;

/// A segment that was read.
pub(crate) struct Found {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) size: u64,
    /// Where its last record ends.
    pub(crate) end: u64,
    /// What stands there that cannot be read, if it is not zeros.
    why: Option<String>,
    pub(crate) entries: Vec<FoundEntry>,
}

/// An entry that was read, and where.
pub(crate) struct FoundEntry {
    pub(crate) entry: LogEntry,
    pub(crate) offset: u64,
    pub(crate) body_len: u32,
}

/// What the log holds.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Found>,
    /// Entries with an index below this are known to be committed.
    pub(crate) committed: u64,
}

impl Recovered {
    /// The last entry, or the one before the first when there is none.
    pub(crate) fn last(&self) -> Option<LogId> {
        let segment = self.segments.last()?;
        segment.entries.last().map(|found| found.entry.log_id).or(segment.header.previous)
    }
}

/// Reads all segments of `dir`. `cluster` is the hash every one of them must carry.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, cluster: u64) -> Result<Recovered, OpenError> {
    let names = disk.list(dir).map_err(|source| io_error("list", dir, source))?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let mut recovered = Recovered::default();
    for (order, &number) in numbers.iter().enumerate() {
        let is_last = order + 1 == numbers.len();
        let path = dir.join(segment::file_name(number));
        let (found, committed) = read_segment(disk, path, &recovered, (number, cluster), is_last)?;
        if found.header.is_jump {
            for outdated in recovered.segments.drain(..) {
                disk.remove(&outdated.path).map_err(|source| io_error("remove", &outdated.path, source))?;
            }
        }
        recovered.committed = recovered.committed.max(committed);
        recovered.segments.push(found);
    }
    Ok(recovered)
}

fn read_segment(
    disk: &dyn Disk,
    path: PathBuf,
    before: &Recovered,
    (number, cluster): (u64, u64),
    is_last: bool,
) -> Result<(Found, u64), OpenError> {
    let file = disk.open(&path).map_err(|source| io_error("open", &path, source))?;
    let bytes = read_all(&*file).map_err(|source| io_error("read", &path, source))?;
    let damaged = |offset: u64, what: String| OpenError::Damaged { path: path.clone(), offset, what };
    let header = SegmentHeader::decode(&bytes).map_err(|what| damaged(0, what))?;
    if (header.number, header.cluster) != (number, cluster) {
        let what = format!(
            "expected segment {number:x} of cluster {cluster:x}, found segment {:x} of {:x}",
            header.number, header.cluster
        );
        return Err(damaged(0, what));
    }
    if let Some(last) = before.segments.last().filter(|_| !header.is_jump) {
        if last.header.number + 1 != number {
            let what = format!("expected segment {:x} before it, which is missing", number - 1);
            return Err(damaged(0, what));
        }
        if before.last() != header.previous {
            // The header is right, so the end of the segment before it is not (R2).
            let end = last.why.as_deref().unwrap_or("the records end");
            let what = format!("{end}, but entries up to {:?} had been durable", header.previous);
            return Err(OpenError::Damaged { path: last.path.clone(), offset: last.end, what });
        }
    }
    let scan = scan(&bytes, &header).map_err(|Damage { offset, what }| damaged(offset, what))?;
    if is_last {
        make_tail_clean(&*file, &bytes, scan.end).map_err(|source| io_error("cut the torn end of", &path, source))?;
    }
    let found =
        Found { file, path, header, size: bytes.len() as u64, end: scan.end, why: scan.why, entries: scan.entries };
    Ok((found, scan.committed))
}

/// Overwrites what follows the last record with zeros, in place so that it needs no space, and applies R4.
fn make_tail_clean(file: &dyn DiskFile, bytes: &Bytes, end: u64) -> io::Result<()> {
    let tail = &bytes[end as usize..];
    match tail.iter().rposition(|&byte| byte != 0) {
        Some(last) => segment::write_zeros(file, end, end + last as u64 + 1),
        None => file.sync_data(),
    }
}

struct Scan {
    entries: Vec<FoundEntry>,
    end: u64,
    why: Option<String>,
    committed: u64,
}

#[derive(Debug)]
struct Damage {
    offset: u64,
    what: String,
}

fn scan(bytes: &Bytes, header: &SegmentHeader) -> Result<Scan, Damage> {
    let seed = header.seed();
    let mut next = header.previous.map_or(0, |previous| previous.index + 1);
    let mut at = segment::HEADER_BYTES as usize;
    let mut scan = Scan { entries: Vec::new(), end: 0, why: None, committed: 0 };
    loop {
        let record = Header::read(&bytes[at..], seed);
        let why = match record {
            Some(record) if record.is_mark() => {
                scan.committed = scan.committed.max(record.committed);
                check_vouchers(bytes, at, next, seed, "an entry is missing")?;
                break;
            }
            Some(record) => match read_entry(bytes, at, &record, next) {
                Ok(entry) => {
                    scan.committed = scan.committed.max(record.committed);
                    scan.entries.push(FoundEntry { entry, offset: at as u64, body_len: record.body_len });
                    next += 1;
                    at += record.span();
                    continue;
                }
                Err(why) => why,
            },
            None if bytes[at..].iter().all(|&byte| byte == 0) => break,
            None => "expected a record or zeros, found neither".to_owned(),
        };
        check_vouchers(bytes, at, next, seed, &why)?;
        tracing::debug!(segment = header.number, offset = at, why, "the log has a torn end here");
        scan.why = Some(why);
        break;
    }
    scan.end = at as u64;
    Ok(scan)
}

fn read_entry(bytes: &Bytes, at: usize, record: &Header, next: u64) -> Result<LogEntry, String> {
    let start = at + record::HEADER_BYTES;
    if record.index != next {
        return Err(format!("expected entry {next}, found {}", record.index));
    }
    if at + record.span() > bytes.len() {
        return Err(format!("entry {next} does not fit into the file"));
    }
    let body = bytes.slice(start..start + record.body_len as usize);
    if !record.matches(&body) {
        return Err(format!("the checksum of entry {next} does not match"));
    }
    body::decode(next, body).ok_or_else(|| format!("entry {next} cannot be decoded though its checksum matches"))
}

/// R3: looks for a record after `at` that says that entry `missing` was durable.
fn check_vouchers(bytes: &Bytes, at: usize, missing: u64, seed: u32, why: &str) -> Result<(), Damage> {
    let mut place = at;
    while place + record::HEADER_BYTES <= bytes.len() {
        if let Some(voucher) = Header::read(&bytes[place..], seed)
            && voucher.durable > missing
        {
            let what = format!("{why}, but the record at byte {place} shows that entry {missing} had been durable");
            return Err(Damage { offset: at as u64, what });
        }
        place += record::ALIGN;
    }
    Ok(())
}

fn read_all(file: &dyn DiskFile) -> io::Result<Bytes> {
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes.into())
}

pub(crate) fn io_error(verb: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { verb, path: path.to_owned(), source }
}
