//! What changed in a cache since a reader last looked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::key::Key;
use super::store::Cached;

/// Keys that wait for a reader. Changes of one key are merged, so this is passed only by a reader that has stopped
/// while objects come and go; it then gets [`Notice::Lagged`] instead of what it missed.
pub const PENDING_MAX: usize = 1 << 18;

/// One key that changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// What the reader last saw; `None` when it has not seen the object.
    pub old: Option<Arc<Cached>>,
    /// What is there now; `None` when it is gone.
    pub new: Option<Arc<Cached>>,
}

/// What a subscription delivers.
#[derive(Debug, Clone)]
pub enum Notice {
    /// This object changed.
    Changed(Change),
    /// Too much changed unseen: look at the whole cache anew.
    Lagged,
}

/// A reader's place in the changes of a cache.
pub struct Subscription {
    pending: Arc<Pending>,
}

impl Subscription {
    pub(super) fn new() -> Subscription {
        let waiting = Mutex::new(Waiting::default());
        Subscription { pending: Arc::new(Pending { waiting, notify: Notify::new() }) }
    }

    pub(super) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// The next change, in the order in which keys first changed. Cancel safe. Waits for ever when nothing changes.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.take() {
                return notice;
            }
            self.pending.notify.notified().await;
        }
    }

    /// The next change if there is one.
    pub fn take(&mut self) -> Option<Notice> {
        self.pending.waiting.lock().expect("nothing panics while holding it").take()
    }
}

/// The changes that one subscription has not seen.
pub(super) struct Pending {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

type Seen = Option<Arc<Cached>>;

#[derive(Default)]
struct Waiting {
    order: VecDeque<Key>,
    /// By key: what the reader saw last and what is there now.
    changes: BTreeMap<Key, (Seen, Seen)>,
    lagged: bool,
}

impl Pending {
    pub(super) fn push(&self, change: Change) {
        self.waiting.lock().expect("nothing panics while holding it").push(change);
        self.notify.notify_one();
    }
}

impl Waiting {
    fn push(&mut self, change: Change) {
        if let Some((_, new)) = self.changes.get_mut(&change.key) {
            *new = change.new;
            return;
        }
        if self.order.len() >= PENDING_MAX {
            self.order.clear();
            self.changes.clear();
            self.lagged = true;
        }
        self.order.push_back(change.key.clone());
        self.changes.insert(change.key, (change.old, change.new));
    }

    fn take(&mut self) -> Option<Notice> {
        if std::mem::take(&mut self.lagged) {
            return Some(Notice::Lagged);
        }
        while let Some(key) = self.order.pop_front() {
            let (old, new) = self.changes.remove(&key).expect("each ordered key has its change");
            // An object that came and went unseen is nobody's business.
            if old.is_some() || new.is_some() {
                return Some(Notice::Changed(Change { key, old, new }));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Cached, Change, Key, Notice, PENDING_MAX, Subscription};
    use bytes::Bytes;
    use std::sync::Arc;
    use windlass_api::Object;

    fn at(revision: u64) -> Option<Arc<Cached>> {
        let json = format!("{{\"kind\":\"Pod\",\"metadata\":{{\"name\":\"p\",\"resourceVersion\":\"{revision}\"}}}}");
        Some(Arc::new(Object::parse(Bytes::from(json)).expect("a pod")))
    }

    fn push(subscription: &Subscription, key: &str, old: Option<Arc<Cached>>, new: Option<Arc<Cached>>) {
        subscription.pending().push(Change { key: key.into(), old, new });
    }

    fn revision(object: &Option<Arc<Cached>>) -> Option<u64> {
        object.as_ref().map(|object| object.header.revision)
    }

    #[test]
    fn changes_of_a_key_are_merged_into_seen_and_now() {
        let mut subscription = Subscription::new();
        push(&subscription, "a", at(1), at(2));
        push(&subscription, "b", None, at(3));
        push(&subscription, "a", at(2), at(4));
        let Some(Notice::Changed(first)) = subscription.take() else { panic!("a changed") };
        assert_eq!((first.key, revision(&first.old), revision(&first.new)), (Key::from("a"), Some(1), Some(4)));
        assert!(matches!(subscription.take(), Some(Notice::Changed(change)) if change.key.as_str() == "b"));
        assert!(subscription.take().is_none());
    }

    #[test]
    fn what_came_and_went_unseen_is_not_told() {
        let mut subscription = Subscription::new();
        push(&subscription, "a", None, at(1));
        push(&subscription, "a", at(1), None);
        assert!(subscription.take().is_none());
    }

    #[test]
    fn a_reader_that_stopped_is_told_that_it_lagged() {
        let mut subscription = Subscription::new();
        for index in 0..=PENDING_MAX {
            push(&subscription, &index.to_string(), None, None);
        }
        push(&subscription, "last", None, at(1));
        assert!(matches!(subscription.take(), Some(Notice::Lagged)));
        assert!(matches!(subscription.take(), Some(Notice::Changed(change)) if change.key.as_str() == "last"));
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes() {
        let mut subscription = Subscription::new();
        let pending = Arc::clone(subscription.pending());
        let push = async move { pending.push(Change { key: "a".into(), old: None, new: at(1) }) };
        let (notice, ()) = tokio::join!(subscription.next(), push);
        assert!(matches!(notice, Notice::Changed(_)));
    }
}
