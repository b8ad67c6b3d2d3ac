//! What is known on disk of borrowed volumes, and where they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::layout::file_name;
use crate::kernel::{file_error, names, remove_file, save_file_for_good};
use crate::machine::{LentVolume, MachineError};

/// What has been borrowed for one pod. The first names are kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loan {
    pub driver_name: String,
    pub volume_handle: String,
    #[serde(rename = "specVolID")]
    pub spec_vol_id: String,
    /// Its name in the pod.
    pub volume_name: String,
    pub is_block: bool,
    /// Where it is staged, if its driver stages.
    pub staging: Option<PathBuf>,
    pub target: PathBuf,
    /// The driver has said so.
    pub done: bool,
    /// The machine's boot in which it was borrowed.
    pub boot: String,
}

/// Where a volume is staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    pub driver_name: String,
    pub volume_handle: String,
    pub staging: PathBuf,
    /// The driver has said so.
    pub done: bool,
    /// The machine's boot in which it was staged.
    pub boot: String,
}

/// Where a volume of a pod is and what is known of it.
pub struct Places {
    /// The record of what the pod has borrowed.
    pub loan: PathBuf,
    /// The record of where it is staged.
    pub stage: PathBuf,
    pub staging: PathBuf,
    pub target: PathBuf,
}

/// The name of a record.
const RECORD: &str = "vol_data.json";

impl Places {
    pub fn of(root: &Path, pod: &str, lent: &LentVolume) -> Result<Places, MachineError> {
        let own = of_pod(root, pod)?.join(file_name(&lent.name)?);
        let stage = stage_of(root, &lent.driver, &lent.handle)?;
        let devices = root.join("plugins/kubernetes.io/csi/volumeDevices");
        let (staging, target) = match lent.is_block {
            true => (devices.join("staging").join(&lent.name), devices.join("publish").join(&lent.name).join(pod)),
            false => (stage.with_file_name("globalmount"), own.join("mount")),
        };
        Ok(Places { loan: own.join(RECORD), stage, staging, target })
    }
}

/// What a pod has borrowed lies here.
pub fn of_pod(root: &Path, pod: &str) -> Result<PathBuf, MachineError> {
    Ok(root.join("pods").join(file_name(pod)?).join("volumes/kubernetes.io~csi"))
}

/// The record of where a volume is staged.
pub fn stage_of(root: &Path, driver: &str, handle: &str) -> Result<PathBuf, MachineError> {
    let hash: String = Sha256::digest(handle.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(root.join("plugins/kubernetes.io/csi").join(file_name(driver)?).join(hash).join(RECORD))
}

/// A record, if there is one. One that cannot be read is an error that names it: what it stood for must not be forgotten.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, MachineError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| file_error("read", path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("read", path, &error)),
    }
}

/// Writes a record so that it is there, old or new, after the power has failed as well: without it nobody knows what to
/// give back.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), MachineError> {
    make_parent(path)?;
    save_file_for_good(path, bytes)
}

/// Makes the directory that something will be in.
pub fn make_parent(path: &Path) -> Result<(), MachineError> {
    make_dir(path.parent().expect("it lies beneath the node's directory"))
}

/// Makes a directory. Drivers that are not root's may have to pass.
pub fn make_dir(path: &Path) -> Result<(), MachineError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|error| file_error("make directory", path, &error))
}

/// All that one pod has borrowed.
pub fn loans(directory: &Path) -> Result<Vec<(PathBuf, Loan)>, MachineError> {
    let mut out = Vec::new();
    for name in names(directory)? {
        let path = directory.join(name).join(RECORD);
        if let Some(loan) = read(&path)? {
            out.push((path, loan));
        }
    }
    Ok(out)
}

/// All that all pods have borrowed.
pub fn all_loans(root: &Path) -> Result<Vec<(PathBuf, Loan)>, MachineError> {
    let mut out = Vec::new();
    for pod in names(&root.join("pods"))? {
        out.extend(loans(&of_pod(root, &pod)?)?);
    }
    Ok(out)
}

/// C6: removes an empty directory, or a file that nothing is mounted on; it may be gone already.
pub fn remove_empty(root: &Path, path: &Path) -> Result<(), MachineError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path, &error)),
        _ => {
            prune(root, path);
            Ok(())
        }
    }
}

/// Removes a record.
pub fn forget(root: &Path, record: &Path) -> Result<(), MachineError> {
    remove_file(record)?;
    prune(root, record);
    Ok(())
}

/// Removes the directories above a path that are empty; those directly beneath the root stay.
fn prune(root: &Path, path: &Path) {
    let mut above = path.parent();
    while let Some(directory) =
        above.filter(|directory| directory.parent() != Some(root) && directory.starts_with(root))
    {
        if fs::remove_dir(directory).is_err() {
            break;
        }
        above = directory.parent();
    }
}
