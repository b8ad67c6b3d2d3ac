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

/// Removes what an agent that ended has left of checkpoints that were not whole. What cannot be removed takes room, and keeps
/// no agent from starting.
pub(super) fn remove_unfinished(kubelet: &Path) {
    let directory = kubelet.join(DIRECTORY);
    let found = names(&directory).unwrap_or_else(|error| {
        tracing::warn!(%error, "what checkpoints have left cannot be looked at");
        Vec::new()
    });
    for name in found.iter().filter(|name| name.ends_with(".part")) {
        if let Err(error) = remove_tree(&directory.join(name)) {
            tracing::warn!(%error, "what a checkpoint has left stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DIRECTORY, remove_unfinished};
    use std::fs;

    #[test]
    fn what_a_checkpoint_left_goes_and_what_cannot_be_looked_at_stops_nobody() {
        let kubelet = std::env::temp_dir().join(format!("windlass-checkpoints-{}", std::process::id()));
        let directory = kubelet.join(DIRECTORY);
        fs::create_dir_all(directory.join("a.tar.part/checkpoint")).expect("the temporary directory is writable");
        fs::write(directory.join("b.tar"), "whole").expect("a file");
        remove_unfinished(&kubelet);
        assert!(directory.join("b.tar").exists() && !directory.join("a.tar.part").exists());
        fs::remove_dir_all(&directory).expect("the directory is ours");
        fs::write(&directory, "no directory").expect("a file");
        remove_unfinished(&kubelet);
        fs::remove_dir_all(&kubelet).expect("the directory is ours");
    }
}
