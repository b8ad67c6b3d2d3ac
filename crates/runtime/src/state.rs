//! What became of a container: the states it goes through and how it ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a container is in its life. It only ever moves down this list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Its file system, namespaces and cgroups exist; its program has not begun.
    Created,
    /// Its program runs.
    Running {
        /// The first process, as this machine numbers it.
        pid: u32,
        /// Since when.
        at: Timestamp,
    },
    /// It is over.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + the signal's number when a signal ended it; 255 when nobody saw it end.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed in this container because its memory limit was reached, and that ended it.
    pub oom: bool,
    /// In one word.
    pub reason: ExitReason,
    /// A sentence for people; empty when there is nothing to add.
    pub message: String,
    /// When its program began, if it did.
    pub started_at: Option<Timestamp>,
    /// When it was seen to be over.
    pub finished_at: Timestamp,
}

/// Why a container is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// Its program ended by itself, or by a signal.
    Ended,
    /// The kernel ended it for want of memory within its limit.
    OutOfMemory,
    /// Its program could not be started.
    StartFailed,
    /// Its shim was lost, so nobody saw how it ended; whatever was left of it has been killed.
    Unknown,
}

/// What the containers of a sandbox use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes, without pages of files that the kernel could take back at once.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A container and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The container's id.
    pub id: String,
    /// Its state.
    pub state: ContainerState,
}

/// A container has come into this state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// The container's id.
    pub id: String,
    /// The state it is in now.
    pub state: ContainerState,
}
