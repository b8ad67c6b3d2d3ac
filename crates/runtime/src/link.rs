//! The agent's connection to one shim: calls out, replies, events and descriptors in.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::error::RuntimeError;
use crate::kernel;
use crate::process::ProcessExit;
use crate::protocol::{Answer, Call, Failure, HEADER_BYTES, Message, Request, encode, next_frame};
use crate::state::ContainerEvent;

/// Calls that wait to be written; beyond it callers wait.
const CALLS_MAX: usize = 64;
/// Longer than the shim's own limit on making or starting a container, so that its reason arrives.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

type Outcome = Result<(Answer, Vec<OwnedFd>), Failure>;

/// A handle on the connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    sandbox: Arc<str>,
    calls: mpsc::Sender<(Call, oneshot::Sender<Outcome>)>,
    serial: Arc<AtomicU64>,
    execs: Arc<Mutex<BTreeMap<u64, oneshot::Sender<ProcessExit>>>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes over a connected socket. `events` is told every event; `on_loss` runs once when the connection is over.
    pub fn start(
        sandbox: &str,
        stream: UnixStream,
        events: impl Fn(ContainerEvent) + Send + Sync + 'static,
        on_loss: impl Future<Output = ()> + Send + 'static,
    ) -> Link {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let execs = Arc::new(Mutex::new(BTreeMap::new()));
        let link =
            Link { sandbox: sandbox.into(), calls, serial: Arc::new(AtomicU64::new(1)), execs: Arc::clone(&execs) };
        let name: Arc<str> = sandbox.into();
        let wire = Wire { stream, waiting: BTreeMap::new(), buffer: Vec::new(), fds: VecDeque::new() };
        tokio::spawn(async move {
            let end = wire.run(queue, &events, &execs).await;
            execs.lock().expect("nobody panics with it").clear();
            if let End::Lost { why } = end {
                tracing::debug!(sandbox = &*name, why, "connection to the shim is over");
                on_loss.await;
            }
        });
        link
    }

    /// A number no other exec of this connection has.
    pub fn number(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells where the end of this exec is to be reported. Must be called before the exec is asked for.
    pub fn expect_exit(&self, exec: u64) -> oneshot::Receiver<ProcessExit> {
        let (sender, receiver) = oneshot::channel();
        self.execs.lock().expect("nobody panics with it").insert(exec, sender);
        receiver
    }

    /// The opposite of [`Link::expect_exit`].
    pub fn forget_exit(&self, exec: u64) {
        self.execs.lock().expect("nobody panics with it").remove(&exec);
    }

    /// Asks and waits for the answer.
    pub async fn call(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<(Answer, Vec<OwnedFd>), RuntimeError> {
        self.call_within(operation, request, ANSWER_TIMEOUT).await
    }

    /// Asks and waits for the answer, but not longer than `timeout`.
    pub async fn call_within(
        &self,
        operation: &'static str,
        request: Request,
        timeout: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), RuntimeError> {
        let (what, id) = subject(&request, &self.sandbox);
        let call = Call { serial: self.number(), request };
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.calls.send((call, sender)).await.map_err(|_| self.lost())?;
            receiver.await.map_err(|_| self.lost())
        };
        match tokio::time::timeout(timeout, asked).await {
            Err(_) => Err(RuntimeError::TimedOut { operation, id, after: timeout }),
            Ok(Err(lost)) => Err(lost),
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(Failure::Exists))) => Err(RuntimeError::Exists { what, id }),
            Ok(Ok(Err(Failure::NotFound))) => Err(RuntimeError::NotFound { what, id }),
            Ok(Ok(Err(Failure::Refused(why)))) => Err(RuntimeError::Refused { operation, id, why }),
        }
    }

    /// Asks for something that has no result.
    pub async fn done(&self, operation: &'static str, request: Request) -> Result<(), RuntimeError> {
        match self.call(operation, request).await? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(self.strange(&other)),
        }
    }

    /// The answer was not of the kind the question has.
    pub fn strange(&self, answer: &Answer) -> RuntimeError {
        RuntimeError::Protocol { id: self.sandbox.to_string(), found: format!("{answer:?}") }
    }

    /// The error of a connection that is over.
    pub fn lost(&self) -> RuntimeError {
        RuntimeError::ShimLost { id: self.sandbox.to_string() }
    }
}

/// What an error about this request is about.
fn subject(request: &Request, sandbox: &str) -> (&'static str, String) {
    match request {
        Request::Hello | Request::Shutdown => ("sandbox", sandbox.to_owned()),
        Request::ExecSignal { exec, .. } => ("process", exec.to_string()),
        Request::Create { id }
        | Request::Start { id }
        | Request::Signal { id, .. }
        | Request::Stop { id, .. }
        | Request::Remove { id }
        | Request::Exec { id, .. }
        | Request::Attach { id, .. }
        | Request::Resize { id, .. }
        | Request::Update { id, .. }
        | Request::Checkpoint { id, .. } => ("container", id.clone()),
    }
}

/// Why a connection is over.
enum End {
    /// Nobody has a handle on it any more.
    Released,
    /// The shim is gone or makes no sense.
    Lost { why: String },
}

/// The connection itself, owned by its task.
struct Wire {
    stream: UnixStream,
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    buffer: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Wire {
    async fn run(
        mut self,
        mut queue: mpsc::Receiver<(Call, oneshot::Sender<Outcome>)>,
        events: &(impl Fn(ContainerEvent) + Send + Sync + 'static),
        execs: &Mutex<BTreeMap<u64, oneshot::Sender<ProcessExit>>>,
    ) -> End {
        let lost = |why: String| End::Lost { why };
        loop {
            tokio::select! {
                biased;
                ready = self.stream.readable() => {
                    if let Err(error) = ready.and_then(|()| self.receive()) {
                        return lost(error.to_string());
                    }
                    if let Err(error) = self.deliver(events, execs) {
                        return lost(error.to_string());
                    }
                }
                call = queue.recv() => {
                    let Some((call, sender)) = call else { return End::Released };
                    self.waiting.insert(call.serial, sender);
                    if let Err(error) = self.stream.write_all(&encode(&call, 0)).await {
                        return lost(error.to_string());
                    }
                }
            }
        }
    }

    /// Takes what has arrived into the buffer; an error when the other side is gone.
    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; READ_BYTES];
        let received =
            self.stream.try_io(Interest::READABLE, || kernel::receive(&self.stream, &mut chunk, &mut self.fds));
        match received {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn deliver(
        &mut self,
        events: &impl Fn(ContainerEvent),
        execs: &Mutex<BTreeMap<u64, oneshot::Sender<ProcessExit>>>,
    ) -> Result<(), crate::protocol::FrameError> {
        while let Some((end, fds)) = next_frame(&self.buffer)? {
            let message = serde_json::from_slice(&self.buffer[HEADER_BYTES..end])?;
            self.buffer.drain(..end);
            let fds: Vec<OwnedFd> = self.fds.drain(..fds.min(self.fds.len())).collect();
            match message {
                Message::Reply { serial, result } => {
                    if let Some(waiting) = self.waiting.remove(&serial) {
                        // Whoever asked may have stopped waiting.
                        let _ = waiting.send(result.map(|answer| (answer, fds)));
                    }
                }
                Message::Event(event) => events(event),
                Message::ExecExit { exec, code, signal } => {
                    if let Some(waiting) = execs.lock().expect("nobody panics with it").remove(&exec) {
                        let _ = waiting.send(ProcessExit { code, signal });
                    }
                }
            }
        }
        Ok(())
    }
}
