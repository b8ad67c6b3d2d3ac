//! What everybody who asks for it at the same time gets, and turns made of that: one thing at a time for each subject.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;

/// What is shared as long as somebody has it, by name.
pub(crate) type Shared<K, T> = Mutex<BTreeMap<K, Weak<T>>>;
/// Whose turn it is, by subject.
pub(crate) type Turns<K> = Shared<K, tokio::sync::Mutex<()>>;
/// Held by whoever is doing something to a subject, and by what that writes: a write goes on when who asked for it is gone.
pub(crate) type Turn = Arc<OwnedMutexGuard<()>>;

/// Waits for a turn.
pub(crate) async fn take<K: Ord + Clone>(turns: &Turns<K>, subject: &K) -> Turn {
    let turn = shared(turns, subject, Arc::default);
    Arc::new(turn.lock_owned().await)
}

/// The one of this name, made if nobody has it.
pub(crate) fn shared<K: Ord + Clone, T>(all: &Shared<K, T>, name: &K, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
    let mut all = all.lock().expect("nothing panics while holding it");
    all.retain(|_, one| one.strong_count() > 0);
    let one = all.get(name).and_then(Weak::upgrade).unwrap_or_else(make);
    all.insert(name.clone(), Arc::downgrade(&one));
    one
}

#[cfg(test)]
mod tests {
    use super::{Turns, take};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_what_is_written_in_it() {
        let turns: Turns<&str> = Turns::default();
        let turn = take(&turns, &"one").await;
        let written = Arc::clone(&turn);
        drop(turn);
        assert!(futures::future::FutureExt::now_or_never(take(&turns, &"one")).is_none());
        assert!(futures::future::FutureExt::now_or_never(take(&turns, &"other")).is_some(), "others need not wait");
        drop(written);
        assert!(futures::future::FutureExt::now_or_never(take(&turns, &"one")).is_some());
    }
}
