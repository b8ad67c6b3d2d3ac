//! A container's file system as far as libcontainer does not make it: the overlay, and bind sources resolved safely.
//!
//! Guarantees  nothing mounted here is in the machine's mount table or needs to be unmounted. The process that makes a
//!             container first takes a mount namespace of its own; the container's namespace is a copy of that, and when
//!             the maker has ended and the container too, the kernel drops every mount of it. A shim that is killed
//!             leaves nothing, and no shim pins a mount of someone else.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};

use crate::kernel::{self, check};

/// Takes a mount namespace of one's own. What the machine mounts later still comes in; what is mounted here stays here.
pub(super) fn leave_mount_namespace() -> io::Result<()> {
    // SAFETY: unshare has no memory arguments.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    kernel::mount(Path::new(""), Path::new("/"), "", libc::MS_REC | libc::MS_SLAVE, "")
}

/// Mounts the layers, top first, under a writable directory in `data`, at `target`.
///
/// The options of mount(2) are one page, so the layers are named through short links beside the upper directory.
pub(super) fn mount_overlay(layers: &[PathBuf], data: &Path, target: &Path) -> io::Result<()> {
    for (name, mode) in [("", 0o700), ("upper", 0o755), ("work", 0o700), ("l", 0o700)] {
        fs::DirBuilder::new().recursive(true).mode(mode).create(data.join(name))?;
    }
    fs::create_dir(target)?;
    let mut lower = String::from("lowerdir=");
    for (index, layer) in layers.iter().enumerate() {
        symlink(layer, data.join(format!("l/{index}")))?;
        let separator = if index == 0 { "" } else { ":" };
        lower.push_str(&format!("{separator}l/{index}"));
    }
    // A layer's own overlay attributes must have no meaning here: an image could point them anywhere.
    let options = format!("{lower},upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,index=off");
    std::env::set_current_dir(data)?;
    let mounted = kernel::mount(Path::new("overlay"), target, "overlay", 0, &options);
    std::env::set_current_dir("/")?;
    mounted
}

/// Resolves `sub_path` beneath `source`, which the container may be changing at this moment, and mounts what it finds at
/// `staging`, where it can change no more. A missing one is made, as a directory.
pub(super) fn stage(source: &Path, sub_path: &Path, staging: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("volume path {} in {}: {error}", sub_path.display(), source.display());
    let found = open_beneath(source, sub_path).map_err(failed)?;
    let place = || {
        match FileType::from_raw_mode(fstat(&found)?.st_mode) {
            FileType::Directory => fs::create_dir_all(staging)?,
            _ => fs::write(staging, b"")?,
        }
        let pinned = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        kernel::mount(&pinned, staging, "", libc::MS_BIND | libc::MS_REC, "")
    };
    place().map_err(failed)
}

fn open_beneath(source: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let (flags, beneath) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
    let root = openat(CWD, source, flags | OFlags::DIRECTORY, Mode::empty())?;
    match openat2(&root, sub_path, flags, Mode::empty(), beneath) {
        Err(rustix::io::Errno::NOENT) => {}
        found => return Ok(found?),
    }
    let mut here = root;
    for part in sub_path.components() {
        let Component::Normal(name) = part else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only plain names are allowed in a path to be made",
            ));
        };
        match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) => {}
            made => made?,
        }
        // Never through a link: what was missing a moment ago and is a link now was put there on purpose.
        here = openat2(&here, name, flags | OFlags::DIRECTORY, Mode::empty(), beneath | ResolveFlags::NO_SYMLINKS)?;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_never_leads_outside_its_volume() {
        let volume = std::env::temp_dir().join(format!("windlass-rootfs-{}", std::process::id()));
        fs::create_dir_all(volume.join("in")).expect("a directory");
        symlink("/etc", volume.join("out")).expect("a link");
        symlink("in", volume.join("ok")).expect("a link");
        symlink("../..", volume.join("up")).expect("a link");
        for path in ["in", "ok", "new/deep"] {
            open_beneath(&volume, Path::new(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for path in ["out", "out/passwd", "up", "../x", "/etc", "in/../../etc", "out/new"] {
            assert!(open_beneath(&volume, Path::new(path)).is_err(), "{path}");
        }
        fs::remove_dir_all(&volume).expect("our own directory");
    }
}
