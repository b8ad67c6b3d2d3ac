//! Reads of many keys: by prefix, in pages, now or as of an older revision.
//!
//! Rules
//!   R1 a page at an older revision is what it would have been then: newer events are undone
//!   R2 a page tells how many more keys follow it

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::entry::{Entry, Event, Revision};
use crate::state::Entries;

/// Which keys to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Keys that start with this.
    pub prefix: String,
    /// Only keys after this one: the last key of the page before.
    pub after: Option<String>,
    /// At most this many entries; 0 is no limit.
    pub limit: usize,
    /// As of this revision; `None` is now. Give the first page's revision for the pages after it.
    pub at: Option<Revision>,
}

impl Range {
    /// All keys that start with `prefix`, now.
    pub fn prefix(prefix: impl Into<String>) -> Range {
        Range { prefix: prefix.into(), ..Range::default() }
    }
}

/// Entries in key order.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Arc<Entry>>,
    /// The revision that the page shows.
    pub revision: Revision,
    /// How many keys of the prefix follow this page.
    pub remaining: u64,
}
