//! Fetching an image from its registry, or from a mirror of it.
//!
//! Flow        name → places (mirrors first) → credentials, one after the other → document (of this machine's platform) → its
//!             signature, where one is wanted → config → the layers that are missing, a few at a time, unpacked while they
//!             come → listed
//! Guarantees  every document and layer is what its digest says before anything uses it; a pull that fails leaves nothing;
//!             what was verified is what is listed: a tag is resolved once

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::config::{self, CONFIG_BYTES_MAX, Parsed};
use super::digest;
use super::error::ImageError;
use super::keyring::Credentials;
use super::manifest::{self, Descriptor, Document, INDEXES_MAX, MANIFEST_BYTES_MAX, Manifest};
use super::reference::Reference;
use super::registries::{Place, Registries};
use super::registry::{Content, Registry};
use super::signature;
use super::store::{Images, Staged, StagedLayers, Store, Workplace, off_the_runtime};
use super::unpack::{Promise, unpack};
use super::{ImageRecord, LayerError};
use crate::error::in_full;

/// Chunks on their way from the network to the unpacking thread; a chunk is what one read gave, at most some 100 KiB.
const CHUNKS_MAX: usize = 16;
/// How often one layer that broke off is asked for again, and how often in a row without a byte more.
const RESUMES_MAX: usize = 20;
const IDLE_RESUMES_MAX: usize = 2;

/// Other machines that are asked for one layer before its registry is.
const PEERS_MAX: usize = 3;
/// How long a peer may take for a layer, and how much longer for its size.
const PEER_PATIENCE: Duration = Duration::from_secs(30);
const PEER_BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// Another machine that may have layers of the image.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it listens: `host:port`.
    pub host: String,
    /// How it is spoken to, and who we are to it.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Told how far a pull is.
pub type Tell = Arc<dyn Fn(Progress) + Send + Sync>;

/// How an image is fetched.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Who asks; tried in order, then what this machine has of its own, then nobody in particular.
    pub credentials: Vec<Credentials>,
    /// What is known about registries.
    pub registries: Arc<Registries>,
    /// Asked for layers before the registry is. What the image is, its registry says all the same.
    pub peers: Arc<[Peer]>,
    /// Is told how far the pull is.
    pub progress: Option<Tell>,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is known what has to be fetched. Said again when another place is tried.
    Started {
        /// Layers that are not here yet.
        layers: usize,
        /// Their compressed bytes.
        bytes: u64,
    },
    /// More of a layer has come.
    Bytes {
        /// How many.
        bytes: u64,
    },
    /// One layer is here.
    Layer {
        /// Its compressed bytes.
        bytes: u64,
    },
}

/// The document that a name points at, with what leads from it to an image.
struct Resolved {
    registry: Arc<Registry>,
    manifest: Manifest,
    /// The digest of the first document: the manifest's own, or that of the index which lists it.
    digest: String,
}

/// Where a layer comes from: packed, by its own digest, or as its archive, by the digest of that.
#[derive(Clone, Copy)]
enum Source {
    Registry,
    Peer,
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
            // Of pulls that were given up, nobody has taken the turn away.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
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

    /// The first place that has the image gives it; where none has, its own registry's reason counts.
    async fn pull_in_turn(&self, reference: &Reference, options: PullOptions) -> Result<ImageRecord, ImageError> {
        let tell = options.progress.clone().unwrap_or_else(|| Arc::new(|_| {}));
        let places = options.registries.places(reference);
        let mut last = None;
        for (number, place) in places.iter().enumerate() {
            let is_own = number + 1 == places.len();
            let mut credentials = if is_own { options.credentials.clone() } else { Vec::new() };
            credentials.extend(options.registries.credentials(place));
            match self.pull_from(reference, place, (credentials, &options), &tell).await {
                Ok(record) => return Ok(record),
                Err(error) if is_own => last = Some(error),
                Err(error) => {
                    tracing::warn!(image = %reference, mirror = place.host, error = in_full(&error), "a mirror is passed over");
                }
            }
        }
        Err(last.expect("an image's own registry is among its places"))
    }

    async fn pull_from(
        &self,
        reference: &Reference,
        place: &Place,
        (credentials, options): (Vec<Credentials>, &PullOptions),
        tell: &Tell,
    ) -> Result<ImageRecord, ImageError> {
        let registries = &options.registries;
        let resolved = self.resolve(reference, place, credentials, registries).await?;
        let keys = registries.keys(reference);
        let signed_by = match keys.is_empty() {
            true => None,
            false => Some(check_signature(&resolved, keys, reference).await?),
        };
        let Resolved { registry, manifest, digest } = resolved;
        let (document, parsed) = self.config_of(&registry, &manifest).await?;
        let store = self.store.clone();
        let place = Arc::new(off_the_runtime(move || store.workplace()).await?);
        let missing = missing_layers(&self.store, &manifest, &parsed, &place)?;
        let bytes = missing.iter().map(|layer| layer.descriptor.size).sum();
        tell(Progress::Started { layers: missing.len(), bytes });
        let fetched = fetch_layers(&self.store, (&registry, &options.peers), missing, tell).await;
        let store = self.store.clone();
        let names = BTreeSet::from([reference.key()]);
        let pulled_as = Some((reference.place(), registry.credentials().cloned()));
        let image =
            Staged { config: document, names, digest: Some(digest), layers: parsed.diff_ids, pulled_as, signed_by };
        off_the_runtime(move || {
            // Here, where removing what was unpacked for nothing keeps no task waiting.
            let _place = place;
            let ids = store.commit(vec![image], fetched?)?;
            store.record(&ids[0])
        })
        .await
    }

    /// Finds the image at a place with the first credentials that may see it, and in the end without any.
    async fn resolve(
        &self,
        reference: &Reference,
        place: &Place,
        credentials: Vec<Credentials>,
        registries: &Arc<Registries>,
    ) -> Result<Resolved, ImageError> {
        let tls = Registry::connector(place, registries)?;
        let mut first_refusal = None;
        for credentials in credentials.into_iter().map(Some).chain([None]) {
            let shared = (self.store.holds.clone(), self.store.world.clone());
            let registry = Arc::new(Registry::new(place, (registries.clone(), tls.clone()), credentials, shared));
            match fetch_manifest(&registry, reference).await {
                Ok((manifest, digest)) => return Ok(Resolved { registry, manifest, digest }),
                // A registry may say "not found" to who may not know that it is there.
                Err(error @ (ImageError::Unauthorized { .. } | ImageError::Registry { passing: false, .. })) => {
                    first_refusal.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_refusal.expect("the last try is always made, and was refused"))
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

/// The manifest for this machine, and the digest of the document that the name points at; each index in between costs one
/// more question.
async fn fetch_manifest(registry: &Registry, reference: &Reference) -> Result<(Manifest, String), ImageError> {
    let wanted = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
    let (mut bytes, first, mut kind) = fetch_document(registry, wanted, reference.digest.as_deref()).await?;
    for _ in 0..=INDEXES_MAX {
        let chosen = match manifest::parse(&bytes, kind.as_deref())? {
            Document::Manifest(manifest) => return Ok((manifest, first)),
            Document::Index(manifests) => manifest::choose(&manifests)?.digest.clone(),
        };
        (bytes, _, kind) = fetch_document(registry, &chosen, Some(&chosen)).await?;
    }
    Err(manifest::too_deep())
}

/// One of the signatures that lie beside the image must be good; the id of its key.
async fn check_signature(
    resolved: &Resolved,
    keys: &[signature::PublicKey],
    reference: &Reference,
) -> Result<String, ImageError> {
    let (registry, digest) = (&resolved.registry, resolved.digest.as_str());
    let refuse = |why: String| ImageError::Unsigned { image: format!("{}@{digest}", reference.place()), why };
    let tag = signature::tag_of(digest);
    let fetched = fetch_document(registry, &tag, None).await;
    let (bytes, _, kind) = match fetched {
        Err(error @ ImageError::Registry { passing: true, .. }) => return Err(error),
        other => other.map_err(|error| refuse(format!("no signature is found: {error}")))?,
    };
    let Document::Manifest(manifest) = manifest::parse(&bytes, kind.as_deref())? else {
        return Err(refuse(format!("expected signatures under the tag {tag}, found an index")));
    };
    let mut why = format!("there is no signature under the tag {tag}");
    for layer in manifest.layers.iter().take(signature::SIGNATURES_MAX) {
        let Some(made) = layer.annotations.get(signature::ANNOTATION) else { continue };
        if layer.media_type != signature::PAYLOAD_KIND {
            continue;
        }
        let path = format!("blobs/{}", layer.digest);
        let (payload, _) = registry.document(&path, "*/*", signature::PAYLOAD_BYTES_MAX).await?;
        check("the signature's payload", &payload, &layer.digest)?;
        match signature::check(keys, &payload, made, (reference, digest)) {
            Ok(key) => return Ok(key.id()),
            Err(reason) => why = reason,
        }
    }
    Err(refuse(why))
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
    (registry, peers): (&Arc<Registry>, &Arc<[Peer]>),
    missing: Vec<Missing>,
    tell: &Tell,
) -> Result<StagedLayers, ImageError> {
    // Dropped on the first error, which ends the others: their threads notice that nothing comes any more.
    let mut tasks = JoinSet::new();
    for layer in missing {
        let (store, registry, peers, tell) = (store.clone(), registry.clone(), peers.clone(), tell.clone());
        tasks.spawn(async move {
            let turn = store.turn(registry.host()).await;
            for (number, peer) in peers.iter().take(PEERS_MAX).enumerate() {
                let peer = Registry::peer(peer, (store.holds.clone(), store.world.clone()));
                let into = layer.into.with_extension(format!("peer{number}"));
                // A peer is a short cut: one that is slow is left for the registry.
                let patience = PEER_PATIENCE + Duration::from_secs(layer.descriptor.size / PEER_BYTES_PER_SECOND_MIN);
                let fetched =
                    tokio::time::timeout(patience, fetch_layer(&peer, Source::Peer, (&layer, &into), &tell)).await;
                match fetched.unwrap_or(Err(ImageError::CutOff)) {
                    Ok(size) => return Ok((layer, into, size)),
                    Err(error) => {
                        tracing::info!(
                            peer = peer.host(),
                            layer = layer.diff_id,
                            error = in_full(&error),
                            "no layer from a peer"
                        );
                    }
                }
            }
            let into = layer.into.clone();
            let size = fetch_layer(&registry, Source::Registry, (&layer, &into), &tell).await;
            drop(turn);
            size.map(|size| (layer, into, size))
        });
    }
    let mut layers = StagedLayers::new();
    while let Some(done) = tasks.join_next().await {
        let (layer, into, size) = done.unwrap_or(Err(ImageError::CutOff))?;
        tell(Progress::Layer { bytes: layer.descriptor.size });
        layers.insert(layer.diff_id, (into, size));
    }
    Ok(layers)
}

/// Fetches one layer and unpacks it while it comes; its unpacked bytes.
async fn fetch_layer(
    registry: &Registry,
    source: Source,
    (layer, into): (&Missing, &Path),
    tell: &Tell,
) -> Result<u64, ImageError> {
    let (packed, digest) = match source {
        Source::Registry => {
            (Some((layer.descriptor.digest.clone(), layer.descriptor.size)), layer.descriptor.digest.clone())
        }
        Source::Peer => (None, layer.diff_id.clone()),
    };
    let (content, _) = registry.blob(&digest, 0).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let promise = Promise { packed, diff_id: layer.diff_id.clone() };
    let (into, name, place) = (into.to_owned(), digest.clone(), layer.place.clone());
    let unpacking = off_the_runtime(move || {
        let _place = place;
        std::fs::create_dir(&into).map_err(ImageError::file("make", &into))?;
        let refused = |source: LayerError| ImageError::Layer { layer: name, source };
        unpack(Incoming { receiver, chunk: Bytes::new() }, &promise, &into).map_err(refused)
    });
    let (sent, unpacked) = tokio::join!(pass_on(registry, &digest, (content, sender), tell), unpacking);
    // Where the registry broke off, that is the reason, not the half archive it caused.
    sent.and(unpacked)
}

/// Passes a layer on to who unpacks it. What breaks off is asked for from where it broke off.
async fn pass_on(
    registry: &Registry,
    digest: &str,
    (mut content, sender): (Content, mpsc::Sender<io::Result<Bytes>>),
    tell: &Tell,
) -> Result<(), ImageError> {
    let (mut passed, mut known, mut idle) = (0, 0, 0);
    for resumes in 0.. {
        let before = passed;
        let broken = loop {
            match content.chunk().await {
                Ok(Some(mut chunk)) => {
                    // What comes a second time, because the registry cannot send a part.
                    let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(chunk.len());
                    chunk.advance(skipped);
                    known -= skipped as u64;
                    let bytes = chunk.len() as u64;
                    passed += bytes;
                    if bytes > 0 && sender.send(Ok(chunk)).await.is_err() {
                        // The unpacking has ended with a reason of its own.
                        return Ok(());
                    }
                    tell(Progress::Bytes { bytes });
                }
                Ok(None) => return Ok(()),
                Err(error) => break error,
            }
        };
        idle = if passed > before { 0 } else { idle + 1 };
        let again = match resumes < RESUMES_MAX && idle < IDLE_RESUMES_MAX {
            false => Err(broken),
            true => {
                tracing::info!(
                    host = registry.host(),
                    digest,
                    at = passed,
                    error = in_full(&broken),
                    "a layer broke off"
                );
                registry.pause().await;
                registry.blob(digest, passed).await
            }
        };
        match again {
            Ok(again) => (content, known) = again,
            Err(error) => {
                // The receiver may have ended already; then this error is still told.
                let _ = sender.send(Err(io::Error::other("the registry broke off"))).await;
                return Err(error);
            }
        }
    }
    Ok(())
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
