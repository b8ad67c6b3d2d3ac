//! The agent: one task for each pod bound to this node, one that keeps the Node alive, one that keeps services
//! reachable, one that keeps traffic within what policies allow.
//!
//! Flow        records on disk → tasks of the pods that ran here → first list of pods → what is not in it is torn down
//! Guarantees  containers outlive the agent and are taken over by uid; without the API pods go on as last seen
//! Relies on   [`Machine`] for everything outside the process; no thread, no clock of its own

mod directory;
mod in_use;
mod kept;
mod lasting;
mod plugins;
mod pod_resources;
mod pods;
mod policing;
mod pressure;
mod resource_slice;
mod serving;
mod shutdown;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use windlass_api::types::core;
use windlass_api::{binding, kinds};
use windlass_client::{Backoff, Cache, Client, Recorder, Scope};
use windlass_network::Cidr;
use windlass_stdx::World;

pub use directory::{PodDirectory, PodEntry};
pub use in_use::InUse;
pub use shutdown::Shutdown;

use crate::budget::Budget;
use crate::config::NodeConfig;
use crate::cpus::Cpus;
use crate::devices::{self, Devices};
use crate::downward::Allocatable;
use crate::env;
use crate::eviction::Shortage;
use crate::machine::{DeviceTable, Facts, Machine, MachineError};
use crate::node;
use crate::services::HostPort;
use crate::source::Sources;
use crate::starts::Starts;
use crate::steps::image::Pulls;

/// The key under which the machine keeps what the node itself must know; no uid looks like it.
const NODE_KEY: &str = "node";
/// How long a container waits for the first list of services before it is told so.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(10);

/// What all pods of this node share.
pub struct Shared {
    /// Speaks to the API.
    pub client: Client,
    /// Clock and randomness.
    pub world: World,
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// The agent's settings.
    pub config: NodeConfig,
    /// Writes Events.
    pub recorder: Recorder,
    /// The ConfigMaps and Secrets of pods.
    pub sources: Sources,
    /// Who is fetching which image.
    pub pulls: Pulls,
    /// How the last pods came up.
    pub starts: Arc<Starts>,
    /// What has been promised to pods.
    pub budget: Budget,
    /// The pods of this machine that network policies may restrict.
    pub locals: policing::Locals,
    /// The volumes of drivers that pods use.
    pub in_use: InUse,
    /// Which CPUs run whose containers.
    pub cpus: Cpus,
    /// Which containers have which devices.
    pub devices: Devices,
    services: Cache,
    slices: Cache,
    /// What an earlier agent kept of both.
    kept: OnceLock<kept::Kept>,
    /// When this agent began.
    began: Instant,
    node: Cache,
    facts: watch::Sender<Arc<NodeFacts>>,
    network_ready: watch::Sender<bool>,
    is_shutting_down: AtomicBool,
    host_ports: Mutex<BTreeMap<Arc<str>, Vec<HostPort>>>,
    host_ports_changed: Notify,
}

/// What this node is and has, for its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its addresses, best first.
    pub addresses: Vec<IpAddr>,
    /// What it can give.
    pub allocatable: Allocatable,
    /// What it is short of.
    pub shortages: Vec<Shortage>,
    /// Everything the machine says of itself.
    pub facts: Facts,
}

impl Shared {
    /// What this node is and has.
    pub fn node_facts(&self) -> Arc<NodeFacts> {
        Arc::clone(&self.facts.borrow())
    }

    /// The labels of the Node; `None` before it has been seen.
    pub fn node_labels(&self) -> Option<BTreeMap<String, String>> {
        let node = self.node.get("", &self.config.name)?;
        serde_json::from_value(node.value()["metadata"]["labels"].take()).ok()
    }

    /// What the node is short of: `MemoryPressure`, `DiskPressure`, `PIDPressure`.
    pub fn pressure(&self) -> Vec<&'static str> {
        let mut all: Vec<&str> = self.node_facts().shortages.iter().map(|shortage| shortage.condition()).collect();
        all.dedup();
        all
    }

    /// The uid of the Node, once it is registered.
    pub fn node_uid(&self) -> Option<String> {
        Some(self.node.get("", &self.config.name)?.header.uid().to_owned())
    }

    /// Waits until the Node says that a volume is in use. Cancel safe.
    pub async fn says_in_use(&self, name: &str) {
        let mut changes = self.node.subscribe();
        loop {
            let says = self.node.get("", &self.config.name).is_some_and(|node| {
                let named = node.value()["status"]["volumesInUse"].take();
                named.as_array().is_some_and(|all| all.iter().any(|found| found == name))
            });
            if says {
                return;
            }
            changes.next().await;
        }
    }

    /// Whether pods can be attached.
    pub fn is_network_ready(&self) -> bool {
        *self.network_ready.borrow()
    }

    /// Whether the machine goes down.
    pub fn is_shutting_down(&self) -> bool {
        self.is_shutting_down.load(Ordering::Relaxed)
    }

    fn begin_shutdown(&self) {
        self.is_shutting_down.store(true, Ordering::Relaxed);
    }

    /// The variables that a pod of this namespace gets for services. Only right once [`Shared::services_seen`] is `Ok`.
    pub fn service_variables(&self, namespace: &str, links: bool) -> Vec<(String, String)> {
        let services: Vec<Arc<Option<core::Service>>> = match self.kept.get().filter(|_| !self.services.is_synced()) {
            Some(kept) => kept.services.clone(),
            None => {
                let mut objects = if links { self.services.in_namespace(namespace) } else { Vec::new() };
                objects.extend(self.services.get("default", "kubernetes"));
                objects.iter().map(|object| object.memo(decode_service)).collect()
            }
        };
        env::of_services(services.iter().filter_map(|service| Option::as_ref(service)), namespace, links)
    }

    /// Waits for the first list of services.
    pub async fn services_seen(&self) -> Result<(), String> {
        if self.kept.get().is_some() {
            // K2: those of before are as good as it gets while the API is away.
            let _in_time = tokio::time::timeout_at(self.began + kept::PATIENCE, self.services.synced()).await;
            return Ok(());
        }
        let seen = tokio::time::timeout(SERVICES_TIMEOUT, self.services.synced()).await;
        seen.map_err(|_| "services have not yet been read at least once, cannot construct envvars".to_owned())
    }

    /// Says which of the machine's ports lead into this pod.
    pub fn set_host_ports(&self, pod: &Arc<str>, ports: Vec<HostPort>) {
        let mut all = self.host_ports.lock().expect("nothing panics while holding it");
        let changed = match ports.is_empty() {
            true => all.remove(pod).is_some(),
            false => all.insert(Arc::clone(pod), ports.clone()) != Some(ports),
        };
        if changed {
            self.host_ports_changed.notify_one();
        }
    }
}

fn decode_service(object: &windlass_api::Object) -> Option<core::Service> {
    object.decode().inspect_err(|error| tracing::warn!(%error, "a service is not understood")).ok()
}

/// The agent of one node.
pub struct Agent {
    shared: Arc<Shared>,
    directory: PodDirectory,
}

impl Agent {
    /// An agent over this machine. Must be called inside a tokio runtime.
    pub async fn new(
        client: Client,
        world: World,
        machine: Arc<dyn Machine>,
        config: NodeConfig,
    ) -> Result<Agent, MachineError> {
        let facts = node::node_facts(&config, machine.facts().await?, &[]);
        let client = client.named("node");
        let shared = Shared {
            recorder: Recorder::new(client.clone(), "kubelet", &config.name),
            sources: Sources::new(client.clone()),
            pulls: Pulls::new(config.pulls_max),
            starts: Arc::default(),
            budget: Budget::default(),
            locals: policing::Locals::default(),
            in_use: InUse::default(),
            devices: Devices::default(),
            cpus: Cpus::new(config.cpu_policy, facts.facts.cpu_places.clone(), config.kept_cpus()),
            services: Cache::start(client.clone(), &kinds::SERVICE, Scope::all()),
            slices: Cache::start(client.clone(), &kinds::ENDPOINT_SLICE, Scope::all()),
            kept: OnceLock::new(),
            began: Instant::now(),
            node: Cache::start(client.clone(), &kinds::NODE, Scope::named(None, &config.name)),
            facts: watch::Sender::new(Arc::new(facts)),
            network_ready: watch::Sender::new(false),
            is_shutting_down: AtomicBool::new(false),
            host_ports: Mutex::default(),
            host_ports_changed: Notify::new(),
            client,
            world,
            machine,
            config,
        };
        Ok(Agent { shared: Arc::new(shared), directory: PodDirectory::default() })
    }

    /// The pods of this node, for its HTTP server.
    pub fn directory(&self) -> PodDirectory {
        self.directory.clone()
    }

    /// What ends its pods when the machine goes down.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown { shared: Arc::clone(&self.shared), directory: self.directory.clone() }
    }

    /// How the last pods came up, for its HTTP server.
    pub fn starts(&self) -> Arc<Starts> {
        Arc::clone(&self.shared.starts)
    }

    /// The agent's settings.
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// Runs until `shutdown` is true. The containers stay.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let mut records = self.shared.machine.load().await.unwrap_or_else(|error| {
            tracing::error!(%error, "what was kept of earlier pods cannot be read; the machine is looked at instead");
            BTreeMap::new()
        });
        // What is left are the pods'.
        let (pod_cidr, resources) = (records.remove(NODE_KEY), records.remove(devices::KEY));
        let kept_policies = records.remove(policing::KEY);
        if let Some(bytes) = records.remove(kept::KEY) {
            match kept::read(&bytes) {
                Ok(kept) => drop(self.shared.kept.set(kept)),
                Err(error) => {
                    tracing::error!(%error, "what was kept of services cannot be read; the API is waited for")
                }
            }
        }
        // What restricts them must not be let go of before they are looked at.
        for (uid, record) in &records {
            pods::recall(&self.shared, uid, record);
        }
        if let Some(kept) = pod_cidr {
            let pod_cidr = String::from_utf8_lossy(&kept).into_owned();
            self.raise_network(&pod_cidr).await;
        }
        match self.shared.machine.lent().await {
            Ok(lent) => {
                for (pod, driver, handle) in lent {
                    self.shared.in_use.add(&pod, &binding::volume_in_use(&driver, &handle));
                }
            }
            Err(error) => tracing::error!(%error, "what drivers have lent is not known; their volumes may be detached"),
        }
        if let Some(kept) = resources {
            self.shared.devices.recall(&kept);
        }
        let work = async {
            tokio::join!(
                pods::run(&self.shared, &self.directory, records),
                pods::pass_on_hints(&self.shared, &self.directory),
                serving::run(&self.shared),
                policing::run(&self.shared, kept_policies),
                lasting::run(&self.shared),
                plugins::run(&self.shared),
                pod_resources::run(&self.shared, &self.directory),
                self.keep_alive(),
                self.relieve(),
                self.keep_network(),
            );
        };
        tokio::select! {
            biased;
            // A sender that is gone will never say stop.
            _ = async { if shutdown.wait_for(|stop| *stop).await.is_err() { std::future::pending::<()>().await } } => {}
            () = work => {}
        }
        self.directory.stop();
    }

    async fn raise_network(&self, pod_cidr: &str) -> bool {
        match self.shared.machine.network_up(pod_cidr).await {
            Ok(()) => {
                // The gateway is where names are answered.
                let gateway = pod_cidr.parse::<Cidr>().ok().and_then(|cidr| cidr.nth(1));
                self.shared.locals.set_gateway(gateway);
                self.shared.network_ready.send_replace(true);
                true
            }
            Err(error) => {
                tracing::error!(%error, pod_cidr, "the network is not up");
                false
            }
        }
    }

    /// Registers the node, renews its lease and tells what is new, for ever. A node that is deleted while its machine
    /// lives comes back: its pods are not killed for that.
    async fn keep_alive(&self) {
        let shared = &self.shared;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        self.register(&mut backoff).await;
        let mut timer = tokio::time::interval(shared.config.lease_interval());
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut network_ready = shared.network_ready.subscribe();
        let mut changes = shared.node.subscribe();
        let mut in_use = shared.in_use.subscribe();
        let mut devices = shared.machine.devices();
        devices.mark_changed();
        let mut facts = shared.facts.subscribe();
        loop {
            tokio::select! {
                biased;
                // First: what changes often must not keep the lease waiting.
                _ = timer.tick() => self.renew().await,
                _ = facts.changed() => {}
                _ = network_ready.changed() => {}
                _ = in_use.changed() => {}
                Ok(()) = devices.changed() => {
                    let table = Arc::clone(&devices.borrow_and_update());
                    self.learn_devices(&table).await;
                }
                _ = changes.next() => {}
            }
            let Some(node) = shared.node.get("", &shared.config.name) else {
                if shared.node.is_synced() {
                    self.register(&mut backoff).await;
                }
                continue;
            };
            if let Err(error) = node::report(shared, &node.value()["status"]).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the node's status was not written");
            }
        }
    }

    /// Looks at the machine and gives back what it is short of. Beside the lease, which must not wait for a walk over full
    /// disks, and which waits for the API.
    async fn relieve(&self) {
        let mut timer = tokio::time::interval(self.shared.config.lease_interval());
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.look_at_machine().await;
            pressure::relieve(&self.shared, &self.directory).await;
        }
    }

    async fn renew(&self) {
        let shared = &self.shared;
        let Some(node) = shared.node.get("", &shared.config.name) else { return };
        let renewed = node::renew(&shared.client, &shared.config, node.header.uid(), shared.world.now()).await;
        if let Err(error) = renewed {
            tracing::warn!(error = &error as &dyn std::error::Error, "the node's lease was not renewed");
        }
    }

    /// Resources whose plugins are away after the agent's next start are told of all the same.
    async fn learn_devices(&self, table: &DeviceTable) {
        let Some(kept) = self.shared.devices.learn(table) else { return };
        if let Err(error) = self.shared.machine.save(devices::KEY, kept).await {
            tracing::warn!(%error, "the names of devices' resources were not kept");
        }
    }

    async fn register(&self, backoff: &mut Backoff) {
        loop {
            match node::register(&self.shared).await {
                Ok(revision) => {
                    backoff.reset();
                    self.shared.node.caught_up(revision).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the node is not registered yet");
                    tokio::time::sleep(backoff.next(&self.shared.world)).await;
                }
            }
        }
    }

    async fn look_at_machine(&self) {
        match self.shared.machine.facts().await {
            Ok(facts) => {
                let before = self.shared.node_facts();
                let facts = node::node_facts(&self.shared.config, facts, &before.shortages);
                self.shared.facts.send_replace(Arc::new(facts));
            }
            Err(error) => tracing::warn!(%error, "the machine's facts could not be read"),
        }
    }

    /// Raises the network once the node has its range of addresses.
    async fn keep_network(&self) {
        let shared = &self.shared;
        let mut changes = shared.node.subscribe();
        let mut raised = String::new();
        let mut retry_at: Option<Instant> = None;
        loop {
            let timer = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = changes.next() => {}
                () = timer => {}
            }
            retry_at = None;
            let Some(node) = shared.node.get("", &shared.config.name) else { continue };
            let pod_cidr = node.memo(pod_cidr);
            if pod_cidr.is_empty() || *pod_cidr == raised {
                continue;
            }
            if self.raise_network(&pod_cidr).await {
                raised.clone_from(&pod_cidr);
                let kept = Bytes::from(raised.clone().into_bytes());
                if let Err(error) = shared.machine.save(NODE_KEY, kept).await {
                    tracing::warn!(%error, "the node's range of addresses was not kept");
                }
            } else {
                retry_at = Some(Instant::now() + shared.world.jitter(Duration::from_secs(2)));
            }
        }
    }
}

fn pod_cidr(node: &windlass_api::Object) -> String {
    node.value()["spec"]["podCIDR"].as_str().unwrap_or_default().to_owned()
}
