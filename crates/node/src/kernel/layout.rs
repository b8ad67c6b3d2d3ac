//! Where the node keeps what on disk.
//!
//! ```text
//! DATA/images                             images (runtime)
//! DATA/runtime                            writable layers (runtime)
//! DATA/records/KEY.json                   what the agent keeps of a pod
//! DATA/reserve/                           files kept for records that are written when the disk is full
//! DATA/volumes/NAME/                      what outlives pods: volumes of the node's own driver
//! DATA/pods/UID/files/                    hosts, resolv.conf, hostname
//! DATA/pods/UID/volumes/NAME              a volume: a directory, a tmpfs, or a link to a path of the machine
//! DATA/pods/UID/messages/NAME.ATTEMPT     a container's last words
//! DATA/pods/UID/logs/NAME/ATTEMPT.log     a container's output, older parts with .1 … .4 behind it
//! DATA/pods/UID/cri.json                  who runs the pod's containers, when that is another runtime, and its network
//! DATA/pods/UID/parts/NAME.ATTEMPT/N      a part of a volume, mounted where nobody can move it, for such a runtime
//! DATA/cni                                how such a runtime asks for a pod's network: net.d, bin
//! DATA/seccomp/PATH                       profiles of system calls, put there by who runs the machine
//! RUN/runtime, RUN/network                what need not survive a reboot
//! ```

use std::path::{Path, PathBuf};

use crate::machine::MachineError;

/// The longest name that becomes a file name.
const NAME_BYTES_MAX: usize = 128;

/// The node's own directories.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Survives a reboot.
    pub data: PathBuf,
}

/// Refuses what is no plain file name. Names come from the API, which checks them too.
pub fn file_name(name: &str) -> Result<&str, MachineError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain && !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') {
        return Ok(name);
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(MachineError::Failed {
        operation: "use a name as a file name".to_owned(),
        why: format!("expected letters, digits, '-', '_' and '.', found {shown:?}"),
    })
}

impl Layout {
    /// All pods.
    pub fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// All records.
    pub fn records(&self) -> PathBuf {
        self.data.join("records")
    }

    /// Files kept for records.
    pub fn reserve(&self) -> PathBuf {
        self.data.join("reserve")
    }

    /// One record.
    pub fn record(&self, key: &str) -> Result<PathBuf, MachineError> {
        Ok(self.records().join(format!("{}.json", file_name(key)?)))
    }

    /// One pod.
    pub fn pod(&self, uid: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pods().join(file_name(uid)?))
    }

    /// What is said of a pod that another runtime runs.
    pub fn cri(&self, uid: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pod(uid)?.join("cri.json"))
    }

    /// Where parts of volumes are mounted for such a runtime; of all containers of the pod.
    pub fn parts(&self, uid: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pod(uid)?.join("parts"))
    }

    /// What such a runtime is told about networks.
    pub fn cni(&self) -> PathBuf {
        self.data.join("cni")
    }

    /// Profiles of system calls that pods may name.
    pub fn seccomp(&self) -> PathBuf {
        self.data.join("seccomp")
    }

    /// One of a pod's own files.
    pub fn file(&self, uid: &str, name: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pod(uid)?.join("files").join(file_name(name)?))
    }

    /// The writable layers of a pod's containers, by `NAME.ATTEMPT`; the runtime's.
    pub fn layers(&self, uid: &str) -> Result<PathBuf, MachineError> {
        Ok(self.data.join("runtime/containers").join(file_name(uid)?))
    }

    /// A pod's volumes.
    pub fn volumes(&self, uid: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pod(uid)?.join("volumes"))
    }

    /// A directory that outlives pods.
    pub fn lasting(&self, name: &str) -> Result<PathBuf, MachineError> {
        Ok(self.data.join("volumes").join(file_name(name)?))
    }

    /// One of a pod's volumes.
    pub fn volume(&self, uid: &str, name: &str) -> Result<PathBuf, MachineError> {
        Ok(self.volumes(uid)?.join(file_name(name)?))
    }

    /// Where a container (`NAME.ATTEMPT`) leaves its last words.
    pub fn message(&self, uid: &str, container: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pod(uid)?.join("messages").join(file_name(container)?))
    }

    /// A pod's logs.
    pub fn logs(&self, uid: &str) -> Result<PathBuf, MachineError> {
        Ok(self.pod(uid)?.join("logs"))
    }

    /// The log of a container (`NAME.ATTEMPT`).
    pub fn log(&self, uid: &str, container: &str) -> Result<PathBuf, MachineError> {
        Ok(self.logs(uid)?.join(log_name(container)?))
    }
}

/// `NAME/ATTEMPT.log`, beneath the pod's logs.
pub fn log_name(container: &str) -> Result<PathBuf, MachineError> {
    let (name, attempt) = file_name(container)?.rsplit_once('.').unwrap_or((container, "0"));
    Ok(Path::new(name).join(format!("{attempt}.log")))
}

#[cfg(test)]
mod tests {
    use super::{Layout, log_name};

    #[test]
    fn names_that_are_paths_are_refused() {
        let layout = Layout { data: "/data".into() };
        for name in ["", ".", "..", "a/b", "../x", "a\0b", ".hidden"] {
            assert!(layout.pod(name).is_err(), "{name:?}");
            assert!(layout.volume("uid", name).is_err(), "{name:?}");
        }
        assert_eq!(layout.log("u", "web.3").expect("a name").to_str(), Some("/data/pods/u/logs/web/3.log"));
        assert_eq!(log_name("web.3").expect("a name").to_str(), Some("web/3.log"));
    }
}
