//! The machine's `/dev` in place of the container's own, for a container that mounts it there, as drivers of storage do.
//!
//! libcontainer gives every container a `/dev`, and makes links and nodes in it: in the machine's it would make, and
//! remove, the machine's. So the container gets one of its own first; the machine's is put over it when everything else is
//! done, and what was mounted in the first (terminals, shared memory, the file for last words) is put into the second.
//!
//! Guarantees  of the machine's `/dev` nothing is removed or changed; what a mount in it needs to be put on is made
//! Caveats     mounts that a container makes in it are its own, also if they were to be seen outside: its own terminals and
//!             shared memory would be seen there too
//! Source: the OCI runtime specification's reference implementation makes no devices and links where `/dev` is a bind.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::stage::Staged;
use crate::kernel::{self, MountAttributes};
use crate::spec::{Bind, ContainerSpec, Mount};

const PLACE: &str = "/dev";

/// Whether a mount is that.
pub(super) fn is_it(mount: &Mount) -> bool {
    matches!(mount, Mount::Bind(bind) if is_over(bind))
}

pub(super) fn is_over(bind: &Bind) -> bool {
    bind.target == Path::new(PLACE)
}

/// What is to be put over the container's own, while the maker still sees it.
pub(super) fn pick_up(spec: &ContainerSpec, staged: &Staged) -> Result<Option<OwnedFd>, String> {
    let found = spec.mounts.iter().zip(&staged.mounts).rev().find_map(|(mount, source)| match mount {
        Mount::Bind(bind) if is_over(bind) => Some((bind, source.as_deref().unwrap_or(&bind.source))),
        _ => None,
    });
    let Some((bind, source)) = found else { return Ok(None) };
    let access = if bind.read_only { MountAttributes::READ_ONLY } else { MountAttributes::NONE };
    let tree = kernel::clone_tree(source).and_then(|tree| {
        kernel::set_mount_attributes(&tree, access, None)?;
        Ok(tree)
    });
    tree.map(Some).map_err(|error| format!("could not take along {}: {error}", source.display()))
}

/// Puts it over the own one, in the container's first process.
pub(super) fn put_over(tree: &OwnedFd) -> io::Result<()> {
    let own: Vec<(PathBuf, OwnedFd)> = mounted_in(Path::new(PLACE), kernel::mount_points("self")?)
        .into_iter()
        .map(|path| kernel::clone_tree(&path).map(|tree| (path, tree)))
        .collect::<io::Result<_>>()?;
    kernel::move_tree(tree, Path::new(PLACE))?;
    for (path, tree) in own {
        if !path.exists() {
            kernel::make_place(&tree, &path)?;
        }
        kernel::move_tree(&tree, &path)?;
    }
    Ok(())
}

/// What is mounted in a directory, each once, without what is mounted in that.
fn mounted_in(directory: &Path, points: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for point in points.into_iter().filter(|point| point.starts_with(directory) && point != directory) {
        if !found.iter().any(|outer| point.starts_with(outer)) {
            found.retain(|inner| !inner.starts_with(&point));
            found.push(point);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::mounted_in;
    use std::path::{Path, PathBuf};

    #[test]
    fn what_is_mounted_in_a_mount_comes_with_it() {
        let points = ["/", "/dev", "/dev/a/b", "/dev/pts", "/dev/pts", "/device", "/dev/a", "/dev/a/c"];
        let found = mounted_in(Path::new("/dev"), points.map(PathBuf::from).to_vec());
        assert_eq!(found, [Path::new("/dev/pts"), Path::new("/dev/a")]);
    }
}
