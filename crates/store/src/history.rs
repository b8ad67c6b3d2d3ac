//! The recent past: events in order, kept for watches and for reads at an older revision, bounded in number and bytes.
//!
//! Rules
//!   R1 every event with a revision above `compacted` is kept
//!   R2 beyond its bounds the history forgets from its old end, whole revisions at a time
//!   R3 an event's position never changes and is never used again

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::{Event, Revision};

/// Memory an event takes besides the value it keeps alive.
const EVENT_OVERHEAD: u64 = 160;

/// The place of an event in the order of all events since the store was opened.
pub(crate) type Position = u64;

pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    /// The position of the oldest event kept.
    first: Position,
    /// Events up to this revision are gone.
    compacted: Revision,
    /// The part of `compacted` that somebody asked for, as opposed to what fell out of the bounds.
    asked: Revision,
    bytes: u64,
    events_max: usize,
    bytes_max: u64,
}

impl History {
    /// A history that begins after `revision`.
    pub(crate) fn new(revision: Revision, events_max: usize, bytes_max: u64) -> History {
        History { events: VecDeque::new(), first: 0, compacted: revision, asked: 0, bytes: 0, events_max, bytes_max }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += cost(&event);
        self.events.push_back(event);
    }

    /// R2; called between transactions, never within one.
    pub(crate) fn enforce_bounds(&mut self) {
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.events.front() else { return };
            let revision = oldest.revision;
            self.forget_up_to(revision);
        }
    }

    /// Forgets the events up to `revision` because somebody asks for it.
    pub(crate) fn compact(&mut self, revision: Revision) {
        self.asked = self.asked.max(revision);
        self.forget_up_to(revision);
    }

    /// Forgets everything: what comes next follows `revision` without having been seen from here.
    pub(crate) fn restart(&mut self, revision: Revision) {
        // One position is skipped, so that nobody who had seen everything so far takes what follows for the next.
        self.first += self.events.len() as u64 + 1;
        self.events.clear();
        self.bytes = 0;
        self.compacted = revision;
    }

    fn forget_up_to(&mut self, revision: Revision) {
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            let event = self.events.pop_front().expect("the front was just seen");
            self.bytes -= cost(&event);
            self.first += 1;
        }
        self.compacted = self.compacted.max(revision);
    }

    /// The position after the newest event.
    pub(crate) fn end(&self) -> Position {
        self.first + self.events.len() as u64
    }

    pub(crate) fn first(&self) -> Position {
        self.first
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Whether what is missing after `revision` was compacted on request.
    pub(crate) fn was_asked_to_forget(&self, revision: Revision) -> bool {
        revision < self.asked
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The position of the first event after `revision`.
    pub(crate) fn position_after(&self, revision: Revision) -> Position {
        self.first + self.events.partition_point(|event| event.revision <= revision) as u64
    }

    /// The events from `position` on, which must not be older than the first.
    pub(crate) fn from(&self, position: Position) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let skip = position.saturating_sub(self.first) as usize;
        self.events.range(skip.min(self.events.len())..)
    }
}

/// Only the previous value is kept alive by the event alone: the new one is current, or the previous of a later event.
fn cost(event: &Event) -> u64 {
    EVENT_OVERHEAD + event.previous.as_ref().map_or(0, |entry| entry.value().len() as u64)
}
