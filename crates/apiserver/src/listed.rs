//! The objects that a list answers with, or a watch begins with.
//!
//! Rules
//!   R1 shared    what is read from the store as it lies there is read piece by piece while it is sent: who does not read
//!                holds the tree of a revision, which all who list it share, and no list of his own (A19)
//!   R2 steady    all of it is of one revision, however long it takes

use std::collections::VecDeque;
use std::sync::Arc;

use windlass_store::{Entry, Scan};

use crate::select::Selection;

/// Entries read from the store at one time.
const PIECE: usize = 256;

/// Objects in the order of their keys.
#[derive(Clone, Default)]
pub(crate) struct Listed {
    ahead: VecDeque<Arc<Entry>>,
    rest: Option<Rest>,
}

/// What has not been read yet.
#[derive(Clone)]
struct Rest {
    scan: Scan,
    selection: Arc<Selection>,
}

impl From<Vec<Arc<Entry>>> for Listed {
    fn from(entries: Vec<Arc<Entry>>) -> Listed {
        Listed { ahead: entries.into(), rest: None }
    }
}

impl Listed {
    /// What matches of a scan (R1).
    pub fn of(scan: Scan, selection: Arc<Selection>) -> Listed {
        Listed { ahead: VecDeque::new(), rest: Some(Rest { scan, selection }) }
    }

    /// Reads on until so many bytes of objects are known, or all are; `Some` of their sum in the second case.
    pub fn look_ahead(&mut self, bytes_max: usize) -> Option<usize> {
        let mut bytes: usize = self.ahead.iter().map(|entry| entry.value().len()).sum();
        let mut known = self.ahead.len();
        while bytes < bytes_max && self.read_piece() {
            bytes += self.ahead.iter().skip(known).map(|entry| entry.value().len()).sum::<usize>();
            known = self.ahead.len();
        }
        self.rest.is_none().then_some(bytes)
    }

    /// Whether nothing is left. Reads on where that is not known.
    pub fn is_done(&mut self) -> bool {
        while self.ahead.is_empty() && self.read_piece() {}
        self.ahead.is_empty()
    }

    /// Whether there was anything left to read.
    fn read_piece(&mut self) -> bool {
        let Some(Rest { scan, selection }) = &mut self.rest else { return false };
        let entries = scan.read(PIECE);
        let is_last = entries.len() < PIECE;
        self.ahead.extend(entries.into_iter().filter(|entry| selection.matches(entry)));
        if is_last {
            self.rest = None;
        }
        true
    }
}

impl Iterator for Listed {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        if self.is_done() {
            return None;
        }
        self.ahead.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.ahead.len(), self.rest.is_none().then_some(self.ahead.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_api::resources;
    use windlass_stdx::World;
    use windlass_store::{Config, Expect, Op, Range, RealDisk, Store, Template};

    use super::{Listed, PIECE};
    use crate::request::{Query, Target, Verb};
    use crate::select::Selection;

    #[tokio::test]
    async fn r1_a_list_that_nobody_reads_holds_one_piece_of_it() {
        let dir = std::env::temp_dir().join(format!("windlass-listed-{}", World::real().uuid()));
        let store = Store::open(Config::new(&dir), Arc::new(RealDisk), World::real()).await.expect("a store");
        let put = |number: usize| Op::put(format!("/{number:04}"), Template::plain("{}"), Expect::Any);
        store.commit((0..3 * PIECE).map(put).collect()).await.expect("a write");
        let resource = resources::registry().get("", "v1", "configmaps").expect("a kind").clone();
        let target = Target { resource, verb: Verb::List, namespace: String::new(), name: String::new(), sub: None };
        let everything = Arc::new(Selection::parse(&target, &Query::default()).expect("no selector"));
        let mut listed = Listed::of(store.scan(&Range::prefix("/")).expect("it is there"), everything);
        assert_eq!(listed.look_ahead(1), None, "there is more than was looked at");
        assert_eq!(listed.ahead.len(), PIECE);
        store.commit(vec![Op::put("/9999", Template::plain("{}"), Expect::Any)]).await.expect("a write");
        assert_eq!(listed.clone().look_ahead(usize::MAX), Some(3 * PIECE * "{}".len()));
        assert_eq!(listed.count(), 3 * PIECE, "what was written later is not in it");
        store.close().await;
        std::fs::remove_dir_all(&dir).expect("the test's own directory");
    }
}
