//! How much may still be written without asking the disk for space.
//!
//! Rules
//!   R1 a group is only proposed when its bytes have a place that is already ours
//!   R2 the last bytes of that place are kept for deletions, so that a full store can be emptied
//!   R3 a little less than that is kept for the engine's own entries

use std::sync::atomic::{AtomicU64, Ordering};

/// Kept for deletions when the disk is full (R2).
const DELETE_RESERVE_BYTES: u64 = 64 << 10;
/// Kept for the engine's own entries when the disk is full (R3).
const ENGINE_RESERVE_BYTES: u64 = 4 << 10;

pub(crate) struct Room {
    /// Bytes that may be written in one piece, in the active segment or the next one.
    free: AtomicU64,
    written: AtomicU64,
    delete_reserve: u64,
    engine_reserve: u64,
}

impl Room {
    /// The reserves must fit into the smallest segment.
    pub(crate) fn new(segment_bytes_min: u64) -> Room {
        Room {
            free: AtomicU64::new(0),
            written: AtomicU64::new(0),
            delete_reserve: DELETE_RESERVE_BYTES.min(segment_bytes_min / 4),
            engine_reserve: ENGINE_RESERVE_BYTES.min(segment_bytes_min / 16),
        }
    }

    /// Bytes that must be free for a group of `need` bytes to be proposed.
    pub(crate) fn wanted(&self, need: u64, may_use_reserve: bool) -> u64 {
        need + if may_use_reserve { self.engine_reserve } else { self.delete_reserve }
    }

    pub(crate) fn has(&self, need: u64, may_use_reserve: bool) -> bool {
        self.wanted(need, may_use_reserve) <= self.free.load(Ordering::SeqCst)
    }

    pub(crate) fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}
