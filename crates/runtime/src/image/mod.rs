//! Images: the store of unpacked layers that containers are made from, and the ways into it. Image content is hostile.
//!
//! Goal        `find(name)` gives directories that overlayfs can mount, which are exactly what the image's digests promise
//! Flow        archive or registry → documents (`manifest`, `config`) → layers (`entry` → `unpack` → `tree`) → `store`
//! Guarantees  a refused image leaves nothing; a crash leaves every listed image whole; nothing is written outside the root
//! Not here    mounting (shim), deciding when to pull (the caller)

mod archive;
pub mod build;
mod config;
mod copy;
mod digest;
mod entry;
mod error;
mod give;
mod index;
mod keyring;
mod manifest;
mod pull;
mod recipe;
mod reference;
mod registries;
mod registry;
mod signature;
mod store;
mod tree;
mod unpack;

pub use config::ImageConfig;
pub use copy::{CopyError, Destination, pack, take};
pub use error::ImageError;
pub use give::{Given, MANIFEST_TYPE};
pub use keyring::{Credentials, ImagePattern, Keyring};
pub use pull::{Peer, Progress, PullOptions, Tell};
pub use recipe::LayerArchive;
pub use reference::{Reference, ReferenceError};
pub use registries::Registries;
pub use store::{Freed, Images};
pub use tree::PathRefusal;
pub use unpack::LayerError;

use std::collections::BTreeSet;
use std::path::PathBuf;

/// An image as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of the image's config, `sha256:…`: what the image is, whatever it is called.
    pub id: String,
    /// The full names that point at it, `docker.io/library/nginx:latest`.
    pub names: Vec<String>,
    /// The digest of the manifest it came by, `sha256:…`, if it came by one.
    pub digest: Option<String>,
    /// The size of its unpacked layers in bytes.
    pub size: u64,
    /// It has a name that it was given by an import, and was never pulled.
    pub imported: bool,
}

/// An image, ready to make a container from.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the image's config, `sha256:…`.
    pub id: String,
    /// The full names that point at it.
    pub names: Vec<String>,
    /// The digest of the manifest it came by, `sha256:…`, if it came by one.
    pub digest: Option<String>,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// The unpacked layers, top first, ready as overlayfs lower directories. At least one.
    pub layers: Vec<PathBuf>,
    /// The size of the unpacked layers in bytes.
    pub size: u64,
}

/// Who may use an image of this machine under the name it was looked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was not pulled: the machine's owner put it here.
    Preloaded,
    /// It was pulled without credentials, or with the machine's own.
    Anyone,
    /// Those who have what it was pulled with ([`Credentials::marks`]).
    Only(BTreeSet<String>),
}

impl Default for Access {
    fn default() -> Access {
        Access::Only(BTreeSet::new())
    }
}

impl Access {
    /// Whether who has these credentials may use the image.
    pub fn allows(&self, credentials: &[Credentials]) -> bool {
        match self {
            Access::Preloaded | Access::Anyone => true,
            Access::Only(marks) => {
                credentials.iter().any(|credentials| credentials.marks().iter().any(|mark| marks.contains(mark)))
            }
        }
    }
}
