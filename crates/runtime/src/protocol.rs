//! What an agent and a shim say to each other over the sandbox's socket.
//!
//! A frame is a length (4 bytes, little endian), the number of file descriptors that come with it (1 byte), and that
//! many bytes of JSON. Descriptors travel as `SCM_RIGHTS` with the first byte of their frame. The JSON is
//! self-describing, so an agent understands the shims an older agent left behind.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::{ExecSpec, Resources, TerminalSize};
use crate::state::{ContainerEvent, ContainerStatus};

/// The longest frame: an exec's arguments are the longest thing said, and the kernel takes 128 KiB for one of them.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes before the JSON.
pub(crate) const HEADER_BYTES: usize = 5;
/// Most descriptors with one frame: standard input, output, error and a terminal.
pub(crate) const FRAME_FDS_MAX: usize = 4;

/// One request with the number that its reply will carry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub serial: u64,
    pub request: Request,
}

/// What an agent may ask.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Who are you and what have you got? From now on send events.
    Hello,
    /// Make the container whose `spec.json` lies in its directory.
    Create { id: String },
    /// Let its program begin.
    Start { id: String },
    /// Send its first process a signal.
    Signal { id: String, signal: i32 },
    /// Send a signal, wait, then kill all of it.
    Stop { id: String, signal: i32, grace_ms: u64 },
    /// Forget an ended or never started container and everything it had.
    Remove { id: String },
    /// Run one more process in it; `exec` names it from now on.
    Exec { id: String, exec: u64, spec: ExecSpec },
    /// Send an exec'd process a signal.
    ExecSignal { exec: u64, signal: i32 },
    /// Share its input and output.
    Attach { id: String, stdin: bool, stdout: bool, stderr: bool },
    /// Its terminal has this size now.
    Resize { id: String, size: TerminalSize },
    /// Its limits are these now.
    Update { id: String, resources: Resources },
    /// Have CRIU save its processes, which go on meanwhile. Not for a shim that does not say that it can.
    Checkpoint { id: String, order: CheckpointOrder },
    /// Kill and forget everything, then end.
    Shutdown,
}

/// How a container is to be saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointOrder {
    /// CRIU.
    pub program: PathBuf,
    /// Where its log goes; its images go into `checkpoint` in there.
    pub directory: PathBuf,
    /// How long it may take.
    pub timeout_ms: u64,
    /// The most that one of its files may take.
    pub file_bytes_max: u64,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The answer to the call with this number.
    Reply { serial: u64, result: Result<Answer, Failure> },
    /// A container changed.
    Event(ContainerEvent),
    /// An exec'd process ended.
    ExecExit { exec: u64, code: i32, signal: Option<i32> },
}

/// A request was carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Request::Hello`].
    Hello {
        pid: u32,
        containers: Vec<ContainerStatus>,
        /// Containers on their way to be created.
        #[serde(default)]
        making: Vec<String>,
        /// It knows [`Request::Checkpoint`]; a shim that an older agent has left does not.
        #[serde(default)]
        saves: bool,
    },
    /// Nothing more to say.
    Done,
    /// Descriptors come with this frame; which, in this order.
    Streams(Vec<StreamKind>),
}

/// What a descriptor is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamKind {
    /// Written to by the agent.
    Stdin,
    /// Read by the agent.
    Stdout,
    /// Read by the agent.
    Stderr,
    /// The controlling side of a terminal.
    Terminal,
}

/// A request was not carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// There is one already.
    Exists,
    /// There is none.
    NotFound,
    /// It did not work, and why.
    Refused(String),
}

/// The bytes of one frame.
pub(crate) fn encode<T: Serialize>(value: &T, fds: usize) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, value).expect("our own types serialize into memory");
    let length = u32::try_from(frame.len() - HEADER_BYTES).expect("a frame is far below 4 GiB");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4] = u8::try_from(fds).expect("at most FRAME_FDS_MAX descriptors");
    frame
}

/// A frame that breaks the rules: the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Its length or number of descriptors is beyond the bound.
    #[error(
        "a frame of {bytes} bytes with {fds} descriptors; at most {FRAME_BYTES_MAX} and {FRAME_FDS_MAX} are allowed"
    )]
    TooLarge { bytes: usize, fds: usize },
    /// Its JSON is not one of ours.
    #[error("a frame that is not understood: {0}")]
    Unknown(#[from] serde_json::Error),
}

/// Where the next frame of `buffer` ends and how many descriptors it has; `None` when it is not all there.
pub(crate) fn next_frame(buffer: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let bytes = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    let fds = usize::from(buffer[4]);
    if bytes > FRAME_BYTES_MAX || fds > FRAME_FDS_MAX {
        return Err(FrameError::TooLarge { bytes, fds });
    }
    Ok((buffer.len() >= HEADER_BYTES + bytes).then_some((HEADER_BYTES + bytes, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_seen_only_when_it_is_whole() {
        let frame = encode(&Call { serial: 7, request: Request::Hello }, 2);
        for cut in 0..frame.len() {
            assert_eq!(next_frame(&frame[..cut]).expect("a short frame is not wrong"), None);
        }
        assert_eq!(next_frame(&frame).expect("a whole frame"), Some((frame.len(), 2)));
        let call: Call = serde_json::from_slice(&frame[HEADER_BYTES..]).expect("what was encoded");
        assert_eq!(call.serial, 7);
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_it_is_read() {
        assert!(next_frame(&[0xff, 0xff, 0xff, 0x7f, 0]).is_err());
        assert!(next_frame(&[1, 0, 0, 0, 200]).is_err());
    }
}
