//! What the tasks of one store share: the state, the watchers, and whether it has ended.

use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use crate::state::State;
use crate::watch::Watchers;

pub(crate) struct Shared {
    state: RwLock<State>,
    pub(crate) watchers: Watchers,
    /// Something was published: the dispatcher has work.
    pub(crate) published: Notify,
    pub(crate) end: Arc<End>,
}

impl Shared {
    pub(crate) fn new(state: State, end: Arc<End>) -> Shared {
        Shared {
            watchers: Watchers::new(state.history.end(), state.revision),
            state: RwLock::new(state),
            published: Notify::new(),
            end,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nothing panics while holding the state")
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("nothing panics while holding the state")
    }
}

/// How a store ends: it is closed, or it fails. Only the first reason counts.
#[derive(Default)]
pub(crate) struct End {
    reason: OnceLock<Ending>,
    ended: Notify,
}

struct Ending {
    why: Arc<str>,
    is_failure: bool,
}

impl End {
    /// The store was closed on request.
    pub(crate) fn close(&self) {
        self.finish(Ending { why: "it was closed".into(), is_failure: false });
    }

    /// The store cannot go on.
    pub(crate) fn fail(&self, why: &str) {
        tracing::error!(why, "the store has failed");
        self.finish(Ending { why: why.into(), is_failure: true });
    }

    fn finish(&self, ending: Ending) {
        // The first reason is the cause of all later ones.
        let _first = self.reason.set(ending);
        self.ended.notify_waiters();
    }

    /// Why the store has ended, if it has.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.reason.get().map(|ending| ending.why.clone())
    }

    /// Why the store has failed, if it has.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.reason.get().filter(|ending| ending.is_failure).map(|ending| ending.why.clone())
    }

    /// Resolves when the store has ended.
    pub(crate) async fn ended(&self) -> Arc<str> {
        loop {
            let notified = self.ended.notified();
            if let Some(reason) = self.reason() {
                return reason;
            }
            notified.await;
        }
    }
}
