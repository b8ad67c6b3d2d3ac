//! Journal: every change of an object is shown to who watches, none is left out, and none is made up.
//!
//! Source: store, Guarantees ("a watch yields every event of its prefix after its start, once, in order"); Kubernetes API
//! concepts, "Efficient detection of changes". A change that the next one covers leaves no trace in a list, so only what
//! the store told its own process can show that it was left out.
//!
//! Rules
//!   R1 whole   a change between the revisions that a watch has passed was in it
//!   R2 true    what was in it was a change

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use windlass_store::Store;

/// Where the API server keeps objects: `o/PLURAL/NAMESPACE/NAME`.
const OBJECTS: &str = "o/";

/// From this revision, exclusive, to that one, inclusive.
pub type Span = (u64, u64);

/// The changes of all objects, as the store tells them to its own process. Clones are the same journal.
#[derive(Clone, Default)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// By plural: the revisions at which an object of this kind changed.
    changes: BTreeMap<String, BTreeSet<u64>>,
    last: u64,
    /// What the store had forgotten before it was asked.
    unknown: Vec<Span>,
}

impl Journal {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding it")
    }

    /// Writes down what changes, for as long as the store lives.
    pub async fn follow(self, store: Store) {
        loop {
            let last = self.inner().last;
            let Ok(mut watch) = store.watch(OBJECTS, last) else {
                self.skip(store.revision());
                if store.watch(OBJECTS, self.inner().last).is_err() {
                    return;
                }
                continue;
            };
            while let Ok(event) = watch.next().await {
                self.note(event.key(), event.revision);
            }
        }
    }

    fn skip(&self, to: u64) {
        let mut inner = self.inner();
        let from = inner.last;
        inner.unknown.push((from.min(to), from.max(to)));
        inner.last = to;
    }

    fn note(&self, key: &str, revision: u64) {
        let mut inner = self.inner();
        inner.last = inner.last.max(revision);
        if let Some(plural) = key.strip_prefix(OBJECTS).and_then(|rest| rest.split('/').next()) {
            inner.changes.entry(plural.to_owned()).or_default().insert(revision);
        }
    }

    /// What was left out or made up in a watch of a kind: it has passed `passed`, was told of `seen`, and had to list
    /// anew over `skipped`.
    pub fn check(&self, plural: &str, passed: Span, seen: &BTreeSet<u64>, skipped: &[Span]) -> Vec<String> {
        let inner = self.inner();
        let inside = |revision: u64, spans: &[Span]| spans.iter().any(|(from, to)| *from < revision && revision <= *to);
        let none = BTreeSet::new();
        let changes = inner.changes.get(plural).unwrap_or(&none);
        let expected = changes.iter().filter(|at| inside(**at, &[passed]) && !inside(**at, skipped));
        let missing = expected.filter(|at| !seen.contains(at));
        let mut wrong: Vec<String> =
            missing.map(|at| format!("R1 {plural}: the change at {at} was not shown")).collect();
        let known = seen.iter().filter(|at| **at <= inner.last && !inside(**at, &inner.unknown));
        let made_up = known.filter(|at| !changes.contains(at));
        wrong.extend(made_up.map(|at| format!("R2 {plural}: a change at {at} was shown that never was")));
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::{Journal, Span};
    use std::collections::BTreeSet;

    /// Pods changed at 2, 5 and 9.
    fn check(passed: Span, seen: &[u64], skipped: &[Span]) -> String {
        let journal = Journal::default();
        [2, 5, 9].into_iter().for_each(|at| journal.note("o/pods/default/web", at));
        journal.note("o/configmaps/default/web", 7);
        let seen: BTreeSet<u64> = seen.iter().copied().collect();
        journal.check("pods", passed, &seen, skipped).join("; ")
    }

    #[test]
    fn a_watch_that_shows_every_change_once_is_well() {
        assert_eq!(check((0, 9), &[2, 5, 9], &[]), "");
        assert_eq!(check((2, 8), &[5], &[]), "");
        assert_eq!(check((0, 9), &[2, 9], &[(3, 6)]), "");
    }

    #[test]
    fn r1_a_change_that_was_left_out_is_found() {
        assert_eq!(check((0, 9), &[2, 9], &[]), "R1 pods: the change at 5 was not shown");
    }

    #[test]
    fn r2_a_change_that_never_was_is_found() {
        assert_eq!(check((0, 9), &[2, 5, 7, 9], &[]), "R2 pods: a change at 7 was shown that never was");
    }
}
