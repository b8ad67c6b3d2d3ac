//! Transactions: operations with expectations, and what becomes of them.

use std::sync::Arc;

use crate::entry::{Entry, Revision, Template};

/// What must hold of a key for its transaction to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Exists,
    /// The key exists and was last written at this revision.
    Revision(Revision),
}

/// One operation of a transaction. A transaction names a key at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates or replaces a value.
    Put {
        /// The key.
        key: Arc<str>,
        /// The value.
        value: Template,
        /// What must hold of the key.
        expect: Expect,
    },
    /// Removes a key; removing an absent key with [`Expect::Any`] changes nothing.
    Delete {
        /// The key.
        key: Arc<str>,
        /// What must hold of the key.
        expect: Expect,
    },
    /// Changes nothing, but fails the transaction unless `expect` holds.
    Check {
        /// The key.
        key: Arc<str>,
        /// What must hold of the key.
        expect: Expect,
    },
}

impl Op {
    /// A [`Op::Put`].
    pub fn put(key: impl Into<Arc<str>>, value: Template, expect: Expect) -> Op {
        Op::Put { key: key.into(), value, expect }
    }

    /// A [`Op::Delete`].
    pub fn delete(key: impl Into<Arc<str>>, expect: Expect) -> Op {
        Op::Delete { key: key.into(), expect }
    }

    /// A [`Op::Check`].
    pub fn check(key: impl Into<Arc<str>>, expect: Expect) -> Op {
        Op::Check { key: key.into(), expect }
    }

    /// The key that the operation names.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => key,
        }
    }

    /// What must hold of the key.
    pub fn expect(&self) -> Expect {
        match self {
            Op::Put { expect, .. } | Op::Delete { expect, .. } | Op::Check { expect, .. } => *expect,
        }
    }
}

impl Expect {
    /// Whether the key, found as `found`, is as expected.
    pub(crate) fn holds(self, found: Option<&Arc<Entry>>) -> bool {
        match self {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::Exists => found.is_some(),
            Expect::Revision(revision) => found.is_some_and(|entry| entry.revision == revision),
        }
    }
}

/// A transaction that took effect.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision of the transaction. A transaction that changed nothing (checks, deletions of absent keys) takes
    /// no revision of its own and reports the one it saw.
    pub revision: Revision,
    /// For each operation, in order: the entry it wrote (`Put`), removed (`Delete`) or saw (`Check`), if any.
    pub entries: Vec<Option<Arc<Entry>>>,
}

/// A transaction that changed nothing because a key was not as expected.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The position of the operation within the transaction.
    pub index: usize,
    /// The key.
    pub key: Arc<str>,
    /// The entry that stands in the way; `None` when the key is absent.
    pub found: Option<Arc<Entry>>,
}
