//! A node: a simulated machine and the real agent on it, which can be killed and comes back.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use windlass_apiserver::Identity;
use windlass_client::Client;
use windlass_node::{Agent, NodeConfig};
use windlass_stdx::World;

use crate::history::History;
use crate::life::Life;
use crate::link::Network;
use crate::machine::Machine;

/// A node whose lease is older than this counts as lost.
const LEASE: Duration = Duration::from_secs(8);

/// A node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    machine: Machine,
    world: World,
    history: History,
    network: Network,
    running: Mutex<Option<Running>>,
}

/// One life of the agent.
struct Running {
    life: Life,
    stop: watch::Sender<bool>,
}

impl Node {
    /// A node whose agent does not run yet.
    pub fn new(name: &str, machine: Machine, world: World, history: History, network: Network) -> Node {
        let shared = Shared { name: name.to_owned(), machine, world, history, network, running: Mutex::new(None) };
        Node { shared: Arc::new(shared) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its machine.
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.shared.running.lock().expect("nothing panics while holding it")
    }

    /// Whether the agent runs.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// Starts the agent.
    pub fn start(&self) {
        let Shared { name, machine, world, history, network, .. } = &*self.shared;
        let life = Life::begin();
        let (stop, stopped) = watch::channel(false);
        let before = self.running().replace(Running { life: life.clone(), stop });
        assert!(before.is_none(), "the agent of {name} is started while it runs");
        history.note(name, "the agent starts");
        let client = Client::new(network.link(name, Identity::node(name), &life), world.clone());
        let config = NodeConfig { lease_duration: LEASE, ..NodeConfig::named(name) };
        let agent = Agent::new(client, world.clone(), Arc::new(machine.handle(&life)), config);
        let (history, name) = (history.clone(), name.clone());
        tokio::spawn(async move {
            // The agent stops its pods' tasks itself when it is told to; what it still asks for is not heard.
            match life.within(agent).await {
                Some(Ok(agent)) => agent.run(stopped).await,
                Some(Err(error)) => {
                    history.violate("converge", format_args!("the agent of {name} does not start: {error}"))
                }
                None => {}
            }
        });
    }

    /// Kills the agent; its containers go on.
    pub fn kill(&self) {
        let Some(running) = self.running().take() else { return };
        running.life.end();
        running.stop.send_replace(true);
        self.shared.history.note(&self.shared.name, "the agent is killed");
    }

    /// The machine loses its power, and the agent with it.
    pub fn power_off(&self) {
        self.kill();
        self.shared.machine.power_off();
    }
}
