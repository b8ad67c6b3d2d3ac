//! One output of a container: read by the shim, written to the log, and shared with those attached.
//!
//! Guarantees  what is read goes to the log first; someone attached who does not read stalls the container, but never
//!             longer than [`STALL_MS_MAX`] and never with more memory than one chunk

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::log::{Lines, Log, Source};
use crate::kernel;

/// Bytes read at once.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// Milliseconds for which someone attached may make no progress at all.
pub(super) const STALL_MS_MAX: u64 = 10_000;
/// Most who are attached to one output at a time.
const TAPS_MAX: usize = 16;

/// One output.
#[derive(Debug)]
pub(super) struct Output {
    /// Where the shim reads; `None` after its end.
    pub source: Option<OwnedFd>,
    lines: Lines,
    pub taps: Vec<Tap>,
}

/// Someone attached: the writing end of a pipe, and what did not fit into it.
#[derive(Debug)]
pub(super) struct Tap {
    pub pipe: OwnedFd,
    pending: Vec<u8>,
    /// Since when nothing could be written, if something waits to be.
    pub stalled_since_ms: Option<u64>,
    gone: bool,
}

impl Output {
    pub fn new(source: OwnedFd, kind: Source) -> io::Result<Output> {
        kernel::set_nonblocking(&source)?;
        Ok(Output { source: Some(source), lines: Lines::new(kind), taps: Vec::new() })
    }

    /// Whether more should be read now: not while someone attached is still to be served.
    pub fn wants_more(&self) -> bool {
        self.source.is_some() && self.taps.iter().all(|tap| tap.pending.is_empty())
    }

    /// A new share in it.
    pub fn tap(&mut self) -> Result<OwnedFd, String> {
        if self.taps.len() >= TAPS_MAX {
            return Err(format!("{TAPS_MAX} are attached already; detach one first"));
        }
        let make = || {
            let (reader, pipe) = kernel::pipe()?;
            kernel::set_nonblocking(&pipe)?;
            Ok::<_, io::Error>((reader, pipe))
        };
        let (reader, pipe) = make().map_err(|error| format!("could not make a pipe: {error}"))?;
        self.taps.push(Tap { pipe, pending: Vec::new(), stalled_since_ms: None, gone: false });
        Ok(reader)
    }

    /// Reads once. Returns whether there may be more at once.
    pub fn pump(&mut self, log: Option<&mut Log>, chunk: &mut [u8]) -> bool {
        let Some(source) = &self.source else { return false };
        match kernel::read(source, chunk) {
            Ok(0) => self.end(log),
            Ok(count) => {
                self.give(&chunk[..count], log);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            // A terminal nobody has open any more says EIO.
            Err(_) => self.end(log),
        }
        false
    }

    fn give(&mut self, bytes: &[u8], log: Option<&mut Log>) {
        if let Some(log) = log {
            let mut lines = Vec::new();
            self.lines.push(bytes, kernel::now(), &mut lines);
            log.write(&lines);
        }
        for tap in &mut self.taps {
            tap.pending.extend_from_slice(bytes);
            tap.flush();
        }
        self.drop_gone();
    }

    /// Writes what waits, and lets go of those that are gone or have stalled for too long.
    pub fn flush_taps(&mut self, now_ms: u64) {
        for tap in &mut self.taps {
            tap.flush();
            tap.gone |= tap.stalled_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= STALL_MS_MAX);
        }
        self.drop_gone();
    }

    /// Lets go of the one with this index: its reader is gone.
    pub fn detach(&mut self, index: usize) {
        if let Some(tap) = self.taps.get_mut(index) {
            tap.gone = true;
        }
    }

    fn drop_gone(&mut self) {
        self.taps.retain(|tap| !tap.gone);
    }

    /// Reads everything that is there, for a container that is over, without waiting for anyone attached.
    pub fn drain(&mut self, mut log: Option<&mut Log>, chunk: &mut [u8]) {
        while self.pump(log.as_deref_mut(), chunk) {}
        if self.source.is_some() {
            self.end(log);
        }
    }

    fn end(&mut self, log: Option<&mut Log>) {
        self.source = None;
        if let Some(log) = log {
            let mut lines = Vec::new();
            self.lines.finish(kernel::now(), &mut lines);
            log.write(&lines);
        }
        // Those attached see the end once they have got everything.
        self.taps.retain(|tap| !tap.pending.is_empty());
    }

    /// Whether it has ended and everyone attached has got everything.
    pub fn is_done(&self) -> bool {
        self.source.is_none() && self.taps.iter().all(|tap| tap.pending.is_empty())
    }
}

impl Tap {
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    fn flush(&mut self) {
        while !self.pending.is_empty() {
            match kernel::write(self.pipe.as_fd(), &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.stalled_since_ms = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_since_ms.get_or_insert_with(kernel::monotonic_ms);
                    return;
                }
                Err(_) => {
                    self.gone = true;
                    self.pending.clear();
                }
            }
        }
        self.pending = Vec::new();
        self.stalled_since_ms = None;
    }
}
