//! Giving a directory and everything in it to a pod's group, while others may be changing it.
//!
//! Guarantees  no link is followed and nothing outside the directory is touched; what is mounted in it is left alone
//! Source: API reference, PodSecurityContext.fsGroup and fsGroupChangePolicy.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, chownat, fstat, openat, openat2};
use rustix::io::Errno;

use super::file_error;
use super::walk::{Next, WITHIN, walk};
use crate::machine::MachineError;

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
    let is_whole = walk(&root, |here, name| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = match openat2(here, name, flags, Mode::empty(), WITHIN) {
            Ok(pinned) => pinned,
            Err(Errno::NOENT | Errno::LOOP | Errno::XDEV) => return Ok(Next::Over),
            Err(error) => return Err(error.into()),
        };
        let found = fstat(&pinned)?;
        give_one(&pinned, &found, group)?;
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        Ok(if is_directory { Next::Enter } else { Next::Over })
    })?;
    if !is_whole {
        let why = "too many directories lie too deep to be remembered; move them up or remove some";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // The top last: it says that all below is done.
    give_one(&root, &found, group)
}

fn place(pinned: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", pinned.as_raw_fd()))
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
