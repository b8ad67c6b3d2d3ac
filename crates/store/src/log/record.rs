//! One record of the log on disk: a fixed header that can be recognised on its own, then the body.
//!
//! Header (40 bytes, little-endian)
//!    0 magic u32 · 4 body length u32 · 8 index u64 · 16 durable u64 · 24 committed u64 · 32 body crc32c u32 ·
//!   36 header crc32c u32, seeded with the segment, so that bytes of another segment never pass for a record
//! Records start at multiples of 8. A header without a body is a mark.
//!
//! `durable` is the proof by which recovery tells a torn write from damage: it is the number of entries that were
//! durable when this record was written. A record that cannot be read, and of which a later record says that it was
//! durable, is damage. One that nobody vouches for was never acknowledged.

use crate::wire::{u32_at, u64_at};

pub(crate) const HEADER_BYTES: usize = 40;
/// Records start at multiples of this.
pub(crate) const ALIGN: usize = 8;
const MAGIC: u32 = 0x3152_4c57;
/// The `index` of a mark.
const MARK: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The entry's position in the log; [`MARK`] for a mark.
    pub(crate) index: u64,
    /// Entries with an index below this were durable when the record was written.
    pub(crate) durable: u64,
    /// Entries with an index below this were committed when the record was written.
    pub(crate) committed: u64,
    pub(crate) body_len: u32,
    body_crc: u32,
}

impl Header {
    pub(crate) fn is_mark(&self) -> bool {
        self.index == MARK
    }

    /// Bytes from this record's start to the next one's.
    pub(crate) fn span(&self) -> usize {
        span(self.body_len as usize)
    }

    /// Reads a header from the start of `bytes`, if there is one.
    pub(crate) fn read(bytes: &[u8], seed: u32) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 36) != crc32c::crc32c_append(seed, &bytes[..36]) {
            return None;
        }
        Some(Header {
            body_len: u32_at(bytes, 4),
            index: u64_at(bytes, 8),
            durable: u64_at(bytes, 16),
            committed: u64_at(bytes, 24),
            body_crc: u32_at(bytes, 32),
        })
    }

    pub(crate) fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_len as usize && crc32c::crc32c(body) == self.body_crc
    }

    fn write(&self, out: &mut [u8], seed: u32) {
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&self.body_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.index.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable.to_le_bytes());
        out[24..32].copy_from_slice(&self.committed.to_le_bytes());
        out[32..36].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &out[..36]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Bytes that a record with this body takes.
pub(crate) fn span(body_len: usize) -> usize {
    (HEADER_BYTES + body_len).next_multiple_of(ALIGN)
}

/// What a header says of the log besides its own record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) durable: u64,
    pub(crate) committed: u64,
}

/// Appends a record to `out`, whose length is a multiple of [`ALIGN`].
pub(crate) fn write_record(out: &mut Vec<u8>, index: u64, progress: Progress, body: &[&[u8]], seed: u32) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    body.iter().for_each(|part| out.extend_from_slice(part));
    let body = &out[start + HEADER_BYTES..];
    let header = Header {
        index,
        durable: progress.durable,
        committed: progress.committed,
        body_len: u32::try_from(body.len()).expect("bodies are checked against limits"),
        body_crc: crc32c::crc32c(body),
    };
    header.write(&mut out[start..start + HEADER_BYTES], seed);
    out.resize(start + header.span(), 0);
}

/// A mark: proof that the records before it were durable. The next record replaces it.
pub(crate) fn mark(progress: Progress, seed: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let header = Header {
        index: MARK,
        durable: progress.durable,
        committed: progress.committed,
        body_len: 0,
        body_crc: crc32c::crc32c(&[]),
    };
    header.write(&mut bytes, seed);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{ALIGN, HEADER_BYTES, Header, Progress, mark, write_record};

    #[test]
    fn a_record_is_read_back_and_any_flip_in_it_is_noticed() {
        let progress = Progress { durable: 4, committed: 3 };
        let mut bytes = Vec::new();
        write_record(&mut bytes, 5, progress, &[b"hello", b" world"], 9);
        assert_eq!(bytes.len() % ALIGN, 0);
        let header = Header::read(&bytes, 9).expect("a whole header");
        assert_eq!((header.index, header.durable, header.committed), (5, 4, 3));
        let body_end = HEADER_BYTES + 11;
        assert!(header.matches(&bytes[HEADER_BYTES..body_end]));
        for bit in 0..body_end * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Header::read(&flipped, 9);
            assert!(!read.is_some_and(|header| header.matches(&flipped[HEADER_BYTES..body_end])), "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_segment_is_not_one_of_this() {
        let bytes = mark(Progress::default(), 1);
        assert!(Header::read(&bytes, 1).is_some_and(|header| header.is_mark()));
        assert!(Header::read(&bytes, 2).is_none());
    }
}
