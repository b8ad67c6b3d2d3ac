//! Named network namespaces: made by a thread that leaves its own, kept by a bind mount. Nothing forks.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// `NSFS_MAGIC` of Linux: what a kept namespace looks like to `statfs`.
const NAMESPACE_FILESYSTEM: rustix::fs::FsWord = 0x6e73_6673;

/// What could not be done to a namespace.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} network namespace {}", path.display())]
pub struct NamespaceError {
    /// Make, keep, leave or remove.
    pub doing: &'static str,
    /// Where it is kept.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

/// Runs `inside` in a new network namespace that stays at `path`, then comes back.
///
/// Assumes     the calling thread ends soon: should coming back fail, the thread stays inside
pub(crate) fn make<T>(path: &Path, inside: impl FnOnce(&File) -> T) -> Result<T, NamespaceError> {
    let failed = |doing| move |source: io::Error| NamespaceError { doing, path: path.to_owned(), source };
    let home = File::open(OWN_NAMESPACE).map_err(failed("leave for"))?;
    File::create(path).map_err(failed("name"))?;
    // SAFETY: only the network namespace of this thread changes; no memory or descriptor is shared differently.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from).map_err(failed("make"))?;
    let kept = mount_bind(OWN_NAMESPACE, path).map_err(io::Error::from).map_err(failed("keep"));
    let result = kept.map(|()| inside(&home));
    let back = move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network));
    back.map_err(io::Error::from).map_err(failed("come back from"))?;
    result
}

/// Whether a namespace is kept at `path`.
pub(crate) fn exists(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == NAMESPACE_FILESYSTEM)
}

/// Lets go of the namespace at `path`: it ends with its last process. Nothing there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), NamespaceError> {
    let failed = |source: io::Error| NamespaceError { doing: "remove", path: path.to_owned(), source };
    while exists(path) {
        unmount(path, UnmountFlags::DETACH).map_err(|error| failed(error.into()))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}
