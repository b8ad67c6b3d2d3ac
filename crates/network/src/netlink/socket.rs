//! A netlink socket: it belongs for good to the network namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force, set_socket_timeout,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use super::NetlinkError;
use super::message::{HEADER_BYTES, Messages, length_at};

/// Wants an answer even when all is well.
pub(crate) const ACK: u16 = 0x4;
/// Wants every object of a kind.
pub(crate) const DUMP: u16 = 0x300;
/// The answer has the kernel's explanation after it.
const FLAG_ACK_TLVS: u16 = 0x200;
/// The answer does not repeat the request.
const FLAG_CAPPED: u16 = 0x100;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The kernel answers at once; a second means that it never will.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A full load of services is one message of this order; the kernel takes what is needed only.
const SEND_BYTES_MAX: usize = 64 << 20;
const RECEIVE_BYTES_MAX: usize = 4 << 20;
/// One datagram of a dump is at most 32 KiB, an answer with its explanation far less.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// A dump of a full service table is below this; more would be somebody else's.
const DUMP_MESSAGES_MAX: usize = 1 << 20;

/// Which part of the kernel answers.
#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    /// Links, addresses and routes.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// One conversation with the kernel; callers take turns.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    datagram: Vec<u8>,
}

/// One answered message, without its header.
pub(crate) struct Reply {
    pub(crate) payload: Vec<u8>,
}

enum Read {
    /// The answer to the message at this place in the request: 0 or an error number, and the kernel's explanation.
    Ack {
        index: usize,
        code: i32,
        detail: Option<String>,
    },
    Data(Reply),
    Done,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(protocol: Protocol) -> Result<Socket, NetlinkError> {
        let failed = |source: rustix::io::Errno| NetlinkError::Socket { doing: "open", source: source.into() };
        let number = match protocol {
            // The number of rtnetlink is 0, which is what no number means.
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number);
        let fd = fd.map_err(failed)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT)).map_err(failed)?;
        if matches!(protocol, Protocol::Netfilter) {
            set_socket_send_buffer_size_force(&fd, SEND_BYTES_MAX).map_err(failed)?;
            set_socket_recv_buffer_size_force(&fd, RECEIVE_BYTES_MAX).map_err(failed)?;
        }
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            turn_on(&fd, option).map_err(|source| NetlinkError::Socket { doing: "set-up", source })?;
        }
        Ok(Socket { fd, sequence: 0, datagram: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Sends the messages and waits until the kernel has taken every one; the first refusal is the error.
    ///
    /// Later messages are carried out even when an earlier one is refused.
    pub(crate) fn change(&mut self, mut messages: Messages) -> Result<(), NetlinkError> {
        set_flags(&mut messages.bytes, ACK);
        let first = self.send(&mut messages)?;
        let mut open = messages.len();
        let mut refused = None;
        while open > 0 {
            for read in self.receive(first, &messages, RecvFlags::empty())? {
                let Read::Ack { index, code, detail } = read else { continue };
                open = open.saturating_sub(1);
                refused = refused.or_else(|| refusal(&messages, index, code, detail));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends the messages as one transaction, of which the last asks for an answer; the kernel has carried it out
    /// or refused all of it when `send` returns, so that every answer is already there.
    pub(crate) fn transact(&mut self, mut messages: Messages) -> Result<(), NetlinkError> {
        let first = self.send(&mut messages)?;
        let mut acknowledged = false;
        let mut refused = None;
        loop {
            let reads = match self.receive(first, &messages, RecvFlags::DONTWAIT) {
                Ok(reads) => reads,
                Err(NetlinkError::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            for read in reads {
                let Read::Ack { index, code, detail } = read else { continue };
                acknowledged |= code == 0;
                refused = refused.or_else(|| refusal(&messages, index, code, detail));
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if acknowledged => Ok(()),
            None => Err(NetlinkError::Answer { what: "a transaction", found: "silence" }),
        }
    }

    /// Sends one question; every answer until the kernel says that it is done or, for a single object, its first.
    pub(crate) fn ask(&mut self, mut question: Messages, dump: bool) -> Result<Vec<Reply>, NetlinkError> {
        set_flags(&mut question.bytes, if dump { DUMP } else { 0 });
        let first = self.send(&mut question)?;
        let mut replies = Vec::new();
        loop {
            for read in self.receive(first, &question, RecvFlags::empty())? {
                match read {
                    Read::Data(reply) if replies.len() < DUMP_MESSAGES_MAX => replies.push(reply),
                    Read::Data(_) => {}
                    Read::Done => return Ok(replies),
                    Read::Ack { index, code, detail } => match refusal(&question, index, code, detail) {
                        Some(refused) => return Err(refused),
                        None => return Ok(replies),
                    },
                }
            }
            if !dump && !replies.is_empty() {
                return Ok(replies);
            }
        }
    }

    /// Numbers the messages and sends them; the number of the first.
    fn send(&mut self, messages: &mut Messages) -> Result<u32, NetlinkError> {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(messages.len() as u32);
        let mut at = 0;
        let mut number = first;
        while at < messages.bytes.len() {
            messages.bytes[at + 8..at + 12].copy_from_slice(&number.to_ne_bytes());
            number = number.wrapping_add(1);
            at += length_at(&messages.bytes, at);
        }
        match send(&self.fd, &messages.bytes, SendFlags::empty()) {
            Ok(sent) if sent == messages.bytes.len() => Ok(first),
            Ok(_) => Err(NetlinkError::Answer { what: "a request", found: "a part of it taken" }),
            Err(source) => Err(NetlinkError::Socket { doing: "send", source: source.into() }),
        }
    }

    /// One datagram's messages that answer ours.
    fn receive(&mut self, first: u32, messages: &Messages, flags: RecvFlags) -> Result<Vec<Read>, NetlinkError> {
        let failed = |source: rustix::io::Errno| NetlinkError::Socket { doing: "receive", source: source.into() };
        let (length, _) = loop {
            match recv(&self.fd, &mut self.datagram[..], flags) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map_err(failed)?,
            }
        };
        let mut bytes = &self.datagram[..length];
        let mut reads = Vec::new();
        while bytes.len() >= HEADER_BYTES {
            let size = length_at(bytes, 0);
            if size < HEADER_BYTES || size > bytes.len() {
                return Err(NetlinkError::Answer { what: "a request", found: "a cut message" });
            }
            let index = word(bytes, 8).wrapping_sub(first) as usize;
            if index < messages.len() {
                reads.extend(read_one(&bytes[..size], index));
            }
            bytes = bytes.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(reads)
    }
}

fn read_one(message: &[u8], index: usize) -> Option<Read> {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let flags = u16::from_ne_bytes([message[6], message[7]]);
    let payload = &message[HEADER_BYTES..];
    match kind {
        ERROR if payload.len() >= 4 + HEADER_BYTES => {
            let code = -(word(payload, 0) as i32);
            let detail = (flags & FLAG_ACK_TLVS != 0).then(|| explanation(payload, flags)).flatten();
            Some(Read::Ack { index, code, detail })
        }
        ERROR => None,
        DONE => {
            let code = payload.get(0..4).map_or(0, |_| -(word(payload, 0) as i32));
            Some(if code == 0 { Read::Done } else { Read::Ack { index, code, detail: None } })
        }
        _ => Some(Read::Data(Reply { payload: payload.to_vec() })),
    }
}

/// The kernel's explanation follows the request's header, or the whole request where it is repeated.
fn explanation(payload: &[u8], flags: u16) -> Option<String> {
    const MESSAGE: u16 = 1;
    let repeated = if flags & FLAG_CAPPED != 0 { HEADER_BYTES } else { length_at(payload, 4).next_multiple_of(4) };
    let rest = payload.get(4 + repeated..)?;
    let found = super::attributes(rest).find(|(kind, _)| *kind == MESSAGE);
    found.map(|(_, text)| super::text_of(text).to_owned())
}

fn refusal(messages: &Messages, index: usize, code: i32, detail: Option<String>) -> Option<NetlinkError> {
    let what = messages.labels.get(index).copied().unwrap_or("a request");
    (code != 0).then(|| NetlinkError::Refused { what, detail, source: io::Error::from_raw_os_error(code) })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn set_flags(bytes: &mut [u8], flag: u16) {
    let mut at = 0;
    while at < bytes.len() {
        let flags = u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]) | flag;
        bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
        at += length_at(bytes, at);
    }
}

fn turn_on(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call, and `on` is readable for exactly `size` bytes.
    let code =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, std::ptr::from_ref(&on).cast(), size) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
