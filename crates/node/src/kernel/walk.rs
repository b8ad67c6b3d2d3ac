//! Walking a directory that somebody else may be changing, however deep it is.
//!
//! Guarantees  no link is followed, nothing mounted is entered, nothing outside of the directory is opened; descriptors,
//!             memory and what depth costs are bounded, whatever is in it
//! Caveats     what is moved while it is walked is seen once, twice or not

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Directories that are open at one time, one in the other: each costs a descriptor.
const OPEN_MAX: usize = 64;
/// What is remembered of directories that lie deeper, for later: names and what they cost.
const LATER_BYTES_MAX: usize = 32 << 20;
/// What a remembered name costs beside its bytes.
const NAME_BYTES: usize = 32;
/// The way to all that is remembered, in directories: each is gone anew, so a chain of them costs the square of its depth.
const STEPS_MAX: usize = 4_000_000;

/// What becomes of an entry that has been looked at.
pub(super) enum Next {
    /// It is done.
    Over,
    /// It is a directory, and its content is looked at too.
    Enter,
    /// Nothing more is looked at.
    Stop,
}

/// What keeps to one directory.
pub(super) const WITHIN: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// A directory that is looked at.
struct Level {
    entries: Dir,
    name: CString,
}

/// Looks at every entry below `root`, a directory before what is in it. Returns whether all was seen.
pub(super) fn walk(root: &OwnedFd, look: impl FnMut(BorrowedFd<'_>, &CStr) -> io::Result<Next>) -> io::Result<bool> {
    walk_within(STEPS_MAX, root, look)
}

fn walk_within(
    steps_max: usize,
    root: &OwnedFd,
    mut look: impl FnMut(BorrowedFd<'_>, &CStr) -> io::Result<Next>,
) -> io::Result<bool> {
    let mut is_whole = true;
    let mut steps = 0;
    let mut later: Vec<Vec<CString>> = vec![Vec::new()];
    let mut later_bytes = 0;
    while let Some(path) = later.pop() {
        later_bytes -= cost(&path);
        let Some(top) = enter(root, &path)? else { continue };
        let mut open = vec![Level { entries: Dir::read_from(&top)?, name: CString::default() }];
        while let Some(level) = open.last_mut() {
            let Some(entry) = level.entries.read() else {
                open.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let here = level.entries.fd()?;
            match look(here, name)? {
                Next::Over => continue,
                Next::Stop => return Ok(false),
                Next::Enter => {}
            }
            if open.len() < OPEN_MAX {
                if let Some(inner) = step(open.last().expect("it was there a line ago").entries.fd()?, name)? {
                    open.push(Level { entries: Dir::new(inner)?, name: name.to_owned() });
                }
                continue;
            }
            steps += path.len() + open.len();
            if steps > steps_max {
                return Ok(false);
            }
            let own = open.iter().skip(1).map(|level| level.name.clone()).chain([name.to_owned()]);
            let deeper: Vec<CString> = path.iter().cloned().chain(own).collect();
            later_bytes += cost(&deeper);
            match later_bytes <= LATER_BYTES_MAX {
                true => later.push(deeper),
                false => {
                    later_bytes -= cost(&deeper);
                    is_whole = false;
                }
            }
        }
    }
    Ok(is_whole)
}

fn cost(path: &[CString]) -> usize {
    path.iter().map(|name| name.as_bytes().len() + NAME_BYTES).sum()
}

/// The directory at this path; `None` when it is not there any more.
fn enter(root: &OwnedFd, path: &[CString]) -> io::Result<Option<OwnedFd>> {
    let mut here = root.try_clone()?;
    for name in path {
        match step(here.as_fd(), name)? {
            Some(inner) => here = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// A directory in this one; `None` when it is gone, something else by now, or somebody else's.
fn step(here: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(here, name, flags, Mode::empty(), WITHIN) {
        Ok(inner) => Ok(Some(inner)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, OPEN_MAX, walk, walk_within};
    use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, openat, statat};
    use std::os::fd::OwnedFd;

    fn open(path: &std::path::Path) -> OwnedFd {
        openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("it is there")
    }

    fn seen(root: &OwnedFd) -> (usize, bool) {
        let mut count = 0;
        let is_whole = walk(root, |here, name| {
            count += 1;
            let found = statat(here, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            Ok(if is_directory { Next::Enter } else { Next::Over })
        });
        (count, is_whole.expect("it can be walked"))
    }

    #[test]
    fn what_lies_deeper_than_any_path_is_long_is_seen() {
        let top = std::env::temp_dir().join(format!("windlass-walk-{}", std::process::id()));
        std::fs::create_dir_all(&top).expect("the temporary directory is writable");
        let root = open(&top);
        let depth = OPEN_MAX * 40 + 3;
        let mut here = root.try_clone().expect("a descriptor");
        for _ in 0..depth {
            for name in ["deeper", "beside"] {
                mkdirat(&here, name, Mode::from_raw_mode(0o700)).expect("made");
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            here = openat(&here, "deeper", flags, Mode::empty()).expect("made a line ago");
        }
        std::os::unix::fs::symlink("/", top.join("out")).expect("a link");
        assert_eq!(seen(&root), (2 * depth + 1, true));
        windlass_runtime::remove_tree(&top).expect("the directory is ours");
    }

    #[test]
    fn a_walk_of_a_deep_chain_ends_when_the_way_down_has_cost_enough() {
        let top = std::env::temp_dir().join(format!("windlass-walk-steps-{}", std::process::id()));
        let deep = (0..OPEN_MAX * 4).fold(top.clone(), |path, _| path.join("d"));
        std::fs::create_dir_all(deep).expect("the temporary directory is writable");
        let root = open(&top);
        // It is begun anew at each 64th directory, at the 64th, the 128th, the 192nd and the last.
        let cost = OPEN_MAX * (1 + 2 + 3 + 4);
        let is_whole = |steps_max| walk_within(steps_max, &root, |_, _| Ok(Next::Enter)).expect("it can be walked");
        assert!(is_whole(cost) && !is_whole(cost - 1));
        windlass_runtime::remove_tree(&top).expect("the directory is ours");
    }

    #[test]
    fn a_walk_ends_when_it_is_told_to() {
        let top = std::env::temp_dir().join(format!("windlass-walk-stop-{}", std::process::id()));
        std::fs::create_dir_all(top.join("a/b")).expect("the temporary directory is writable");
        assert!(!walk(&open(&top), |_, _| Ok(Next::Stop)).expect("it can be walked"));
        std::fs::remove_dir_all(&top).expect("the directory is ours");
    }
}
