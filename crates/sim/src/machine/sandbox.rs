//! What a machine has of one pod.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use windlass_node::machine::{ContainerState, Exit, ExitReason};

/// What there is of a pod: the pod itself is on disk, its sandbox in the kernel.
#[derive(Debug, Default)]
pub struct Pod {
    /// Its place in the network.
    pub address: Option<Ipv4Addr>,
    /// Its containers, while it has a sandbox.
    pub sandbox: Option<BTreeMap<String, ContainerState>>,
}

impl Pod {
    /// A container, whatever its state.
    pub fn container_mut(&mut self, container: &str) -> Option<&mut ContainerState> {
        self.sandbox.as_mut()?.get_mut(container)
    }

    /// A container, whatever its state.
    pub fn container(&self, container: &str) -> Option<&ContainerState> {
        self.sandbox.as_ref()?.get(container)
    }

    /// The containers that run.
    pub fn running(&self) -> Vec<String> {
        let all = self.sandbox.iter().flatten();
        let running = all.filter(|(_, state)| matches!(state, ContainerState::Running { .. }));
        running.map(|(id, _)| id.clone()).collect()
    }

    /// Takes the sandbox away; returns the containers that ran in it.
    pub fn take_sandbox(&mut self) -> Vec<String> {
        let running = self.running();
        self.sandbox = None;
        running
    }
}

/// How a container ended.
pub fn exit(code: i32, signal: Option<i32>, at: Timestamp) -> Exit {
    Exit {
        code,
        signal,
        oom: false,
        reason: ExitReason::Ended,
        message: String::new(),
        started_at: None,
        finished_at: at,
    }
}
