//! Reading the store's own binary forms: little-endian numbers and length-prefixed bytes, every read bounded.

use bytes::Bytes;

/// Reads from the front of some bytes; `None` when they end before what is asked for.
pub(crate) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?[..].try_into().expect("four bytes were taken")))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?[..].try_into().expect("eight bytes were taken")))
    }

    /// The next `count` bytes, sharing their memory.
    pub(crate) fn take(&mut self, count: usize) -> Option<Bytes> {
        if count > self.bytes.len() {
            return None;
        }
        Some(self.bytes.split_to(count))
    }

    /// Bytes that follow their length.
    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        let count = self.u32()?;
        self.take(count as usize)
    }

    /// Text that follows its length.
    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

/// Writes bytes after their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("lengths are checked against limits").to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a little-endian number from a fixed place of a header.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a header has all its fields"))
}

/// Reads a little-endian number from a fixed place of a header.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a header has all its fields"))
}
