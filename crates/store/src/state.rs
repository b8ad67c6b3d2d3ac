//! The state machine: current entries, the one revision, and the history of changes. Pure: what `apply` does depends
//! on nothing but the state and the group.
//!
//! Rules
//!   R1 a transaction takes effect whole, if every expectation holds, or not at all
//!   R2 a transaction that changes something takes the next revision; no other does
//!   R3 the revision is spliced into the value where its template says

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdSet;

use crate::config::Limits;
use crate::consensus::{LogId, StoredMembership};
use crate::entry::{Entry, Event, Keyed, Revision};
use crate::group::{Group, Outcomes};
use crate::history::History;
use crate::op::{Committed, Conflict, Op};
use crate::snapshot::Image;

/// Current entries by key. A clone is O(1) and does not change with its origin.
#[derive(Clone, Default)]
pub(crate) struct Entries(OrdSet<Keyed>);

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.0.get(key.as_bytes()).map(|Keyed(entry)| entry)
    }

    /// Gives the entry that had the key before.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        self.0.insert(Keyed(entry)).map(|Keyed(entry)| entry)
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<Entry>> {
        self.0.remove(key.as_bytes()).map(|Keyed(entry)| entry)
    }

    pub(crate) fn last(&self) -> Option<&Arc<Entry>> {
        self.0.get_max().map(|Keyed(entry)| entry)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.0.iter().map(|Keyed(entry)| entry)
    }

    /// From a key on, in order.
    pub(crate) fn from(&self, start: Bound<&str>) -> impl Iterator<Item = &Arc<Entry>> + use<'_> {
        let start = start.map(str::as_bytes);
        self.0.range::<_, [u8]>((start, Bound::Unbounded)).map(|Keyed(entry)| entry)
    }
}

impl FromIterator<Arc<Entry>> for Entries {
    fn from_iter<I: IntoIterator<Item = Arc<Entry>>>(entries: I) -> Entries {
        Entries(entries.into_iter().map(Keyed).collect())
    }
}

pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) entries: Entries,
    /// Bytes of keys and values of the current entries.
    pub(crate) bytes: u64,
    pub(crate) history: History,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl State {
    /// The empty store.
    pub(crate) fn new(limits: &Limits) -> State {
        State {
            revision: 0,
            entries: Entries::default(),
            bytes: 0,
            history: History::new(0, limits.history_events_max, limits.history_bytes_max),
            applied: None,
            membership: StoredMembership::default(),
        }
    }

    /// Replaces everything by a snapshot; the history begins anew after it.
    pub(crate) fn restore(&mut self, image: Image) {
        self.revision = image.revision;
        self.bytes = image.entries.iter().map(|entry| size(entry)).sum();
        self.entries = image.entries;
        self.applied = Some(image.applied);
        self.membership = image.membership;
        self.history.restart(image.revision);
    }

    /// Applies the transactions of a group, in order.
    pub(crate) fn apply(&mut self, group: &Group) -> Outcomes {
        let outcomes = group.transactions().iter().map(|ops| self.apply_transaction(ops)).collect();
        self.history.enforce_bounds();
        Outcomes(outcomes)
    }

    fn apply_transaction(&mut self, ops: &[Op]) -> Result<Committed, Conflict> {
        for (index, op) in ops.iter().enumerate() {
            let found = self.entries.get(op.key());
            if !op.expect().holds(found) {
                return Err(Conflict { index, key: op.key().clone(), found: found.cloned() });
            }
        }
        let revision = self.revision + 1;
        let mut changed = false;
        let mut entries = Vec::with_capacity(ops.len());
        for op in ops {
            let (entry, is_change) = self.apply_op(op, revision);
            changed |= is_change;
            entries.push(entry);
        }
        if changed {
            self.revision = revision;
        }
        Ok(Committed { revision: self.revision, entries })
    }

    fn apply_op(&mut self, op: &Op, revision: Revision) -> (Option<Arc<Entry>>, bool) {
        match op {
            Op::Check { key, .. } => (self.entries.get(key).cloned(), false),
            Op::Put { key, value, .. } => {
                let created = self.entries.get(key).map_or(revision, |previous| previous.created);
                let entry = Arc::new(Entry::from_template(key, value, revision, created));
                let previous = self.entries.insert(entry.clone());
                self.bytes += size(&entry);
                self.bytes -= previous.as_ref().map_or(0, |previous| size(previous));
                self.history.push(Arc::new(Event::new(revision, Some(entry.clone()), previous)));
                (Some(entry), true)
            }
            Op::Delete { key, .. } => {
                let Some(previous) = self.entries.remove(key) else { return (None, false) };
                self.bytes -= size(&previous);
                let event = Event::new(revision, None, Some(previous.clone()));
                self.history.push(Arc::new(event));
                (Some(previous), true)
            }
        }
    }
}

/// Bytes of an entry's key and value.
pub(crate) fn size(entry: &Entry) -> u64 {
    (entry.key().len() + entry.value().len()) as u64
}
