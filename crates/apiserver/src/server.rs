//! What every request shares: the store, the kinds, the limits.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use http::HeaderMap;
use windlass_api::{Header, Object};
use windlass_stdx::World;
use windlass_store::{Entry, Store};

use crate::admit::Policies;
use crate::aggregate::All;
use crate::audit::Record;
use crate::authorize::Graph;
use crate::backup::Places;
use crate::component::Parts;
use crate::config::{Config, WARNINGS_MAX};
use crate::definitions::{Definitions, Served};
use crate::documents::Merged;
use crate::follow::Followed;
use crate::frames::Frames;
use crate::identity::Identity;
use crate::join::Knocks;
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::page::PageKey;
use crate::rbac::Policy;
use crate::request::{Query, Target};
use crate::starts::Starts;
use crate::token::Tokens;
use crate::turns::Turns;
use crate::usage::Usage;

/// The parts of the server.
pub(crate) struct Server {
    pub config: Config,
    pub store: Store,
    pub world: World,
    pub page_key: PageKey,
    pub lanes: Lanes,
    pub metrics: Metrics,
    /// What is served now: [`Server::served`].
    pub served: RwLock<Arc<Served>>,
    pub knocks: Knocks,
    pub turns: Turns,
    /// When the last pods were asked for and bound.
    pub starts: Starts,
    /// Room for backups that are under way.
    pub backups: Places,
    /// What watchers are told.
    pub frames: Frames,
    /// What service accounts prove themselves by.
    pub tokens: Tokens,
    /// The definitions of custom kinds.
    pub definitions: Followed<Definitions>,
    /// Says that definitions have changed, to those who wait for that.
    pub definitions_changed: tokio::sync::watch::Sender<()>,
    /// Roles and bindings.
    pub policy: Followed<Policy>,
    /// Admission policies.
    pub policies: Followed<Policies>,
    /// APIs that other servers serve.
    pub aggregated: Followed<All>,
    /// OpenAPI v2, ours and theirs.
    pub merged: Merged,
    /// What the pods of each node name.
    pub graph: Followed<Graph>,
    /// What nodes have said they use.
    pub usage: Usage,
    /// What runs beside this server.
    pub parts: Parts,
    /// Whether the upkeep has begun.
    pub is_kept_up: AtomicBool,
    /// Becomes true once, when the server closes: watches and streams end then.
    pub closing: tokio::sync::watch::Sender<bool>,
}

impl Server {
    /// Waits until the server closes.
    pub async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // An error means that the server itself is gone, which is closed too.
        let _gone = closing.wait_for(|closing| *closing).await;
    }
}

/// One request about a kind, on its way through the pipeline.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub server: &'a Arc<Server>,
    pub who: &'a Identity,
    pub target: &'a Target,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub warned: &'a Warned,
    pub record: &'a Record,
}

/// What the client is told beside its answer, said once however often the write was tried.
#[derive(Default)]
pub(crate) struct Warned(Mutex<Vec<String>>);

impl Warned {
    /// Tells it too.
    pub fn add(&self, warning: String) {
        let mut warnings = self.0.lock().expect("nothing panics while holding warnings");
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// All that is to be told.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("nothing panics while holding warnings"))
    }
}

/// A stored object, read once and kept with it.
pub(crate) fn object(entry: &Entry) -> &Arc<Object> {
    entry.memo(|entry| Arc::new(read_back(entry.shared())))
}

/// The header of a stored object.
pub(crate) fn header(entry: &Entry) -> &Header {
    &object(entry).header
}

/// Whether a stored object is linked. What was not read before is not kept for this.
pub(crate) fn is_linked(entry: &Entry) -> bool {
    match entry.find_memo::<Arc<Object>>() {
        Some(object) => object.header.is_linked(),
        None => may_be_linked(entry.value()) && read_back(Bytes::copy_from_slice(entry.value())).header.is_linked(),
    }
}

/// Whether the words are there that a linked object has: most have none, and are not read. The pipeline writes them
/// without escapes, and managed fields put `f:` before them.
fn may_be_linked(json: &[u8]) -> bool {
    const WORDS: [&str; 3] = ["\"ownerReferences\"", "\"finalizers\"", "\"deletionTimestamp\""];
    let text = std::str::from_utf8(json).expect("the pipeline stores only JSON");
    WORDS.iter().any(|word| text.contains(word))
}

/// The object that these stored bytes are.
pub(crate) fn read_back(json: Bytes) -> Object {
    Object::parse(json).expect("the pipeline stores only what it could read back")
}
