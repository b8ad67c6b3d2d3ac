//! One cache a kind for all parts of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use windlass_api::{Kind, kinds};

use crate::cache::{Cache, Scope};
use crate::client::Client;

/// The cluster-wide caches of this process, each started when first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    started: Arc<Mutex<BTreeMap<Kind, Cache>>>,
    leaves: Arc<Mutex<BTreeMap<Kind, Cache>>>,
}

impl Caches {
    /// No caches yet.
    pub fn new(client: Client) -> Caches {
        Caches { client, started: Arc::default(), leaves: Arc::default() }
    }

    /// The client behind the caches.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The cache of this kind. Must be called inside a tokio runtime.
    ///
    /// Of the kinds that are only kept for others ([`is_leaf`]) it holds the linked objects alone.
    pub fn of(&self, kind: &Kind) -> Cache {
        let scope = if is_leaf(kind) { Scope::all().linked_only() } else { Scope::all() };
        // Both are looked up by their labels, in every namespace, again and again.
        let index_labels = *kind == kinds::POD || *kind == kinds::ENDPOINT_SLICE;
        self.start(kind, Scope { index_labels, ..scope })
    }

    /// The same, for a reader of headers: the contents are kept only if somebody asked for them before.
    pub fn headers_of(&self, kind: &Kind) -> Cache {
        self.start(kind, Scope::headers())
    }

    /// The headers of all objects of a leaf kind, for who cannot do without.
    pub fn leaves_of(&self, kind: &Kind) -> Cache {
        let mut leaves = self.leaves.lock().expect("nothing panics while holding it");
        let start = || Cache::start(self.client.clone(), kind, Scope::headers());
        leaves.entry(kind.clone()).or_insert_with(start).clone()
    }

    fn start(&self, kind: &Kind, scope: Scope) -> Cache {
        let mut started = self.started.lock().expect("nothing panics while holding it");
        let start = || Cache::start(self.client.clone(), kind, scope);
        started.entry(kind.clone()).or_insert_with(start).clone()
    }

    /// Lets go of the cache of this kind: it ends with the last of its readers.
    pub fn forget(&self, kind: &Kind) {
        self.started.lock().expect("nothing panics while holding it").remove(kind);
    }

    /// The cache of this kind, if anybody has asked for it before.
    pub fn find(&self, kind: &Kind) -> Option<Cache> {
        self.started.lock().expect("nothing panics while holding it").get(kind).cloned()
    }

    /// Returns once all caches started so far have their first list.
    pub async fn synced(&self) {
        let caches: Vec<Cache> =
            self.started.lock().expect("nothing panics while holding it").values().cloned().collect();
        for cache in caches {
            cache.synced().await;
        }
    }
}

/// Whether objects of this kind are many, large and mostly alone: nobody in the control plane reads what is in them, and
/// one without owners and finalizers concerns nobody.
pub fn is_leaf(kind: &Kind) -> bool {
    *kind == kinds::CONFIG_MAP || *kind == kinds::SECRET
}
