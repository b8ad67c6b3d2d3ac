//! The agent's side of a process: its streams as async readers and writers, its terminal's size, its end.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::error::RuntimeError;
use crate::kernel;
use crate::link::Link;
use crate::protocol::{Request, StreamKind};
use crate::spec::TerminalSize;

/// One end of a pipe or a terminal.
///
/// Reading ends with 0 bytes when the other side is gone. Dropping it closes it: that is how a process sees the end of
/// its standard input.
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    fn new(fd: OwnedFd) -> Result<Stream, RuntimeError> {
        let failed = "watch a stream of a container";
        kernel::set_nonblocking(&fd).map_err(RuntimeError::system(failed))?;
        // SAFETY: the descriptor stays open and the same for as long as it is registered, because both own it together.
        unsafe { AsyncFd::register(fd) }.map(Stream).map_err(|error| RuntimeError::system(failed)(error.into()))
    }

    fn twin(&self) -> Result<Stream, RuntimeError> {
        let fd = self.0.get_ref().try_clone().map_err(RuntimeError::system("duplicate a terminal"))?;
        Stream::new(fd)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|fd| kernel::read(fd.get_ref(), buffer.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal whose other side is gone says EIO; to a reader that is the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| kernel::write(fd.get_ref(), bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How an exec'd process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    /// Its exit code; 128 + the signal's number when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A process run by `exec` in a container.
///
/// Dropping it closes its streams and lets it run on; [`Process::signal`] ends it. When the agent's connection to the
/// shim ends, the shim kills it: nobody could see its result any more.
#[derive(Debug)]
pub struct Process {
    /// Its standard input, if it was asked for. Drop it to close it. With a terminal this writes to the terminal.
    pub stdin: Option<Stream>,
    /// Its standard output; with a terminal everything it says.
    pub stdout: Option<Stream>,
    /// Its standard error; none with a terminal.
    pub stderr: Option<Stream>,
    pub(crate) terminal: Option<Stream>,
    pub(crate) exec: u64,
    pub(crate) link: Link,
    pub(crate) exit: oneshot::Receiver<ProcessExit>,
}

impl Process {
    pub(crate) fn new(exec: u64, link: Link, exit: oneshot::Receiver<ProcessExit>, streams: Streams) -> Process {
        let Streams { stdin, stdout, stderr, terminal } = streams;
        Process { stdin, stdout, stderr, terminal, exec, link, exit }
    }

    /// Sets its terminal's size; without a terminal nothing happens.
    pub fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        resize(self.terminal.as_ref(), size)
    }

    /// Something that can set its terminal's size while the process itself is borrowed elsewhere.
    pub fn resizer(&self) -> Result<Resizer, RuntimeError> {
        Resizer::of(self.terminal.as_ref())
    }

    /// Sends it a signal. It may be over already; that is not an error.
    pub async fn signal(&self, signal: i32) -> Result<(), RuntimeError> {
        self.link.done("signal process in", Request::ExecSignal { exec: self.exec, signal }).await
    }

    /// Waits for its end. Cancel safe; after it has returned once, do not call it again.
    pub async fn wait(&mut self) -> Result<ProcessExit, RuntimeError> {
        (&mut self.exit).await.map_err(|_| self.link.lost())
    }
}

/// A share in a running container's input and output.
///
/// Dropping it detaches. Output it does not read for a while stalls the container; after ten seconds without any
/// progress it is detached, so its output streams end.
#[derive(Debug)]
pub struct Attachment {
    /// Its standard input, if it was asked for and the container has one.
    pub stdin: Option<Stream>,
    /// Its standard output; with a terminal everything it says.
    pub stdout: Option<Stream>,
    /// Its standard error; none with a terminal.
    pub stderr: Option<Stream>,
    pub(crate) terminal: Option<Stream>,
}

impl Attachment {
    /// Sets the terminal's size; without a terminal nothing happens.
    pub fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        resize(self.terminal.as_ref(), size)
    }

    /// Something that can set the terminal's size while the attachment itself is borrowed elsewhere.
    pub fn resizer(&self) -> Result<Resizer, RuntimeError> {
        Resizer::of(self.terminal.as_ref())
    }
}

/// Sets the size of one terminal.
#[derive(Debug)]
pub struct Resizer(Option<Stream>);

impl Resizer {
    fn of(terminal: Option<&Stream>) -> Result<Resizer, RuntimeError> {
        terminal.map(Stream::twin).transpose().map(Resizer)
    }

    /// Sets the terminal's size; without a terminal nothing happens.
    pub fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        resize(self.0.as_ref(), size)
    }
}

fn resize(terminal: Option<&Stream>, size: TerminalSize) -> Result<(), RuntimeError> {
    match terminal {
        Some(stream) => kernel::set_terminal_size(stream.0.get_ref().as_raw_fd(), size)
            .map_err(RuntimeError::system("set the size of a terminal")),
        None => Ok(()),
    }
}

/// The descriptors of one reply, sorted.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub terminal: Option<Stream>,
}

impl Streams {
    /// An exec'd terminal is handed over whole: it is input, output and size at once.
    pub fn new(kinds: &[StreamKind], fds: Vec<OwnedFd>) -> Result<Streams, RuntimeError> {
        let mut streams = Streams::default();
        for (kind, fd) in kinds.iter().zip(fds) {
            let stream = Stream::new(fd)?;
            match kind {
                StreamKind::Stdin => streams.stdin = Some(stream),
                StreamKind::Stdout => streams.stdout = Some(stream),
                StreamKind::Stderr => streams.stderr = Some(stream),
                StreamKind::Terminal => streams.terminal = Some(stream),
            }
        }
        Ok(streams)
    }

    /// Uses the terminal for input and output where there is no other stream for it.
    pub fn with_terminal(mut self, stdin: bool) -> Result<Streams, RuntimeError> {
        if let Some(terminal) = &self.terminal {
            if stdin && self.stdin.is_none() {
                self.stdin = Some(terminal.twin()?);
            }
            if self.stdout.is_none() {
                self.stdout = Some(terminal.twin()?);
            }
        }
        Ok(self)
    }
}
