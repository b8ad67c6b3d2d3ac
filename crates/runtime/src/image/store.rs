//! The store of images: unpacked layers by number, configs by digest, and the list that makes them images.
//!
//! ```text
//! <root>/index.json      the list; what is not on it does not exist
//! <root>/l/<number>      one unpacked layer, a lower directory of overlayfs (short: mount options are)
//! <root>/recipes/<number> how the archive of that layer is made again, where that can be done
//! <root>/configs/<hex>   one config document
//! <root>/tmp/<name>      what is being unpacked; locked by the process that does it
//! ```
//! Guarantees  a crash at any moment leaves every listed image whole; what it interrupted is removed at the next opening.
//!             Several processes may share a store

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_stdx::World;

use super::config;
use super::error::ImageError;
use super::index::{Index, Listed, ListedLayer, Lock, Stamp, lock, save_durably};
use super::keyring::Credentials;
use super::recipe::{self, LayerArchive};
use super::reference::{Reference, is_digest};
use super::registries::Registries;
use super::registry::Holds;
use super::{Access, Image, ImageRecord, archive};

/// Layers of one registry that are fetched and unpacked at one time: more only fight for disk and processor.
const LAYERS_OF_ONE_REGISTRY_MAX: usize = 3;
/// Layers of all registries together: a few registries that drip keep nobody waiting.
const LAYERS_MAX: usize = 12;
/// Layers that are given to others at one time.
const GIVEN_MAX: usize = 4;
/// Marks of one image and repository; who comes later asks the registry anew.
const MARKS_MAX: usize = 256;

/// The images of this machine. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Images {
    pub(super) store: Arc<Store>,
}

pub(super) struct Store {
    root: PathBuf,
    pub(super) world: World,
    seen: Mutex<Option<(Stamp, Arc<Index>)>>,
    layers: Arc<Semaphore>,
    /// One for each registry that layers are fetched from now.
    lanes: Mutex<BTreeMap<String, Weak<Semaphore>>>,
    pub(super) holds: Arc<Holds>,
    given: Arc<Semaphore>,
    /// One lock per name being pulled, so that many pods with one image cause one pull.
    pub(super) turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// What a removal freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Images that are gone.
    pub images: usize,
    /// Layers that are gone.
    pub layers: usize,
    /// Their unpacked bytes.
    pub bytes: u64,
}

/// A directory of this process for what is not on the list yet; removed when dropped.
pub(super) struct Workplace {
    pub(super) path: PathBuf,
    /// Its lock tells other processes that somebody still works here.
    _held: File,
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary directory could not be removed");
        }
    }
}

/// An image that is ready to be listed.
pub(super) struct Staged {
    /// Its config document; the digest is the image's id.
    pub(super) config: Vec<u8>,
    pub(super) names: BTreeSet<String>,
    pub(super) digest: Option<String>,
    /// diff_ids, the lowest first.
    pub(super) layers: Vec<String>,
    /// The repository it was pulled from and with which credentials; `None` for one that was imported.
    pub(super) pulled_as: Option<(String, Option<Credentials>)>,
    /// The id of the key that signed it for this repository, if that was looked at.
    pub(super) signed_by: Option<String>,
}

/// What an image is made of.
pub(super) struct Documents {
    /// Its config document.
    pub(super) config: Vec<u8>,
    /// Of its layers, the lowest first.
    pub(super) diff_ids: Vec<String>,
}

/// The right to fetch a layer.
pub(super) struct Turn {
    _of_registry: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Layers that were unpacked for staged images: by diff_id, where and how large.
pub(super) type StagedLayers = BTreeMap<String, (PathBuf, u64)>;

impl Images {
    /// Opens the store at `root`, which is made when it is missing, and removes what a crash left.
    pub fn open(root: impl Into<PathBuf>, world: World) -> Result<Images, ImageError> {
        let root = root.into();
        for name in ["l", "recipes", "configs", "tmp"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).map_err(ImageError::file("make", &path))?;
        }
        let store = Store {
            root,
            world,
            seen: Mutex::default(),
            layers: Arc::new(Semaphore::new(LAYERS_MAX)),
            lanes: Mutex::default(),
            holds: Arc::default(),
            given: Arc::new(Semaphore::new(GIVEN_MAX)),
            turns: Mutex::default(),
        };
        store.sweep()?;
        Ok(Images { store: Arc::new(store) })
    }

    /// Imports every image of an OCI layout (directory or tar) or a `docker save` archive, plain or compressed.
    ///
    /// `name` is what the image is called instead of what the archive says; the archive must then hold one image.
    pub async fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageRecord>, ImageError> {
        let name = name.map(str::parse::<Reference>).transpose()?;
        let (store, path) = (self.store.clone(), path.to_owned());
        off_the_runtime(move || archive::import(&store, &path, name.as_ref())).await
    }

    /// The image of this name, name and digest, or id.
    pub fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let index = self.store.index()?;
        let Some((id, listed)) = look_up(&index, reference)? else { return Ok(None) };
        self.store.image(&index, id, listed).map(Some)
    }

    /// The image of this name, never one by its id, and who may use it under this name.
    pub fn find_named(&self, reference: &Reference) -> Result<Option<(Image, Access)>, ImageError> {
        let index = self.store.index()?;
        let Some((id, listed)) = index.named(&reference.key()) else { return Ok(None) };
        let access = match listed.access.get(&reference.place()) {
            Some(access) if access.anyone => Access::Anyone,
            Some(access) => Access::Only(access.marks.clone()),
            None => Access::Preloaded,
        };
        Ok(Some((self.store.image(&index, id, listed)?, access)))
    }

    /// Whether an image that is here may be used as far as its signature goes: none is wanted, or one of the keys that are
    /// trusted now was seen to have signed it. One that came before its signature was wanted, or by an import, was not
    /// looked at.
    pub fn is_trusted(&self, reference: &Reference, registries: &Registries) -> Result<bool, ImageError> {
        let keys = registries.keys(reference);
        if keys.is_empty() {
            return Ok(true);
        }
        let index = self.store.index()?;
        let signed = index.named(&reference.key()).and_then(|(_, listed)| listed.signed.get(&reference.place()));
        Ok(signed.is_some_and(|signed| keys.iter().any(|key| signed.contains(&key.id()))))
    }

    /// The archive of a layer by its diff_id, made again; `Ok(Some(None))` when too many are given already.
    pub fn layer_archive(&self, diff_id: &str) -> Result<Option<Option<LayerArchive>>, ImageError> {
        let index = self.store.index()?;
        let Some(layer) = index.layers.get(diff_id) else { return Ok(None) };
        let recipe = self.store.recipe_path(layer.number);
        if !recipe.exists() {
            return Ok(None);
        }
        let Ok(permit) = self.store.given.clone().try_acquire_owned() else { return Ok(Some(None)) };
        let opened = LayerArchive::open(&self.store.layer_path(layer.number), &recipe, permit);
        opened.map(|archive| Some(Some(archive))).map_err(ImageError::file("read", &recipe))
    }

    /// Every image.
    pub fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        let index = self.store.index()?;
        Ok(index.images.iter().map(|(id, listed)| record(&index, id, listed)).collect())
    }

    /// Takes the name from its image, or by id all its names. An image without names goes, with the layers no other has,
    /// unless it is `in_use` (by id).
    pub async fn remove(&self, reference: &str, in_use: &BTreeSet<String>) -> Result<Freed, ImageError> {
        let (store, reference, in_use) = (self.store.clone(), reference.to_owned(), in_use.clone());
        off_the_runtime(move || store.remove(&reference, &in_use)).await
    }

    /// Removes every image that has no name and is not `in_use` (by id), with the layers no other has.
    pub async fn collect_garbage(&self, in_use: &BTreeSet<String>) -> Result<Freed, ImageError> {
        let (store, in_use) = (self.store.clone(), in_use.clone());
        off_the_runtime(move || store.collect_garbage(&in_use)).await
    }
}

/// The image a text means: an id, or a name with docker's defaults.
fn look_up<'a>(index: &'a Index, reference: &str) -> Result<Option<(&'a String, &'a Listed)>, ImageError> {
    if is_digest(reference) {
        return Ok(index.images.get_key_value(reference));
    }
    Ok(index.named(&reference.parse::<Reference>()?.key()))
}

fn record(index: &Index, id: &str, listed: &Listed) -> ImageRecord {
    ImageRecord {
        id: id.to_owned(),
        names: listed.names.iter().cloned().collect(),
        digest: listed.digest.clone(),
        size: index.size(listed),
        imported: listed.access.is_empty() && !listed.names.is_empty(),
    }
}

impl Store {
    /// The list as it is now, read anew only when another process or a change of ours replaced it.
    pub(super) fn index(&self) -> Result<Arc<Index>, ImageError> {
        let stamp = Index::stamp(&self.root);
        let mut seen = self.seen.lock().expect("nothing panics while holding the list");
        if let (Some(stamp), Some((known, index))) = (stamp, &*seen)
            && stamp == *known
        {
            return Ok(index.clone());
        }
        let index = Arc::new(Index::load(&self.root)?);
        *seen = stamp.map(|stamp| (stamp, index.clone()));
        Ok(index)
    }

    /// Waits until a layer may be fetched from this registry.
    pub(super) async fn turn(&self, host: &str) -> Turn {
        let lane = {
            let mut lanes = self.lanes.lock().expect("nothing panics while holding the lanes");
            lanes.retain(|_, lane| lane.strong_count() > 0);
            let lane = lanes.get(host).and_then(Weak::upgrade);
            let lane = lane.unwrap_or_else(|| Arc::new(Semaphore::new(LAYERS_OF_ONE_REGISTRY_MAX)));
            lanes.insert(host.to_owned(), Arc::downgrade(&lane));
            lane
        };
        let never_closed = "the semaphores are never closed";
        let of_registry = lane.acquire_owned().await.expect(never_closed);
        Turn { _of_registry: of_registry, _of_all: self.layers.clone().acquire_owned().await.expect(never_closed) }
    }

    /// What an image is made of.
    pub(super) fn documents(&self, id: &str) -> Result<Option<Documents>, ImageError> {
        let index = self.index()?;
        let Some(listed) = index.images.get(id) else { return Ok(None) };
        let path = self.config_path(id);
        let config = std::fs::read(&path).map_err(ImageError::file("read", &path))?;
        Ok(Some(Documents { config, diff_ids: listed.layers.clone() }))
    }

    /// How long the archive of a layer is; `None` when it cannot be made again.
    pub(super) fn archive_bytes(&self, diff_id: &str) -> Result<Option<u64>, ImageError> {
        let index = self.index()?;
        let recipe = index.layers.get(diff_id).map(|layer| self.recipe_path(layer.number));
        match recipe.filter(|recipe| recipe.exists()) {
            Some(recipe) => recipe::length(&recipe).map(Some).map_err(ImageError::file("read", &recipe)),
            None => Ok(None),
        }
    }

    fn image(&self, index: &Index, id: &str, listed: &Listed) -> Result<Image, ImageError> {
        let path = self.config_path(id);
        let bytes = std::fs::read(&path).map_err(ImageError::file("read", &path))?;
        Ok(Image {
            id: id.to_owned(),
            names: listed.names.iter().cloned().collect(),
            digest: listed.digest.clone(),
            config: config::parse(&bytes)?.config,
            layers: self.lower_directories(index, listed),
            size: index.size(listed),
        })
    }

    /// Top first. A layer that occurs twice counts where it is topmost: what lies under it is hidden by itself.
    fn lower_directories(&self, index: &Index, listed: &Listed) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let top_first = listed.layers.iter().rev().filter(|layer| seen.insert(*layer));
        top_first.filter_map(|layer| index.layers.get(layer)).map(|layer| self.layer_path(layer.number)).collect()
    }

    pub(super) fn record(&self, id: &str) -> Result<ImageRecord, ImageError> {
        let index = self.index()?;
        let listed = index.images.get(id).ok_or_else(|| ImageError::Absent { reference: id.to_owned() })?;
        Ok(record(&index, id, listed))
    }

    fn layer_path(&self, number: u64) -> PathBuf {
        self.root.join("l").join(number.to_string())
    }

    fn recipe_path(&self, number: u64) -> PathBuf {
        self.root.join("recipes").join(number.to_string())
    }

    fn config_path(&self, id: &str) -> PathBuf {
        self.root.join("configs").join(id.trim_start_matches("sha256:"))
    }

    /// A place to unpack into, on the same file system as the store.
    pub(super) fn workplace(&self) -> Result<Workplace, ImageError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(format!("{}-{number}", std::process::id()));
        // Under the lock of the list, so that no other process takes the place for abandoned before it is locked.
        let _lock = lock(&self.root)?;
        remove_directory(&path)?;
        std::fs::create_dir(&path).map_err(ImageError::file("make", &path))?;
        let held = File::open(&path).map_err(ImageError::file("open", &path))?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| ImageError::file("lock", &path)(error.into()))?;
        Ok(Workplace { path, _held: held })
    }

    /// Puts images on the list, with the layers they bring; their ids.
    pub(super) fn commit(&self, images: Vec<Staged>, mut layers: StagedLayers) -> Result<Vec<String>, ImageError> {
        let lock = lock(&self.root)?;
        let mut index = Index::load(&self.root)?;
        let mut ids = Vec::new();
        for image in images {
            for layer in &image.layers {
                if !index.layers.contains_key(layer) {
                    self.adopt(&mut index, layer, layers.remove(layer))?;
                }
            }
            ids.push(self.enlist(&mut index, image)?);
        }
        let root = File::open(&self.root).map_err(ImageError::file("open", &self.root))?;
        rustix::fs::syncfs(&root).map_err(|error| ImageError::file("write back", &self.root)(error.into()))?;
        index.save(&self.root, &lock)?;
        Ok(ids)
    }

    fn adopt(&self, index: &mut Index, layer: &str, staged: Option<(PathBuf, u64)>) -> Result<(), ImageError> {
        let removed =
            || ImageError::document(format!("layer {layer}"), "it was removed while it was needed: try again");
        let (path, size) = staged.ok_or_else(removed)?;
        let number = index.next_layer;
        let place = self.layer_path(number);
        // What a commit left here that did not come to its end: no list has this number.
        remove_directory(&place)?;
        std::fs::rename(&path, &place).map_err(ImageError::file("move", &path))?;
        let recipe = recipe::place(&path);
        if recipe.exists() {
            std::fs::rename(&recipe, self.recipe_path(number)).map_err(ImageError::file("move", &recipe))?;
        }
        index.next_layer += 1;
        index.layers.insert(layer.to_owned(), ListedLayer { number, size });
        Ok(())
    }

    fn enlist(&self, index: &mut Index, image: Staged) -> Result<String, ImageError> {
        let id = super::digest::of(&image.config);
        save_durably(&self.config_path(&id), &image.config)?;
        for other in index.images.values_mut() {
            other.names.retain(|name| !image.names.contains(name));
        }
        let listed = index.images.entry(id.clone()).or_default();
        match image.pulled_as {
            Some((place, credentials)) => {
                if let Some(key) = image.signed_by {
                    let keys = listed.signed.entry(place.clone()).or_default();
                    if keys.len() < MARKS_MAX {
                        keys.insert(key);
                    }
                }
                let access = listed.access.entry(place).or_default();
                match credentials.filter(|credentials| credentials.owner.is_some()) {
                    Some(own) if access.marks.len() < MARKS_MAX => access.marks.extend(own.marks()),
                    Some(_) => {}
                    None => access.anyone = true,
                }
            }
            // What the machine's owner puts here is for everybody, under the names they give it.
            None => listed.access.retain(|place, _| !image.names.iter().any(|name| is_of(name, place))),
        }
        listed.names.extend(image.names);
        listed.digest = image.digest.or_else(|| listed.digest.take());
        listed.layers = image.layers;
        Ok(id)
    }

    fn remove(&self, reference: &str, in_use: &BTreeSet<String>) -> Result<Freed, ImageError> {
        let lock = lock(&self.root)?;
        let mut index = Index::load(&self.root)?;
        let absent = || ImageError::Absent { reference: reference.to_owned() };
        let id = look_up(&index, reference)?.ok_or_else(absent)?.0.clone();
        let image = index.images.get_mut(&id).ok_or_else(absent)?;
        match is_digest(reference) {
            true => image.names.clear(),
            false => drop(image.names.remove(&reference.parse::<Reference>()?.key())),
        }
        if image.names.is_empty() && !in_use.contains(&id) {
            return self.drop_images(index, &[id], &lock);
        }
        index.save(&self.root, &lock).map(|()| Freed::default())
    }

    fn collect_garbage(&self, in_use: &BTreeSet<String>) -> Result<Freed, ImageError> {
        let lock = lock(&self.root)?;
        let index = Index::load(&self.root)?;
        let nameless = index.images.iter().filter(|(id, image)| image.names.is_empty() && !in_use.contains(*id));
        let ids: Vec<String> = nameless.map(|(id, _)| id.clone()).collect();
        if ids.is_empty() {
            return Ok(Freed::default());
        }
        self.drop_images(index, &ids, &lock)
    }

    /// Takes images off the list first, then removes what they had: a crash in between leaves only garbage.
    fn drop_images(&self, mut index: Index, ids: &[String], lock: &Lock) -> Result<Freed, ImageError> {
        for id in ids {
            index.images.remove(id);
        }
        let layers = index.take_unused_layers();
        index.save(&self.root, lock)?;
        for id in ids {
            remove_file(&self.config_path(id))?;
        }
        for layer in &layers {
            let path = self.layer_path(layer.number);
            std::fs::remove_dir_all(&path).map_err(ImageError::file("remove", &path))?;
            remove_file(&self.recipe_path(layer.number))?;
        }
        let bytes = layers.iter().map(|layer| layer.size).sum();
        Ok(Freed { images: ids.len(), layers: layers.len(), bytes })
    }

    /// Removes what no list names and no process holds.
    fn sweep(&self) -> Result<(), ImageError> {
        let _lock = lock(&self.root)?;
        let index = Index::load(&self.root)?;
        let layers: BTreeSet<PathBuf> = index.layers.values().map(|layer| self.layer_path(layer.number)).collect();
        for path in entries(&self.root.join("l"))?.into_iter().filter(|path| !layers.contains(path)) {
            std::fs::remove_dir_all(&path).map_err(ImageError::file("remove", &path))?;
        }
        let recipes: BTreeSet<PathBuf> = index.layers.values().map(|layer| self.recipe_path(layer.number)).collect();
        for path in entries(&self.root.join("recipes"))?.into_iter().filter(|path| !recipes.contains(path)) {
            remove_file(&path)?;
        }
        let configs: BTreeSet<PathBuf> = index.images.keys().map(|id| self.config_path(id)).collect();
        for path in entries(&self.root.join("configs"))?.into_iter().filter(|path| !configs.contains(path)) {
            remove_file(&path)?;
        }
        for path in entries(&self.root.join("tmp"))? {
            let held = File::open(&path).map_err(ImageError::file("open", &path))?;
            if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
                std::fs::remove_dir_all(&path).map_err(ImageError::file("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Whether a full name is of this repository.
fn is_of(name: &str, place: &str) -> bool {
    name.strip_prefix(place).is_some_and(|rest| rest.starts_with([':', '@']))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let read = std::fs::read_dir(directory).map_err(ImageError::file("list", directory))?;
    read.map(|entry| entry.map(|entry| entry.path()).map_err(ImageError::file("list", directory))).collect()
}

fn remove_file(path: &Path) -> Result<(), ImageError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ImageError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_directory(path: &Path) -> Result<(), ImageError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ImageError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Runs what reads and writes files where it keeps no task waiting.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ImageError::CutOff))
}
