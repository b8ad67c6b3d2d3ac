//! A simulated machine: containers without a kernel. They take time to start, crash, answer probes and outlive the agent.
//!
//! Goal        the node agent cannot tell it from a real one, but for what a container says
//! Relies on   [`crate::life::Life`] of the agent: a call of a dead agent takes no effect from then on
//! Not here    logs, streams, what a command prints

mod calls;
mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::broadcast;
use windlass_network::ServiceTable;
use windlass_node::machine::{ContainerState, Exit, ExitReason};
use windlass_stdx::World;

use crate::history::History;
use crate::invariant::single::{Runs, Whose, whose};
use sandbox::{Pod, exit};

/// Hints that wait for an agent; one that lags looks at all its pods.
const HINTS_MAX: usize = 64;
/// A container is crashed only in its first attempts: later ones would still be backing off when the run ends.
const CRASHED_ATTEMPTS_MAX: u32 = 2;

/// A machine. Clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    number: u8,
    world: World,
    history: History,
    runs: Runs,
    state: Mutex<State>,
    changes: broadcast::Sender<String>,
}

/// What the machine remembers. Pods, images and records are on disk; sandboxes are not.
struct State {
    boots: u64,
    pods: BTreeMap<String, Pod>,
    images: BTreeSet<String>,
    records: BTreeMap<String, Bytes>,
    range: Option<Ipv4Addr>,
    next_host: u8,
    next_pid: u32,
    services: ServiceTable,
    undead: bool,
}

impl Machine {
    /// A machine that has just been installed.
    pub fn new(name: &str, number: u8, world: World, history: History, runs: Runs) -> Machine {
        let state = State {
            boots: 1,
            pods: BTreeMap::new(),
            images: BTreeSet::new(),
            records: BTreeMap::new(),
            range: None,
            next_host: 2,
            next_pid: 100,
            services: ServiceTable::new(),
            undead: false,
        };
        let changes = broadcast::Sender::new(HINTS_MAX);
        let inner = Inner { name: name.to_owned(), number, world, history, runs, state: Mutex::new(state), changes };
        Machine { inner: Arc::new(inner) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("nothing panics while holding it")
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.inner.history.note(&self.inner.name, what);
    }

    /// Tells the agent, if there is one, that a pod has changed.
    fn hint(&self, pod: &str) {
        // Without an agent nobody needs to know: the next one looks at everything.
        let _nobody = self.inner.changes.send(pod.to_owned());
    }

    /// The power fails: nothing runs any more; what is on disk stays.
    pub fn power_off(&self) {
        self.note("loses its power");
        let mut state = self.state();
        state.boots += 1;
        state.range = None;
        state.services.clear();
        let mut ended = Vec::new();
        for (uid, pod) in &mut state.pods {
            pod.address = None;
            ended.extend(pod.take_sandbox().into_iter().map(|container| (uid.clone(), container)));
        }
        drop(state);
        for (uid, container) in ended {
            self.inner.runs.ended(&uid, &container, &self.inner.name);
        }
    }

    /// One of the containers that run crashes. Returns whether there was one.
    pub fn crash_one(&self) -> bool {
        let running = self.running_ids();
        let young = |id: &str| {
            id.rsplit_once('.')
                .is_some_and(|(_, attempt)| attempt.parse::<u32>().is_ok_and(|attempt| attempt < CRASHED_ATTEMPTS_MAX))
        };
        let running: Vec<_> = running.into_iter().filter(|(_, id)| young(id)).collect();
        if running.is_empty() {
            return false;
        }
        let pick = self.inner.world.random_below(running.len() as u64) as usize;
        let (uid, container) = &running[pick];
        self.end_container(uid, container, exit(1, None, self.inner.world.now()));
        true
    }

    fn running_ids(&self) -> Vec<(String, String)> {
        let state = self.state();
        let running = |(uid, pod): (&String, &Pod)| {
            let uid = uid.clone();
            pod.running().into_iter().map(move |id| (uid.clone(), id)).collect::<Vec<_>>()
        };
        state.pods.iter().flat_map(running).collect()
    }

    /// The containers that run.
    pub fn running(&self) -> BTreeSet<Whose> {
        self.running_ids().iter().map(|(uid, id)| whose(uid, id)).collect()
    }

    /// The pods of which there is anything.
    pub fn held(&self) -> BTreeSet<String> {
        self.state().pods.keys().cloned().collect()
    }

    /// The services as they are served here: `address:port` → endpoints.
    pub fn served(&self) -> BTreeMap<String, BTreeSet<String>> {
        let state = self.state();
        let with_address = state.services.iter().filter_map(|(front, back)| Some((front.address?, front.port, back)));
        let text = |(address, port, back): (Ipv4Addr, u16, &windlass_network::Backend)| {
            (format!("{address}:{port}"), back.endpoints.iter().map(ToString::to_string).collect())
        };
        with_address.map(text).collect()
    }

    /// From now on containers go on when they are told to stop. For sabotage.
    pub fn make_undead(&self) {
        self.state().undead = true;
    }

    /// Runs whatever another machine runs. For sabotage.
    pub fn steal_from(&self, other: &Machine) {
        for (uid, container) in other.running_ids() {
            self.inner.runs.began(&uid, &container, &self.inner.name);
        }
    }

    /// A container has ended.
    fn end_container(&self, uid: &str, container: &str, exit: Exit) {
        let mut state = self.state();
        let Some(found) = state.pods.get_mut(uid).and_then(|pod| pod.container_mut(container)) else { return };
        let ContainerState::Running { at, .. } = *found else { return };
        let code = exit.code;
        *found = ContainerState::Exited(Exit { started_at: Some(at), reason: ExitReason::Ended, ..exit });
        drop(state);
        self.inner.runs.ended(uid, container, &self.inner.name);
        self.note(format_args!("{container} of {uid} has ended with {code}"));
        self.hint(uid);
    }
}
