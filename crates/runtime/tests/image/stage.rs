//! The stage of a test: a store in a directory of its own, and archives made to measure.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_runtime::image::{Image, ImageError, Images};
use windlass_stdx::World;

/// A directory that goes with the test, and a store in it.
pub struct Stage {
    pub directory: PathBuf,
    pub images: Images,
}

impl Stage {
    pub fn new() -> Stage {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("windlass-image-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let images = Images::open(directory.join("store"), World::real()).expect("a fresh store opens");
        Stage { directory, images }
    }

    /// The store as another process, or the same after a restart, sees it.
    pub fn reopened(&self) -> Images {
        Images::open(self.directory.join("store"), World::real()).expect("a used store opens")
    }

    /// Writes files to be an archive and imports it.
    pub async fn import(&self, files: &Files) -> Result<Image, ImageError> {
        let archive = self.directory.join("archive.tar");
        std::fs::write(&archive, files.tar()).expect("written");
        let records = self.images.import(&archive, Some("test")).await?;
        let image = self.images.find(&records[0].id).expect("a readable store");
        Ok(image.expect("what was imported is there"))
    }

    /// What the store has on disk, apart from its lock.
    pub fn content(&self) -> Vec<String> {
        let mut found = Vec::new();
        for directory in ["l", "configs", "tmp"] {
            let entries = std::fs::read_dir(self.directory.join("store").join(directory)).expect("a store");
            found
                .extend(entries.map(|entry| format!("{directory}/{}", entry.expect("an entry").file_name().display())));
        }
        found.sort();
        found
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let cleared = std::fs::remove_dir_all(&self.directory);
        assert!(cleared.is_ok() || std::thread::panicking(), "the stage is cleared");
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// How a layer is packed.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Zstd => zstd::encode_all(bytes, 3).expect("packed"),
        Packing::Gzip => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(bytes).expect("packed");
            packer.finish().expect("packed")
        }
    }
}

/// A layer archive, written header by header so that it may say anything.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    pub fn new() -> Layer {
        Layer::default()
    }

    pub fn file(self, path: &str, content: &str) -> Layer {
        self.entry(b'0', path, "", content.as_bytes(), 0o644)
    }

    pub fn directory(self, path: &str) -> Layer {
        self.entry(b'5', path, "", b"", 0o755)
    }

    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(b'2', path, target, b"", 0o777)
    }

    pub fn link(self, path: &str, target: &str) -> Layer {
        self.entry(b'1', path, target, b"", 0o644)
    }

    /// Any entry: type, path, link target, content and mode. The path is written as it is, whatever it is.
    pub fn entry(mut self, kind: u8, path: &str, link: &str, content: &[u8], mode: u32) -> Layer {
        if path.len() > 100 {
            self = self.entry(b'L', "././@LongLink", "", &[path.as_bytes(), b"\0"].concat(), 0o644);
        }
        let mut header = tar::Header::new_ustar();
        let raw = header.as_ustar_mut().expect("a ustar header");
        copy(&mut raw.name, path.as_bytes());
        copy(&mut raw.linkname, link.as_bytes());
        raw.typeflag = [kind];
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(5678);
        header.set_mtime(1_000_000_000);
        if matches!(kind, b'3' | b'4') {
            header.set_device_major(1).and_then(|()| header.set_device_minor(3)).expect("numbers");
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Pax records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Layer {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(b'x', "pax", "", &content, 0o644)
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

fn copy(into: &mut [u8], from: &[u8]) {
    let length = into.len().min(from.len());
    into[..length].copy_from_slice(&from[..length]);
}

/// The files of an archive, by path.
#[derive(Clone, Default)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    pub fn tar(&self) -> Vec<u8> {
        let mut layer = Layer::new();
        for (path, bytes) in &self.0 {
            layer = layer.entry(b'0', path, "", bytes, 0o644);
        }
        layer.finish()
    }

    pub fn write_to(&self, directory: &Path) {
        for (path, bytes) in &self.0 {
            let path = directory.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, bytes).expect("written");
        }
    }

    pub fn blob(&mut self, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        self.0.insert(format!("blobs/sha256/{}", &digest[7..]), bytes.to_vec());
        json!({ "digest": digest, "size": bytes.len(), "mediaType": "application/octet-stream" })
    }
}

pub fn config(layers: &[Vec<u8>]) -> Value {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    json!({ "os": "linux", "architecture": architecture, "config": { "Cmd": ["/x"] }, "rootfs": { "diff_ids": diff_ids } })
}

/// A layout of one image, bottom layer first, and the image's manifest.
pub fn layout(layers: &[Vec<u8>], packing: Packing) -> (Files, Value) {
    let mut files = Files::default();
    let config = files.blob(config(layers).to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(|layer| files.blob(&pack(layer, packing))).collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    (with_index(files, &manifest), manifest)
}

/// The same files with an index that points at this manifest.
pub fn with_index(mut files: Files, manifest: &Value) -> Files {
    let mut descriptor = files.blob(manifest.to_string().as_bytes());
    descriptor["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    files.0.insert("index.json".to_owned(), index.to_string().into_bytes());
    files.0.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

/// What an error says, with its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
