//! Files that are kept to be written when the disk has neither room nor inodes left: records must be kept even then.
//!
//! Flow        a write finds the disk full → a kept file becomes the new record, its room and its inode are there already →
//!             what it replaces has freed as much, of which another file is kept as soon as that works
//! Caveats     records longer than [`FILE_BYTES`] need the disk to have room; so does more than [`FILES`] new ones

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

/// Writes that a full disk takes, if each of them is of a record that was not there before.
const FILES: usize = 64;
/// The longest record that finds room on a full disk; one of a usual pod has a tenth of it.
const FILE_BYTES: u64 = 64 << 10;

/// The kept files of one directory.
pub(super) struct Reserve {
    directory: PathBuf,
    /// One at a time, so that two writes do not take the same file.
    turn: Mutex<()>,
    /// Some are missing.
    lacks: AtomicBool,
}

impl Reserve {
    /// Keeps as many files as there is room for.
    pub(super) fn open(directory: PathBuf) -> Reserve {
        let reserve = Reserve { directory, turn: Mutex::default(), lacks: AtomicBool::new(true) };
        reserve.fill();
        reserve
    }

    fn kept(&self, number: usize) -> PathBuf {
        self.directory.join(format!("{number}.kept"))
    }

    /// Makes what is missing. That there is no room for it is no error: it is tried again.
    pub(super) fn fill(&self) {
        if !self.lacks.load(Ordering::Relaxed) {
            return;
        }
        let _turn = self.turn.lock().expect("nothing panics while holding it");
        let made =
            (0..FILES).map(|number| self.kept(number)).filter(|path| !path.exists()).try_for_each(|path| make(&path));
        match made {
            Ok(()) => self.lacks.store(false, Ordering::Relaxed),
            Err(error) => {
                let directory = self.directory.display();
                tracing::debug!(%directory, %error, "there is no room to keep files for records");
            }
        }
    }

    /// Replaces a file whose disk is full by a kept one with this content; `false` when none is left, or none is long enough.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        let _turn = self.turn.lock().expect("nothing panics while holding it");
        let Some(kept) = (0..FILES).map(|number| self.kept(number)).find(|kept| kept.exists()) else {
            return Ok(false);
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > FILE_BYTES {
            return Ok(false);
        }
        let mut file = File::options().write(true).open(&kept)?;
        file.write_all(bytes)?;
        file.set_len(length)?;
        self.lacks.store(true, Ordering::Relaxed);
        fs::rename(&kept, path)?;
        Ok(true)
    }
}

fn make(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("fresh");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    match fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES) {
        Ok(()) => fs::rename(&fresh, path),
        Err(error) => {
            // Half a file takes room and keeps none.
            fs::remove_file(&fresh)?;
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FILE_BYTES, FILES, Reserve};
    use std::fs;

    #[test]
    fn a_kept_file_becomes_a_record_and_another_is_kept_for_it() {
        let directory = std::env::temp_dir().join(format!("windlass-reserve-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let reserve = Reserve::open(directory.clone());
        let record = directory.join("u.json");
        fs::write(&record, "a longer text from before").expect("written");
        assert!(reserve.replace(&record, b"new").expect("written"));
        assert_eq!(fs::read(&record).expect("readable"), b"new");
        let kept = || fs::read_dir(&directory).expect("there").count() - 1;
        assert_eq!(kept(), FILES - 1);
        assert!(!reserve.replace(&record, &vec![b'x'; FILE_BYTES as usize + 1]).expect("looked at"), "it is too long");
        reserve.fill();
        assert_eq!(kept(), FILES);
        fs::remove_dir_all(&directory).expect("the directory is ours");
    }
}
