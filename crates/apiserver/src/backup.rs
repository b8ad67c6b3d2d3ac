//! `GET /windlass/v1/backup`: all that the store holds at one revision, for `windlass backup`.
//!
//! Goal        a copy of a running cluster's objects that is of one moment, whoever writes meanwhile
//! Relies on   [`Export`], which holds one revision; RBAC, by which only who may do everything may ask for this path
//!
//! Rules
//!   R1 manifest   the first line says in JSON what follows; then come the store's own bytes, which say where they end
//!   R2 bounded    two at a time; who does not read on for a minute is given up, because what is held for him is memory
//!   R3 whole      an answer that ends before its end ends with an error
//! Not here        the cluster's keys: no answer of the API tells them. Who makes the backup reads them from their directory

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use windlass_api::{ApiError, Reason};
use windlass_stdx::{BoxError, Response, World};
use windlass_store::{Entry, Export, Store};

use crate::failure::later;
use crate::key;
use crate::server::Server;

/// How keys and values are laid out in the store. It is raised with every change that a program before it cannot read, or
/// after which what was stored before has to be changed.
pub const SCHEMA: u32 = 1;
/// Backups under way at one time.
const BACKUPS_MAX: usize = 2;
/// How long a piece may wait for its reader.
const STALLED_MAX: Duration = Duration::from_secs(60);

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`] of the program that made it.
    pub schema: u32,
    /// The cluster's id.
    pub cluster: String,
    /// The version of the program that made it.
    pub windlass: String,
    /// When.
    pub time: Timestamp,
    /// The revision of the store.
    pub revision: u64,
    /// How many entries there are.
    pub entries: u64,
    /// Bytes of their keys and values, before they are compressed.
    pub bytes: u64,
}

/// The store as it is now; `None` before its first write.
pub fn begin(store: &Store, world: &World) -> Option<(Manifest, Export)> {
    let export = store.export()?;
    let manifest = Manifest {
        schema: SCHEMA,
        cluster: store.cluster().to_owned(),
        windlass: env!("CARGO_PKG_VERSION").to_owned(),
        time: world.now(),
        revision: export.revision(),
        entries: export.entries(),
        bytes: export.bytes(),
    };
    Some((manifest, export))
}

/// Why a server could not live with this entry, if it could not.
pub fn what_is_wrong(entry: &Entry) -> Option<String> {
    if !entry.key().starts_with(key::OBJECTS) {
        return None;
    }
    let object = match windlass_api::Object::parse(entry.shared()) {
        Ok(object) => object,
        Err(error) => return Some(format!("it is no object: {error}")),
    };
    let found = (object.header.namespace(), object.header.name());
    (found != key::place(entry.key())).then(|| format!("it is an object in {:?} that is called {:?}", found.0, found.1))
}

/// R2: room for those that are under way.
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Places {
        Places(Arc::new(Semaphore::new(BACKUPS_MAX)))
    }
}

/// A piece of the answer; `None` is its end.
type Piece = Result<Option<Bytes>, BoxError>;

/// Begins the answer.
pub(crate) fn answer(server: &Arc<Server>) -> Result<Response, ApiError> {
    let place = server.backups.0.clone().try_acquire_owned();
    let place =
        place.map_err(|_| later(Reason::TooManyRequests, "two backups are under way, please try again later"))?;
    let (manifest, export) = begin(&server.store, &server.world)
        .ok_or_else(|| later(Reason::ServiceUnavailable, "the store is just beginning, please try again"))?;
    let mut line = serde_json::to_vec(&manifest).map_err(ApiError::internal)?;
    line.push(b'\n');
    let (pieces, received) = mpsc::channel(1);
    tokio::spawn(send(server.clone(), (place, line.into(), export), pieces));
    let body = stream::try_unfold(received, |mut received| async move {
        match received.recv().await {
            Some(Ok(Some(piece))) => Ok(Some((Frame::data(piece), received))),
            Some(Ok(None)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err("the backup was given up: it was not read on for a minute, or the server ends".into()),
        }
    });
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

async fn send(
    server: Arc<Server>,
    (_place, line, mut export): (OwnedSemaphorePermit, Bytes, Export),
    pieces: mpsc::Sender<Piece>,
) {
    let mut piece: Piece = Ok(Some(line));
    loop {
        let is_last = !matches!(piece, Ok(Some(_)));
        let sent = tokio::select! {
            biased;
            () = server.closed() => return,
            sent = tokio::time::timeout(STALLED_MAX, pieces.send(piece)) => sent,
        };
        if is_last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
        piece = export.read().map(|read| read.map(Bytes::from)).map_err(BoxError::from);
    }
}
