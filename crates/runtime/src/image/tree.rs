//! A directory tree that is written by a stranger's wishes: every path is opened beneath the root, link by link checked by
//! the kernel, so that nothing outside can be named whatever was put inside before.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The longest path Linux takes, and the longest name.
const PATH_BYTES_MAX: usize = 4095;
const NAME_BYTES_MAX: usize = 255;
/// Directories within directories.
const DEPTH_MAX: usize = 256;

/// Why a path is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    /// It begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// It has a component `..`.
    #[error("the path has a component ..")]
    Parent,
    /// It contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
    /// It, a name in it or its depth is beyond what file systems take.
    #[error("the path is longer than 4095 bytes, has a name longer than 255 bytes or more than 256 directories")]
    Long,
    /// It names no entry.
    #[error("the path is empty")]
    Empty,
}

/// A path that stays beneath its root as far as its text goes: the directory and the last name; neither for the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inner {
    pub(super) parent: PathBuf,
    pub(super) name: OsString,
}

impl Inner {
    /// Reads a path of an archive; `Ok(None)` is the root itself.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Inner>, PathRefusal> {
        if bytes.is_empty() {
            return Err(PathRefusal::Empty);
        }
        if bytes[0] == b'/' {
            return Err(PathRefusal::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathRefusal::Nul);
        }
        let mut names: Vec<&[u8]> =
            bytes.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.contains(&&b".."[..]) {
            return Err(PathRefusal::Parent);
        }
        if bytes.len() > PATH_BYTES_MAX
            || names.len() > DEPTH_MAX
            || names.iter().any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(PathRefusal::Long);
        }
        let Some(name) = names.pop() else { return Ok(None) };
        let parent = names.iter().map(|name| OsStr::from_bytes(name)).collect();
        Ok(Some(Inner { parent, name: OsStr::from_bytes(name).to_owned() }))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Directory,
    /// A character device 0:0: what is below is hidden.
    Whiteout,
    Other,
}

/// The tree.
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory used last: archives go through them in order.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    /// The tree below an existing directory.
    pub(super) fn open(root: &Path) -> io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Tree { root: rustix::fs::open(root, flags, Mode::empty())?, last: None })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path`, made with everything above it when it is missing. Links on the way are followed as long
    /// as they stay beneath the root; one that leads out is an error.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        let known = self.last.as_ref().is_some_and(|(last, _)| last == path);
        if !known {
            let found = match open_beneath(self.root.as_fd(), path) {
                Err(Errno::NOENT) => self.make(path)?,
                other => other?,
            };
            self.last = Some((path.to_owned(), found));
        }
        Ok(self.last.as_ref().expect("it was just set").1.as_fd())
    }

    /// The directory at `path`, if there is one.
    pub(super) fn existing(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(open_beneath(self.root.as_fd(), path)?)
    }

    fn make(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut reached = PathBuf::new();
        let mut above = open_beneath(self.root.as_fd(), Path::new("."))?;
        for name in path {
            reached.push(name);
            match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            above = open_beneath(self.root.as_fd(), &reached)?;
        }
        Ok(above)
    }

    /// Forgets the directory used last, because what stands at its path may be replaced.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel saw a rename at the same time and cannot be sure.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What stands at `name`, without following it.
pub(super) fn present(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Present> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Present::Nothing),
        other => other?,
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Present::Directory,
        FileType::CharacterDevice if stat.st_rdev == 0 => Present::Whiteout,
        _ => Present::Other,
    })
}

/// A new file that nobody else could have put there.
pub(super) fn create(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

#[cfg(test)]
mod tests {
    use super::{Inner, PathRefusal};
    use std::path::Path;

    #[test]
    fn paths_that_could_leave_are_refused_by_their_text() {
        let long = "a/".repeat(300);
        let wide = "a".repeat(256);
        let rows: [(&[u8], PathRefusal); 8] = [
            (b"/abs", PathRefusal::Absolute),
            (b"../x", PathRefusal::Parent),
            (b"a/../../b", PathRefusal::Parent),
            (b"a/..", PathRefusal::Parent),
            (b"a\0b", PathRefusal::Nul),
            (b"", PathRefusal::Empty),
            (long.as_bytes(), PathRefusal::Long),
            (wide.as_bytes(), PathRefusal::Long),
        ];
        for (path, why) in rows {
            assert_eq!(Inner::parse(path), Err(why), "{}", String::from_utf8_lossy(path));
        }
        assert_eq!(Inner::parse(b"./"), Ok(None));
        let inner = Inner::parse(b"./usr//lib/./x/").expect("a path").expect("not the root");
        assert_eq!(inner.path(), Path::new("usr/lib/x"));
    }
}
