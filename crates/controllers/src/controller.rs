//! What a controller is: what wakes it, what it sees, and what it decides.

use jiff::Timestamp;
use windlass_api::Kind;
use windlass_client::{Cache, Change, Key};

use crate::plan::{Left, Plan};

/// A controller: view in, plan out. The driver does the rest.
///
/// Assumes  `plan` is pure: the same view gives the same plan. It reads no clock and waits for nothing
pub trait Controller: Send + Sync + 'static {
    /// All that a decision about one key depends on.
    type View;

    /// Its name in logs, metrics and Events.
    const NAME: &'static str;

    /// Which kinds wake it, and for which keys. Whoever lists definitions among them is asked again after each of their
    /// changes, since they bring kinds and take them away, and whenever [`Controller::has_new_wakes`] says so.
    fn wakes(&self) -> Vec<Wake>;

    /// Whether more wakes it than when it was asked last.
    fn has_new_wakes(&self) -> bool {
        false
    }

    /// What there is to see about a key; `None` when there is nothing to decide.
    fn view(&self, key: &Key, look: &Look) -> Option<Self::View>;

    /// What is to be done about it.
    fn plan(view: &Self::View) -> Plan;
}

/// A kind whose changes wake a controller.
pub struct Wake {
    /// The kind.
    pub kind: Kind,
    /// The copy whose changes these are; `None` for the one that all share.
    pub cache: Option<Cache>,
    /// The keys that a change concerns.
    pub keys: KeysOf,
}

/// Gives each key that a change concerns to its second argument.
pub type KeysOf = Box<dyn Fn(&Change, &mut dyn FnMut(Key)) + Send>;

impl Wake {
    /// A change of this kind concerns the keys that `keys` gives.
    pub fn new(kind: &Kind, keys: impl Fn(&Change, &mut dyn FnMut(Key)) + Send + 'static) -> Wake {
        Wake { kind: kind.clone(), cache: None, keys: Box::new(keys) }
    }

    /// The same, for the changes of this copy of the kind.
    pub fn of(self, cache: Cache) -> Wake {
        Wake { cache: Some(cache), ..self }
    }

    /// A change of an object concerns the object itself.
    pub fn itself(kind: &Kind) -> Wake {
        Wake::new(kind, |change, wake| wake(change.key.clone()))
    }

    /// A change of an object concerns its controlling owner of this kind, before and after.
    pub fn owner(kind: &Kind, owner: &Kind) -> Wake {
        let (api_version, owner) = (owner.api_version(), owner.kind.clone());
        Wake::new(kind, move |change, wake| {
            for seen in [&change.old, &change.new].into_iter().flatten() {
                let header = &seen.header;
                if let Some(found) = header.controller()
                    && found.kind == owner
                    && found.api_version == api_version
                {
                    wake(Key::new(header.namespace(), &found.name));
                }
            }
        })
    }
}

/// What every view may draw on beside the caches.
pub struct Look<'a> {
    /// The wall-clock time of this pass.
    pub now: Timestamp,
    /// The monotonic time of this pass.
    pub instant: tokio::time::Instant,
    /// Why the last pass over this key failed, if it did.
    pub failure: Option<&'a str>,
    /// What stayed of the kinds that the last pass over this key deleted all objects of; `None` if it did no such thing.
    pub left: Option<&'a [Left]>,
}
