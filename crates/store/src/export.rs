//! Export: the whole state at one revision as a stream of bytes, in the form of a snapshot.
//!
//! Rules
//!   R1 it shows one revision however long it takes, and holds that revision's tree; nobody waits for it
//!   R2 memory is one piece at a time

use std::io;

use crate::entry::Revision;
use crate::snapshot::{Encoder, Image};

/// The state as it was when this was made. Read it to its end, or drop it.
pub struct Export {
    encoder: Encoder,
    revision: Revision,
    entries: u64,
    bytes: u64,
}

impl Export {
    pub(crate) fn new(image: Image, bytes: u64) -> Export {
        let (revision, entries) = (image.revision, image.entries.len() as u64);
        Export { encoder: Encoder::new(image), revision, entries, bytes }
    }

    /// The revision that is shown.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many entries there are.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of keys and values, before they are compressed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next bytes; `None` after the last. Compresses some hundred kilobytes.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.encoder.next()
    }
}
