//! One agent connected to the shim: its frames in, replies and events out, all without ever waiting for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::kernel;
use crate::protocol::{Call, HEADER_BYTES, Message, encode, next_frame};

/// Bytes that may wait for an agent that does not read. Beyond it the connection is closed: the agent connects again
/// and is told how everything stands.
const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub number: u32,
    pub socket: UnixStream,
    inbox: Vec<u8>,
    outbox: VecDeque<Frame>,
    outbox_bytes: usize,
    /// It has said hello and is told every event.
    pub is_subscribed: bool,
    pub is_gone: bool,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    /// Go with the first byte.
    fds: Vec<OwnedFd>,
}

impl Peer {
    /// Takes a connection, if it comes from root.
    pub fn accept(number: u32, socket: UnixStream) -> io::Result<Peer> {
        if kernel::peer_uid(&socket)? != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        socket.set_nonblocking(true)?;
        Ok(Peer {
            number,
            socket,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            is_subscribed: false,
            is_gone: false,
        })
    }

    /// Reads what has come; returns the calls that are complete.
    pub fn receive(&mut self) -> Vec<Call> {
        let mut chunk = [0; READ_BYTES];
        let mut fds = VecDeque::new();
        loop {
            match kernel::receive(&self.socket, &mut chunk, &mut fds) {
                Ok(0) => self.is_gone = true,
                Ok(count) => {
                    self.inbox.extend_from_slice(&chunk[..count]);
                    // One frame's worth at a time keeps the buffer within a frame and a chunk.
                    if count == chunk.len() && matches!(next_frame(&self.inbox), Ok(None)) {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.is_gone = true,
            }
            break;
        }
        self.calls()
    }

    fn calls(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        loop {
            match next_frame(&self.inbox) {
                Ok(Some((end, _))) => {
                    match serde_json::from_slice(&self.inbox[HEADER_BYTES..end]) {
                        Ok(call) => calls.push(call),
                        // An agent of another version asks for something unknown: it is better off without us.
                        Err(_) => self.is_gone = true,
                    }
                    self.inbox.drain(..end);
                }
                Ok(None) => break,
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        calls
    }

    /// Says something, now or as soon as it can.
    pub fn say(&mut self, message: &Message, fds: Vec<OwnedFd>) {
        let bytes = encode(message, fds.len());
        self.outbox_bytes += bytes.len();
        if self.outbox_bytes > OUTBOX_BYTES_MAX {
            self.is_gone = true;
            return;
        }
        self.outbox.push_back(Frame { bytes, sent: 0, fds });
        self.flush();
    }

    /// Whether something waits to be sent.
    pub fn is_waiting(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub fn flush(&mut self) {
        while let Some(frame) = self.outbox.front_mut() {
            let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).collect();
            match kernel::send(&self.socket, &frame.bytes[frame.sent..], &fds) {
                Ok(count) => {
                    drop(fds);
                    frame.fds = Vec::new();
                    frame.sent += count;
                    self.outbox_bytes -= count;
                    if frame.sent == frame.bytes.len() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_gone = true;
                    self.outbox.clear();
                    return;
                }
            }
        }
        self.outbox = VecDeque::new();
    }
}
