//! Why the store refuses.

use std::path::PathBuf;
use std::sync::Arc;

use crate::entry::{Entry, Revision};

/// Why a transaction did not take effect, or why it is not known to have taken effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A key is not as the transaction expects. Nothing was changed and no revision was used.
    #[error("key {key:?} is not as operation {index} expects: {}", describe(.found))]
    Conflict {
        /// The position of the operation within the transaction.
        index: usize,
        /// The key.
        key: Arc<str>,
        /// The entry that stands in the way; `None` when the key is absent.
        found: Option<Arc<Entry>>,
    },
    /// The disk is full. Nothing was changed; reads go on, and writes do as soon as there is space.
    #[error(
        "the disk of {} is full: the write needs {needed} bytes; delete something or free space there and try again",
        dir.display()
    )]
    StorageFull {
        /// The data directory.
        dir: PathBuf,
        /// Bytes that the write would take on disk.
        needed: u64,
    },
    /// Something in the transaction is larger than its limit. Nothing was changed.
    #[error("{what} is {found}, more than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        found: usize,
        /// The largest size allowed.
        limit: usize,
    },
    /// The transaction is malformed. Nothing was changed.
    #[error("malformed transaction: {0}")]
    Invalid(String),
    /// Too many commits wait already. Nothing was changed; try again later.
    #[error("{0} commits are waiting already; try again later")]
    Busy(usize),
    /// This member is not the leader. Nothing was changed here; ask the leader.
    #[error("this member is not the leader; the leader is {leader:?}")]
    NotLeader {
        /// The leader's member id, if it is known.
        leader: Option<u64>,
    },
    /// The store is closed or has failed. The transaction may or may not have taken effect.
    #[error("the store is closed: {0}")]
    Closed(Arc<str>),
}

/// Why a read or a watch cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The changes after the wanted revision are not kept any more; list again.
    #[error("revision {wanted} is older than the oldest that is kept, {oldest}; list again")]
    Compacted {
        /// The revision asked for.
        wanted: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The wanted revision does not exist yet.
    #[error("revision {wanted} is newer than the newest, {newest}")]
    Future {
        /// The revision asked for.
        wanted: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The store is closed or has failed.
    #[error("the store is closed: {0}")]
    Closed(Arc<str>),
}

/// Why a watch has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The watcher was too slow: changes it has not seen fell out of the bounded history. List and watch again.
    #[error("the watch fell behind: changes after revision {seen} are not kept any more; list and watch again")]
    Lagged {
        /// The revision up to which the watcher has surely seen everything.
        seen: Revision,
    },
    /// Changes it has not seen were compacted away. List and watch again.
    #[error("changes after revision {seen} were compacted; list and watch again")]
    Compacted {
        /// The revision up to which the watcher has surely seen everything.
        seen: Revision,
    },
    /// The store is closed or has failed.
    #[error("the store is closed: {0}")]
    Closed(Arc<str>),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file could not be read or written.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process; stop it first", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file does not hold what was written to it.
    #[error("{} is damaged at byte {offset}: {what}; restore the directory from a backup or let the member join anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// The directory belongs to another cluster or member.
    #[error("{} belongs to {found}, expected {expected}; choose another data directory", path.display())]
    Foreign {
        /// The identity file.
        path: PathBuf,
        /// Whose directory was expected.
        expected: String,
        /// Whose directory it is.
        found: String,
    },
    /// The consensus engine did not start.
    #[error("cannot start the store: {0}")]
    Consensus(String),
}

fn describe(found: &Option<Arc<Entry>>) -> String {
    match found {
        None => "it does not exist".to_owned(),
        Some(entry) => format!("it exists at revision {}", entry.revision),
    }
}
