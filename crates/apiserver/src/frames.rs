//! What watchers of the same form are told of an event, encoded once and kept while it is new.
//!
//! Goal        a thousand watchers of a kind cost one encoding; an event that all have seen costs nothing but itself
//!
//! Rules
//!   R1 once     who needs a frame first makes it, the others take it
//!   R2 bounded  the frames kept take at most [`FRAMES_BYTES_MAX`]; the oldest go first. Who comes later makes his own
//! Not here      the history of events, which is the store's

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use windlass_store::Event;

use crate::form::Form;
use crate::watch::What;

/// Bytes of all frames kept: those of the last moments, which is how far apart watchers are that keep up.
const FRAMES_BYTES_MAX: usize = 8 << 20;

/// The frames kept, oldest first.
#[derive(Default)]
pub(crate) struct Frames(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    events: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
}

/// The frames of one event.
#[derive(Default)]
struct OfEvent(Mutex<Vec<((Form, What), Bytes)>>);

impl OfEvent {
    fn list(&self) -> MutexGuard<'_, Vec<((Form, What), Bytes)>> {
        // A panic elsewhere leaves a list that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    /// The frame of this event, form and kind of change.
    pub fn of(&self, event: &Arc<Event>, form: Form, what: What, encode: impl FnOnce() -> Bytes) -> Bytes {
        let frames = event.memo(|_| OfEvent::default());
        let mut list = frames.list();
        if let Some((_, frame)) = list.iter().find(|(key, _)| *key == (form, what)) {
            return frame.clone();
        }
        let frame = encode();
        list.push(((form, what), frame.clone()));
        drop(list);
        self.keep(event, frame.len());
        frame
    }

    /// R2.
    fn keep(&self, event: &Arc<Event>, bytes: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.events.push_back((Arc::clone(event), bytes));
        kept.bytes += bytes;
        while kept.bytes > FRAMES_BYTES_MAX {
            let Some((oldest, bytes)) = kept.events.pop_front() else { break };
            kept.bytes -= bytes;
            // All of them: they were made within moments, and whoever still needs one makes it again.
            let frames = std::mem::take(&mut *oldest.memo(|_| OfEvent::default()).list());
            drop(frames);
        }
    }
}
