//! The store: a replicated, versioned, watchable map of keys to bytes.
//!
//! Goal        every acknowledged transaction survives, in one order, and every watcher sees that order without a gap
//! Relies on   [`Disk`] for files, `windlass_stdx::World` for randomness, openraft for replication
//! Not here    what the bytes mean; the store knows no API words
//!
//! # Flow
//! [`Store::commit`] → transactions are grouped → one log entry, one sync for a group → applied in memory → watchers
//! wake. Reads are answered from memory.
//!
//! # Guarantees
//! - A transaction is atomic; each one that changes something takes the next [`Revision`], without gaps.
//! - `Ok` from [`Store::commit`] means durable and visible to every later read.
//! - After a restart every acknowledged transaction is there, or opening fails and names the damaged file and offset.
//! - A [`Watch`] yields every event of its prefix after its start, once, in order, or ends with an error.
//!
//! # Caveats
//! - A failed sync stops the store ([`Store::failed`]): what is on disk is unknown then. The process should exit.
//! - A full disk refuses writes with [`CommitError::StorageFull`]; reads go on, and writes do when space returns.

mod committer;
mod config;
mod consensus;
mod disk;
mod entry;
mod error;
mod export;
mod group;
mod hard_state;
mod history;
mod identity;
mod import;
mod log;
mod op;
mod opening;
mod range;
mod shared;
mod snapshot;
mod snapshots;
mod state;
mod store;
mod watch;
mod wire;

pub use config::{Config, Limits};
pub use disk::{Disk, DiskFile, DiskJob, RealDisk, SimulatedDisk};
pub use entry::{Entry, Event, Revision, Template};
pub use error::{CommitError, OpenError, ReadError, WatchError};
pub use export::Export;
pub use import::{Import, ImportError, Occupied, occupied};
pub use op::{Committed, Expect, Op};
pub use range::{Page, Range, Scan};
pub use store::{Stats, Store};
pub use watch::Watch;
