//! The list of what is in the store: one JSON file, replaced as a whole, shared by every process under a file lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::ImageError;

const FILE: &str = "index.json";
const LOCK: &str = "lock";

/// Everything in the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// The form of this file.
    version: u32,
    /// The number of the next layer's directory.
    pub(super) next_layer: u64,
    /// By config digest.
    pub(super) images: BTreeMap<String, Listed>,
    /// By diff_id.
    pub(super) layers: BTreeMap<String, ListedLayer>,
}

/// One image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Listed {
    /// Full names.
    pub(super) names: BTreeSet<String>,
    /// The digest of its manifest.
    pub(super) digest: Option<String>,
    /// The diff_ids of its layers, the lowest first.
    pub(super) layers: Vec<String>,
    /// Who may use it, by the repository it was pulled from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) access: BTreeMap<String, ListedAccess>,
    /// The keys that have been seen to have signed it, by the repository they signed it for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) signed: BTreeMap<String, BTreeSet<String>>,
}

/// Who may use what was pulled from a repository.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ListedAccess {
    /// It was pulled without credentials, or with the machine's own.
    #[serde(default)]
    pub(super) anyone: bool,
    /// Marks of those it was pulled with.
    #[serde(default)]
    pub(super) marks: BTreeSet<String>,
}

/// One layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ListedLayer {
    /// Its directory.
    pub(super) number: u64,
    /// Unpacked bytes.
    pub(super) size: u64,
}

/// Tells one state of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The right to change the list; held by one process at a time.
pub(super) struct Lock {
    _file: File,
}

/// Waits until nobody else changes the list.
pub(super) fn lock(root: &Path) -> Result<Lock, ImageError> {
    let path = root.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(ImageError::file("open", &path))?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ImageError::file("lock", &path)(error.into())),
            Ok(()) => return Ok(Lock { _file: file }),
        }
    }
}

impl Index {
    const VERSION: u32 = 1;

    /// The list as it is now; an empty one when there is none yet.
    pub(super) fn load(root: &Path) -> Result<Index, ImageError> {
        let path = root.join(FILE);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Index { version: Index::VERSION, ..Index::default() });
            }
            other => other.map_err(ImageError::file("read", &path))?,
        };
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
            ImageError::document(format!("the list of images {}", path.display()), error.to_string())
        })?;
        if index.version != Index::VERSION {
            let why = format!("expected version {}, found {}", Index::VERSION, index.version);
            return Err(ImageError::document(format!("the list of images {}", path.display()), why));
        }
        Ok(index)
    }

    /// Which state of the file is there; `None` when there is none.
    pub(super) fn stamp(root: &Path) -> Option<Stamp> {
        let stat = std::fs::metadata(root.join(FILE)).ok()?;
        Some(Stamp { inode: stat.ino(), size: stat.size(), modified: (stat.mtime(), stat.mtime_nsec()) })
    }

    /// Replaces the file; after it returned, a crash does not bring the old one back.
    pub(super) fn save(&self, root: &Path, _lock: &Lock) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(self).expect("a list has only texts and numbers");
        save_durably(&root.join(FILE), &bytes)
    }

    /// The image that has this name.
    pub(super) fn named(&self, name: &str) -> Option<(&String, &Listed)> {
        self.images.iter().find(|(_, image)| image.names.contains(name))
    }

    /// Unpacked bytes of an image's layers, each counted once.
    pub(super) fn size(&self, image: &Listed) -> u64 {
        let layers: BTreeSet<&String> = image.layers.iter().collect();
        layers.iter().filter_map(|layer| self.layers.get(*layer)).map(|layer| layer.size).sum()
    }

    /// Takes every layer off the list that no image has.
    pub(super) fn take_unused_layers(&mut self) -> Vec<ListedLayer> {
        let used: BTreeSet<&String> = self.images.values().flat_map(|image| &image.layers).collect();
        let unused: Vec<String> = self.layers.keys().filter(|layer| !used.contains(layer)).cloned().collect();
        unused.iter().filter_map(|layer| self.layers.remove(layer)).collect()
    }
}

/// Writes a file so that a crash leaves the old content or the new, never a part.
pub(super) fn save_durably(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(ImageError::file("write", path))
}
