//! What can be wrong with an image or its way here.

use std::io;
use std::path::{Path, PathBuf};

use super::reference::ReferenceError;
use super::unpack::LayerError;

/// Why an image is not there or was refused. A refused image leaves nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No such image here.
    #[error("image {reference} is not on this machine: pull or import it")]
    Absent {
        /// The name that was looked for.
        reference: String,
    },
    /// A file of the store, or the archive.
    #[error("could not {doing} {}", path.display())]
    File {
        /// Read, write, …
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The archive is no image.
    #[error("{} is not an image that can be imported: {why}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What was expected and found.
        why: String,
    },
    /// A manifest, index or config is not as it must be.
    #[error("{what} is refused: {why}")]
    Document {
        /// Which document.
        what: String,
        /// What was expected and found.
        why: String,
    },
    /// Content that is not what its digest says.
    #[error("the digest of {what} does not match: expected {expected}, found {found}")]
    Digest {
        /// Which content.
        what: String,
        /// The digest or size that was promised.
        expected: String,
        /// What the content has.
        found: String,
    },
    /// A layer cannot be unpacked.
    #[error("layer {layer} is refused")]
    Layer {
        /// Its digest.
        layer: String,
        /// What is wrong with it.
        #[source]
        source: LayerError,
    },
    /// The registry could not be reached, answered badly or was not believed.
    #[error("registry {host}: could not {doing}: {why}")]
    Registry {
        /// Host and port.
        host: String,
        /// Fetch what.
        doing: String,
        /// The reason.
        why: String,
        /// Whether trying again may help.
        passing: bool,
    },
    /// The registry wants other credentials.
    #[error("registry {host} refuses {doing}: {why}; give credentials that may pull it, or check the name")]
    Unauthorized {
        /// Host and port.
        host: String,
        /// Fetch what.
        doing: String,
        /// What the registry said.
        why: String,
    },
    /// The owner of this machine wants a signature that is not there.
    #[error("image {image} is not signed as this machine wants it: {why}")]
    Unsigned {
        /// Its repository and digest.
        image: String,
        /// What was found instead.
        why: String,
    },
    /// A thread of ours panicked; its own message is on standard error.
    #[error("an image operation was cut off by a bug: see the log")]
    CutOff,
}

impl ImageError {
    /// For `map_err`: what could not be done to which file.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::File { doing, path, source }
    }

    pub(super) fn document(what: impl Into<String>, why: impl Into<String>) -> ImageError {
        ImageError::Document { what: what.into(), why: why.into() }
    }

    /// Whether trying again later may help without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, ImageError::Registry { passing: true, .. })
    }
}
