//! A life: of a server, of an agent, of a machine that is switched on. What belongs to one that is over does nothing more.

use std::future::pending;

use tokio::sync::watch;

/// One life. Clones are the same life.
#[derive(Clone)]
pub struct Life(watch::Sender<bool>);

impl Life {
    /// A life that begins.
    pub fn begin() -> Life {
        Life(watch::Sender::new(false))
    }

    /// Ends it. What waits on it notices when it is next polled; what is asked later is refused at once.
    pub fn end(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it has ended.
    pub async fn over(&self) {
        let mut ended = self.0.subscribe();
        ended.wait_for(|ended| *ended).await.expect("the sender lives in `self`");
    }

    /// The work's result, or nothing when the life ends before.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.over() => None,
            done = work => Some(done),
        }
    }

    /// The work's result; never returns once the life is over, as for whoever is dead.
    pub async fn only_alive<T>(&self, work: impl Future<Output = T>) -> T {
        match self.within(work).await {
            Some(done) if !self.is_over() => done,
            _ => pending().await,
        }
    }
}
