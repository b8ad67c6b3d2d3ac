//! gRPC as its clients speak it, to the programs beside the agent that serve a socket (CSI and DRA drivers, device plugins)
//! and to pods that are asked whether they are well. Messages are bytes here (`windlass_api::codec::wire`).
//!
//! Rules
//!   G1 bounded    every call has a deadline, which the server is told; a message is as long as the caller reads, usually
//!                 [`MESSAGE_BYTES_MAX`]
//!   G2 alone      a call has a connection of its own: a server that was started again is reached at once, and a call that
//!                 is given up hangs up
//!   G3 in full    an answer counts only with the server's word that it is whole (grpc-status 0)
//! Source: gRPC documentation, "gRPC over HTTP2"; RFC 9113.

pub mod server;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

/// The longest message that is read; servers and clients of other makes have the same bound.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// The most of a server's own words that is kept.
const WORDS_BYTES_MAX: usize = 4096;

/// Codes that callers tell apart (gRPC documentation, "Status codes").
pub mod code {
    /// The question makes no sense.
    pub const INVALID_ARGUMENT: u32 = 3;
    /// What was asked for is not there.
    pub const NOT_FOUND: u32 = 5;
    /// There is no more of it.
    pub const EXHAUSTED: u32 = 8;
    /// The server does not know the method.
    pub const UNIMPLEMENTED: u32 = 12;
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there.
    #[error("nobody answers at {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        why: String,
    },
    /// The server says no.
    #[error("{words} (code {code})")]
    Refused {
        /// One of [`code`], or another.
        code: u32,
        /// Its words.
        words: String,
    },
    /// The connection broke: the call may have been carried out.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer in time: the call may still be carried out.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer is none of gRPC's.
    #[error("expected an answer of gRPC, found {0}")]
    Malformed(String),
}

impl CallError {
    /// The code by which a server has refused.
    pub fn code(&self) -> Option<u32> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What a connection runs over.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One call: `/package.Service/Method` and its message.
#[derive(Clone, Debug)]
pub struct Call {
    /// Path of the method.
    pub method: String,
    /// The message.
    pub message: Vec<u8>,
    /// How long the answer may take; of a stream, its first sign.
    pub timeout: Duration,
    /// The longest message that is read.
    pub bytes_max: usize,
}

impl Call {
    /// A call with the usual bound.
    pub fn new(method: &str, message: Vec<u8>, timeout: Duration) -> Call {
        Call { method: method.to_owned(), message, timeout, bytes_max: MESSAGE_BYTES_MAX }
    }
}

/// Asks once at a socket of this machine.
pub async fn call(socket: &Path, call: &Call) -> Result<Bytes, CallError> {
    let asked = async { ask(dial(socket).await?, "http://localhost", call).await };
    within(call.timeout, asked).await
}

/// Begins to listen to a stream of messages at a socket of this machine.
pub async fn listen(socket: &Path, call: &Call) -> Result<Messages, CallError> {
    let begun = async { begin(dial(socket).await?, "http://localhost", call, None).await };
    within(call.timeout, begun).await
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(CallError::TimedOut(timeout)))
}

/// The longest path that fits a socket's address.
const PATH_BYTES_MAX: usize = 107;

async fn dial(socket: &Path) -> Result<Box<dyn Io>, CallError> {
    let unreachable = |why: String| CallError::Unreachable { address: socket.display().to_string(), why };
    let path = PathBuf::from(socket);
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(unreachable(format!("its path is longer than {PATH_BYTES_MAX} bytes")));
    }
    let stream = UnixStream::connect(path).await.map_err(|error| unreachable(error.to_string()))?;
    Ok(Box::new(stream))
}

/// Asks once over a connection that is open. The caller bounds the time.
pub async fn ask(io: Box<dyn Io>, origin: &str, call: &Call) -> Result<Bytes, CallError> {
    let mut messages = begin(io, origin, call, Some(call.timeout)).await?;
    let answer = messages.next().await?;
    let answer = answer.ok_or_else(|| CallError::Malformed("no message".to_owned()))?;
    match messages.next().await? {
        None => Ok(answer),
        Some(_) => Err(CallError::Malformed("more than one message".to_owned())),
    }
}

async fn begin(io: Box<dyn Io>, origin: &str, call: &Call, deadline: Option<Duration>) -> Result<Messages, CallError> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
    let (mut sender, connection) = handshake.map_err(|error| CallError::Broken(words(&error)))?;
    // The connection lasts as long as the messages that come by it.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    let mut request = http::Request::post(format!("{origin}{}", call.method))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "grpc-windlass/1.37");
    if let Some(deadline) = deadline {
        request = request.header("grpc-timeout", format!("{}m", deadline.as_millis().min(99_999_999)));
    }
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + call.message.len());
    message.put_u8(0);
    let length = u32::try_from(call.message.len()).map_err(|_| CallError::Malformed("a message too long".to_owned()));
    message.put_u32(length?);
    message.put_slice(&call.message);
    let request = request.body(Full::new(message.freeze())).map_err(|error| CallError::Malformed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| CallError::Broken(words(&error)))?;
    if !response.status().is_success() {
        return Err(CallError::Malformed(format!("HTTP status {}", response.status())));
    }
    let early = response.headers().get("grpc-status").is_some().then(|| verdict(response.headers()));
    let body = response.into_body();
    Ok(Messages { body, early, kept: BytesMut::new(), bytes_max: call.bytes_max, _connection: connection })
}

/// Ends with its owner.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Messages as they come.
pub struct Messages {
    body: Incoming,
    /// A server that says no at once says it in the headers.
    early: Option<Result<(), CallError>>,
    kept: BytesMut,
    bytes_max: usize,
    _connection: Connection,
}

impl Messages {
    /// The next message; `None` when the server has said that there are no more. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if let Some(early) = &self.early {
                return early.clone().map(|()| None);
            }
            let frame = match Pin::new(&mut self.body).frame().await {
                Some(frame) => frame.map_err(|error| CallError::Broken(words(&error)))?,
                None => return Err(CallError::Broken("it ended before the answer".to_owned())),
            };
            match frame.into_data() {
                Ok(chunk) => self.kept.extend_from_slice(&chunk),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) if self.kept.is_empty() => self.early = Some(verdict(&trailers)),
                    Ok(_) => return Err(CallError::Malformed("half a message".to_owned())),
                    Err(_) => {}
                },
            }
        }
    }

    /// A message that has come in full.
    fn take(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some((prefix, rest)) = self.kept.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 {
            return Err(CallError::Malformed("a compressed message, which was not offered".to_owned()));
        }
        if length > self.bytes_max {
            let most = self.bytes_max;
            return Err(CallError::Malformed(format!("a message of {length} bytes; at most {most} are read")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.kept.advance(PREFIX_BYTES);
        Ok(Some(self.kept.split_to(length).freeze()))
    }
}

/// G3.
fn verdict(headers: &http::HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status").parse::<u32>() {
        Ok(0) => Ok(()),
        Ok(code) => {
            let mut words = percent_encoding::percent_decode_str(text("grpc-message")).decode_utf8_lossy().into_owned();
            words.truncate(words.floor_char_boundary(WORDS_BYTES_MAX));
            Err(CallError::Refused { code, words })
        }
        Err(_) => Err(CallError::Malformed(format!("grpc-status {:?}", text("grpc-status")))),
    }
}

/// The error with all its causes in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        out = format!("{out}: {next}");
        cause = next.source();
    }
    out
}

#[cfg(test)]
mod tests;
