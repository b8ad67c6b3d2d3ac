//! Objects handed from the API server to a part of its own process: shared, instead of written as JSON and read again.
//!
//! Goal        a controller's picture of the cluster costs neither a second copy of an object nor a parse of it
//! Flow        the part's request carries [`AsObjects`] → the server answers a list with [`ListedObjects`] and a watch
//!             with [`WatchedObjects`] among its response's extensions, and an empty body
//! Not here    a link between processes: extensions do not travel, so there the answer is JSON

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::error::ApiError;
use crate::object::Object;

/// Says that whoever asks takes objects as they are in memory.
#[derive(Clone, Copy, Debug)]
pub struct AsObjects {
    /// Only those that [`Header::is_linked`](crate::Header::is_linked) says yes of: the others are as if they were not
    /// there.
    pub linked_only: bool,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct ListedObjects {
    /// In the server's order.
    pub items: Vec<Arc<Object>>,
    /// The revision of the list.
    pub revision: u64,
    /// Where the next page begins; empty after the last.
    pub continue_from: String,
}

/// One change.
#[derive(Debug, Clone)]
pub enum ObjectEvent {
    /// The object is new, or newly selected.
    Added(Arc<Object>),
    /// The object changed.
    Modified(Arc<Object>),
    /// The object is gone, or no longer selected. This is its last state, at the revision of its end.
    Deleted(Arc<Object>),
    /// Nothing changed for the watcher up to this revision.
    Bookmark(u64),
}

/// The changes of a watch, as they come.
pub trait ObjectEvents: Send {
    /// The next change; `None` when the server ends the watch.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ObjectEvent, ApiError>>>;
}

/// A watch, for the first who takes it: a response's extensions are clones.
#[derive(Clone)]
pub struct WatchedObjects(Arc<Mutex<Option<Box<dyn ObjectEvents>>>>);

impl WatchedObjects {
    /// A watch that nobody has taken.
    pub fn new(events: impl ObjectEvents + 'static) -> WatchedObjects {
        WatchedObjects(Arc::new(Mutex::new(Some(Box::new(events)))))
    }

    /// The changes; `None` if somebody has taken them.
    pub fn take(&self) -> Option<Box<dyn ObjectEvents>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for WatchedObjects {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WatchedObjects")
    }
}
