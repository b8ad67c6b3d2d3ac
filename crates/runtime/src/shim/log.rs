//! A container's log file: the CRI format, rotated by size.
//!
//! One line of output is `TIME stdout|stderr F TEXT`. A line longer than [`LINE_BYTES_MAX`] is cut into parts tagged `P`,
//! the last one `F`; so is what has no line end when the container is over, so that the parts put together are the output,
//! byte by byte.
//!
//! Guarantees  rotation is by rename, so no byte is copied or lost; a full disk costs log lines, counted and reported in
//!             the log itself, and never stops the container

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::spec::LogSpec;

/// The longest part of a line that is written as one.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// Which of its outputs a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// Collects output into log lines.
#[derive(Debug)]
pub(super) struct Lines {
    source: Source,
    /// What has come of a line that has not ended. Empty most of the time, and then it has no memory.
    partial: Vec<u8>,
}

impl Lines {
    pub fn new(source: Source) -> Lines {
        Lines { source, partial: Vec::new() }
    }

    /// Appends the log lines that `bytes` complete to `out`.
    pub fn push(&mut self, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            let window = &rest[..rest.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.line(b'F', &rest[..end], now, out);
                    rest = &rest[end + 1..];
                }
                None if window.len() == room => {
                    self.line(b'P', window, now, out);
                    rest = &rest[room..];
                }
                None => {
                    self.partial.extend_from_slice(window);
                    return;
                }
            }
        }
    }

    /// Appends what has no line end.
    pub fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.line(b'P', &[], now, out);
        }
    }

    fn line(&mut self, tag: u8, text: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        let source = match self.source {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        };
        // Always nine digits, so that lines sort and readers may cut at fixed places.
        write!(out, "{now:.9} {source} ").expect("writing to memory");
        out.extend_from_slice(&[tag, b' ']);
        out.append(&mut self.partial);
        out.extend_from_slice(text);
        out.push(b'\n');
        self.partial = Vec::new();
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Log {
    spec: LogSpec,
    file: File,
    bytes: u64,
    lost_bytes: u64,
}

impl Log {
    /// Opens it for appending; what is there stays.
    pub fn open(spec: LogSpec) -> io::Result<Log> {
        let file = open(&spec.path)?;
        let bytes = file.metadata()?.len();
        Ok(Log { spec, file, bytes, lost_bytes: 0 })
    }

    /// Writes whole lines.
    pub fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.spec.bytes_max {
            // If it cannot be rotated the file grows on; losing lines would be worse.
            let _ = self.rotate();
        }
        if self.lost_bytes > 0 {
            let note = lost_note(self.lost_bytes);
            if self.append(note.as_bytes()).is_ok() {
                self.lost_bytes = 0;
            }
        }
        if let Err((_, unwritten)) = self.append(lines) {
            self.lost_bytes += unwritten as u64;
        }
    }

    /// Writes all, or says how much it could not.
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), (io::Error, usize)> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), bytes.len())),
                Ok(count) => {
                    self.bytes += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((error, bytes.len())),
            }
        }
        Ok(())
    }

    /// `PATH.3` becomes `PATH.4`, …, `PATH` becomes `PATH.1`, and `PATH` is new.
    fn rotate(&mut self) -> io::Result<()> {
        let older = self.spec.files_max - 1;
        if older == 0 {
            self.file.set_len(0)?;
            self.bytes = 0;
            return Ok(());
        }
        for number in (1..older).rev() {
            match fs::rename(numbered(&self.spec.path, number), numbered(&self.spec.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.spec.path, numbered(&self.spec.path, 1))?;
        self.file = open(&self.spec.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn lost_note(bytes: u64) -> String {
    let now = crate::kernel::now();
    format!("{now:.9} stderr F [{bytes} bytes of output could not be written to the log and are lost]\n")
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(chunks: &[&[u8]]) -> String {
        let mut lines = Lines::new(Source::Stdout);
        let mut out = Vec::new();
        let now = Timestamp::from_second(1_767_323_045).expect("a time");
        chunks.iter().for_each(|chunk| lines.push(chunk, now, &mut out));
        lines.finish(now, &mut out);
        String::from_utf8(out).expect("text in, text out")
    }

    #[test]
    fn lines_are_whole_however_the_output_is_cut() {
        let expected = "2026-01-02T03:04:05.000000000Z stdout F one\n\
                        2026-01-02T03:04:05.000000000Z stdout F \n\
                        2026-01-02T03:04:05.000000000Z stdout P two\n";
        assert_eq!(logged(&[b"one\n\ntwo"]), expected);
        let bytes: Vec<&[u8]> = b"one\n\ntwo".chunks(1).collect();
        assert_eq!(logged(&bytes), expected);
    }

    #[test]
    fn a_long_line_is_cut_into_parts_that_make_it_up_again() {
        let text: Vec<u8> = (0..3 * LINE_BYTES_MAX + 7).map(|i| b'a' + (i % 26) as u8).chain([b'\n']).collect();
        let log = logged(&[&text[..10_000], &text[10_000..]]);
        let fields = log.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(fields.iter().map(|f| f[2]).collect::<String>(), "PPPF");
        let whole: String = fields.iter().map(|f| f[3]).collect();
        assert_eq!(whole.as_bytes(), &text[..text.len() - 1]);
    }

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_goes() {
        let directory = std::env::temp_dir().join(format!("windlass-log-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("0.log");
        let mut log = Log::open(LogSpec { path: path.clone(), bytes_max: 4096, files_max: 3 }).expect("a log");
        for number in 0..40 {
            log.write(format!("{number:1023}\n").as_bytes());
        }
        let names = crate::layout::names(&directory).expect("a list");
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
        let kept: String =
            ["0.log.2", "0.log.1", "0.log"].map(|n| fs::read_to_string(directory.join(n)).expect(n)).concat();
        let numbers: Vec<u32> = kept.lines().map(|line| line.trim().parse().expect("a number")).collect();
        assert_eq!(numbers, (28..40).collect::<Vec<_>>());
        fs::remove_dir_all(&directory).expect("our own directory");
    }

    #[test]
    fn a_log_that_is_a_link_is_refused() {
        let directory = std::env::temp_dir().join(format!("windlass-log-link-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        std::os::unix::fs::symlink("/etc/hostname", directory.join("0.log")).expect("a link");
        assert!(Log::open(LogSpec::new(directory.join("0.log"))).is_err());
        fs::remove_dir_all(&directory).expect("our own directory");
    }
}
