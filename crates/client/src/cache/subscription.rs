//! What changed in a cache since a reader last looked.
//!
//! Why         changes of one key are not merged: a reader looks into the cache too, and may have seen there, and gone
//!             by, an object that this subscription had not yet told it of. Were its coming and its going taken for
//!             nothing, the reader would go by it for ever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::key::Key;
use super::store::Cached;

/// Changes that wait for a reader. Only a reader that has stopped passes this; it then gets [`Notice::Lagged`] instead
/// of what it missed.
pub const PENDING_MAX: usize = 1 << 18;

/// One key that changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// What was there before, as the change before told; `None` when nothing was.
    pub old: Option<Arc<Cached>>,
    /// What was there then; `None` when it was gone.
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
    /// Each change rings the bell.
    pub(super) fn new(bell: Arc<Notify>) -> Subscription {
        let waiting = Mutex::new(Waiting::default());
        Subscription { pending: Arc::new(Pending { waiting, bell }) }
    }

    pub(super) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// The next change, in the order in which they came. Cancel safe. Waits for ever when nothing changes.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.take() {
                return notice;
            }
            self.pending.bell.notified().await;
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
    bell: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    changes: VecDeque<Change>,
    lagged: bool,
}

impl Pending {
    pub(super) fn push(&self, change: Change) {
        self.waiting.lock().expect("nothing panics while holding it").push(change);
        self.bell.notify_one();
    }
}

impl Waiting {
    fn push(&mut self, change: Change) {
        if self.changes.len() >= PENDING_MAX {
            self.changes.clear();
            self.lagged = true;
        }
        self.changes.push_back(change);
    }

    fn take(&mut self) -> Option<Notice> {
        if std::mem::take(&mut self.lagged) {
            return Some(Notice::Lagged);
        }
        self.changes.pop_front().map(Notice::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cached, Change, Notice, PENDING_MAX, Subscription};
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
    fn each_change_is_told_in_its_order() {
        let mut subscription = Subscription::new(Default::default());
        push(&subscription, "a", at(1), at(2));
        push(&subscription, "b", None, at(3));
        push(&subscription, "a", at(2), at(4));
        for (key, old, new) in [("a", Some(1), Some(2)), ("b", None, Some(3)), ("a", Some(2), Some(4))] {
            let Some(Notice::Changed(change)) = subscription.take() else { panic!("{key} changed") };
            assert_eq!((change.key.as_str(), revision(&change.old), revision(&change.new)), (key, old, new));
        }
        assert!(subscription.take().is_none());
    }

    #[test]
    fn what_came_and_went_unseen_is_told() {
        let mut subscription = Subscription::new(Default::default());
        push(&subscription, "a", None, at(1));
        push(&subscription, "a", at(1), None);
        assert!(matches!(subscription.take(), Some(Notice::Changed(change)) if change.new.is_some()));
        assert!(matches!(subscription.take(), Some(Notice::Changed(change)) if change.new.is_none()));
    }

    #[test]
    fn a_reader_that_stopped_is_told_that_it_lagged() {
        let mut subscription = Subscription::new(Default::default());
        for index in 0..PENDING_MAX {
            push(&subscription, &index.to_string(), None, None);
        }
        push(&subscription, "last", None, at(1));
        assert!(matches!(subscription.take(), Some(Notice::Lagged)));
        assert!(matches!(subscription.take(), Some(Notice::Changed(change)) if change.key.as_str() == "last"));
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes() {
        let mut subscription = Subscription::new(Default::default());
        let pending = Arc::clone(subscription.pending());
        let push = async move { pending.push(Change { key: "a".into(), old: None, new: at(1) }) };
        let (notice, ()) = tokio::join!(subscription.next(), push);
        assert!(matches!(notice, Notice::Changed(_)));
    }

    #[tokio::test]
    async fn a_reader_of_several_waits_for_one_bell() {
        let bell = Arc::default();
        let (mut quiet, mut busy) = (Subscription::new(Arc::clone(&bell)), Subscription::new(Arc::clone(&bell)));
        let pending = Arc::clone(busy.pending());
        let push = async move { pending.push(Change { key: "a".into(), old: None, new: at(1) }) };
        tokio::join!(bell.notified(), push);
        assert!(quiet.take().is_none());
        assert!(matches!(busy.take(), Some(Notice::Changed(_))));
    }
}
