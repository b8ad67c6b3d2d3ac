//! Snapshots: the whole state in one file, so that opening does not replay the log from its beginning.
//!
//! Form  header (magic · cluster u64 · header length u32 · crc32c u32 · header), then frames (compressed length u32 ·
//!       plain length u32 · crc32c u32 · zstd), then a frame of length 0 whose checksum field is that of all the
//!       frames' checksums. The header: revision, applied entry, membership and its entry, number of entries.
//!
//! Rules
//!   R1 written beside the running store from a clone that no longer changes
//!   R2 a name without `.tmp` is a whole snapshot: it was synced before it was renamed
//!   R3 two are kept, so that damage to one does not cost the state

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::consensus::{LogId, StoredMembership, log_id};
use crate::disk::{Disk, DiskFile};
use crate::entry::{Entry, Revision, Splice};
use crate::error::OpenError;
use crate::log::body::{decode_membership, encode_membership};
use crate::state::{Entries, size};
use crate::wire::{Reader, put_bytes, u32_at, u64_at};

/// Entries are compressed in pieces of about this size.
const FRAME_BYTES: usize = 256 << 10;
/// A frame holds at least one entry, and the largest one may be this large.
const FRAME_BYTES_MAX: usize = 64 << 20;
const ZSTD_LEVEL: i32 = 1;
const MAGIC: &[u8; 8] = b"WLSTSNP1";
const PREFIX_BYTES: usize = 24;
/// Five numbers and the membership, which is a few members.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Memory for what is said to follow is taken in advance up to this: what most frames have.
const TAKE_BYTES_AT_ONCE: usize = 2 * FRAME_BYTES;
const FRAME_HEADER_BYTES: usize = 12;
const NO_SPLICE: u32 = u32::MAX;
/// Snapshots kept (R3).
pub(crate) const KEPT: usize = 2;

/// A state that no longer changes.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) cluster: u64,
    pub(crate) revision: Revision,
    pub(crate) applied: LogId,
    pub(crate) membership: StoredMembership,
    pub(crate) entries: Entries,
}

/// A snapshot's file name. Names sort by the entry they end with.
pub(crate) fn file_name(applied: LogId) -> String {
    format!("snapshot-{:016x}-{:x}.zst", applied.index, applied.leader_id.term)
}

/// The entry that a snapshot of this name ends with.
pub(crate) fn applied_of(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_prefix("snapshot-")?.strip_suffix(".zst")?.split_once('-')?;
    Some(log_id(u64::from_str_radix(term, 16).ok()?, u64::from_str_radix(index, 16).ok()?))
}

/// The snapshots of a directory, newest first.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<LogId>> {
    let mut found: Vec<LogId> = disk.list(dir)?.iter().filter_map(|name| applied_of(name)).collect();
    found.sort_by_key(|id| std::cmp::Reverse(id.index));
    Ok(found)
}

/// Turns an image into the bytes of a snapshot, piece by piece.
pub(crate) struct Encoder {
    image: Image,
    /// The key that the last piece ended with.
    after: Option<String>,
    checksums: u32,
    state: Piece,
}

enum Piece {
    Header,
    Frames,
    End,
    Done,
}

impl Encoder {
    pub(crate) fn new(image: Image) -> Encoder {
        Encoder { image, after: None, checksums: 0, state: Piece::Header }
    }

    /// The next piece of the file; `None` when it is whole.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.state {
            Piece::Header => {
                self.state = Piece::Frames;
                Ok(Some(encode_header(&self.image)))
            }
            Piece::Frames => match self.plain_frame() {
                plain if plain.is_empty() => {
                    self.state = Piece::End;
                    self.next()
                }
                plain => self.frame(&plain).map(Some),
            },
            Piece::End => {
                self.state = Piece::Done;
                let mut out = vec![0; FRAME_HEADER_BYTES - 4];
                out.extend_from_slice(&self.checksums.to_le_bytes());
                Ok(Some(out))
            }
            Piece::Done => Ok(None),
        }
    }

    fn plain_frame(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let start = match self.after.as_deref() {
            None => std::ops::Bound::Unbounded,
            Some(key) => std::ops::Bound::Excluded(key),
        };
        for entry in self.image.entries.from(start) {
            encode_entry(&mut plain, entry);
            if plain.len() >= FRAME_BYTES {
                self.after = Some(entry.key().to_owned());
                return plain;
            }
        }
        self.after = self.image.entries.last().map(|entry| entry.key().to_owned());
        plain
    }

    fn frame(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let compressed = zstd::bulk::compress(plain, ZSTD_LEVEL)?;
        let crc = crc32c::crc32c_append(plain.len() as u32, &compressed);
        self.checksums = crc32c::crc32c_append(self.checksums, &crc.to_le_bytes());
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + compressed.len());
        out.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
        out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&compressed);
        Ok(out)
    }
}

fn encode_header(image: &Image) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend_from_slice(&image.revision.to_le_bytes());
    encode_log_id(&mut header, Some(image.applied));
    encode_log_id(&mut header, *image.membership.log_id());
    put_bytes(&mut header, &encode_membership(image.membership.membership()));
    header.extend_from_slice(&(image.entries.len() as u64).to_le_bytes());
    let mut out = Vec::with_capacity(PREFIX_BYTES + header.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&image.cluster.to_le_bytes());
    out.extend_from_slice(&(header.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &header);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
    out
}

fn encode_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    let (term, next) = id.map_or((0, 0), |id| (id.leader_id.term, id.index + 1));
    out.extend_from_slice(&term.to_le_bytes());
    out.extend_from_slice(&next.to_le_bytes());
}

fn decode_log_id(reader: &mut Reader) -> Option<Option<LogId>> {
    let (term, next) = (reader.u64()?, reader.u64()?);
    Some(next.checked_sub(1).map(|index| log_id(term, index)))
}

pub(crate) fn encode_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_bytes(out, entry.key().as_bytes());
    out.extend_from_slice(&entry.revision.to_le_bytes());
    out.extend_from_slice(&entry.created.to_le_bytes());
    let Splice { at, digits } = entry.splice();
    let at = if digits == 0 { NO_SPLICE } else { at };
    out.extend_from_slice(&at.to_le_bytes());
    out.push(digits);
    put_bytes(out, entry.value());
}

fn decode_entry(reader: &mut Reader) -> Option<Entry> {
    let key = reader.bytes()?;
    let key = std::str::from_utf8(&key).ok().filter(|key| u16::try_from(key.len()).is_ok())?;
    let (revision, created) = (reader.u64()?, reader.u64()?);
    let (at, digits) = (reader.u32()?, reader.u8()?);
    let splice = if at == NO_SPLICE { Splice::default() } else { Splice { at, digits } };
    let value = reader.bytes()?;
    let is_nowhere = at != NO_SPLICE && digits == 0;
    if is_nowhere || splice.at as usize + usize::from(splice.digits) > value.len() {
        return None;
    }
    Some(Entry::restored(key, &value, revision, created, splice))
}

/// Reads a snapshot. Anything that is not as it was written is an error that says where.
pub(crate) fn load(disk: &dyn Disk, path: &Path, applied: LogId, cluster: u64) -> Result<Image, OpenError> {
    let path = path.to_owned();
    let io_error = |verb| {
        let path = path.clone();
        move |source| OpenError::Io { verb, path, source }
    };
    let file = disk.open(&path).map_err(io_error("open"))?;
    let len = file.len().map_err(io_error("read"))?;
    let is_it = |image: &Image| match (image.cluster, image.applied) == (cluster, applied) {
        true => Ok(()),
        false => Err(format!(
            "expected cluster {cluster:x} and entry {applied}, found {:x} and {}",
            image.cluster, image.applied
        )),
    };
    decode(&mut FileReader { file: &*file, at: 0, len }, (u64::MAX, u64::MAX), is_it).map_err(|fault| match fault {
        Fault::Io(error) => io_error("read")(error),
        Fault::Damaged { offset, what } => OpenError::Damaged { path: path.clone(), offset, what },
    })
}

/// Reads a snapshot's bytes up to its end and looks that none follows. `is_it` says from the header, before anything
/// large is read, whether this is the one that is wanted; there are at most so many entries, whose keys and values together
/// take at most so many bytes.
pub(crate) fn decode(
    from: &mut dyn io::Read,
    (entries_max, bytes_max): (u64, u64),
    is_it: impl FnOnce(&Image) -> Result<(), String>,
) -> Result<Image, Fault> {
    let mut source = Source { from, at: 0 };
    let (mut image, count) = load_header(&mut source)?;
    is_it(&image).map_err(|what| Fault::Damaged { offset: 0, what })?;
    if count > entries_max {
        return Err(source.damaged(format!("expected at most {entries_max} entries, and it says that it has {count}")));
    }
    load_frames(&mut source, &mut image, (count, bytes_max))?;
    if image.entries.len() as u64 != count || !source.is_at_end()? {
        let what = format!("expected {count} entries and no byte after them, found {} entries", image.entries.len());
        return Err(source.damaged(what));
    }
    Ok(image)
}

/// Why a snapshot cannot be read.
pub(crate) enum Fault {
    Io(io::Error),
    Damaged { offset: u64, what: String },
}

/// A file from its beginning.
struct FileReader<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    len: u64,
}

impl io::Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.len - self.at).min(buffer.len() as u64) as usize;
        self.file.read_at(self.at, &mut buffer[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

struct Source<'a> {
    from: &'a mut dyn io::Read,
    at: u64,
}

impl Source<'_> {
    /// The next `count` bytes. No more memory is taken than there are bytes.
    fn take(&mut self, count: usize) -> Result<Bytes, Fault> {
        let mut bytes = Vec::with_capacity(count.min(TAKE_BYTES_AT_ONCE));
        io::Read::take(&mut *self.from, count as u64).read_to_end(&mut bytes).map_err(Fault::Io)?;
        if bytes.len() < count {
            return Err(self.damaged(format!("expected {count} more bytes, found {}, then the end", bytes.len())));
        }
        self.at += count as u64;
        Ok(bytes.into())
    }

    fn is_at_end(&mut self) -> Result<bool, Fault> {
        let mut more = Vec::new();
        io::Read::take(&mut *self.from, 1).read_to_end(&mut more).map_err(Fault::Io)?;
        Ok(more.is_empty())
    }

    fn damaged(&self, what: impl Into<String>) -> Fault {
        Fault::Damaged { offset: self.at, what: what.into() }
    }
}

fn load_header(source: &mut Source<'_>) -> Result<(Image, u64), Fault> {
    let prefix = source.take(PREFIX_BYTES)?;
    if &prefix[..8] != MAGIC {
        return Err(Fault::Damaged { offset: 0, what: "this is not a snapshot".to_owned() });
    }
    let len = u32_at(&prefix, 16) as usize;
    if len > HEADER_BYTES_MAX {
        return Err(Fault::Damaged { offset: 16, what: format!("a header of {len} bytes is none of ours") });
    }
    let header = source.take(len)?;
    if u32_at(&prefix, 20) != crc32c::crc32c_append(crc32c::crc32c(&prefix[..20]), &header) {
        return Err(Fault::Damaged { offset: 0, what: "the header's checksum does not match".to_owned() });
    }
    let mut reader = Reader::new(header);
    let mut decode = || {
        let revision = reader.u64()?;
        let applied = decode_log_id(&mut reader)??;
        let membership_id = decode_log_id(&mut reader)?;
        let membership = StoredMembership::new(membership_id, decode_membership(reader.bytes()?)?);
        let count = reader.u64()?;
        let image = Image { cluster: u64_at(&prefix, 8), revision, applied, membership, entries: Entries::default() };
        reader.is_empty().then_some((image, count))
    };
    decode().ok_or_else(|| source.damaged("the header cannot be decoded though its checksum matches"))
}

fn load_frames(source: &mut Source<'_>, image: &mut Image, (count, bytes_max): (u64, u64)) -> Result<(), Fault> {
    let mut checksums = 0;
    let mut bytes_left = bytes_max;
    loop {
        let offset = source.at;
        let head = source.take(FRAME_HEADER_BYTES)?;
        let (compressed_len, plain_len, crc) = (u32_at(&head, 0), u32_at(&head, 4), u32_at(&head, 8));
        if compressed_len == 0 && plain_len == 0 {
            if crc == checksums {
                return Ok(());
            }
            return Err(Fault::Damaged { offset, what: "the closing checksum does not match".to_owned() });
        }
        if plain_len as usize > FRAME_BYTES_MAX || compressed_len as usize > FRAME_BYTES_MAX {
            let what = format!("a frame of {compressed_len} and {plain_len} bytes is none of ours");
            return Err(Fault::Damaged { offset, what });
        }
        let compressed = source.take(compressed_len as usize)?;
        if crc != crc32c::crc32c_append(plain_len, &compressed) {
            return Err(Fault::Damaged { offset, what: "a frame's checksum does not match".to_owned() });
        }
        checksums = crc32c::crc32c_append(checksums, &crc.to_le_bytes());
        let undecodable = || Fault::Damaged { offset, what: "a frame cannot be decoded".to_owned() };
        let plain = zstd::bulk::decompress(&compressed, plain_len as usize).map_err(|_| undecodable())?;
        let mut reader = Reader::new(plain.into());
        while !reader.is_empty() {
            let entry = decode_entry(&mut reader).ok_or_else(undecodable)?;
            let too_much = || Fault::Damaged { offset, what: format!("there are more than {bytes_max} bytes") };
            bytes_left = bytes_left.checked_sub(size(&entry)).ok_or_else(too_much)?;
            let twice = image.entries.insert(Arc::new(entry)).is_some();
            if twice || image.entries.len() as u64 > count {
                let what = format!("expected {count} entries with keys of their own, found one more");
                return Err(Fault::Damaged { offset, what });
            }
        }
    }
}

/// Removes all snapshots but those in `keep`.
pub(crate) fn remove_others(disk: &dyn Disk, dir: &Path, keep: &[LogId]) -> io::Result<()> {
    for id in list(disk, dir)?.into_iter().filter(|id| !keep.contains(id)) {
        disk.remove(&dir.join(file_name(id)))?;
    }
    disk.sync_dir(dir)
}

/// Where a snapshot is written before it is whole.
pub(crate) fn path_in_progress(dir: &Path) -> PathBuf {
    dir.join("snapshot.tmp")
}
