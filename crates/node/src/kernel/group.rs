//! Giving a directory and everything in it to a pod's group, while others may be changing it.
//!
//! Guarantees  no link is followed and nothing outside the directory is touched; what is mounted in it is left alone
//! Source: API reference, PodSecurityContext.fsGroup and fsGroupChangePolicy.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chownat, fstat, openat, openat2};
use rustix::io::Errno;

use super::file_error;
use crate::machine::MachineError;

/// How deep directories are followed: each level costs a descriptor, and programs stay far below.
const DEPTH_MAX: usize = 128;
/// What the group may do with files, and with directories, whose new files it gets too.
const FILE_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o2770;

/// The group may read and write everything in the directory. With `trust_top`, one whose top is so already is not walked.
pub fn give_tree(path: &Path, group: u32, trust_top: bool) -> Result<(), MachineError> {
    give(path, group, trust_top).map_err(|error| file_error("give to the pod's group", path, &error))
}

fn give(path: &Path, group: u32, trust_top: bool) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty())?;
    let found = fstat(&root)?;
    if trust_top && found.st_gid == group && found.st_mode & DIRECTORY_MODE == DIRECTORY_MODE {
        return Ok(());
    }
    let mut open = vec![Dir::read_from(&root)?];
    loop {
        let depth = open.len();
        let Some(directory) = open.last_mut() else { break };
        let Some(entry) = directory.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = match openat2(directory.fd()?, entry.file_name(), flags, Mode::empty(), resolve) {
            Ok(pinned) => pinned,
            Err(Errno::NOENT | Errno::LOOP | Errno::XDEV) => continue,
            Err(error) => return Err(error.into()),
        };
        let found = fstat(&pinned)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            if depth == DEPTH_MAX {
                let why = format!("directories nested deeper than {DEPTH_MAX} levels are not followed");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            open.push(Dir::read_from(&pinned_readable(&pinned)?)?);
        }
        give_one(&pinned, &found, group)?;
    }
    // The top last: it says that all below is done.
    give_one(&root, &found, group)
}

fn place(pinned: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", pinned.as_raw_fd()))
}

fn pinned_readable(pinned: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, place(pinned), flags, Mode::empty())?)
}

fn give_one(pinned: &OwnedFd, found: &Stat, group: u32) -> io::Result<()> {
    let more = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => DIRECTORY_MODE,
        FileType::RegularFile => FILE_MODE,
        _ => return Ok(()),
    };
    chownat(pinned, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    fs::set_permissions(place(pinned), Permissions::from_mode(found.st_mode & 0o7777 | more))
}
