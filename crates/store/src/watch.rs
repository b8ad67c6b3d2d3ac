//! Watches: every change of a prefix after a revision, in order, without gaps.
//!
//! Goal        thousands of watchers cost `apply` nothing and a change only wakes those it concerns
//! Relies on   the history keeps what a watcher has not seen, or tells that it does not
//!
//! Rules
//!   R1 a watcher that has seen everything sleeps; the dispatcher wakes it at the first event of its prefix
//!   R2 a watcher that is awake reads on in the shared history by itself, at its own pace
//!   R3 a watcher that wants what is no longer kept ends with an error; nobody waits for it

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::entry::{Event, Revision};
use crate::error::WatchError;
use crate::history::Position;
use crate::shared::Shared;

/// Events that a watcher takes from the history at once, so that it does not hold the state long.
const WATCH_BATCH_MAX: usize = 256;
/// Events that a watcher looks at in one go while it searches for those of its prefix.
const WATCH_SCAN_MAX: usize = 4096;

/// The watchers of a store by prefix, and how far the dispatcher has woken them.
pub(crate) struct Watchers {
    registry: Mutex<Registry>,
    /// Every event before this position has been, or is being, offered to the sleeping watchers.
    dispatched: AtomicU64,
    /// Every event before this position has been offered to the sleeping watchers.
    settled: AtomicU64,
    /// The revision of the state at `settled`.
    settled_revision: AtomicU64,
}

#[derive(Default)]
struct Registry {
    by_prefix: BTreeMap<Arc<str>, BTreeMap<u64, Arc<Slot>>>,
    /// How many prefixes have each length: an event looks up only these beginnings of its key.
    lengths: BTreeMap<usize, usize>,
    next_id: u64,
}

/// What a watcher shares with the dispatcher.
struct Slot {
    place: Mutex<Place>,
}

struct Place {
    /// The first event that the watcher has not looked at.
    next: Position,
    /// The watcher has looked at everything that was dispatched; it waits to be woken.
    asleep: bool,
    /// Whom to tell: the task that polled last.
    waker: Option<Waker>,
}

impl Slot {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nothing panics while holding a place")
    }
}

impl Watchers {
    pub(crate) fn new(position: Position, revision: Revision) -> Watchers {
        Watchers {
            registry: Mutex::new(Registry::default()),
            dispatched: AtomicU64::new(position),
            settled: AtomicU64::new(position),
            settled_revision: AtomicU64::new(revision),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nothing panics while holding the registry")
    }

    pub(crate) fn count(&self) -> usize {
        self.registry().by_prefix.values().map(BTreeMap::len).sum()
    }

    fn add(&self, prefix: Arc<str>, slot: Arc<Slot>) -> u64 {
        let mut registry = self.registry();
        let id = registry.next_id;
        registry.next_id += 1;
        if !registry.by_prefix.contains_key(&prefix) {
            *registry.lengths.entry(prefix.len()).or_default() += 1;
        }
        registry.by_prefix.entry(prefix).or_default().insert(id, slot);
        id
    }

    fn remove(&self, prefix: &Arc<str>, id: u64) {
        let mut registry = self.registry();
        let Some(slots) = registry.by_prefix.get_mut(prefix) else { return };
        slots.remove(&id);
        if !slots.is_empty() {
            return;
        }
        registry.by_prefix.remove(prefix);
        if let Some(count) = registry.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                registry.lengths.remove(&prefix.len());
            }
        }
    }

    /// Offers the events since the last call to the sleeping watchers.
    pub(crate) fn dispatch(&self, shared: &Shared) {
        let from = self.dispatched.load(Ordering::SeqCst);
        let (events, first, end, revision) = {
            let state = shared.read();
            let events: Vec<Arc<Event>> = state.history.from(from).cloned().collect();
            (events, state.history.first(), state.history.end(), state.revision)
        };
        // Before any slot is looked at: a watcher that falls asleep after we passed it must see that we did.
        self.dispatched.store(end, Ordering::SeqCst);
        if first > from {
            // What was forgotten may have concerned anybody (R3).
            self.registry().by_prefix.values().flat_map(BTreeMap::values).for_each(|slot| wake(slot, from));
        } else {
            self.offer(&events, from);
        }
        self.settled.store(end, Ordering::SeqCst);
        self.settled_revision.store(revision, Ordering::SeqCst);
    }

    /// Wakes the sleeping watchers whose prefix one of the events has.
    fn offer(&self, events: &[Arc<Event>], from: Position) {
        let registry = self.registry();
        for (event, position) in events.iter().zip(from..) {
            let key = event.key();
            for length in registry.lengths.keys().copied().take_while(|length| *length <= key.len()) {
                let Some(prefix) = key.get(..length) else { continue };
                if let Some(slots) = registry.by_prefix.get(prefix) {
                    slots.values().for_each(|slot| wake(slot, position));
                }
            }
        }
    }

    fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .registry()
            .by_prefix
            .values()
            .flat_map(BTreeMap::values)
            .filter_map(|slot| slot.place().waker.take())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// R1: wakes a sleeping watcher at `position`, unless it has looked at it already.
fn wake(slot: &Slot, position: Position) {
    let mut place = slot.place();
    if place.asleep && position >= place.next {
        place.asleep = false;
        place.next = position;
        let waker = place.waker.take();
        drop(place);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Wakes watchers until the store ends.
pub(crate) async fn run_dispatcher(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.published.notified() => {}
            _ = shared.end.ended() => {}
        }
        shared.watchers.dispatch(&shared);
        if shared.end.reason().is_some() {
            shared.watchers.wake_all();
            return;
        }
    }
}

/// A subscription to the changes of a prefix. Dropping it ends it.
pub struct Watch {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    id: u64,
    prefix: Arc<str>,
    /// Events taken from the history and not yet given out.
    ready: VecDeque<Arc<Event>>,
    /// Every event of the prefix up to this revision has been taken.
    taken: Revision,
    /// The revision of the event given out last, or the one the watch began after.
    given: Revision,
}

enum Took {
    Some,
    Nothing,
    /// All that is published; sleep.
    Asleep,
}

impl Watch {
    /// A watch of the events after `position`, all of which the history still has.
    pub(crate) fn new(shared: Arc<Shared>, prefix: &str, after: Revision, position: Position) -> Watch {
        let slot = Arc::new(Slot { place: Mutex::new(Place { next: position, asleep: false, waker: None }) });
        let prefix: Arc<str> = prefix.into();
        let id = shared.watchers.add(prefix.clone(), slot.clone());
        Watch { shared, slot, id, prefix, ready: VecDeque::new(), taken: after, given: after }
    }

    /// The next event of the prefix; waits for it. Safe to cancel.
    ///
    /// # Errors
    /// After an error the watch is over. What was published before the store ended is given out first.
    pub async fn next(&mut self) -> Result<Arc<Event>, WatchError> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The next event of the prefix, or the task of `context` is woken when there is one.
    ///
    /// # Errors
    /// As of [`Watch::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Arc<Event>, WatchError>> {
        loop {
            if let Some(event) = self.try_next()? {
                return Poll::Ready(Ok(event));
            }
            {
                let mut place = self.slot.place();
                if !place.asleep {
                    continue; // woken since
                }
                match &mut place.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
            }
            // Read after the waker is there: who ends the store wakes all wakers after it has given the reason.
            let Some(reason) = self.shared.end.reason() else { return Poll::Pending };
            self.stay_awake();
            return Poll::Ready(match self.try_next()? {
                Some(event) => Ok(event),
                None => Err(WatchError::Closed(reason)),
            });
        }
    }

    /// The next event of the prefix if there is one already.
    ///
    /// # Errors
    /// After an error the watch is over.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.given = event.revision;
                return Ok(Some(event));
            }
            match self.take()? {
                Took::Some | Took::Nothing => {}
                Took::Asleep => return Ok(None),
            }
        }
    }

    /// The newest revision up to which every event of the prefix has been given out: what a bookmark may promise.
    pub fn progress(&self) -> Revision {
        if let Some(next) = self.ready.front() {
            return self.given.min(next.revision - 1);
        }
        // Read in this order: a watcher that still sleeps after the read was not concerned by anything before it.
        let settled = self.shared.watchers.settled_revision.load(Ordering::SeqCst);
        let place = self.slot.place();
        if place.asleep { self.taken.max(settled) } else { self.taken }
    }

    /// Nobody wakes watchers after the end: looks at what the dispatcher has not offered.
    fn stay_awake(&self) {
        let settled = self.shared.watchers.settled.load(Ordering::SeqCst);
        let mut place = self.slot.place();
        if place.asleep {
            place.asleep = false;
            place.next = place.next.max(settled);
        }
    }

    /// Reads on in the shared history (R2).
    fn take(&mut self) -> Result<Took, WatchError> {
        let mut next = {
            let place = self.slot.place();
            if place.asleep {
                return Ok(Took::Asleep);
            }
            place.next
        };
        let at_end = {
            let state = self.shared.read();
            if next < state.history.first() {
                let seen = self.taken;
                let asked = state.history.was_asked_to_forget(seen);
                return Err(if asked { WatchError::Compacted { seen } } else { WatchError::Lagged { seen } });
            }
            for event in state.history.from(next).take(WATCH_SCAN_MAX) {
                next += 1;
                if event.key().starts_with(&*self.prefix) {
                    self.ready.push_back(event.clone());
                    if self.ready.len() == WATCH_BATCH_MAX {
                        break;
                    }
                }
            }
            let at_end = next == state.history.end();
            if at_end {
                self.taken = state.revision;
            } else if let Some(event) = state.history.from(next).next() {
                // The rest of this revision has not been taken.
                self.taken = self.taken.max(event.revision - 1);
            }
            at_end
        };
        let mut place = self.slot.place();
        place.next = next;
        if !self.ready.is_empty() {
            return Ok(Took::Some);
        }
        if at_end && self.shared.watchers.dispatched.load(Ordering::SeqCst) <= next {
            place.asleep = true;
            return Ok(Took::Asleep);
        }
        Ok(Took::Nothing)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.watchers.remove(&self.prefix, self.id);
    }
}
