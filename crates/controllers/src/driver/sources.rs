//! What wakes a controller: the changes of its kinds, each told for the keys that it concerns.
//!
//! Rules
//!   R1 asked again  a controller that changes of definitions wake is asked for its wakes after each of them
//!   R2 gone         a kind that is no longer among them takes its objects along: each is told as gone
//!   R3 lagged       when changes were lost, everything that is there is told

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;
use windlass_api::kinds;
use windlass_client::{Cache, Change, Key, Notice, Subscription};

use super::queue::Queue;
use super::{Shared, panic_text};
use crate::controller::Wake;

/// The kinds that wake one controller.
pub(super) struct Sources {
    shared: Shared,
    sources: Vec<Source>,
    /// Rung by each change of each of them.
    bell: Arc<Notify>,
    /// Whether the controller is to be asked for its wakes.
    is_stale: bool,
}

struct Source {
    wake: Wake,
    cache: Cache,
    changes: Subscription,
}

impl Sources {
    /// Nothing is followed yet.
    pub(super) fn new(shared: Shared) -> Sources {
        Sources { shared, sources: Vec::new(), bell: Arc::default(), is_stale: true }
    }

    /// Takes in all changes that are there already; whether the controller is to be asked for its wakes (R1).
    pub(super) fn drain(&mut self, queue: &mut Queue) -> bool {
        for index in 0..self.sources.len() {
            while let Some(notice) = self.sources[index].changes.take() {
                self.take_in(index, notice, queue);
            }
        }
        std::mem::take(&mut self.is_stale)
    }

    /// From now on these wake the controller.
    pub(super) fn follow(&mut self, wakes: Vec<Wake>, queue: &mut Queue) {
        let mut before = std::mem::take(&mut self.sources);
        for wake in wakes {
            let cache = wake.cache.clone().unwrap_or_else(|| self.shared.caches.of(&wake.kind));
            let source = match before.iter().position(|source| source.cache.is_same(&cache)) {
                Some(index) => before.remove(index),
                None => Source { changes: cache.subscribe_waking(&self.bell), wake, cache },
            };
            self.sources.push(source);
        }
        for source in before {
            // Another copy of the same kind has taken its place.
            if !self.sources.iter().any(|new| new.wake.kind == source.wake.kind) {
                self.tell_gone(source, queue);
            }
        }
    }

    /// R2.
    fn tell_gone(&self, mut source: Source, queue: &mut Queue) {
        while let Some(notice) = source.changes.take() {
            if let Notice::Changed(change) = notice {
                self.tell(&source.wake, &change, queue);
            }
        }
        for object in source.cache.list() {
            let change = Change { key: Key::of(&object.header), old: Some(object), new: None };
            self.tell(&source.wake, &change, queue);
        }
    }

    /// The next change of any kind; those listed first go first. Cancel safe.
    pub(super) async fn next(&mut self) -> (usize, Notice) {
        loop {
            for (index, source) in self.sources.iter_mut().enumerate() {
                if let Some(notice) = source.changes.take() {
                    return (index, notice);
                }
            }
            self.bell.notified().await;
        }
    }

    /// Queues the keys that a change concerns.
    pub(super) fn take_in(&mut self, index: usize, notice: Notice, queue: &mut Queue) {
        self.is_stale |= self.sources[index].wake.kind == kinds::CUSTOM_RESOURCE_DEFINITION;
        match notice {
            Notice::Changed(change) => self.tell(&self.sources[index].wake, &change, queue),
            // R3. What went is not known any more.
            Notice::Lagged => {
                for source in &self.sources {
                    for object in source.cache.list() {
                        let change = Change { key: Key::of(&object.header), old: None, new: Some(object) };
                        self.tell(&source.wake, &change, queue);
                    }
                }
            }
        }
    }

    /// A panic here is a bug, but one of this change only: the controller goes on.
    fn tell(&self, wake: &Wake, change: &Change, queue: &mut Queue) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (wake.keys)(change, &mut |key| queue.add(key)))) {
            self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
            let (key, panic) = (change.key.as_str(), panic_text(&*panic));
            tracing::error!(kind = %wake.kind.kind, key, panic, "a change that nobody could be woken for is passed over");
        }
    }
}
