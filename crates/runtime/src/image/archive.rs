//! Images from a file: an OCI layout, as directory or tar, and what `docker save` writes.
//!
//! Rules
//!   R1 found     `manifest.json` makes it a docker archive, else `index.json` an OCI layout; both may lie in one file
//!   R2 checked   blobs of a layout are what their digest says; layers of both are what the config's diff_ids say
//!   R3 bounded   documents are small, the archive has a bounded number of entries, no path leaves it

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::config::{self, CONFIG_BYTES_MAX};
use super::digest;
use super::entry::{Extensions, Kind};
use super::error::ImageError;
use super::manifest::{self, Document, MANIFEST_BYTES_MAX, Manifest};
use super::reference::Reference;
use super::store::{Staged, StagedLayers, Store, Workplace};
use super::tree::Inner;
use super::unpack::{Promise, decompressed, unpack};
use super::{ImageRecord, LayerError};

/// Entries of the outer archive: a blob for each layer and config.
const ENTRIES_MAX: usize = 10_000;
/// Images of one archive.
const IMAGES_MAX: usize = 100;
/// The outer archive, when it is compressed itself.
const ARCHIVE_BYTES_MAX: u64 = 64 << 30;

/// Where an archive's files are.
enum Source {
    Directory(rustix::fd::OwnedFd),
    /// The file, and by name where in it.
    Tar(File, BTreeMap<PathBuf, Place>),
}

enum Place {
    Content {
        offset: u64,
        size: u64,
    },
    /// Old `docker save` writes a layer that occurs twice once, and then a link to it.
    Link(PathBuf),
}

/// What one image of the archive consists of.
struct Found {
    config: Vec<u8>,
    /// File of each layer and, in a layout, its digest and size.
    layers: Vec<(PathBuf, Option<(String, u64)>)>,
    names: BTreeSet<String>,
    digest: Option<String>,
}

/// One row of a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Imports every image of the archive at `path`.
pub(super) fn import(store: &Store, path: &Path, name: Option<&Reference>) -> Result<Vec<ImageRecord>, ImageError> {
    let place = store.workplace()?;
    let archive = Archive { path, source: open(path, &place)? };
    let mut images = archive.images()?;
    if let Some(name) = name {
        let [image] = images.as_mut_slice() else {
            return Err(archive.refuse(format!("expected one image to be called {name}, found {}", images.len())));
        };
        image.names = BTreeSet::from([name.key()]);
    }
    let (mut staged, mut layers) = (Vec::new(), StagedLayers::new());
    for image in images {
        let parsed = config::parse(&image.config)?;
        if parsed.diff_ids.len() != image.layers.len() {
            let why =
                format!("expected {} layers as in its config, found {}", parsed.diff_ids.len(), image.layers.len());
            return Err(archive.refuse(why));
        }
        for ((file, packed), diff_id) in image.layers.iter().zip(&parsed.diff_ids) {
            if store.index()?.layers.contains_key(diff_id) || layers.contains_key(diff_id) {
                continue;
            }
            let unpacked = archive.unpack(file, packed.clone(), diff_id, &place.path.join(layers.len().to_string()))?;
            layers.insert(diff_id.clone(), unpacked);
        }
        let Found { config, names, digest, .. } = image;
        staged.push(Staged { config, names, digest, layers: parsed.diff_ids, pulled_as: None, signed_by: None });
    }
    let ids = store.commit(staged, layers)?;
    ids.iter().map(|id| store.record(id)).collect()
}

struct Archive<'a> {
    path: &'a Path,
    source: Source,
}

impl Archive<'_> {
    fn refuse(&self, why: impl Into<String>) -> ImageError {
        ImageError::Archive { path: self.path.to_owned(), why: why.into() }
    }

    fn images(&self) -> Result<Vec<Found>, ImageError> {
        let images = if let Some(bytes) = self.read("manifest.json", MANIFEST_BYTES_MAX)? {
            self.saved_images(&bytes)?
        } else if let Some(bytes) = self.read("index.json", MANIFEST_BYTES_MAX)? {
            self.layout_images(&bytes)?
        } else {
            return Err(self.refuse("expected manifest.json (docker save) or index.json (OCI layout), found neither"));
        };
        if images.is_empty() || images.len() > IMAGES_MAX {
            return Err(self.refuse(format!("expected 1 to {IMAGES_MAX} images, found {}", images.len())));
        }
        Ok(images)
    }

    fn saved_images(&self, bytes: &[u8]) -> Result<Vec<Found>, ImageError> {
        let rows: Vec<Saved> =
            serde_json::from_slice(bytes).map_err(|error| self.refuse(format!("manifest.json: {error}")))?;
        rows.iter().take(IMAGES_MAX + 1).map(|row| self.saved_image(row)).collect()
    }

    fn saved_image(&self, row: &Saved) -> Result<Found, ImageError> {
        let config = self.need(&row.config, CONFIG_BYTES_MAX)?;
        let tags = row.repo_tags.iter().flatten();
        let names = tags.map(|tag| Ok(tag.parse::<Reference>()?.key())).collect::<Result<_, ImageError>>()?;
        let layers =
            row.layers.iter().map(|layer| Ok((self.inner(layer)?, None))).collect::<Result<_, ImageError>>()?;
        Ok(Found { config, layers, names, digest: None })
    }

    fn layout_images(&self, bytes: &[u8]) -> Result<Vec<Found>, ImageError> {
        let Document::Index(manifests) = manifest::parse(bytes, None)? else {
            return Err(self.refuse("expected index.json to be an index, found a manifest"));
        };
        // A layout of one image for several processors is an index in an index; one of several images lists them.
        let single = manifests.len() == 1;
        let mut images = Vec::new();
        for descriptor in manifests.iter().take(IMAGES_MAX + 1) {
            let found = self.manifest(descriptor)?;
            let mut image = self.layout_image(&found, name_of(descriptor))?;
            image.digest = Some(descriptor.digest.clone());
            // Images for other processors among several are not ours to refuse.
            match config::parse(&image.config) {
                Err(error) if single => return Err(error),
                Err(error) => tracing::debug!(%error, "an image of an archive is left out"),
                Ok(_) => images.push(image),
            }
        }
        Ok(images)
    }

    /// The manifest that a row of the layout's index leads to; further indexes choose by processor.
    fn manifest(&self, row: &manifest::Descriptor) -> Result<Manifest, ImageError> {
        let mut at = row.clone();
        for _ in 0..=manifest::INDEXES_MAX {
            let bytes = self.blob(&at.digest, at.size, MANIFEST_BYTES_MAX)?;
            at = match manifest::parse(&bytes, Some(&at.media_type))? {
                Document::Manifest(found) => return Ok(found),
                Document::Index(inner) => manifest::choose(&inner)?.clone(),
            };
        }
        Err(manifest::too_deep())
    }

    fn layout_image(&self, manifest: &Manifest, name: Option<String>) -> Result<Found, ImageError> {
        let config = self.blob(&manifest.config.digest, manifest.config.size, CONFIG_BYTES_MAX)?;
        let layer = |layer: &manifest::Descriptor| (blob_path(&layer.digest), Some((layer.digest.clone(), layer.size)));
        let layers = manifest.layers.iter().map(layer).collect();
        Ok(Found { config, layers, names: name.into_iter().collect(), digest: None })
    }

    /// A small document by its digest (R2).
    fn blob(&self, wanted: &str, size: u64, bytes_max: u64) -> Result<Vec<u8>, ImageError> {
        if !super::reference::is_digest(wanted) {
            return Err(self.refuse(format!("expected sha256: and 64 hex digits, found {:?}", config::short(wanted))));
        }
        let bytes = self.need(&blob_path(wanted).to_string_lossy(), bytes_max)?;
        let found = digest::of(&bytes);
        if found != wanted || bytes.len() as u64 != size {
            let expected = format!("{wanted} of {size} bytes");
            let found = format!("{found} of {} bytes", bytes.len());
            return Err(ImageError::Digest { what: "a blob of the archive".to_owned(), expected, found });
        }
        Ok(bytes)
    }

    fn need(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, ImageError> {
        let missing = || self.refuse(format!("expected a file {:?}, found none", config::short(name)));
        self.read(name, bytes_max)?.ok_or_else(missing)
    }

    fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(content) = self.open(&self.inner(name)?)? else { return Ok(None) };
        let mut bytes = Vec::new();
        content.take(bytes_max + 1).read_to_end(&mut bytes).map_err(ImageError::file("read", self.path))?;
        if bytes.len() as u64 > bytes_max {
            return Err(self.refuse(format!("{name} is larger than {bytes_max} bytes")));
        }
        Ok(Some(bytes))
    }

    /// A path of the archive's documents, which are a stranger's (R3).
    fn inner(&self, name: &str) -> Result<PathBuf, ImageError> {
        let refuse = |why: String| self.refuse(format!("file {:?}: {why}", config::short(name)));
        let inner = Inner::parse(name.as_bytes()).map_err(|why| refuse(why.to_string()))?;
        Ok(inner.ok_or_else(|| refuse("it is the root".to_owned()))?.path())
    }

    fn open(&self, path: &Path) -> Result<Option<Box<dyn Read + Send + '_>>, ImageError> {
        match &self.source {
            Source::Directory(root) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(error) => Err(ImageError::file("open", &self.path.join(path))(error.into())),
                    Ok(fd) => regular(File::from(fd), &self.path.join(path)).map(|file| Some(Box::new(file) as Box<_>)),
                }
            }
            Source::Tar(file, places) => {
                let place = match places.get(path) {
                    Some(Place::Link(target)) => places.get(target),
                    other => other,
                };
                match place {
                    Some(Place::Content { offset, size }) => {
                        Ok(Some(Box::new(Section { file, offset: *offset, left: *size })))
                    }
                    Some(Place::Link(_)) | None => Ok(None),
                }
            }
        }
    }

    fn unpack(
        &self,
        file: &Path,
        packed: Option<(String, u64)>,
        diff_id: &str,
        into: &Path,
    ) -> Result<(PathBuf, u64), ImageError> {
        let missing = || self.refuse(format!("expected a layer {:?}, found none", file.display().to_string()));
        let content = self.open(file)?.ok_or_else(missing)?;
        std::fs::create_dir(into).map_err(ImageError::file("make", into))?;
        let promise = Promise { packed, diff_id: diff_id.to_owned() };
        let refused = |source: LayerError| ImageError::Layer { layer: diff_id.to_owned(), source };
        let size = unpack(content, &promise, into).map_err(refused)?;
        Ok((into.to_owned(), size))
    }
}

fn blob_path(digest: &str) -> PathBuf {
    Path::new("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

/// What a layout calls its image: containerd's full name, else the reference name where it is more than a tag.
fn name_of(descriptor: &manifest::Descriptor) -> Option<String> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let full = annotation("io.containerd.image.name");
    let name =
        full.or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':'])));
    name.and_then(|name| name.parse::<Reference>().ok()).map(|reference| reference.key())
}

fn regular(file: File, path: &Path) -> Result<File, ImageError> {
    let kind = file.metadata().map_err(ImageError::file("read", path))?;
    match kind.is_file() {
        true => Ok(file),
        false => {
            Err(ImageError::Archive { path: path.to_owned(), why: "expected a file, found something else".to_owned() })
        }
    }
}

/// A part of a file, read without moving the file's own position.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

fn open(path: &Path, place: &Workplace) -> Result<Source, ImageError> {
    let stat = std::fs::metadata(path).map_err(ImageError::file("open", path))?;
    if stat.is_dir() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty());
        return root.map(Source::Directory).map_err(|error| ImageError::file("open", path)(error.into()));
    }
    let file = regular(File::open(path).map_err(ImageError::file("open", path))?, path)?;
    let mut file = plain(file, place).map_err(ImageError::file("decompress", path))?;
    let places = scan(&mut file).map_err(|error| ImageError::Archive {
        path: path.to_owned(),
        why: format!("expected a directory or a tar archive: {error}"),
    })?;
    Ok(Source::Tar(file, places))
}

/// The archive without compression: the file itself, or a copy that goes with the workplace.
fn plain(mut file: File, place: &Workplace) -> io::Result<File> {
    let mut head = [0; 4];
    let read = file.read(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let compressed = head[..read].starts_with(&[0x1f, 0x8b]) || head[..read] == [0x28, 0xb5, 0x2f, 0xfd];
    if !compressed {
        return Ok(file);
    }
    let mut copy = File::options().read(true).write(true).create_new(true).open(place.path.join("archive"))?;
    let mut content = decompressed(BufReader::with_capacity(128 << 10, file))?.take(ARCHIVE_BYTES_MAX + 1);
    if io::copy(&mut content, &mut copy)? > ARCHIVE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {ARCHIVE_BYTES_MAX} bytes")));
    }
    copy.seek(SeekFrom::Start(0))?;
    Ok(copy)
}

/// Where each file of the archive is.
fn scan(file: &mut File) -> io::Result<BTreeMap<PathBuf, Place>> {
    let mut places = BTreeMap::new();
    let mut extensions = Extensions::default();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()?.raw(true) {
        let mut entry = entry?;
        if places.len() >= ENTRIES_MAX {
            return Err(io::Error::other(format!("it has more than {ENTRIES_MAX} entries")));
        }
        let (header, offset) = (entry.header().clone(), entry.raw_file_position());
        let Some(meta) = extensions.take(&header, &mut entry)? else { continue };
        let named = |path: &[u8]| Inner::parse(path).map_err(io::Error::other);
        let Some(inner) = named(&meta.path)? else { continue };
        match meta.kind {
            Kind::File => drop(places.insert(inner.path(), Place::Content { offset, size: meta.size })),
            Kind::Link => {
                let target = named(&meta.link)?.ok_or_else(|| io::Error::other("a link to the root"))?;
                places.insert(inner.path(), Place::Link(target.path()));
            }
            Kind::Symlink => {
                if let Some(target) = beside(&inner, &meta.link) {
                    places.insert(inner.path(), Place::Link(target));
                }
            }
            Kind::Directory | Kind::Fifo | Kind::Device | Kind::Other(_) => {}
        }
    }
    Ok(places)
}

/// Where a link of the form `../other/layer.tar` points to, if that is within the archive.
fn beside(from: &Inner, target: &[u8]) -> Option<PathBuf> {
    let rest = target.strip_prefix(b"../")?;
    let inner = Inner::parse(rest).ok()??;
    Some(from.parent.parent()?.join(inner.path()))
}
