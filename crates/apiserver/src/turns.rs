//! Turns: writers that got in each other's way change an object one after the other.
//!
//! Without them, of many clients that change one object at once a single one wins each round, and the others use up their
//! attempts and are told of a conflict that is none of theirs. A writer that nobody disturbs never waits.
//!
//! Guarantees  first come, first served among those who wait · a request holds one turn at most, so none waits in a ring

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

/// Lines to wait in. Keys share them; with so many, two contended objects hardly ever do.
const LINES_MAX: usize = 256;

/// The lines of a server.
pub(crate) struct Turns(Vec<Mutex<()>>);

/// A writer's turn; the next one's comes when it is dropped.
pub(crate) type Turn<'a> = MutexGuard<'a, ()>;

impl Default for Turns {
    fn default() -> Turns {
        Turns((0..LINES_MAX).map(|_| Mutex::new(())).collect())
    }
}

impl Turns {
    /// Waits behind those who wait already for this key; `None` at once when nobody does.
    pub async fn join(&self, key: &str) -> Option<Turn<'_>> {
        match self.line(key).try_lock() {
            Ok(_nobody_waits) => None,
            Err(_) => Some(self.wait(key).await),
        }
    }

    /// Waits for a turn: for a writer that lost.
    pub async fn wait(&self, key: &str) -> Turn<'_> {
        self.line(key).lock().await
    }

    fn line(&self, key: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.0[hasher.finish() as usize % LINES_MAX]
    }
}
