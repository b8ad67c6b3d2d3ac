//! Images: the content-addressed store of unpacked layers that containers are made from. Image content is hostile.

mod config;
mod reference;

pub use config::ImageConfig;
pub use reference::{Reference, ReferenceError};

use std::path::PathBuf;

/// An image as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of the image's config, `sha256:…`: what the image is, whatever it is called.
    pub id: String,
    /// The full names that point at it, `docker.io/library/nginx:latest`.
    pub names: Vec<String>,
    /// The digest of the manifest it was pulled by, `sha256:…`.
    pub digest: Option<String>,
    /// The size of its unpacked layers in bytes.
    pub size: u64,
}

/// An image, ready to make a container from.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the image's config, `sha256:…`.
    pub id: String,
    /// The full names that point at it.
    pub names: Vec<String>,
    /// The digest of the manifest it was pulled by, `sha256:…`.
    pub digest: Option<String>,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// The unpacked layers, top first, ready as overlayfs lower directories. At least one.
    pub layers: Vec<PathBuf>,
    /// The size of the unpacked layers in bytes.
    pub size: u64,
}
