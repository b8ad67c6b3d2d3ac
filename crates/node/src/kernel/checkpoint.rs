//! Where saved containers go on this machine, and what saves them.

use std::path::{Path, PathBuf};

use super::{Kernel, counters, make_private_dir, names, refused, remove_tree};
use crate::machine::MachineError;

/// Beneath kubelet's directory, as under kubelet.
const DIRECTORY: &str = "checkpoints";

impl Kernel {
    /// What saves running containers; nothing where it is not installed.
    pub(crate) fn criu(&self) -> Option<PathBuf> {
        self.config.criu.clone()
    }

    /// The directory for what is saved, only root's, and how many bytes are free there.
    pub(crate) fn checkpoint_room(&self) -> Result<(PathBuf, u64), MachineError> {
        let directory = self.config.kubelet.join(DIRECTORY);
        make_private_dir(&directory)?;
        let room = counters::room(&directory);
        let room = room.ok_or_else(|| refused("look at the room for checkpoints", directory.display().to_string()))?;
        Ok((directory, room.free_bytes))
    }
}

/// Removes what an agent that ended has left of checkpoints that were not whole.
pub(super) fn remove_unfinished(kubelet: &Path) -> Result<(), MachineError> {
    let directory = kubelet.join(DIRECTORY);
    let unfinished = names(&directory)?.into_iter().filter(|name| name.ends_with(".part"));
    unfinished.map(|name| directory.join(name)).try_for_each(|path| remove_tree(&path))
}
