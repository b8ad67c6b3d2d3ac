//! Which keys are due: each at most once, each with at most one pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use windlass_client::Key;

/// The keys of one controller. Its size is bounded by the number of objects: a key is in it once.
#[derive(Default)]
pub(super) struct Queue {
    ready: VecDeque<Key>,
    queued: BTreeSet<Key>,
    /// Keys with a pass; `true` when they changed meanwhile and are due again after it.
    running: BTreeMap<Key, bool>,
    later: BTreeSet<(Instant, Key)>,
    later_by_key: BTreeMap<Key, Instant>,
    /// Keys that have just written: not due again before this time.
    paced: BTreeMap<Key, Instant>,
    /// The same, in the order of time.
    paced_order: VecDeque<(Instant, Key)>,
}

/// How soon after a pass that wrote the next one of its key may come. A hundred pods that become ready one after the
/// other then cost a few writes of a status and not a hundred, and nobody waits for long.
const PACE: Duration = Duration::from_millis(20);

impl Queue {
    /// The key is due.
    pub(super) fn add(&mut self, key: Key) {
        if let Some(at) = self.paced.get(&key) {
            self.add_later(key, *at);
        } else if let Some(dirty) = self.running.get_mut(&key) {
            *dirty = true;
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The key is due at this time, or earlier if it was already to be.
    pub(super) fn add_later(&mut self, key: Key, at: Instant) {
        match self.later_by_key.get(&key) {
            Some(earlier) if *earlier <= at => {}
            Some(after) => {
                self.later.remove(&(*after, key.clone()));
                self.put_later(key, at);
            }
            None => self.put_later(key, at),
        }
    }

    fn put_later(&mut self, key: Key, at: Instant) {
        self.later_by_key.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// Moves the keys whose time has come to those that are due.
    pub(super) fn ripen(&mut self, now: Instant) {
        while self.paced_order.front().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.paced_order.pop_front().expect("looked at in the condition");
            self.paced.remove(&key);
        }
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.later.pop_first().expect("looked at in the condition");
            self.later_by_key.remove(&key);
            self.add(key);
        }
    }

    /// When the next key will be due by time.
    pub(super) fn next_ripe(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Takes the next due key for a pass.
    pub(super) fn start(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone(), false);
        Some(key)
    }

    /// The key's pass ended; if it changed meanwhile it is due again, though not at once if the pass wrote something.
    pub(super) fn finish(&mut self, key: &Key, wrote: bool, now: Instant) {
        if wrote && self.paced.insert(key.clone(), now + PACE).is_none() {
            self.paced_order.push_back((now + PACE, key.clone()));
        }
        if self.running.remove(key) == Some(true) {
            self.add(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PACE, Queue};
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_due_once_and_again_if_it_changed_during_its_pass() {
        let mut queue = Queue::default();
        queue.add("a".into());
        queue.add("a".into());
        let key = queue.start().expect("one is due");
        assert!(queue.start().is_none());
        queue.add("a".into());
        assert!(queue.start().is_none(), "its pass is still running");
        queue.finish(&key, false, Instant::now());
        assert_eq!(queue.start(), Some(key));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_wrote_is_not_due_again_at_once() {
        let mut queue = Queue::default();
        queue.add("a".into());
        queue.add("b".into());
        let (key, now) = (queue.start().expect("one is due"), Instant::now());
        queue.add("a".into());
        queue.finish(&key, true, now);
        queue.add("a".into());
        assert_eq!(queue.start().map(|key| key.to_string()).as_deref(), Some("b"), "others need not wait");
        assert_eq!(queue.start(), None);
        assert_eq!(queue.next_ripe(), Some(now + PACE));
        queue.ripen(now + PACE);
        assert_eq!(queue.start(), Some(key), "once");
        assert_eq!(queue.start(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_times_counts() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        queue.add_later("a".into(), after(5));
        queue.add_later("a".into(), after(2));
        queue.add_later("a".into(), after(9));
        assert_eq!(queue.next_ripe(), Some(after(2)));
        queue.ripen(after(1));
        assert!(queue.start().is_none());
        queue.ripen(after(2));
        assert!(queue.start().is_some());
        assert_eq!(queue.next_ripe(), None);
    }
}
