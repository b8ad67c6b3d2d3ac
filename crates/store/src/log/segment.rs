//! One file of the log: a header, records, and zeros up to its size.
//!
//! The whole size is written with zeros and synced before the first record goes in: records then change no metadata,
//! which makes a sync cheaper, and the space for them is ours even when the disk fills up.
//!
//! Header (64 bytes, little-endian)
//!    0 magic · 8 number u64 · 16 cluster u64 · 24 previous index + 1 u64 · 32 previous term u64 · 40 flags u64 ·
//!   60 crc32c u32 of the 60 bytes before

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record;
use crate::consensus::{LogId, log_id};
use crate::disk::{Disk, DiskFile};
use crate::wire::{u32_at, u64_at};

/// Bytes before the first record.
pub(crate) const HEADER_BYTES: u64 = 64;
const MAGIC: &[u8; 8] = b"WLSTLOG1";
const FLAG_JUMP: u64 = 1;
/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 256 << 10;
/// Zeros are synced in pieces of this size, so that preparing a segment does not hold up the sync of another.
const ZEROS_SYNC_BYTES: u64 = 4 << 20;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    /// The cluster, hashed.
    pub(crate) cluster: u64,
    /// The entry before the first one of this segment.
    pub(crate) previous: Option<LogId>,
    /// The log was cleared before this segment, which begins after a snapshot: earlier segments do not count.
    pub(crate) is_jump: bool,
}

impl SegmentHeader {
    /// The seed of the checksums of this segment's records.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.cluster.to_le_bytes()), &self.number.to_le_bytes())
    }

    fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        let (next, term) = self.previous.map_or((0, 0), |id| (id.index + 1, id.leader_id.term));
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.cluster.to_le_bytes());
        out[24..32].copy_from_slice(&next.to_le_bytes());
        out[32..40].copy_from_slice(&term.to_le_bytes());
        out[40..48].copy_from_slice(&(if self.is_jump { FLAG_JUMP } else { 0 }).to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; the error says what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, String> {
        let Some(bytes) = bytes.get(..HEADER_BYTES as usize) else {
            return Err(format!("expected a header of {HEADER_BYTES} bytes, the file has {}", bytes.len()));
        };
        if &bytes[..8] != MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the header's checksum does not match".to_owned());
        }
        let next = u64_at(bytes, 24);
        Ok(SegmentHeader {
            number: u64_at(bytes, 8),
            cluster: u64_at(bytes, 16),
            previous: next.checked_sub(1).map(|index| log_id(u64_at(bytes, 32), index)),
            is_jump: u64_at(bytes, 40) & FLAG_JUMP != 0,
        })
    }
}

/// A segment's file name.
pub(crate) fn file_name(number: u64) -> String {
    format!("log-{number:016x}.wal")
}

/// The number in a segment's file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?.strip_suffix(".wal")?, 16).ok()
}

/// The size of a segment that has room for records of `bytes` and a mark.
pub(crate) fn size_for(bytes: u64) -> u64 {
    HEADER_BYTES + bytes + record::HEADER_BYTES as u64
}

/// A prepared file that is not yet part of the log.
pub(crate) struct Spare {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    pub(crate) size: u64,
}

impl Spare {
    /// Writes a file of `size` zeros. On an error nothing of it is left.
    pub(crate) fn prepare(disk: &dyn Disk, path: PathBuf, size: u64) -> io::Result<Spare> {
        let file = disk.create(&path)?;
        match write_zeros(&*file, 0, size) {
            Ok(()) => Ok(Spare { file, path, size }),
            Err(error) => {
                drop(file);
                // The first error is the one that tells; what is left here is removed at the next start.
                if let Err(remove_error) = disk.remove(&path) {
                    tracing::warn!(path = %path.display(), %remove_error, "a half-written segment was left behind");
                }
                Err(error)
            }
        }
    }

    /// Makes it the segment that `header` describes: durable, under its own name.
    pub(crate) fn activate(self, disk: &dyn Disk, dir: &Path, header: SegmentHeader) -> io::Result<Segment> {
        self.file.write_at(0, &header.encode())?;
        self.file.sync_data()?;
        let path = dir.join(file_name(header.number));
        disk.rename(&self.path, &path)?;
        disk.sync_dir(dir)?;
        Ok(Segment { file: self.file, path, header, size: self.size, position: HEADER_BYTES })
    }

    /// Bytes that records may take in it.
    pub(crate) fn free(&self) -> u64 {
        self.size.saturating_sub(size_for(0))
    }

    /// Gives its space back.
    pub(crate) fn discard(self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove(&self.path)
    }
}

/// The segment that records are written to.
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) size: u64,
    /// Where the next record goes.
    pub(crate) position: u64,
}

impl Segment {
    /// Makes the first segment of a log: header and zeros at once, because a new store is waited for.
    pub(crate) fn first(disk: &dyn Disk, dir: &Path, header: SegmentHeader, size: u64) -> io::Result<Segment> {
        let path_new = dir.join("first.tmp");
        let file = disk.create(&path_new)?;
        file.write_at(0, &header.encode())?;
        write_zeros(&*file, HEADER_BYTES, size)?;
        let path = dir.join(file_name(header.number));
        disk.rename(&path_new, &path)?;
        disk.sync_dir(dir)?;
        Ok(Segment { file, path, header, size, position: HEADER_BYTES })
    }

    /// Bytes that records may still take; a mark always fits after them.
    pub(crate) fn free(&self) -> u64 {
        self.size.saturating_sub(self.position + record::HEADER_BYTES as u64)
    }
}

/// Writes zeros from `from` to `to` and makes them durable.
pub(crate) fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min((to - from) as usize)];
    let mut at = from;
    let mut unsynced = 0;
    while at < to {
        let count = (to - at).min(zeros.len() as u64);
        file.write_at(at, &zeros[..count as usize])?;
        at += count;
        unsynced += count;
        if unsynced >= ZEROS_SYNC_BYTES || at == to {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{SegmentHeader, file_name, number_of};
    use crate::consensus::log_id;

    #[test]
    fn a_header_is_read_back_and_any_flip_in_it_is_noticed() {
        let header = SegmentHeader { number: 3, cluster: 4, previous: Some(log_id(2, 9)), is_jump: true };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_name_holds_its_number() {
        assert_eq!(number_of(&file_name(0x1f)), Some(0x1f));
        assert_eq!(number_of("log-zz.wal"), None);
        assert_eq!(number_of("snapshot-1"), None);
    }
}
