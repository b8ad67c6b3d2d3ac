//! What watchers of the same form are told of an event, encoded once and kept while it is new.
//!
//! Goal        a thousand watchers of a kind cost one encoding; an event that all have seen costs nothing but itself
//!
//! Rules
//!   R1 once     who needs a frame first makes it, the others take it
//!   R2 bounded  the frames kept take at most [`FRAMES_BYTES_MAX`]; the oldest go first. Who comes later makes his own
//! Not here      the history of events, which is the store's

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// Events are the history's to keep: what it forgets takes its frames along.
    events: VecDeque<(Weak<Event>, usize)>,
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
        kept.events.push_back((Arc::downgrade(event), bytes));
        kept.bytes += bytes;
        while kept.bytes > FRAMES_BYTES_MAX {
            let Some((oldest, bytes)) = kept.events.pop_front() else { break };
            kept.bytes -= bytes;
            // All of them: they were made within moments, and whoever still needs one makes it again.
            if let Some(oldest) = oldest.upgrade() {
                oldest.memo(|_| OfEvent::default()).list().clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FRAMES_BYTES_MAX, Frames, OfEvent};
    use crate::form::Form;
    use crate::watch::What;
    use bytes::Bytes;
    use std::sync::Arc;
    use windlass_stdx::World;
    use windlass_store::{Config, Event, Expect, Op, RealDisk, Store, Template};

    /// Events of as many writes.
    async fn events(count: usize) -> Vec<Arc<Event>> {
        let dir = std::env::temp_dir().join(format!("windlass-frames-{}", std::process::id()));
        let store = Store::open(Config::new(&dir), Arc::new(RealDisk), World::real()).await.expect("a store");
        let mut watch = store.watch("", 0).expect("from the start");
        let mut events = Vec::new();
        for number in 0..count {
            let put = Op::put(format!("/{number}"), Template::plain("x"), Expect::Any);
            store.commit(vec![put]).await.expect("a write");
            events.push(watch.next().await.expect("an event"));
        }
        store.close().await;
        std::fs::remove_dir_all(&dir).expect("the directory is ours");
        events
    }

    #[tokio::test]
    async fn frames_are_made_once_and_the_oldest_go_first() {
        let frames = Frames::default();
        let events = events(3).await;
        let large = || Bytes::from(vec![0; FRAMES_BYTES_MAX / 2]);
        let kept = |event: &Event| event.memo(|_| OfEvent::default()).list().len();
        let first = frames.of(&events[0], Form::Json, What::Added, large);
        let again = frames.of(&events[0], Form::Json, What::Added, || panic!("made twice"));
        assert_eq!(first.as_ptr(), again.as_ptr(), "shared, not copied");
        frames.of(&events[1], Form::Json, What::Added, large);
        assert_eq!((kept(&events[0]), kept(&events[1])), (1, 1), "both fit");
        frames.of(&events[2], Form::Json, What::Deleted, large);
        assert_eq!((kept(&events[0]), kept(&events[1]), kept(&events[2])), (0, 1, 1));
        let other = frames.of(&events[2], Form::Metadata, What::Deleted, || Bytes::from_static(b"m"));
        assert_eq!(other, "m", "another form is another frame");
    }
}
