//! What became of a container: the states it goes through and how it ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pressure::Pressure;

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

/// What the processes of a group use; what the kernel does not count is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the group was made, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The same without pages of files that the kernel could take back at once.
    pub working_set_bytes: u64,
    /// Memory that is nobody's file.
    pub rss_bytes: u64,
    /// What of it is swapped out.
    pub swap_bytes: u64,
    /// Pages that were not there when they were needed.
    pub page_faults: u64,
    /// Those of them that had to be read from a disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
    /// What they waited for.
    pub pressure: Pressure,
}

/// What a sandbox uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxUsage {
    /// All its containers together.
    pub whole: Usage,
    /// Each that runs, by its id.
    pub containers: BTreeMap<String, Usage>,
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
