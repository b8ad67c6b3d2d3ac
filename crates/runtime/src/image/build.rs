//! Making an image from files in memory: for demonstrations and tests, which must need no other tool.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::ImageConfig;
use super::config::architecture;
use super::digest;

/// One entry of the image's only layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where, without a leading slash.
    pub path: String,
    /// What.
    pub content: Content,
    /// Permission bits; of no meaning for a symbolic link.
    pub mode: u32,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A directory.
    Directory,
    /// A file with these bytes.
    File(Vec<u8>),
    /// A symbolic link to this.
    Symlink(String),
}

impl Entry {
    /// A directory that all may enter.
    pub fn directory(path: &str) -> Entry {
        Entry { path: path.to_owned(), content: Content::Directory, mode: 0o755 }
    }

    /// A file that all may read.
    pub fn file(path: &str, bytes: impl Into<Vec<u8>>) -> Entry {
        Entry { path: path.to_owned(), content: Content::File(bytes.into()), mode: 0o644 }
    }

    /// A file that all may run.
    pub fn program(path: &str, bytes: impl Into<Vec<u8>>) -> Entry {
        Entry { mode: 0o755, ..Entry::file(path, bytes) }
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Entry {
        Entry { path: path.to_owned(), content: Content::Symlink(target.to_owned()), mode: 0o777 }
    }
}

/// Writes an OCI layout tar with one image for this machine's platform; the image's id.
///
/// The same input gives the same bytes: nothing depends on the time or on this machine but its processor.
pub fn write_oci(archive: &Path, name: &str, entries: &[Entry], config: &ImageConfig) -> io::Result<String> {
    write_oci_layers(archive, name, &[entries], config)
}

/// The same with several layers, the lowest first.
pub fn write_oci_layers(archive: &Path, name: &str, layers: &[&[Entry]], config: &ImageConfig) -> io::Result<String> {
    let (mut diff_ids, mut packed) = (Vec::new(), Vec::new());
    for entries in layers {
        let layer = layer(entries)?;
        diff_ids.push(digest::of(&layer));
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&layer)?;
        packed.push(packer.finish()?);
    }
    let config = config_document(config, &diff_ids);
    let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest::of(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": packed.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let mut listed = descriptor("manifest.v1+json", &manifest);
    listed["annotations"] = json!({ "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] }).to_string().into_bytes();

    let mut out = tar::Builder::new(io::BufWriter::new(File::create(archive)?));
    append_file(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append_file(&mut out, "index.json", &index, 0o644)?;
    for blob in [&config, &manifest].into_iter().chain(&packed) {
        let path = format!("blobs/sha256/{}", digest::of(blob).trim_start_matches("sha256:"));
        append_file(&mut out, &path, blob, 0o644)?;
    }
    out.into_inner()?.flush()?;
    Ok(digest::of(&config))
}

fn layer(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut out = tar::Builder::new(Vec::new());
    for entry in entries {
        match &entry.content {
            Content::File(bytes) => append_file(&mut out, &entry.path, bytes, entry.mode)?,
            Content::Directory => {
                let mut header = header(tar::EntryType::Directory, 0, entry.mode);
                out.append_data(&mut header, format!("{}/", entry.path.trim_end_matches('/')), io::empty())?;
            }
            Content::Symlink(target) => {
                let mut header = header(tar::EntryType::Symlink, 0, entry.mode);
                out.append_link(&mut header, &entry.path, target)?;
            }
        }
    }
    out.into_inner()
}

fn header(kind: tar::EntryType, size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append_file<W: Write>(out: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, bytes.len(), mode);
    out.append_data(&mut header, path, bytes)
}

fn config_document(config: &ImageConfig, diff_ids: &[String]) -> Vec<u8> {
    let keys = |list: &[String]| list.iter().map(|key| (key.clone(), json!({}))).collect::<BTreeMap<_, _>>();
    let document = json!({
        "os": "linux",
        "architecture": architecture(),
        "config": {
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "Env": config.env,
            "WorkingDir": config.working_dir,
            "User": config.user,
            "StopSignal": config.stop_signal,
            "ExposedPorts": keys(&config.exposed_ports),
            "Volumes": keys(&config.volumes),
            "Labels": config.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    document.to_string().into_bytes()
}
