//! A run: a cluster, its users and its faults, and the questions asked of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::{Builder, RngSeed};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use windlass_api::{Kind, Object, kinds};
use windlass_apiserver::Identity;
use windlass_client::{Client, ClientError, ListOptions};
use windlass_stdx::World;

use crate::faults::Faults;
use crate::history::{History, Violation};
use crate::invariant::acked::{self, Ledger};
use crate::invariant::converge::{self, View};
use crate::invariant::single::Runs;
use crate::invariant::watch::{Observed, Observer};
use crate::invariant::{owner, service};
use crate::life::Life;
use crate::link::Network;
use crate::machine::Machine;
use crate::node::Node;
use crate::server::{Parts, Server};
use crate::setup::{Sabotage, Setup};
use crate::user::User;

/// How long the server may take to come up on an empty disk, or after the last fault.
const UP_MAX: Duration = Duration::from_secs(20);
/// The cluster must be as declared for so many looks, a second apart.
const LOOKS: u32 = 3;
/// Differences told of a cluster that does not converge.
const DIFFERENCES_MAX: usize = 12;
/// The kinds that are watched throughout.
const WATCHED: [&Kind; 4] = [&kinds::POD, &kinds::DEPLOYMENT, &kinds::CONFIG_MAP, &kinds::ENDPOINT_SLICE];
/// 1 January 2026, 00:00 UTC: when every run begins.
const BEGINNING: i64 = 1_767_225_600;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed it followed from.
    pub seed: u64,
    /// Of the whole history.
    pub hash: u64,
    /// How many events it has.
    pub events: u64,
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// How long the cluster took to become as declared after the faults; `None` when it did not.
    pub converged: Option<Duration>,
    /// Writes that were acknowledged to users.
    pub acks: u64,
    /// The store's last revision.
    pub revision: u64,
    /// What the observers saw, together.
    pub observed: Observed,
    /// The rules that were broken.
    pub violations: Vec<Violation>,
}

/// Runs a cluster from beginning to end.
pub fn run(setup: &Setup) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&setup.seed.to_le_bytes()))
        .build()
        .expect("a runtime without threads and sockets needs nothing of the system");
    runtime.block_on(Cluster::live(setup))
}

struct Cluster {
    world: World,
    history: History,
    network: Network,
    ledger: Ledger,
    server: Server,
    nodes: Vec<Node>,
}

impl Cluster {
    fn new(setup: &Setup) -> Cluster {
        let start = Timestamp::from_second(BEGINNING).expect("a time in this century");
        let world = World::seeded(setup.seed, start);
        let history = History::begin(setup.tell);
        let network = Network::new(world.clone(), history.clone());
        let (ledger, runs) = (Ledger::default(), Runs::new(history.clone()));
        let server = Server::new(setup.seed, world.clone(), history.clone(), network.clone(), ledger.clone());
        server.set_parts(Parts {
            controllers: setup.sabotage != Some(Sabotage::NoControllers),
            scheduler: setup.sabotage != Some(Sabotage::NoScheduler),
            remote: setup.remote_parts,
        });
        let numbers = 1..=u8::try_from(setup.nodes).unwrap_or(u8::MAX);
        let nodes = numbers.map(|number| {
            let name = format!("n{number}");
            let machine = Machine::new(&name, number, world.clone(), history.clone(), runs.clone());
            Node::new(&name, machine, world.clone(), history.clone(), network.clone())
        });
        Cluster { nodes: nodes.collect(), world, history, network, ledger, server }
    }

    async fn live(setup: &Setup) -> Outcome {
        let cluster = Cluster::new(setup);
        let (working, observing) = (Life::begin(), Life::begin());
        cluster.server.start();
        cluster.until_up().await;
        cluster.nodes.iter().for_each(Node::start);
        let observers = cluster.observe(&observing, setup);
        let users = cluster.employ(&working, setup.users);
        cluster.faults(users).storm(setup).await;
        working.end();
        cluster.until_up().await;
        let converged = cluster.converge(setup.calm_max).await;
        cluster.check_acked().await;
        observing.end();
        let mut observed = Observed::default();
        for observer in observers {
            let one = observer.await.expect("an observer does not panic");
            observed.events += one.events;
            observed.compared += one.compared;
            observed.relisted += one.relisted;
        }
        let (hash, events) = cluster.history.digest();
        Outcome {
            seed: setup.seed,
            hash,
            events,
            simulated: cluster.history.elapsed(),
            converged,
            acks: cluster.ledger.acks(),
            revision: cluster.server.store().map_or(0, |store| store.revision()),
            observed,
            violations: cluster.history.violations(),
        }
    }

    /// Waits until the server answers.
    async fn until_up(&self) {
        let end = Instant::now() + UP_MAX;
        while self.network.door().is_none() {
            if Instant::now() >= end {
                return self.history.violate("converge", format_args!("the server is not up within {UP_MAX:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn client(&self, actor: &str) -> Client {
        let link = self.network.link(actor, Identity::part(actor), &Life::begin());
        Client::new(link, self.world.clone())
    }

    fn observe(&self, observing: &Life, setup: &Setup) -> Vec<JoinHandle<Observed>> {
        let start = |kind: &'static Kind| {
            let sabotage = setup.sabotage.filter(|_| kind.plural == kinds::POD.plural);
            let (client, history) = (self.client("observer"), self.history.clone());
            let observer = Observer::new(client, kind, history, self.server.journal(), sabotage);
            tokio::spawn(observer.run(observing.clone()))
        };
        WATCHED.into_iter().map(start).collect()
    }

    /// Sets users to work; returns their names.
    fn employ(&self, working: &Life, count: usize) -> Vec<String> {
        let names: Vec<String> = (1..=count).map(|number| format!("u{number}")).collect();
        for name in &names {
            let user = User::new(name, &self.client(name), self.history.clone(), self.ledger.clone());
            let working = working.clone();
            tokio::spawn(async move { working.within(user.work()).await });
        }
        names
    }

    fn faults(&self, users: Vec<String>) -> Faults {
        let mut actors: Vec<String> = self.nodes.iter().map(|node| node.name().to_owned()).collect();
        actors.extend(users);
        actors.push("observer".to_owned());
        Faults {
            server: self.server.clone(),
            nodes: self.nodes.clone(),
            actors,
            network: self.network.clone(),
            ledger: self.ledger.clone(),
            world: self.world.clone(),
            history: self.history.clone(),
            repairs: JoinSet::new(),
            old_disk: None,
        }
    }

    /// Waits until the cluster is as declared, and stays so for a moment. Returns how long it took.
    async fn converge(&self, most: Duration) -> Option<Duration> {
        let begin = Instant::now();
        let mut good = 0;
        loop {
            let wrong = match self.view().await {
                Ok(view) => [converge::check(&view), owner::check(&view), service::check(&view)].concat(),
                Err(error) => vec![format!("the server does not answer: {error}")],
            };
            good = if wrong.is_empty() { good + 1 } else { 0 };
            if good == LOOKS {
                let took = begin.elapsed();
                self.history.note("observer", format_args!("as declared after {took:?}"));
                return Some(took);
            }
            if begin.elapsed() >= most {
                let shown: Vec<&str> = wrong.iter().take(DIFFERENCES_MAX).map(String::as_str).collect();
                let (count, shown) = (wrong.len(), shown.join("\n  "));
                let what = format!("not as declared {most:?} after the last fault, {count} differences:\n  {shown}");
                self.history.violate("converge", what);
                return None;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn view(&self) -> Result<View, ClientError> {
        let client = self.server.client();
        let list = async |kind: &Kind| -> Result<Vec<Object>, ClientError> {
            match &client {
                Some(client) => {
                    let list = client.list(kind, None, &ListOptions::default()).await?;
                    Ok(list.items.into_iter().map(Arc::unwrap_or_clone).collect())
                }
                None => Ok(Vec::new()),
            }
        };
        let machines = || self.nodes.iter().map(|node| (node.name().to_owned(), node.machine()));
        Ok(View {
            deployments: list(&kinds::DEPLOYMENT).await?,
            replica_sets: list(&kinds::REPLICA_SET).await?,
            pods: list(&kinds::POD).await?,
            services: list(&kinds::SERVICE).await?,
            slices: list(&kinds::ENDPOINT_SLICE).await?,
            running: machines().map(|(name, machine)| (name, machine.running())).collect(),
            held: machines().map(|(name, machine)| (name, machine.held())).collect(),
            served: machines().map(|(name, machine)| (name, machine.served())).collect(),
        })
    }

    async fn check_acked(&self) {
        match (self.server.client(), self.server.store()) {
            (Some(client), Some(store)) => acked::check_server(&client, &store, &self.ledger, &self.history).await,
            _ => self.history.violate("acked", "the server is not up at the end"),
        }
    }
}
