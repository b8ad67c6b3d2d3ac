//! Lines of a body that comes in chunks: watches, logs.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use windlass_stdx::{Body, BoxError};

/// A body, line by line.
pub struct LineStream {
    body: Body,
    lines: Lines,
    bytes_max: usize,
    ended: bool,
}

impl LineStream {
    /// Reads this body; a line longer than `bytes_max` comes in pieces.
    pub fn new(body: Body, bytes_max: usize) -> LineStream {
        LineStream { body, lines: Lines::default(), bytes_max, ended: false }
    }

    /// The next line, without its end; blank ones too. `None` after the last.
    ///
    /// Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Result<Option<BytesMut>, BoxError> {
        loop {
            if let Some(line) = self.lines.take_any() {
                return Ok(Some(line));
            }
            if self.ended || self.lines.buffered() > self.bytes_max {
                let rest = self.lines.take_rest();
                return Ok(if rest.is_empty() { None } else { Some(rest) });
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(frame) => {
                    if let Ok(chunk) = frame?.into_data() {
                        self.lines.push(chunk);
                    }
                }
            }
        }
    }
}

/// Cuts a stream of chunks into lines.
#[derive(Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no line end.
    scanned: usize,
}

impl Lines {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.buffer.extend_from_slice(&chunk);
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole line that is not blank.
    pub(crate) fn take(&mut self) -> Option<BytesMut> {
        loop {
            let line = self.take_any()?;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    /// The next whole line.
    fn take_any(&mut self) -> Option<BytesMut> {
        let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.scanned + at);
        self.buffer.advance(1);
        self.scanned = 0;
        Some(line)
    }

    /// What has no line end.
    fn take_rest(&mut self) -> BytesMut {
        self.scanned = 0;
        std::mem::take(&mut self.buffer)
    }
}
