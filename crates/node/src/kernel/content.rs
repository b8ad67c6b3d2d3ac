//! What containers have put into a volume: read, and counted. All of it is theirs to change meanwhile.
//!
//! Guarantees  nothing outside the volume is opened, whatever links are put there; no file is waited for

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat};
use rustix::io::Errno;

use super::layout::Layout;
use super::volume::{Source, source};
use super::{failed, file_error};
use crate::machine::{ENV_FILE_BYTES_MAX, MachineError};

/// How deep directories are followed when they are counted: each level costs a descriptor, and programs stay far below.
const DEPTH_MAX: usize = 128;

fn open_volume(layout: &Layout, pod: &str, volume: &str) -> Result<Option<OwnedFd>, MachineError> {
    let Source::Path(path) = source(layout, pod, volume)? else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, &path, flags, Mode::empty());
    opened.map(Some).map_err(|error| file_error("open volume", &path, &io::Error::from(error)))
}

/// A file in a volume; `None` when there is none.
pub fn read(layout: &Layout, pod: &str, volume: &str, path: &str) -> Result<Option<Bytes>, MachineError> {
    let doing = format!("read {path:?} in volume {volume:?}");
    let Some(root) = open_volume(layout, pod, volume)? else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&root, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(&doing, &io::Error::from(error))),
    };
    let refuse = |why: String| MachineError::Failed { operation: doing.clone(), why };
    let found = fstat(&file).map_err(|error| failed(&doing, &io::Error::from(error)))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(refuse("expected a file, found something else".to_owned()));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(ENV_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(&doing, &error))?;
    if bytes.len() > ENV_FILE_BYTES_MAX {
        return Err(refuse(format!("it is longer than {ENV_FILE_BYTES_MAX} bytes; make it shorter")));
    }
    Ok(Some(bytes.into()))
}

/// Whether a volume takes more than this much room. Directories nested deeper than [`DEPTH_MAX`] are more than any room:
/// whoever hides what it holds gets no more than who shows it. What changes while it is looked at is counted once, twice or not.
pub fn holds_more(layout: &Layout, pod: &str, volume: &str, bytes: u64) -> Result<bool, MachineError> {
    let Some(root) = open_volume(layout, pod, volume)? else { return Ok(false) };
    let counted = count(root, bytes);
    counted.map_err(|error| failed(&format!("count what volume {volume:?} holds"), &error))
}

fn count(root: OwnedFd, bytes_max: u64) -> io::Result<bool> {
    let mut open = vec![Dir::new(root)?];
    let mut bytes: u64 = 0;
    loop {
        let depth = open.len();
        let Some(directory) = open.last_mut() else { return Ok(false) };
        let Some(entry) = directory.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let here = directory.fd()?;
        let found = match statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        // Blocks have 512 bytes whatever the file system's own are (stat(2)).
        bytes = bytes.saturating_add(u64::try_from(found.st_blocks).unwrap_or(0) * 512);
        if bytes > bytes_max {
            return Ok(true);
        }
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            continue;
        }
        if depth == DEPTH_MAX {
            return Ok(true);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // What is mounted in the volume is not the volume's.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match openat2(here, name, flags, Mode::empty(), resolve) {
            Ok(inner) => open.push(Dir::new(inner)?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{count, read};
    use crate::kernel::layout::Layout;
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("windlass-content-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("pods/u/volumes/v")).expect("a directory for the test");
            Scratch(path)
        }

        fn volume(&self) -> PathBuf {
            self.0.join("pods/u/volumes/v")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            windlass_runtime::remove_tree(&self.0).expect("the test's own directory");
        }
    }

    fn more(volume: &Path, bytes: u64) -> Result<bool, String> {
        let root = OwnedFd::from(fs::File::open(volume).expect("there"));
        count(root, bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_volume_holds_is_counted_without_leaving_it() {
        let scratch = Scratch::new("count");
        let volume = scratch.volume();
        fs::create_dir_all(volume.join("a/b")).expect("made");
        fs::write(volume.join("a/b/file"), vec![1; 100_000]).expect("written");
        symlink("/usr", volume.join("out")).expect("a link");
        symlink("..", volume.join("a/up")).expect("a link");
        assert_eq!(more(&volume, 90_000), Ok(true));
        assert_eq!(more(&volume, 200_000), Ok(false));
        fs::create_dir_all(volume.join("d/".repeat(200))).expect("made");
        assert_eq!(more(&volume, 10 << 20), Ok(true), "what lies too deep is not given away");
    }

    #[test]
    fn a_file_is_read_beneath_its_volume_only() {
        let scratch = Scratch::new("read");
        let (volume, layout) = (scratch.volume(), Layout { data: scratch.0.clone() });
        let get = |path: &str| read(&layout, "u", "v", path).map_err(|error| error.to_string());
        fs::create_dir(volume.join("d")).expect("made");
        fs::write(volume.join("d/env"), "A=1").expect("written");
        fs::write(volume.join("long"), vec![0; (64 << 10) + 1]).expect("written");
        symlink("d/env", volume.join("in")).expect("a link");
        symlink("/etc/passwd", volume.join("out")).expect("a link");
        symlink("../../../../..", volume.join("up")).expect("a link");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            volume.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .expect("a pipe");
        assert_eq!(get("d/env").expect("there").as_deref(), Some(&b"A=1"[..]));
        assert_eq!(get("in").expect("there").as_deref(), Some(&b"A=1"[..]));
        assert_eq!(get("none"), Ok(None));
        for path in ["out", "up/etc/passwd", "../v/in", "/etc/passwd", "d", "pipe", "long"] {
            assert!(get(path).is_err(), "{path}");
        }
    }
}
