//! Fetching an image from its registry.
//!
//! Flow        name → manifest (of this machine's platform) → config → the layers that are missing, a few at a time, unpacked
//!             while they come → listed
//! Guarantees  every document and layer is what its digest says before anything uses it; a pull that fails leaves nothing

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::config::{self, CONFIG_BYTES_MAX, Parsed};
use super::digest;
use super::error::ImageError;
use super::manifest::{self, Descriptor, Document, MANIFEST_BYTES_MAX, Manifest};
use super::reference::Reference;
use super::registry::{Content, Credentials, Registry};
use super::store::{Images, Staged, StagedLayers, Store, Workplace, off_the_runtime};
use super::unpack::{Promise, unpack};
use super::{ImageRecord, LayerError};

/// Chunks on their way from the network to the unpacking thread; a chunk is what one read gave, at most some 100 KiB.
const CHUNKS_MAX: usize = 16;

/// How an image is fetched.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Who asks; nobody in particular without.
    pub credentials: Option<Credentials>,
    /// Registries (`host` or `host:port`) that are spoken to without TLS. Loopback addresses always are.
    pub plain_http_hosts: BTreeSet<String>,
    /// Certificate authorities to trust beside the machine's own, as PEM.
    pub extra_ca_pem: Option<String>,
    /// Is told how far the pull is.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is known what has to be fetched.
    Started {
        /// Layers that are not here yet.
        layers: usize,
        /// Their compressed bytes.
        bytes: u64,
    },
    /// One layer is here.
    Layer {
        /// Its compressed bytes.
        bytes: u64,
    },
}

/// A layer that has to be fetched.
struct Missing {
    descriptor: Descriptor,
    diff_id: String,
    into: PathBuf,
    /// Stays until the last thread that writes into it has ended.
    place: Arc<Workplace>,
}

impl Images {
    /// Fetches an image, even if one of that name is here already; layers that are here are not fetched again.
    pub async fn pull(&self, reference: &str, options: PullOptions) -> Result<ImageRecord, ImageError> {
        let reference: Reference = reference.parse()?;
        let key = reference.key();
        let turn = {
            let mut turns = self.store.turns.lock().expect("nothing panics while holding the turns");
            turns.entry(key.clone()).or_default().clone()
        };
        let held = turn.lock().await;
        let result = self.pull_in_turn(&reference, options).await;
        drop(held);
        let mut turns = self.store.turns.lock().expect("nothing panics while holding the turns");
        if Arc::strong_count(&turn) == 2 {
            turns.remove(&key);
        }
        result
    }

    async fn pull_in_turn(&self, reference: &Reference, options: PullOptions) -> Result<ImageRecord, ImageError> {
        let place = (reference.host(), reference.repository.as_str());
        let world = self.store.world.clone();
        let (plain, ca) = (options.plain_http_hosts, options.extra_ca_pem.as_deref());
        let registry = Arc::new(Registry::new(place, plain, options.credentials, ca, world)?);
        let (manifest, manifest_digest) = fetch_manifest(&registry, reference).await?;
        let (document, parsed) = self.config_of(&registry, &manifest).await?;
        let store = self.store.clone();
        let place = Arc::new(off_the_runtime(move || store.workplace()).await?);
        let missing = missing_layers(&self.store, &manifest, &parsed, &place)?;
        let tell = options.progress.unwrap_or_else(|| Arc::new(|_| {}));
        let bytes = missing.iter().map(|layer| layer.descriptor.size).sum();
        tell(Progress::Started { layers: missing.len(), bytes });
        let fetched = fetch_layers(&self.store, &registry, missing, &*tell).await;
        let store = self.store.clone();
        let names = BTreeSet::from([reference.key()]);
        let image = Staged { config: document, names, digest: Some(manifest_digest), layers: parsed.diff_ids };
        off_the_runtime(move || {
            // Here, where removing what was unpacked for nothing keeps no task waiting.
            let _place = place;
            let ids = store.commit(vec![image], fetched?)?;
            store.record(&ids[0])
        })
        .await
    }

    async fn config_of(&self, registry: &Registry, manifest: &Manifest) -> Result<(Vec<u8>, Parsed), ImageError> {
        let (bytes, _) =
            registry.document(&format!("blobs/{}", manifest.config.digest), "*/*", CONFIG_BYTES_MAX).await?;
        check("the image's config", &bytes, &manifest.config.digest)?;
        let parsed = config::parse(&bytes)?;
        if parsed.diff_ids.len() != manifest.layers.len() {
            let why =
                format!("expected {} layers as in its config, found {}", parsed.diff_ids.len(), manifest.layers.len());
            return Err(ImageError::document("the manifest", why));
        }
        Ok((bytes.to_vec(), parsed))
    }
}

fn check(what: &str, bytes: &[u8], expected: &str) -> Result<(), ImageError> {
    let found = digest::of(bytes);
    if found == expected {
        return Ok(());
    }
    Err(ImageError::Digest { what: what.to_owned(), expected: expected.to_owned(), found })
}

/// The manifest for this machine and its digest; an index in between costs one more question.
async fn fetch_manifest(registry: &Registry, reference: &Reference) -> Result<(Manifest, String), ImageError> {
    let wanted = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
    let (bytes, digest, kind) = fetch_document(registry, wanted, reference.digest.as_deref()).await?;
    match manifest::parse(&bytes, kind.as_deref())? {
        Document::Manifest(manifest) => Ok((manifest, digest)),
        Document::Index(manifests) => {
            let chosen = manifest::choose(&manifests)?;
            let (bytes, digest, kind) = fetch_document(registry, &chosen.digest, Some(&chosen.digest)).await?;
            match manifest::parse(&bytes, kind.as_deref())? {
                Document::Manifest(manifest) => Ok((manifest, digest)),
                Document::Index(_) => Err(ImageError::document("the index", "expected manifests, found another index")),
            }
        }
    }
}

async fn fetch_document(
    registry: &Registry,
    wanted: &str,
    digest: Option<&str>,
) -> Result<(Bytes, String, Option<String>), ImageError> {
    let path = format!("manifests/{wanted}");
    let (bytes, kind) = registry.document(&path, &manifest::accepted(), MANIFEST_BYTES_MAX).await?;
    if let Some(digest) = digest {
        check("the manifest", &bytes, digest)?;
    }
    let found = digest::of(&bytes);
    Ok((bytes, found, kind))
}

/// What of the image is not in the store, each layer once.
fn missing_layers(
    store: &Store,
    manifest: &Manifest,
    parsed: &Parsed,
    place: &Arc<Workplace>,
) -> Result<Vec<Missing>, ImageError> {
    let index = store.index()?;
    let mut missing = BTreeMap::new();
    for (number, (descriptor, diff_id)) in manifest.layers.iter().zip(&parsed.diff_ids).enumerate() {
        if !index.layers.contains_key(diff_id) {
            missing.entry(diff_id.clone()).or_insert_with(|| Missing {
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                into: place.path.join(number.to_string()),
                place: place.clone(),
            });
        }
    }
    Ok(missing.into_values().collect())
}

async fn fetch_layers(
    store: &Arc<Store>,
    registry: &Arc<Registry>,
    missing: Vec<Missing>,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<StagedLayers, ImageError> {
    // Dropped on the first error, which ends the others: their threads notice that nothing comes any more.
    let mut tasks = JoinSet::new();
    for layer in missing {
        let (store, registry) = (store.clone(), registry.clone());
        tasks.spawn(async move {
            let permit = store.layers_in_flight.clone().acquire_owned().await;
            let size = fetch_layer(&registry, &layer).await;
            drop(permit);
            size.map(|size| (layer, size))
        });
    }
    let mut layers = StagedLayers::new();
    while let Some(done) = tasks.join_next().await {
        let (layer, size) = done.unwrap_or(Err(ImageError::CutOff))?;
        tell(Progress::Layer { bytes: layer.descriptor.size });
        layers.insert(layer.diff_id, (layer.into, size));
    }
    Ok(layers)
}

/// Fetches one layer and unpacks it while it comes; its unpacked bytes.
async fn fetch_layer(registry: &Registry, layer: &Missing) -> Result<u64, ImageError> {
    let content = registry.blob(&layer.descriptor.digest).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let packed = Some((layer.descriptor.digest.clone(), layer.descriptor.size));
    let promise = Promise { packed, diff_id: layer.diff_id.clone() };
    let (into, digest, place) = (layer.into.clone(), layer.descriptor.digest.clone(), layer.place.clone());
    let unpacking = off_the_runtime(move || {
        let _place = place;
        std::fs::create_dir(&into).map_err(ImageError::file("make", &into))?;
        let refused = |source: LayerError| ImageError::Layer { layer: digest, source };
        unpack(Incoming { receiver, chunk: Bytes::new() }, &promise, &into).map_err(refused)
    });
    let (sent, unpacked) = tokio::join!(pass_on(content, sender), unpacking);
    // Where the registry broke off, that is the reason, not the half archive it caused.
    sent.and(unpacked)
}

async fn pass_on(mut content: Content, sender: mpsc::Sender<io::Result<Bytes>>) -> Result<(), ImageError> {
    loop {
        match content.chunk().await {
            Ok(Some(chunk)) => {
                if sender.send(Ok(chunk)).await.is_err() {
                    // The unpacking has ended with a reason of its own.
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                // The receiver may have ended already; then this error is still told.
                let _ = sender.send(Err(io::Error::other("the registry broke off"))).await;
                return Err(error);
            }
        }
    }
}

/// The bytes that come, for a thread that reads.
struct Incoming {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let length = self.chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}
