//! Where everything lies on disk, and the small files two processes leave for each other.
//!
//! ```text
//! RUN/exe                              the shim's program, bind-mounted read-only
//! RUN/sandboxes/S/boot.json            what the shim of sandbox S was started with
//! RUN/sandboxes/S/shim.sock .pid .log   how to speak to it, its process, its last words
//! RUN/sandboxes/S/shm                  the tmpfs that its containers have as /dev/shm
//! RUN/sandboxes/S/containers/C/        spec.json, launch.json, exit.json, the OCI bundle
//! ROOT/containers/S/C/                 the container's writable layer: upper, work
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::RuntimeError;
use crate::spec::SandboxSpec;

/// The biggest of our own files that is read back.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What a shim is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub spec: SandboxSpec,
    /// `ROOT/containers/S`.
    pub data: PathBuf,
    /// The instance's cgroup, an absolute path below each hierarchy.
    pub cgroup_parent: String,
    /// The id of this machine that is root in the sandbox's own user namespace, if it has one.
    #[serde(default)]
    pub user_ids: Option<u32>,
}

/// The directory of one sandbox under the run directory.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDir(pub PathBuf);

impl SandboxDir {
    pub fn boot(&self) -> PathBuf {
        self.0.join("boot.json")
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    pub fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// The number of the shim's process.
    pub fn shim_pid(&self) -> PathBuf {
        self.0.join("shim.pid")
    }

    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    pub fn container(&self, id: &str) -> ContainerDir {
        ContainerDir(self.containers().join(id))
    }

    /// The ids of the containers that have a directory.
    pub fn container_ids(&self) -> io::Result<Vec<String>> {
        names(&self.containers())
    }
}

/// The directory of one container under the run directory.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDir(pub PathBuf);

impl ContainerDir {
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    pub fn launch(&self) -> PathBuf {
        self.0.join("launch.json")
    }

    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Where bind sources are resolved to before they are mounted.
    pub fn staging(&self) -> PathBuf {
        self.0.join("mounts")
    }

    /// The OCI bundle's configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// Where who runs the container keeps its own state.
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// What is mounted in the container from outside, by where it is seen; nothing before its bundle is made.
    pub fn binds(&self) -> Result<Vec<(PathBuf, PathBuf)>, RuntimeError> {
        let config = load::<serde_json::Value>(&self.config())?.unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().map(PathBuf::from);
        let mounts = config["mounts"].as_array().into_iter().flatten().filter(|mount| mount["type"] == "bind");
        Ok(mounts.filter_map(|mount| Some((text(&mount["destination"])?, text(&mount["source"])?))).collect())
    }

    pub fn console(&self) -> PathBuf {
        self.0.join("console.sock")
    }
}

/// The names in a directory, sorted; none when it does not exist.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Makes a directory only root may enter, and its parents.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), RuntimeError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(RuntimeError::file("make directory", path))
}

/// Writes a value so that a reader sees all of it or nothing.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value).expect("our own types have string keys and no failing serializers");
    let temporary = path.with_extension("tmp");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&bytes));
    written.map_err(RuntimeError::file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(RuntimeError::file("rename into place", path))
}

/// Reads a value back; `None` when the file does not exist.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    let bytes = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            let why = format!("{} bytes, more than any file of ours", metadata.len());
            return Err(RuntimeError::file("read", path)(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        Ok(_) => fs::read(path).map_err(RuntimeError::file("read", path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RuntimeError::file("read", path)(error)),
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| RuntimeError::file("understand", path)(error.into()))?;
    Ok(Some(value))
}

/// Removes a directory and what is in it; it may be gone already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), RuntimeError> {
    unless_gone(path, crate::remove::remove_tree(path))
}

/// Removes a file; it may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<(), RuntimeError> {
    unless_gone(path, fs::remove_file(path))
}

fn unless_gone(path: &Path, removed: io::Result<()>) -> Result<(), RuntimeError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RuntimeError::file("remove", path)(error)),
        _ => Ok(()),
    }
}
