//! What containers have put into a volume, read. All of it is theirs to change meanwhile.
//!
//! Guarantees  nothing outside the volume is opened, whatever links are put there; no file is waited for

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::layout::Layout;
use super::volume::{Source, source};
use super::{failed, file_error, read_bounded};
use crate::machine::{ENV_FILE_BYTES_MAX, MachineError};

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
    let bytes = read_bounded(file, ENV_FILE_BYTES_MAX).map_err(|error| failed(&doing, &error))?;
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::kernel::layout::Layout;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

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
