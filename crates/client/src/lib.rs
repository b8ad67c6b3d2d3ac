//! Reading, writing, watching and caching API objects, over any transport.
//!
//! Goal        every part that wants objects gets them the same way, in process, over HTTPS or in the simulator
//! Relies on   `api` for the nouns, `stdx::Transport` for the link, `stdx::World` for clock and jitter
//! Not here    what to do with objects (controllers, scheduler, node)
//!
//! A [`Client`] makes one request per call, each with a deadline. A [`Cache`] keeps a copy of a kind's objects up to
//! date by list and watch and tells its subscribers what changed. A [`Recorder`] writes Events without making its
//! caller wait.

mod backoff;
mod cache;
mod caches;
mod call;
mod client;
mod error;
mod https;
mod lines;
mod options;
mod recorder;
mod upgrade;
mod watch;

pub use backoff::Backoff;
pub use cache::{Cache, Cached, Change, Keep, Key, Notice, PENDING_MAX, Scope, Subscription};
pub use caches::{Caches, is_leaf};
pub use call::{Answer, Call};
pub use client::{Client, DEADLINE_DEFAULT, List};
pub use error::ClientError;
pub use https::{HttpsConfig, HttpsError, HttpsTransport};
pub use lines::LineStream;
pub use options::{DeleteOptions, ListOptions, Patch, Propagation, WatchOptions, segment, with_query};
pub use recorder::{EventKind, Note, ObjectRef, Recorder};
pub use upgrade::Upgraded;
pub use watch::{Watch, WatchEvent};
