//! A container's file system as far as libcontainer does not make it: the overlay, and bind sources resolved safely.
//!
//! Guarantees  nothing mounted here is in the machine's mount table or needs to be unmounted. The process that makes a
//!             container first takes a mount namespace of its own; the container's namespace is a copy of that, and when
//!             the maker has ended and the container too, the kernel drops every mount of it. A shim that is killed
//!             leaves nothing, and no shim pins a mount of someone else.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};

use super::user_namespace::UserNamespace;
use crate::kernel::{self, MountAttributes, check};

/// Takes a mount namespace of one's own. What the machine mounts later still comes in; what is mounted here stays here.
pub(super) fn leave_mount_namespace() -> io::Result<()> {
    // SAFETY: unshare has no memory arguments.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    kernel::mount(Path::new(""), Path::new("/"), "", libc::MS_REC | libc::MS_SLAVE, "")
}

/// Mounts the layers, top first, under a writable directory in `data`, at `target`.
///
/// The options of mount(2) are one page, so the layers are named through short links beside the upper directory.
///
/// With a user namespace the layers' files are the machine's root's on disk and root's inside; what is written belongs
/// to ids outside.
pub(super) fn mount_overlay(
    layers: &[PathBuf],
    data: &Path,
    target: &Path,
    user: Option<&UserNamespace>,
) -> io::Result<()> {
    for (name, mode) in [("", 0o700), ("upper", 0o755), ("work", 0o700), ("l", 0o700)] {
        fs::DirBuilder::new().recursive(true).mode(mode).create(data.join(name))?;
    }
    if let Some(user) = user {
        chown(data.join("upper"), Some(user.outside(0)), Some(user.outside(0)))?;
    }
    fs::create_dir(target)?;
    let lower = link_layers(layers, &data.join("l"), user)?.join(":l/");
    overlay(data, target, 0, &format!("lowerdir=l/{lower},upperdir=upper,workdir=work"))
}

/// Puts a short link to each layer into a directory, or the layer itself as a user namespace shows it; gives their
/// names, top first.
fn link_layers(layers: &[PathBuf], links: &Path, user: Option<&UserNamespace>) -> io::Result<Vec<String>> {
    let names: Vec<String> = (0..layers.len()).map(|index| index.to_string()).collect();
    for (layer, name) in layers.iter().zip(&names) {
        match user {
            None => symlink(layer, links.join(name))?,
            Some(user) => {
                let tree = kernel::clone_tree(layer)?;
                kernel::set_mount_attributes(&tree, MountAttributes::NONE, Some(&user.user))?;
                kernel::attach_tree(&tree, &links.join(name))?;
            }
        }
    }
    Ok(names)
}

fn overlay(data: &Path, target: &Path, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    // A layer's own overlay attributes must have no meaning here: an image could point them anywhere.
    let options = format!("{options},redirect_dir=nofollow,metacopy=off,index=off");
    std::env::set_current_dir(data)?;
    let mounted = kernel::mount(Path::new("overlay"), target, "overlay", flags, &options);
    std::env::set_current_dir("/")?;
    mounted
}

/// Mounts the layers, top first, without anything to write to, at `staging`; or what `sub_path` is beneath them.
pub(super) fn stage_layers(
    layers: &[PathBuf],
    sub_path: Option<&Path>,
    staging: &Path,
    user: Option<&UserNamespace>,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("could not mount the layers of an image volume: {error}");
    let whole = if sub_path.is_some() { staging.with_extension("whole") } else { staging.to_owned() };
    let links = staging.with_extension("l");
    let mount = || {
        // Overlayfs wants two layers when there is none to write to.
        for directory in [&links, &links.join("empty"), &whole] {
            fs::DirBuilder::new().mode(0o755).create(directory)?;
        }
        let lower = link_layers(layers, &links, user)?.join(":");
        overlay(&links, &whole, libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV, &format!("lowerdir={lower}:empty"))
    };
    mount().map_err(failed)?;
    match sub_path {
        Some(sub_path) => stage(&whole, sub_path, staging),
        None => Ok(()),
    }
}

/// A copy of the mount at `source`, with its submounts, that goes on sharing what is mounted beneath it.
pub(super) fn pick_up(source: &Path) -> Result<OwnedFd, String> {
    kernel::clone_tree(source).map_err(|error| format!("mount source {}: {error}", source.display()))
}

/// Puts what was picked up at `staging`.
pub(super) fn put_down(picked_up: &OwnedFd, staging: &Path) -> Result<(), String> {
    let place = || {
        make_place(picked_up, staging)?;
        move_mount(picked_up, "", CWD, staging, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(io::Error::from)
    };
    place().map_err(|error| format!("could not mount at {}: {error}", staging.display()))
}

/// From now on nothing that is mounted elsewhere is seen at `staging`.
pub(super) fn cut_off(staging: &Path) -> Result<(), String> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(staging, flags).map_err(|error| format!("could not cut {} off: {error}", staging.display()))
}

/// From now on nothing that is mounted at `staging` is seen elsewhere.
pub(super) fn keep_within(staging: &Path) -> Result<(), String> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(staging, flags).map_err(|error| format!("could not keep mounts within {}: {error}", staging.display()))
}

/// Makes what something of the kind of `found` can be mounted on.
fn make_place(found: &OwnedFd, place: &Path) -> io::Result<()> {
    match FileType::from_raw_mode(fstat(found)?.st_mode) {
        FileType::Directory => fs::create_dir_all(place),
        _ => fs::write(place, b""),
    }
}

/// Resolves `sub_path` beneath `source`, which the container may be changing at this moment, and mounts what it finds at
/// `staging`, where it can change no more. A missing one is made, as a directory.
pub(super) fn stage(source: &Path, sub_path: &Path, staging: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("volume path {} in {}: {error}", sub_path.display(), source.display());
    let found = open_beneath(source, sub_path).map_err(failed)?;
    let place = || {
        make_place(&found, staging)?;
        let pinned = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        kernel::mount(&pinned, staging, "", libc::MS_BIND | libc::MS_REC, "")
    };
    place().map_err(failed)
}

/// What `sub_path` is beneath `source`, whatever links lie there: never outside. A missing one is made, as a directory.
pub fn open_beneath(source: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let (flags, beneath) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
    let root = openat(CWD, source, flags | OFlags::DIRECTORY, Mode::empty())?;
    match openat2(&root, sub_path, flags, Mode::empty(), beneath) {
        Err(rustix::io::Errno::NOENT) => {}
        found => return Ok(found?),
    }
    // Who may write to the volume may write to this part of it.
    let mode = Mode::from_raw_mode(fstat(&root)?.st_mode & 0o7777);
    let mut here = root;
    for part in sub_path.components() {
        let Component::Normal(name) = part else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only plain names are allowed in a path to be made",
            ));
        };
        let is_new = match mkdirat(&here, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => false,
            made => made.map(|()| true)?,
        };
        // Never through a link: what was missing a moment ago and is a link now was put there on purpose.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::CLOEXEC;
        here = openat2(&here, name, flags, Mode::empty(), beneath | ResolveFlags::NO_SYMLINKS)?;
        if is_new {
            fchmod(&here, mode)?;
        }
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Swaps a directory of a volume with a link out of it so many times, while `look` looks.
    fn raced(name: &str, swaps: u32, mut look: impl FnMut(&Path)) {
        use rustix::fs::{RenameFlags, renameat_with};
        let top = std::env::temp_dir().join(format!("windlass-{name}-{}", std::process::id()));
        let (volume, outside) = (top.join("volume"), top.join("outside"));
        fs::create_dir_all(&outside).expect("a directory");
        fs::write(outside.join("canary"), "alive").expect("a file");
        fs::create_dir_all(volume.join("in/deep")).expect("a directory");
        symlink(&outside, volume.join("swap")).expect("a link");
        let racer = {
            let volume = volume.clone();
            std::thread::spawn(move || {
                for _ in 0..swaps {
                    let (one, other) = (volume.join("in"), volume.join("swap"));
                    match renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE) {
                        Ok(()) => {}
                        // Whoever looks takes things away, too: they are put there again.
                        Err(_) => {
                            let _ = fs::create_dir(&volume);
                            let _ = fs::create_dir(volume.join("in"));
                            let _ = symlink("../outside", volume.join("swap"));
                        }
                    }
                }
            })
        };
        let mut looks = 0;
        while !racer.is_finished() || looks == 0 {
            look(&volume);
            looks += 1;
        }
        racer.join().expect("the racer does not panic");
        assert_eq!(fs::read_to_string(outside.join("canary")).expect("it lives"), "alive");
        assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 1, "nothing was made outside");
        crate::remove_tree(&top).expect("our own directory");
    }

    #[test]
    fn a73_a_sub_path_swapped_100_000_times_never_leads_outside() {
        let mut found = 0;
        raced("a73", 100_000, |volume| {
            for path in ["in", "in/deep", "in/made/new"] {
                let Ok(opened) = open_beneath(volume, Path::new(path)) else { continue };
                found += 1;
                let place = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).expect("it is open");
                assert!(place.starts_with(volume), "{path} led to {}", place.display());
            }
        });
        assert!(found > 0, "it was never there");
    }

    #[test]
    fn a73_a_volume_removed_while_it_is_swapped_takes_nothing_outside_along() {
        raced("a73-removed", 10_000, |volume| {
            // Somebody may make anew what was just removed; the next look takes it.
            let _ = crate::remove_tree(volume);
        });
    }

    #[test]
    fn a73_a_sub_path_of_a_volume_that_is_gone_is_an_error() {
        let gone = std::env::temp_dir().join(format!("windlass-gone-{}", std::process::id()));
        assert!(open_beneath(&gone, Path::new("in")).is_err());
        assert!(!gone.exists(), "nothing is made for it");
    }

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
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).expect("the test's own directory");
        open_beneath(&volume, Path::new("wide/open")).expect("made");
        for path in ["wide", "wide/open"] {
            let mode = fs::metadata(volume.join(path)).expect("there").permissions().mode();
            assert_eq!(mode & 0o7777, 0o2777, "{path}: who may write to the volume may write here");
        }
        fs::remove_dir_all(&volume).expect("our own directory");
    }
}
