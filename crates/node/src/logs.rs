//! Container logs on disk: from where to read, how far, and on while more comes.
//!
//! Source: CRI log format, `RFC3339NANO stdout|stderr F|P TEXT`; P is a part of a line that goes on in the next record.
//!
//! Guarantees  no link is followed on the way to a log, and nothing outside the pod's logs is read · rotation loses nothing
//!             as long as the reader is not four rotations behind

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// A record longer than this is none of ours; it is passed on as it is.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Older parts are `.1` to this.
const ROTATED_MAX: u32 = 16;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on while more comes.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// What the next look at a log brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This; there may be more.
    Text(Vec<u8>),
    /// Nothing for now.
    Idle,
    /// The limit is reached.
    Full,
}

/// A reader's place in a log.
pub struct LogReader {
    directory: PathBuf,
    log: PathBuf,
    options: LogOptions,
    file: Option<File>,
    /// The beginning of a record whose end has not been read.
    rest: Vec<u8>,
    is_mid_line: bool,
    sent: u64,
}

impl LogReader {
    /// A reader of the log at `log` beneath `directory`, at its place.
    pub fn open(directory: &Path, log: &Path, options: LogOptions) -> io::Result<LogReader> {
        let mut reader = LogReader {
            directory: directory.to_owned(),
            log: log.to_owned(),
            options,
            file: None,
            rest: Vec::new(),
            is_mid_line: false,
            sent: 0,
        };
        reader.file = match reader.options.tail_lines {
            Some(lines) => reader.at_tail(lines)?,
            None => reader.oldest()?,
        };
        Ok(reader)
    }

    /// Reads on. Blocks for as long as the disk takes.
    pub fn step(&mut self) -> io::Result<Step> {
        loop {
            if self.options.limit_bytes.is_some_and(|limit| self.sent >= limit) {
                return Ok(Step::Full);
            }
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = match &mut self.file {
                Some(file) => file.read(&mut chunk)?,
                None => 0,
            };
            if count == 0 && !self.turn_over()? {
                return Ok(Step::Idle);
            }
            self.rest.extend_from_slice(&chunk[..count]);
            let text = self.take_records();
            if !text.is_empty() {
                return Ok(Step::Text(text));
            }
        }
    }

    /// At the end of a file: goes to the next one. `false` when this is the one that is written to.
    fn turn_over(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else {
            self.file = self.oldest()?;
            return Ok(self.file.is_some());
        };
        let own = file.metadata()?.ino();
        let next = match self.place_of(own)? {
            Some(0) => return Ok(false),
            Some(place) => self.open_part(place - 1)?,
            // Rotated away beneath the reader: what is left begins with the oldest.
            None => self.oldest()?,
        };
        // What was written between the last read and the rotation.
        let file = self.file.as_mut().expect("matched above");
        let before = self.rest.len();
        file.read_to_end(&mut self.rest)?;
        if self.rest.len() > before {
            return Ok(true);
        }
        // The next one may not have been begun yet.
        let Some(next) = next else { return Ok(false) };
        self.file = Some(next);
        Ok(true)
    }

    fn part(&self, place: u32) -> PathBuf {
        match place {
            0 => self.log.clone(),
            place => PathBuf::from(format!("{}.{place}", self.log.display())),
        }
    }

    fn open_part(&self, place: u32) -> io::Result<Option<File>> {
        match open_beneath(&self.directory, &self.part(place)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn place_of(&self, inode: u64) -> io::Result<Option<u32>> {
        for place in 0..=ROTATED_MAX {
            match self.open_part(place)? {
                Some(file) if file.metadata()?.ino() == inode => return Ok(Some(place)),
                Some(_) => {}
                None if place > 0 => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    fn oldest(&self) -> io::Result<Option<File>> {
        let mut oldest = self.open_part(0)?;
        for place in 1..=ROTATED_MAX {
            match self.open_part(place)? {
                Some(file) => oldest = Some(file),
                None => break,
            }
        }
        Ok(oldest)
    }

    /// The file and place in it from which so many lines are left to the end.
    fn at_tail(&self, lines: u64) -> io::Result<Option<File>> {
        let mut wanted = usize::try_from(lines).unwrap_or(usize::MAX);
        let mut last = None;
        for place in 0..=ROTATED_MAX {
            let Some(mut file) = self.open_part(place)? else { if place == 0 { continue } else { break } };
            let (starts, found) = last_lines(&mut file, wanted)?;
            let at = if wanted == 0 { file.seek(SeekFrom::End(0))? } else { starts };
            file.seek(SeekFrom::Start(at))?;
            last = Some(file);
            if found >= wanted {
                break;
            }
            wanted -= found;
        }
        Ok(last)
    }

    fn take_records(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        let mut begin = 0;
        while let Some(end) = rest[begin..].iter().position(|byte| *byte == b'\n') {
            self.take_record(&rest[begin..begin + end], &mut out);
            begin += end + 1;
        }
        self.rest = rest[begin..].to_vec();
        if self.rest.len() > RECORD_BYTES_MAX {
            out.append(&mut self.rest);
        }
        if let Some(limit) = self.options.limit_bytes {
            let room = usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            out.truncate(room);
        }
        self.sent += out.len() as u64;
        out
    }

    fn take_record(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let Some((time, is_whole, text)) = parse(record) else {
            out.extend_from_slice(record);
            out.push(b'\n');
            return;
        };
        if let Some(since) = self.options.since {
            let at = std::str::from_utf8(time).ok().and_then(|time| time.parse::<Timestamp>().ok());
            if at.is_some_and(|at| at < since) {
                return;
            }
        }
        if self.options.timestamps && !self.is_mid_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if is_whole {
            out.push(b'\n');
        }
        self.is_mid_line = !is_whole;
    }
}

/// Time, whether the line ends here, text.
fn parse(record: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = matches!(stream, b"stdout" | b"stderr");
    // More tags may follow one day, separated by colons.
    let is_whole = match tag.split(|byte| *byte == b':').next() {
        Some(b"F") => true,
        Some(b"P") => false,
        _ => return None,
    };
    is_ours.then_some((time, is_whole, parts.next().unwrap_or_default()))
}

/// Where the last `wanted` lines of a file begin, and how many there are (at most `wanted`).
fn last_lines(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let mut starts: VecDeque<u64> = VecDeque::new();
    let mut reader = io::BufReader::with_capacity(CHUNK_BYTES, &mut *file);
    let (mut at, mut line_start, mut is_mid_line) = (0u64, 0u64, false);
    let mut record = Vec::new();
    loop {
        record.clear();
        let count = io::BufRead::read_until(&mut reader, b'\n', &mut record)?;
        if count == 0 {
            break;
        }
        if !is_mid_line {
            line_start = at;
        }
        at += count as u64;
        let text = record.strip_suffix(b"\n").unwrap_or(&record);
        is_mid_line = parse(text).is_some_and(|(_, is_whole, _)| !is_whole);
        if !is_mid_line {
            starts.push_back(line_start);
            if starts.len() > wanted {
                starts.pop_front();
            }
        }
    }
    if is_mid_line {
        starts.push_back(line_start);
        if starts.len() > wanted {
            starts.pop_front();
        }
    }
    Ok((starts.front().copied().unwrap_or(at), starts.len()))
}

/// Opens a file beneath a directory without following any link on the way.
fn open_beneath(directory: &Path, path: &Path) -> io::Result<File> {
    let root = File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?;
    let file = File::from(opened);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a regular file, found something else"));
    }
    Ok(file)
}

/// The last lines of a log, at most so many bytes of them.
pub fn tail(directory: &Path, log: &Path, lines: usize, bytes_max: usize) -> io::Result<String> {
    let options = LogOptions { tail_lines: Some(lines as u64), ..LogOptions::default() };
    let mut reader = LogReader::open(directory, log, options)?;
    let mut text: Vec<u8> = Vec::new();
    while let Step::Text(more) = reader.step()? {
        text.extend(more);
        let surplus = text.len().saturating_sub(bytes_max);
        text.drain(..surplus);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Removes a log and its older parts; missing ones are fine.
pub fn remove(log: &Path) -> io::Result<()> {
    for place in 0..=ROTATED_MAX {
        let path = if place == 0 { log.to_owned() } else { PathBuf::from(format!("{}.{place}", log.display())) };
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && place > 0 => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LogOptions, LogReader, Step, remove, tail};
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    struct Logs(PathBuf);

    impl Logs {
        fn new(name: &str) -> Logs {
            let path = std::env::temp_dir().join(format!("windlass-logs-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("web")).expect("a directory for the test");
            Logs(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("web/0.log")
        }

        fn write(&self, records: &[&str]) {
            let mut file = fs::File::options().create(true).append(true).open(self.path()).expect("a log");
            for record in records {
                let second = record.len() % 60;
                writeln!(file, "2026-01-01T00:00:{second:02}.5Z stdout {record}").expect("written");
            }
        }

        fn rotate(&self) {
            for place in (1..4).rev() {
                let of = |place: u32| self.0.join(format!("web/0.log.{place}"));
                if of(place).exists() {
                    fs::rename(of(place), of(place + 1)).expect("renamed");
                }
            }
            fs::rename(self.path(), self.0.join("web/0.log.1")).expect("renamed");
        }

        fn open(&self, options: LogOptions) -> LogReader {
            LogReader::open(&self.0, Path::new("web/0.log"), options).expect("a log")
        }
    }

    impl Drop for Logs {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    fn all(reader: &mut LogReader) -> String {
        let mut out = Vec::new();
        while let Step::Text(text) = reader.step().expect("readable") {
            out.extend(text);
        }
        String::from_utf8(out).expect("the test writes text")
    }

    #[test]
    fn parts_of_lines_are_joined_and_times_shown_once_a_line() {
        let logs = Logs::new("join");
        logs.write(&["F one", "P tw", "P o-", "F three", "F ", "F a  b"]);
        assert_eq!(all(&mut logs.open(LogOptions::default())), "one\ntwo-three\n\na  b\n");
        let timed = all(&mut logs.open(LogOptions { timestamps: true, ..LogOptions::default() }));
        assert_eq!(timed.matches("2026-").count(), 4, "{timed}");
    }

    #[test]
    fn the_tail_reaches_into_older_parts() {
        let logs = Logs::new("tail");
        logs.write(&["F 1", "F 2"]);
        logs.rotate();
        logs.write(&["F 3", "P 4", "F 4"]);
        let lines = |lines| all(&mut logs.open(LogOptions { tail_lines: Some(lines), ..LogOptions::default() }));
        assert_eq!(lines(0), "");
        assert_eq!(lines(1), "44\n");
        assert_eq!(lines(3), "2\n3\n44\n");
        assert_eq!(lines(99), "1\n2\n3\n44\n");
        assert_eq!(tail(&logs.0, Path::new("web/0.log"), 2, 4).expect("readable"), "\n44\n");
    }

    #[test]
    fn following_crosses_rotations_without_loss() {
        let logs = Logs::new("follow");
        let mut reader = logs.open(LogOptions { follow: true, ..LogOptions::default() });
        assert_eq!(reader.step().expect("readable"), Step::Idle, "there is no log yet");
        logs.write(&["F 1"]);
        assert_eq!(all(&mut reader), "1\n");
        logs.write(&["F 2"]);
        logs.rotate();
        logs.write(&["F 3"]);
        logs.rotate();
        logs.write(&["F 4"]);
        assert_eq!(all(&mut reader), "2\n3\n4\n");
        logs.write(&["F 5"]);
        assert_eq!(all(&mut reader), "5\n");
    }

    #[test]
    fn since_and_limit_cut() {
        let logs = Logs::new("cut");
        logs.write(&["F 1", "F 12345"]);
        let since = Some("2026-01-01T00:00:05Z".parse().expect("a time"));
        assert_eq!(all(&mut logs.open(LogOptions { since, ..LogOptions::default() })), "12345\n");
        let mut limited = logs.open(LogOptions { limit_bytes: Some(4), ..LogOptions::default() });
        assert_eq!(all(&mut limited), "1\n12");
        assert_eq!(limited.step().expect("readable"), Step::Full);
    }

    #[test]
    fn a_link_in_the_place_of_a_log_is_refused() {
        let logs = Logs::new("link");
        symlink("/etc/passwd", logs.path()).expect("a link");
        assert!(LogReader::open(&logs.0, Path::new("web/0.log"), LogOptions::default()).is_err());
        fs::remove_file(logs.path()).expect("the link");
        fs::remove_dir(logs.0.join("web")).expect("empty");
        symlink("/etc", logs.0.join("web")).expect("a link");
        assert!(LogReader::open(&logs.0, Path::new("web/passwd"), LogOptions::default()).is_err());
        assert!(LogReader::open(&logs.0, Path::new("../x"), LogOptions::default()).is_err());
    }

    #[test]
    fn removal_takes_the_older_parts_along() {
        let logs = Logs::new("remove");
        logs.write(&["F 1"]);
        logs.rotate();
        logs.write(&["F 2"]);
        remove(&logs.path()).expect("removed");
        remove(&logs.path()).expect("nothing there is fine");
        assert_eq!(fs::read_dir(logs.0.join("web")).expect("there").count(), 0);
    }
}
