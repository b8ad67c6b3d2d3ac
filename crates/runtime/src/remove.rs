//! Removing a directory that was somebody else's to fill.
//!
//! Guarantees  neither the depth of the tree nor the number of its files costs memory, descriptors or stack: a container
//!             can make directories 100,000 deep in a second; no link is followed, whoever changes it meanwhile; nothing
//!             that is mounted in the tree is touched: then the tree is not removed
//!
//! A directory inside another is moved up to the root of the tree before it is looked into, so there is never more than
//! one level below the root to walk.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, openat, openat2, renameat_with, unlinkat};
use rustix::io::Errno;

/// Removes a directory and everything in it; a file or a link is removed itself. Nothing there is no error. Blocks.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    match open(rustix::fs::CWD, &name) {
        Ok(root) => empty(&root)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open(directory: impl std::os::fd::AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat(directory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory in another, unless something is mounted on it: what is mounted belongs to somebody else.
fn open_inside(directory: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(directory, name, flags, Mode::empty(), resolve)
}

/// Removes what is in the root, again and again until a look finds nothing: every look may have moved more up.
fn empty(root: &OwnedFd) -> rustix::io::Result<()> {
    let mut moved = 0;
    loop {
        let mut is_empty = true;
        let mut entries = Dir::read_from(root)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            is_empty = false;
            if !remove_one(root, entry.file_name())? {
                empty_one(root, entry.file_name(), &mut moved)?;
                allow_absence(unlinkat(root, entry.file_name(), AtFlags::REMOVEDIR))?;
            }
        }
        if is_empty {
            return Ok(());
        }
    }
}

/// Empties a directory in the root: what is in it goes, or, when it is a directory with something in it, up to the root.
fn empty_one(root: &OwnedFd, name: &CStr, moved: &mut u64) -> rustix::io::Result<()> {
    let directory = match open_inside(root, name) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut entries = Dir::read_from(&directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && !remove_one(&directory, name)? {
            move_up(&directory, name, root, moved)?;
        }
    }
    Ok(())
}

/// Removes a file, a link or an empty directory; whether that was possible.
fn remove_one(directory: &OwnedFd, name: &CStr) -> rustix::io::Result<bool> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return allow_absence(other).map(|()| true),
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        other => allow_absence(other).map(|()| true),
    }
}

fn move_up(directory: &OwnedFd, name: &CStr, root: &OwnedFd, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let new = format!(".removed-{moved}");
        // A name like ours may have been put there; numbers do not run out.
        match renameat_with(directory, name, root, new.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return allow_absence(other),
        }
    }
}

fn allow_absence(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::remove_tree;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("windlass-remove-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        path
    }

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        use rustix::fs::{Mode, OFlags, openat};
        let root = scratch("deep");
        let mut here = fs::File::open(&root).map(std::os::fd::OwnedFd::from).expect("there");
        for _ in 0..30_000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).expect("made");
            here = openat(&here, "d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).expect("there");
        }
        drop(here);
        remove_tree(&root).expect("removed");
        assert!(!root.exists());
        remove_tree(&root).expect("removing nothing is no error");
    }

    #[test]
    fn files_links_and_names_like_our_own_go_and_nothing_else() {
        let (root, other) = (scratch("mixed"), scratch("other"));
        fs::write(other.join("kept"), "").expect("a file");
        symlink(&other, root.join("link")).expect("a link");
        for path in [".removed-1/x/y", ".removed-2", "a/b/c", "a/d/e/f"] {
            fs::create_dir_all(root.join(path)).expect("a directory");
            fs::write(root.join(path).join("file"), "").expect("a file");
            symlink(&other, root.join(path).join("link")).expect("a link");
        }
        remove_tree(&root).expect("removed");
        assert!(!root.exists() && other.join("kept").exists());
        let link = std::env::temp_dir().join(format!("windlass-remove-link-{}", std::process::id()));
        symlink(&other, &link).expect("a link");
        remove_tree(&link).expect("removed");
        assert!(fs::symlink_metadata(&link).is_err() && other.join("kept").exists(), "a link is removed itself");
        remove_tree(&other).expect("removed");
    }
}
