//! Reads of many keys: by prefix, in pages or piece by piece, now or as of an older revision.
//!
//! Rules
//!   R1 a page at an older revision is what it would have been then: newer events are undone
//!   R2 a page tells how many more keys of its prefix follow it
//!   R3 a scan shows one revision however long it takes, and holds that revision's tree, which all its reads share

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use crate::entry::{Entry, Revision};
use crate::state::{Entries, State};

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

    fn start(&self) -> Bound<&str> {
        match self.after.as_deref() {
            Some(after) if after >= self.prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(self.prefix.as_str()),
        }
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

/// What changed since the wanted revision: for each key the entry as it was then.
type Undone = BTreeMap<Arc<str>, Option<Arc<Entry>>>;

/// What a page is made from. Taken under the lock in a moment; the page is made without it.
#[derive(Clone)]
pub(crate) struct View {
    entries: Entries,
    undone: Undone,
    revision: Revision,
}

impl View {
    /// The keys of `range` as of `at`, which the history must still reach.
    pub(crate) fn new(state: &State, range: &Range, at: Revision) -> View {
        let mut undone = Undone::new();
        if at < state.revision {
            // From new to old, so that the oldest change after `at` has the last word (R1).
            for event in state.history.from(state.history.position_after(at)).rev() {
                if event.key().starts_with(range.prefix.as_str()) {
                    undone.insert(event.key().into(), event.previous.clone());
                }
            }
        }
        View { entries: state.entries.clone(), undone, revision: at }
    }

    pub(crate) fn page(&self, range: &Range) -> Page {
        let mut walk = self.walk(range);
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let entries = walk.by_ref().take(limit).cloned().collect();
        Page { entries, revision: self.revision, remaining: walk.count() as u64 }
    }

    pub(crate) fn scan(self, range: &Range) -> Scan {
        Scan { view: self, range: Range { limit: 0, ..range.clone() } }
    }

    fn walk<'a>(&'a self, range: &'a Range) -> impl Iterator<Item = &'a Arc<Entry>> {
        let prefix = range.prefix.as_str();
        let current =
            self.entries.from(range.start()).take_while(move |entry| entry.key_bytes().starts_with(prefix.as_bytes()));
        let undone = self.undone.range::<str, _>((range.start(), Bound::Unbounded));
        Walk { current: current.peekable(), undone: undone.peekable() }
    }
}

/// The entries of a range in key order, read piece by piece while others write (R3).
#[derive(Clone)]
pub struct Scan {
    view: View,
    range: Range,
}

impl Scan {
    /// The revision that is shown.
    pub fn revision(&self) -> Revision {
        self.view.revision
    }

    /// The next entries, at most so many; none at the end.
    pub fn read(&mut self, limit: usize) -> Vec<Arc<Entry>> {
        let entries: Vec<Arc<Entry>> = self.view.walk(&self.range).take(limit).cloned().collect();
        if let Some(last) = entries.last() {
            self.range.after = Some(last.key().to_owned());
        }
        entries
    }

    /// How many entries are still to be read. Walks over all of them.
    pub fn remaining(&self) -> u64 {
        self.view.walk(&self.range).count() as u64
    }

    /// Whether all entries have been read.
    pub fn is_done(&self) -> bool {
        self.view.walk(&self.range).next().is_none()
    }
}

/// Merges current entries with undone ones, which win.
struct Walk<'a, I: Iterator<Item = &'a Arc<Entry>>> {
    current: Peekable<I>,
    undone: Peekable<btree_map::Range<'a, Arc<str>, Option<Arc<Entry>>>>,
}

impl<'a, I: Iterator<Item = &'a Arc<Entry>>> Iterator for Walk<'a, I> {
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<&'a Arc<Entry>> {
        loop {
            let Some((undone_key, _)) = self.undone.peek() else {
                return self.current.next();
            };
            match self.current.peek() {
                Some(entry) if entry.key_bytes() < undone_key.as_bytes() => return self.current.next(),
                Some(entry) if entry.key_bytes() == undone_key.as_bytes() => drop(self.current.next()),
                Some(_) | None => {}
            }
            if let Some((_, Some(entry))) = self.undone.next() {
                return Some(entry);
            }
        }
    }
}
