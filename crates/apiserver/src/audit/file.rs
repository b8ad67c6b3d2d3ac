//! The log's file: appended to, renamed when it is full, and removed when it is old.
//!
//! Rules
//!   F1 whole     a line is written whole or not at all: what a failed write left behind is cut off again
//!   F2 rotated   before a line would make the file larger than `bytes_max` it gets the time in its name
//!   F3 pruned    of rotated files at most `files_max` stay, none older than `age_max`
//!   F4 private   only the server's user may read it

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use windlass_stdx::World;

/// The time in a rotated file's name.
const TIME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// How much of the past is kept.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Bytes of one file.
    pub bytes_max: u64,
    /// Rotated files.
    pub files_max: usize,
    /// How old a rotated file may get.
    pub age_max: Duration,
}

pub(super) struct File {
    path: PathBuf,
    rotation: Rotation,
    world: World,
    file: fs::File,
    bytes: u64,
}

impl File {
    pub fn open(path: &Path, rotation: Rotation, world: World) -> io::Result<File> {
        let (file, bytes) = open(path)?;
        Ok(File { path: path.to_owned(), rotation, world, file, bytes })
    }

    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = line.len() as u64;
        if self.bytes > 0 && self.bytes + bytes > self.rotation.bytes_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(line) {
            // F1.
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// F2.
    fn rotate(&mut self) -> io::Result<()> {
        let now = self.world.now();
        let mut rotated = self.rotated_name(now);
        // Two in one millisecond: the later one takes the next.
        for later in 1..=1000 {
            if !rotated.exists() {
                break;
            }
            rotated = self.rotated_name(now.saturating_add(Duration::from_millis(later)).unwrap_or(now));
        }
        match fs::rename(&self.path, rotated) {
            // It was rotated before and no new one could be opened then, or somebody took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        (self.file, self.bytes) = open(&self.path)?;
        if let Err(error) = self.prune(now) {
            tracing::warn!(%error, directory = ?self.path.parent(), "old audit logs could not be removed");
        }
        Ok(())
    }

    fn rotated_name(&self, at: Timestamp) -> PathBuf {
        let (stem, end) = self.parts();
        let time = at.to_zoned(TimeZone::UTC).strftime(TIME_FORMAT).to_string();
        self.path.with_file_name(format!("{stem}-{time}{end}"))
    }

    /// The file's name before and from its last dot.
    fn parts(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.rsplit_once('.') {
            Some((stem, end)) if !stem.is_empty() => (stem.to_owned(), format!(".{end}")),
            _ => (name, String::new()),
        }
    }

    /// F3.
    fn prune(&self, now: Timestamp) -> io::Result<()> {
        let (stem, end) = self.parts();
        let Some(directory) = self.path.parent() else { return Ok(()) };
        let mut rotated: Vec<(Timestamp, PathBuf)> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let time = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&end));
            let read = |time| jiff::civil::DateTime::strptime(TIME_FORMAT, time).ok()?.to_zoned(TimeZone::UTC).ok();
            if let Some(at) = time.and_then(read) {
                rotated.push((at.timestamp(), path));
            }
        }
        rotated.sort();
        rotated.reverse();
        for (place, (at, path)) in rotated.into_iter().enumerate() {
            let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            if place >= self.rotation.files_max || age > self.rotation.age_max {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(fs::File, u64)> {
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::{File, Rotation};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::Duration;
    use windlass_stdx::World;

    struct Room(PathBuf);

    impl Drop for Room {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    fn room() -> Room {
        let room = Room(std::env::temp_dir().join(format!("windlass-audit-{}", World::real().uuid())));
        std::fs::create_dir(&room.0).expect("a new directory");
        room
    }

    fn files(room: &Room) -> Vec<String> {
        let listed = std::fs::read_dir(&room.0).expect("the test's own directory");
        let mut names: Vec<String> =
            listed.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn at(time: &str) -> World {
        World::seeded(1, time.parse().expect("a time"))
    }

    #[test]
    fn f2_to_f4_a_full_file_is_put_aside_and_few_are_kept() {
        let room = room();
        let path = room.0.join("audit.log");
        let rotation = Rotation { bytes_max: 10, files_max: 2, age_max: Duration::from_secs(3600) };
        let mut file = File::open(&path, rotation, at("2026-01-01T00:00:00Z")).expect("a new file");
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        file.write(b"12345678\n").expect("room on the disk");
        assert_eq!(files(&room), ["audit.log"]);
        for _ in 0..4 {
            file.write(b"12345678\n").expect("room on the disk");
        }
        let names = files(&room);
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-2026-01-01T00-00-00.00"), "{names:?}");
        assert_eq!(std::fs::read(&path).expect("the file"), b"12345678\n");
        let mut file = File::open(&path, rotation, at("2026-01-01T02:00:00Z")).expect("the same file");
        file.write(b"12345678\n").expect("room on the disk");
        let names = files(&room);
        assert_eq!(names.len(), 2, "those of two hours ago are too old: {names:?}");
        assert!(names[0].starts_with("audit-2026-01-01T02"), "{names:?}");
    }
}
