//! The archive of a saved container, in the form of Kubernetes' container engines.
//!
//! ```text
//! config.dump                which container of which image, and when
//! spec.dump                  OCI's runtime configuration that it was made from
//! bind.mounts                what is mounted from outside
//! checkpoint/                CRIU's images: processes, memory, open files
//! dump.log, stats-dump       what CRIU said
//! rootfs-diff.tar            what the container has written into its file system
//! deleted.files              what it has removed there
//! ```
//! Rules
//!   R1 private   all of it is root's alone: what is in memory is secret
//!   R2 whole     the archive appears under its name when it is whole, or not at all; what failed leaves nothing
//!   R3 bounded   no image is larger than it was allowed; nor are images and written files together; nor is the archive
//!   R4 once      one checkpoint of a container at a time
//! Caveats     the container goes on while what it has written is read: that may be younger than its memory
//!
//! Source: KEP-2008 "Forensic Container Checkpointing"; CRI-O and Podman documentation of checkpoint archives.

mod difference;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::error::RuntimeError;
use crate::launch::Launch;
use crate::layout::{self, ContainerDir, remove_tree};
use crate::protocol::CheckpointOrder;
use crate::shim::describe;
use crate::spec::ContainerSpec;

/// How a container is to be saved.
#[derive(Clone, Debug)]
pub struct CheckpointSpec {
    /// CRIU: `/usr/sbin/criu`.
    pub program: PathBuf,
    /// The archive to make, in a directory that is there. Nothing may be there yet, nor with `.part` behind it.
    pub archive: PathBuf,
    /// How long CRIU may take.
    pub timeout: Duration,
    /// The most that the archive may take, each image, and all together that it is made from.
    pub bytes_max: u64,
    /// What stands in `config.dump`.
    pub config: Value,
    /// What is added to the annotations in `spec.dump`.
    pub annotations: BTreeMap<String, String>,
}

/// What is known of the container that is saved.
pub(crate) struct Subject {
    pub dir: ContainerDir,
    /// Its writable layer: `upper`, `work`.
    pub data: PathBuf,
    pub spec: ContainerSpec,
}

/// A checkpoint under way: its directory, which goes with it.
pub(crate) struct Draft {
    directory: PathBuf,
    spec: CheckpointSpec,
}

impl Draft {
    /// Makes the directory (R1).
    pub fn begin(spec: CheckpointSpec) -> Result<Draft, RuntimeError> {
        let mut directory = spec.archive.clone().into_os_string();
        directory.push(".part");
        let directory = PathBuf::from(directory);
        let exists = || RuntimeError::Exists { what: "checkpoint", id: spec.archive.display().to_string() };
        if fs::symlink_metadata(&spec.archive).is_ok() {
            return Err(exists());
        }
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
            Err(error) => Err(RuntimeError::file("make directory", directory)(error)),
            Ok(()) => Ok(Draft { directory, spec }),
        }
    }

    /// What the shim is told.
    pub fn order(&self) -> CheckpointOrder {
        CheckpointOrder {
            program: self.spec.program.clone(),
            directory: self.directory.clone(),
            timeout_ms: u64::try_from(self.spec.timeout.as_millis()).unwrap_or(u64::MAX),
            file_bytes_max: self.spec.bytes_max,
        }
    }

    /// Packs the archive and puts it in its place (R2). Blocks.
    pub fn finish(self, subject: &Subject) -> Result<(), RuntimeError> {
        let whole = self.directory.join("archive");
        let written = self.pack(subject, &whole);
        written.map_err(RuntimeError::file("write", &self.spec.archive))?;
        let placed = renameat_with(CWD, &whole, CWD, &self.spec.archive, RenameFlags::NOREPLACE);
        placed.map_err(|error| RuntimeError::file("rename into place", &self.spec.archive)(error.into()))?;
        remove_tree(&self.directory)
    }

    fn pack(&self, subject: &Subject, whole: &Path) -> io::Result<()> {
        let difference = self.directory.join("rootfs-diff.tar");
        let deleted = {
            let mut out = tar::Builder::new(self.create(&difference, self.left()?)?);
            let deleted = difference::write(&mut out, &subject.data.join("upper"), &subject.spec.layers)?;
            out.into_inner()?.finish()?;
            deleted
        };
        let mut out = tar::Builder::new(self.create(whole, self.spec.bytes_max)?);
        let binds = subject.dir.binds().map_err(io::Error::other)?;
        append(&mut out, "config.dump", pretty(&self.spec.config).as_bytes())?;
        append(&mut out, "spec.dump", pretty(&self.specification(subject)?).as_bytes())?;
        append(&mut out, "bind.mounts", pretty(&binds.iter().map(bind).collect()).as_bytes())?;
        append(&mut out, "deleted.files", pretty(&json!(deleted)).as_bytes())?;
        append_directory(&mut out, &self.directory, "checkpoint")?;
        for name in ["dump.log", "stats-dump", "rootfs-diff.tar"] {
            append_file(&mut out, &self.directory.join(name), name)?;
        }
        out.into_inner()?.finish()
    }

    fn create(&self, path: &Path, left: u64) -> io::Result<Bounded> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Bounded { out: BufWriter::new(file), bytes_max: self.spec.bytes_max, left })
    }

    /// R3: what CRIU's images leave of what there may be.
    fn left(&self) -> io::Result<u64> {
        let images = self.directory.join("checkpoint");
        let mut left = self.spec.bytes_max;
        for name in layout::names(&images)? {
            let bytes = fs::symlink_metadata(images.join(name))?.len();
            left = left.checked_sub(bytes).ok_or_else(|| too_much(self.spec.bytes_max))?;
        }
        Ok(left)
    }

    /// The runtime configuration with all that the embedded way does without being told by it.
    fn specification(&self, subject: &Subject) -> io::Result<Value> {
        let load = |path: &Path| layout::load::<Value>(path).map_err(io::Error::other);
        let mut config = load(&subject.dir.config())?.ok_or(io::ErrorKind::NotFound)?;
        let launch = layout::load::<Launch>(&subject.dir.launch()).map_err(io::Error::other)?;
        describe(&mut config, &launch.ok_or(io::ErrorKind::NotFound)?, subject.spec.tty);
        for (name, text) in &self.spec.annotations {
            config["annotations"][name] = json!(text);
        }
        Ok(config)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // R2. After a success it is gone already.
        if let Err(error) = remove_tree(&self.directory) {
            tracing::warn!(%error, "what a checkpoint that failed left could not be removed");
        }
    }
}

fn too_much(bytes_max: u64) -> io::Error {
    io::Error::other(format!("it takes more than {bytes_max} bytes"))
}

/// R3: a file that takes so many bytes and no more.
struct Bounded {
    out: BufWriter<File>,
    bytes_max: u64,
    left: u64,
}

impl Bounded {
    /// All of it is on the disk.
    fn finish(self) -> io::Result<()> {
        self.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let left = self.left.checked_sub(written as u64);
        self.left = left.ok_or_else(|| too_much(self.bytes_max))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a value has string keys")
}

/// What is mounted from outside, as CRI-O writes it.
fn bind((seen, source): &(PathBuf, PathBuf)) -> Value {
    let found = fs::metadata(source);
    let kind = if found.as_ref().is_ok_and(fs::Metadata::is_dir) { "directory" } else { "file" };
    let permissions = found.map_or(0, |found| found.mode() & 0o7777);
    json!({"source": source, "destination": seen, "file_type": kind, "permissions": permissions})
}

/// R1.
fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn append<W: Write>(out: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    out.append_data(&mut header(tar::EntryType::Regular, bytes.len() as u64, 0o600), name, bytes)
}

fn append_file<W: Write>(out: &mut tar::Builder<W>, path: &Path, name: &str) -> io::Result<()> {
    let file = File::open(path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    let size = file.metadata()?.len();
    out.append_data(&mut header(tar::EntryType::Regular, size, 0o600), name, file)
}

/// CRIU's images lie side by side.
fn append_directory<W: Write>(out: &mut tar::Builder<W>, parent: &Path, name: &str) -> io::Result<()> {
    out.append_data(&mut header(tar::EntryType::Directory, 0, 0o700), format!("{name}/"), io::empty())?;
    for image in layout::names(&parent.join(name))? {
        append_file(out, &parent.join(name).join(&image), &format!("{name}/{image}"))?;
    }
    Ok(())
}
