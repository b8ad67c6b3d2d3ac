//! The calls of CRI: what a runtime is asked, in the wire's field numbers, and what is read of its answers.
//!
//! Source: Kubernetes container runtime interface v1, `api.proto`. Answers are a program's of this machine; all the same
//! every one is bounded and read with care.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::codec::DecodeError;
use windlass_api::codec::wire::{Reader, Writer};

use crate::grpc::{self, Call, CallError, code};
use crate::machine::MachineError;

/// How long a runtime may take to say something.
pub const SAY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long it may take to make, start, stop or remove something.
pub const DO_TIME_MAX: Duration = Duration::from_secs(120);
/// How long it may take to fetch an image that this node gives it.
pub const PULL_TIME_MAX: Duration = Duration::from_secs(600);
/// What a command may say at most: runtimes cut each of its two outputs at 16 MiB.
const EXEC_BYTES_MAX: usize = 33 << 20;
/// The most of a list that is read.
const LIST_BYTES_MAX: usize = 16 << 20;
/// gRPC's word for a time that is over.
const DEADLINE: u32 = 4;

/// A runtime's socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(PathBuf);

/// A sandbox as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedSandbox {
    pub id: String,
    pub is_ready: bool,
    pub labels: BTreeMap<String, String>,
}

/// A container as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedContainer {
    pub id: String,
    pub stage: i64,
    pub labels: BTreeMap<String, String>,
    pub image: String,
}

/// `ContainerState` of CRI.
pub mod stage {
    pub const CREATED: i64 = 0;
    pub const RUNNING: i64 = 1;
    pub const EXITED: i64 = 2;
}

/// A container in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub stage: i64,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i64,
    pub reason: String,
    pub message: String,
    /// What only this runtime has words for; JSON.
    pub more: Value,
}

impl Status {
    /// The first process, as this machine numbers it.
    pub fn pid(&self) -> Option<u32> {
        self.more["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
    }
}

/// An image that the runtime has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedImage {
    pub id: String,
    pub names: Vec<String>,
    pub size: u64,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub code: i64,
    pub stdout: Bytes,
    pub stderr: Bytes,
}

/// What a stream is opened for.
#[derive(Clone, Debug, Default)]
pub struct StreamAsk {
    /// Program and arguments; none attaches.
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        Client(socket.to_owned())
    }

    async fn ask(&self, method: &str, message: Writer, timeout: Duration) -> Result<Bytes, MachineError> {
        self.ask_for(method, message, (timeout, grpc::MESSAGE_BYTES_MAX)).await
    }

    async fn ask_for(&self, method: &str, message: Writer, limits: (Duration, usize)) -> Result<Bytes, MachineError> {
        self.call(method, message, limits).await.map_err(|error| self.trouble(method, limits.0, error))
    }

    /// Has something ended that may be gone.
    async fn end(&self, method: &str, id: &str) -> Result<(), MachineError> {
        let limits = (DO_TIME_MAX, grpc::MESSAGE_BYTES_MAX);
        match self.call(method, Writer::new().text(1, id), limits).await {
            Err(error) if error.code() == Some(code::NOT_FOUND) => Ok(()),
            Err(error) => Err(self.trouble(method, DO_TIME_MAX, error)),
            Ok(_) => Ok(()),
        }
    }

    async fn call(&self, method: &str, message: Writer, limits: (Duration, usize)) -> Result<Bytes, CallError> {
        let (timeout, bytes_max) = limits;
        let call = Call { bytes_max, ..Call::new(&format!("/runtime.v1.{method}"), message.finish(), timeout) };
        grpc::call(&self.0, &call).await
    }

    fn trouble(&self, method: &str, timeout: Duration, error: CallError) -> MachineError {
        let operation = format!("{} of {}", method.rsplit('/').next().unwrap_or(method), self.0.display());
        match error {
            CallError::TimedOut(after) => MachineError::TimedOut { operation, after },
            CallError::Refused { code: DEADLINE, .. } => MachineError::TimedOut { operation, after: timeout },
            CallError::Refused { code: code::UNIMPLEMENTED, words } => {
                MachineError::Failed { operation, why: format!("it does not serve this part of CRI v1: {words}") }
            }
            CallError::Refused { words, .. } => MachineError::Failed { operation, why: words },
            other => MachineError::Failed { operation, why: other.to_string() },
        }
    }

    /// Makes a sandbox; says its id.
    pub async fn run_sandbox(&self, config: &Writer, handler: &str) -> Result<String, MachineError> {
        let message = Writer::new().message(1, config).text(2, handler);
        first_text(&self.ask("RuntimeService/RunPodSandbox", message, DO_TIME_MAX).await?)
    }

    /// Ends everything in a sandbox; one that is gone is fine.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), MachineError> {
        self.end("RuntimeService/StopPodSandbox", id).await
    }

    /// Removes a sandbox; one that is gone is fine.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), MachineError> {
        self.end("RuntimeService/RemovePodSandbox", id).await
    }

    /// The first process of a sandbox, whose namespaces the containers share.
    pub async fn sandbox_pid(&self, id: &str) -> Result<Option<u32>, MachineError> {
        let message = Writer::new().text(1, id).flag(2, true);
        let answer = self.ask("RuntimeService/PodSandboxStatus", message, SAY_TIME_MAX).await?;
        let more = read(&answer, |reader| {
            let mut more = Value::Null;
            while let Some((tag, wire)) = reader.field()? {
                if tag == 2 {
                    keep_info(&mut more, wire.pair()?);
                }
            }
            Ok(more)
        })?;
        Ok(Status { more, ..Status::default() }.pid())
    }

    /// The sandboxes that have all these labels.
    pub async fn sandboxes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ListedSandbox>, MachineError> {
        let message = Writer::new().message(1, &Writer::new().pairs(3, labels));
        let limits = (SAY_TIME_MAX, LIST_BYTES_MAX);
        let answer = self.ask_for("RuntimeService/ListPodSandbox", message, limits).await?;
        read_list(&answer, |reader| {
            let mut found = ListedSandbox { is_ready: true, ..ListedSandbox::default() };
            while let Some((tag, wire)) = reader.field()? {
                match tag {
                    1 => found.id = wire.text()?,
                    3 => found.is_ready = wire.number()? == 0,
                    5 => found.labels.extend([wire.pair()?]),
                    _ => {}
                }
            }
            Ok(found)
        })
    }

    /// The containers that have all these labels.
    pub async fn containers(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ListedContainer>, MachineError> {
        let message = Writer::new().message(1, &Writer::new().pairs(4, labels));
        let limits = (SAY_TIME_MAX, LIST_BYTES_MAX);
        let answer = self.ask_for("RuntimeService/ListContainers", message, limits).await?;
        read_list(&answer, |reader| {
            let mut found = ListedContainer::default();
            while let Some((tag, wire)) = reader.field()? {
                match tag {
                    1 => found.id = wire.text()?,
                    5 => found.image = wire.text()?,
                    6 => found.stage = wire.number()?,
                    8 => found.labels.extend([wire.pair()?]),
                    _ => {}
                }
            }
            Ok(found)
        })
    }

    /// A container in full.
    pub async fn status(&self, id: &str) -> Result<Status, MachineError> {
        let message = Writer::new().text(1, id).flag(2, true);
        let answer = self.ask("RuntimeService/ContainerStatus", message, SAY_TIME_MAX).await?;
        read(&answer, |reader| {
            let (mut found, mut more) = (Status::default(), Value::Null);
            while let Some((tag, wire)) = reader.field()? {
                match tag {
                    1 => found = read_status(wire.message()?)?,
                    2 => keep_info(&mut more, wire.pair()?),
                    _ => {}
                }
            }
            Ok(Status { more, ..found })
        })
    }

    /// Makes a container; says its id.
    pub async fn create(&self, sandbox: &str, config: &Writer, of: &Writer) -> Result<String, MachineError> {
        let message = Writer::new().text(1, sandbox).message(2, config).message(3, of);
        first_text(&self.ask("RuntimeService/CreateContainer", message, DO_TIME_MAX).await?)
    }

    /// Lets it run.
    pub async fn start(&self, id: &str) -> Result<(), MachineError> {
        self.ask("RuntimeService/StartContainer", Writer::new().text(1, id), DO_TIME_MAX).await.map(drop)
    }

    /// Kills it; one that is gone is fine.
    pub async fn kill(&self, id: &str) -> Result<(), MachineError> {
        self.end("RuntimeService/StopContainer", id).await
    }

    /// Removes it; one that is gone is fine.
    pub async fn remove(&self, id: &str) -> Result<(), MachineError> {
        self.end("RuntimeService/RemoveContainer", id).await
    }

    /// Gives it other limits.
    pub async fn update(&self, id: &str, resources: &Writer) -> Result<(), MachineError> {
        let message = Writer::new().text(1, id).message(2, resources);
        self.ask("RuntimeService/UpdateContainerResources", message, DO_TIME_MAX).await.map(drop)
    }

    /// Has its log written to a new file.
    pub async fn reopen_log(&self, id: &str) -> Result<(), MachineError> {
        self.ask("RuntimeService/ReopenContainerLog", Writer::new().text(1, id), SAY_TIME_MAX).await.map(drop)
    }

    /// Runs a command; the runtime kills it when the time is over.
    pub async fn exec(&self, id: &str, args: &[String], timeout: Duration) -> Result<Ran, MachineError> {
        let seconds = i64::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let message = Writer::new().text(1, id).texts(2, args.iter().map(String::as_str)).number(3, seconds);
        // The runtime counts by itself, and says so; nobody waits for one that does not.
        let limits = (timeout.saturating_add(SAY_TIME_MAX), EXEC_BYTES_MAX);
        let answer = self.ask_for("RuntimeService/ExecSync", message, limits).await?;
        read(&answer, |reader| {
            let mut ran = Ran::default();
            while let Some((tag, wire)) = reader.field()? {
                match tag {
                    1 => ran.stdout = answer.slice_ref(wire.bytes()?),
                    2 => ran.stderr = answer.slice_ref(wire.bytes()?),
                    3 => ran.code = wire.number()?,
                    _ => {}
                }
            }
            Ok(ran)
        })
    }

    /// Where a stream is to be opened.
    pub async fn stream(&self, id: &str, ask: &StreamAsk) -> Result<String, MachineError> {
        let has_stderr = ask.stderr && !ask.tty;
        let (method, message) = match ask.command.is_empty() {
            true => {
                let message = Writer::new().text(1, id).flag(2, ask.stdin).flag(3, ask.tty).flag(4, ask.stdout);
                ("RuntimeService/Attach", message.flag(5, has_stderr))
            }
            false => {
                let message = Writer::new().text(1, id).texts(2, ask.command.iter().map(String::as_str));
                let message = message.flag(3, ask.tty).flag(4, ask.stdin).flag(5, ask.stdout).flag(6, has_stderr);
                ("RuntimeService/Exec", message)
            }
        };
        first_text(&self.ask(method, message, SAY_TIME_MAX).await?)
    }

    /// Bytes that the containers with these labels have written into their layers, by the containers' ids.
    pub async fn layers(&self, labels: &BTreeMap<String, String>) -> Result<BTreeMap<String, Layer>, MachineError> {
        let message = Writer::new().message(1, &Writer::new().pairs(3, labels));
        let limits = (SAY_TIME_MAX, LIST_BYTES_MAX);
        let answer = self.ask_for("RuntimeService/ListContainerStats", message, limits).await?;
        let all = read_list(&answer, |reader| {
            let (mut id, mut layer) = (String::new(), Layer::default());
            while let Some((tag, wire)) = reader.field()? {
                match tag {
                    1 => id = first_of(wire.message()?)?,
                    4 => layer = read_layer(wire.message()?)?,
                    _ => {}
                }
            }
            Ok((id, layer))
        })?;
        Ok(all.into_iter().collect())
    }

    /// Whether the runtime has the image of this id.
    pub async fn has_image(&self, id: &str) -> Result<bool, MachineError> {
        let message = Writer::new().message(1, &Writer::new().text(1, id));
        let answer = self.ask("ImageService/ImageStatus", message, SAY_TIME_MAX).await?;
        read(&answer, |reader| {
            while let Some((tag, wire)) = reader.field()? {
                if tag == 1 {
                    return Ok(first_of(wire.message()?)? == id);
                }
            }
            Ok(false)
        })
    }

    /// Has the runtime fetch an image; says its id.
    pub async fn pull(&self, name: &str, (user, password): (&str, &str)) -> Result<String, MachineError> {
        let auth = Writer::new().text(1, user).text(2, password);
        let message = Writer::new().message(1, &Writer::new().text(1, name)).message(2, &auth);
        first_text(&self.ask("ImageService/PullImage", message, PULL_TIME_MAX).await?)
    }

    /// The images that the runtime has.
    pub async fn images(&self) -> Result<Vec<ListedImage>, MachineError> {
        let limits = (SAY_TIME_MAX, LIST_BYTES_MAX);
        let answer = self.ask_for("ImageService/ListImages", Writer::new(), limits).await?;
        read_list(&answer, |reader| {
            let mut found = ListedImage::default();
            while let Some((tag, wire)) = reader.field()? {
                match tag {
                    1 => found.id = wire.text()?,
                    2 | 3 => found.names.push(wire.text()?),
                    4 => found.size = u64::try_from(wire.number()?).unwrap_or(0),
                    _ => {}
                }
            }
            Ok(found)
        })
    }

    /// Has an image removed with all its names; one that is gone is fine.
    pub async fn remove_image(&self, id: &str) -> Result<(), MachineError> {
        let message = Writer::new().message(1, &Writer::new().text(1, id));
        self.ask("ImageService/RemoveImage", message, DO_TIME_MAX).await.map(drop)
    }
}

/// What a container has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    pub bytes: u64,
    pub files: u64,
}

/// The time that CRI counts in nanoseconds; zero is none.
pub fn time(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok().filter(|_| nanoseconds != 0)
}

fn read<T>(bytes: &[u8], read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>) -> Result<T, MachineError> {
    let malformed = |error: DecodeError| MachineError::Failed {
        operation: "read an answer of CRI".to_owned(),
        why: error.to_string(),
    };
    read(&mut Reader::new(bytes)).map_err(malformed)
}

/// The messages of the first field, which all lists of CRI are.
fn read_list<T>(
    bytes: &[u8],
    mut one: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, MachineError> {
    read(bytes, |reader| {
        let mut all = Vec::new();
        while let Some((tag, wire)) = reader.field()? {
            if tag == 1 {
                all.push(one(&mut wire.message()?)?);
            }
        }
        Ok(all)
    })
}

fn first_of(mut reader: Reader) -> Result<String, DecodeError> {
    while let Some((tag, wire)) = reader.field()? {
        if tag == 1 {
            return wire.text();
        }
    }
    Ok(String::new())
}

/// The one thing that many answers say; it must not be missing.
fn first_text(bytes: &[u8]) -> Result<String, MachineError> {
    let found = read(bytes, |reader| first_of(*reader))?;
    match found.is_empty() {
        true => Err(MachineError::Failed {
            operation: "read an answer of CRI".to_owned(),
            why: "expected a text in field 1, found none".to_owned(),
        }),
        false => Ok(found),
    }
}

fn read_status(mut reader: Reader) -> Result<Status, DecodeError> {
    let mut found = Status::default();
    while let Some((tag, wire)) = reader.field()? {
        match tag {
            3 => found.stage = wire.number()?,
            4 => found.created_at = wire.number()?,
            5 => found.started_at = wire.number()?,
            6 => found.finished_at = wire.number()?,
            7 => found.exit_code = wire.number()?,
            10 => found.reason = wire.text()?,
            11 => found.message = wire.text()?,
            _ => {}
        }
    }
    Ok(found)
}

fn read_layer(mut reader: Reader) -> Result<Layer, DecodeError> {
    let value = |mut reader: Reader| -> Result<u64, DecodeError> {
        while let Some((tag, wire)) = reader.field()? {
            if tag == 1 {
                return Ok(u64::try_from(wire.number()?).unwrap_or(0));
            }
        }
        Ok(0)
    };
    let mut layer = Layer::default();
    while let Some((tag, wire)) = reader.field()? {
        match tag {
            3 => layer.bytes = value(wire.message()?)?,
            4 => layer.files = value(wire.message()?)?,
            _ => {}
        }
    }
    Ok(layer)
}

/// Runtimes say what CRI has no field for as JSON, beneath the key `info`.
fn keep_info(more: &mut Value, (key, text): (String, String)) {
    if key == "info" {
        *more = serde_json::from_str(&text).unwrap_or_default();
    }
}
