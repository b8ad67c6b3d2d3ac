//! A copy of a kind's objects, kept up to date by list and watch.
//!
//! Flow        list in pages → watch from the list's revision → on 410 list again → tell subscribers the difference
//! Guarantees  a subscriber is told every change, with what was there before it and after it, in the order of the
//!             changes · nothing older replaces something newer
//! Assumes     the store has one global revision, so revisions of a key only grow
//! Caveats     the copy lags behind the store; [`Cache::caught_up`] waits until it has seen a given revision

mod key;
mod reflector;
mod store;
mod subscription;

pub use key::Key;
pub use store::Cached;
pub use subscription::{Change, Notice, PENDING_MAX, Subscription};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use windlass_api::{Kind, Object};

use crate::client::Client;
use store::Store;

/// Which objects a cache keeps, and how much of each.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Label selector in its text form; empty selects all.
    pub labels: String,
    /// Field selector in its text form; empty selects all.
    pub fields: String,
    /// How much of each object is kept.
    pub keep: Keep,
    /// Whether objects can be looked up by a label pair without walking their namespace.
    pub index_labels: bool,
    /// Only objects that are linked ([`Header::is_linked`](windlass_api::Header::is_linked)): the others are as if they were not there.
    pub linked_only: bool,
}

/// How much of an object is kept.
#[derive(Debug, Clone, Copy, Default)]
pub enum Keep {
    /// All of it.
    #[default]
    Whole,
    /// The header only: `json` is empty and cannot be decoded.
    Header,
    /// What this makes of the object: its header, and what its readers will ask it for by [`windlass_api::Object::memo`].
    Digest(fn(&Object) -> Object),
}

impl Scope {
    /// Every object of the kind, in all namespaces.
    pub fn all() -> Scope {
        Scope::default()
    }

    /// The headers of all objects of the kind.
    pub fn headers() -> Scope {
        Scope { keep: Keep::Header, ..Scope::default() }
    }

    /// The pods bound to a node.
    pub fn on_node(node: &str) -> Scope {
        Scope { fields: format!("spec.nodeName={node}"), ..Scope::default() }
    }

    /// One object by its name, in a namespace or cluster-wide.
    pub fn named(namespace: Option<&str>, name: &str) -> Scope {
        Scope { namespace: namespace.map(str::to_owned), fields: format!("metadata.name={name}"), ..Scope::default() }
    }

    /// The same, without what is not linked.
    #[must_use]
    pub fn linked_only(self) -> Scope {
        Scope { linked_only: true, ..self }
    }
}

/// How far a cache has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    synced: bool,
    revision: u64,
}

struct Shared {
    kind: Kind,
    linked_only: bool,
    store: Mutex<Store>,
    progress: watch::Sender<Progress>,
}

/// The copy. Cheap to clone; it is kept up to date until the last clone is dropped.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
    _task: Arc<TaskGuard>,
}

struct TaskGuard(AbortHandle);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cache {
    /// Begins to keep a copy. Must be called inside a tokio runtime.
    pub fn start(client: Client, kind: &Kind, scope: Scope) -> Cache {
        let shared = Arc::new(Shared {
            kind: kind.clone(),
            linked_only: scope.linked_only,
            store: Mutex::new(Store::new(scope.index_labels)),
            progress: watch::Sender::new(Progress::default()),
        });
        let task = tokio::spawn(reflector::run(client, scope, Arc::clone(&shared)));
        Cache { shared, _task: Arc::new(TaskGuard(task.abort_handle())) }
    }

    /// Whether it leaves out objects that are not linked.
    pub fn is_linked_only(&self) -> bool {
        self.shared.linked_only
    }

    /// Whether this is the same copy.
    pub fn is_same(&self, other: &Cache) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The kind it keeps.
    pub fn kind(&self) -> &Kind {
        &self.shared.kind
    }

    /// Returns once the first list is complete.
    pub async fn synced(&self) {
        self.wait_for(|progress| progress.synced).await;
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.shared.progress.borrow().synced
    }

    /// The revision up to which the copy is known to be complete.
    pub fn revision(&self) -> u64 {
        self.shared.progress.borrow().revision
    }

    /// Returns once the copy has seen this revision: after a write of this kind, once it shows what was written.
    ///
    /// A revision at which no object of this scope changed is only passed with the next change or bookmark.
    pub async fn caught_up(&self, revision: u64) {
        self.wait_for(|progress| progress.synced && progress.revision >= revision).await;
    }

    /// Returns once this key is gone or satisfies the condition.
    pub async fn until(&self, key: &str, mut condition: impl FnMut(Option<&Cached>) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        loop {
            progress.mark_unchanged();
            if condition(self.get_key(key).as_deref()) {
                return;
            }
            progress.changed().await.expect("the sender lives in `shared`, which we hold");
        }
    }

    async fn wait_for(&self, condition: impl FnMut(&Progress) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        progress.wait_for(condition).await.expect("the sender lives in `shared`, which we hold");
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Cached>> {
        self.get_key(Key::new(namespace, name).as_str())
    }

    /// One object by `namespace/name`, or `name` for cluster-scoped kinds.
    pub fn get_key(&self, key: &str) -> Option<Arc<Cached>> {
        self.read(|store| store.get(key))
    }

    /// All objects, by key.
    pub fn list(&self) -> Vec<Arc<Cached>> {
        self.read(Store::list)
    }

    /// The objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Cached>> {
        self.read(|store| store.in_namespace(namespace))
    }

    /// The objects that name this uid in their owner references, by key.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Cached>> {
        self.read(|store| store.owned_by(uid))
    }

    /// The objects of a namespace that no owner controls, by name.
    pub fn uncontrolled(&self, namespace: &str) -> Vec<Arc<Cached>> {
        self.read(|store| store.uncontrolled(namespace))
    }

    /// The pods bound to a node, by key; the empty name gives the unbound ones.
    pub fn on_node(&self, node: &str) -> Vec<Arc<Cached>> {
        self.read(|store| store.on_node(node))
    }

    /// The objects of a namespace that carry all these labels, by name. An empty map selects all.
    pub fn with_labels(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<Cached>> {
        self.read(|store| store.with_labels(namespace, labels))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read(Store::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What changes from now on, and first of all what is there.
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_waking(&Arc::default())
    }

    /// The same for a reader of several caches, which waits for this one bell and then takes from each.
    pub fn subscribe_waking(&self, bell: &Arc<Notify>) -> Subscription {
        self.shared.store.lock().expect("no store operation panics").subscribe(Arc::clone(bell))
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.shared.store.lock().expect("no store operation panics"))
    }
}
