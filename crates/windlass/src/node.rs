//! The node's wiring: this machine, its agent and its HTTP server, beside a server or joined to one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use windlass_api::kinds;
use windlass_api::quantity::Quantity;
use windlass_api::types::core::Node as NodeObject;
use windlass_apiserver::{AddressRange, Identity};
use windlass_client::{Backoff, Client, HttpsConfig, HttpsTransport};
use windlass_node::agent::Shutdown;
use windlass_node::config::{Amounts, CpuPolicy, ImageCollection};
use windlass_node::join::{JoinConfig, join};
use windlass_node::kernel::{CRI_SCHEME, EMBEDDED};
use windlass_node::server::Site;
use windlass_node::{
    Agent, Kernel, KernelConfig, Machine, NodeConfig, ProviderFiles, RuntimeChoice, ServerIdentity, serve,
};
use windlass_stdx::World;

use crate::cli::{CpuPolicyFlag, JoinFlags, NetworkFlags, NodeFlags};
use crate::place::Place;
use crate::server::Server;

/// How long a node may take to become Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(50);
/// How often its own Node object is looked at until then.
const READY_LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a port that somebody else holds is left alone: at first, and at most.
const PORT_RETRY_FIRST: Duration = Duration::from_millis(500);
const PORT_RETRY_MOST: Duration = Duration::from_secs(15);
/// Programs that run containers and are known by their names.
const RUNTIMES_KNOWN: [&str; 2] = ["runc", "crun"];
/// The cluster's DNS has the tenth address of the Service network.
const DNS_OFFSET: u32 = 10;

/// The agent and its HTTP server.
const PARTS: usize = 2;

/// A running node.
pub struct Node {
    pub name: String,
    client: Client,
    shutdown: Shutdown,
    /// How long pods have to end when the machine goes down, and the critical ones' part of it.
    grace: (Duration, Duration),
    /// Each ends only when told to stop, or with the reason why it cannot go on.
    tasks: Mutex<JoinSet<String>>,
}

/// What a node needs whichever way it reaches the API.
struct Parts<'a> {
    name: String,
    flags: &'a NodeFlags,
    networks: &'a NetworkFlags,
    world: &'a World,
    kernel: Arc<Kernel>,
    /// Where programs of this machine ask which pod has which devices.
    pod_resources: PathBuf,
}

impl Node {
    /// A node in the server's own process: the API is called without a socket.
    pub async fn beside(
        place: &Place,
        server: &Server,
        (flags, networks): (&NodeFlags, &NetworkFlags),
        world: &World,
        stop: watch::Receiver<bool>,
    ) -> Result<Node> {
        let parts = Parts::open(place, flags, networks, world).await?;
        let addresses = parts.addresses().await?;
        let credential =
            server.pki.issue_node(&parts.name, &addresses).context("cannot issue the node's certificate")?;
        let identity = ServerIdentity {
            cert_pem: credential.cert_pem,
            key_pem: credential.key_pem,
            ca_pem: server.pki.ca_pem().to_owned(),
        };
        let client = Client::new(server.api.transport(Identity::node(&parts.name)), world.clone());
        parts.start(client, identity, stop).await
    }

    /// A node of a server elsewhere: joins it the first time, and reaches it over TLS.
    pub async fn join(place: &Place, flags: &JoinFlags, world: &World, stop: watch::Receiver<bool>) -> Result<Node> {
        let parts = Parts::open(place, &flags.node, &flags.networks, world).await?;
        let config = JoinConfig {
            server: flags.server.clone(),
            token: flags.token.clone().unwrap_or_default(),
            node: parts.name.clone(),
            addresses: parts.addresses().await?,
            directory: place.data.join("node"),
        };
        let identity = join(&config).await.with_context(|| format!("cannot join the cluster of {}", flags.server))?;
        let transport = HttpsTransport::new(HttpsConfig {
            server: flags.server.clone(),
            ca_pem: identity.ca_pem.as_bytes().to_vec(),
            identity: Some((identity.cert_pem.as_bytes().to_vec(), identity.key_pem.as_bytes().to_vec())),
        })?;
        parts.start(Client::new(Arc::new(transport), world.clone()), identity, stop).await
    }

    /// Waits until the Node object says Ready.
    pub async fn wait_ready(&self) -> Result<()> {
        let ready = async {
            loop {
                if let Ok(Some(object)) = self.client.get(&kinds::NODE, "", &self.name).await
                    && let Ok(node) = object.decode::<NodeObject>()
                    && is_ready(&node)
                {
                    return;
                }
                tokio::time::sleep(READY_LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            why = self.failed() => bail!("the node agent cannot go on: {why}"),
            result = tokio::time::timeout(READY_TIMEOUT, ready) => {
                result.with_context(|| format!("node {} is not Ready after {} s", self.name, READY_TIMEOUT.as_secs()))
            }
        }
    }

    /// Whether no part has ended.
    pub async fn is_running(&self) -> bool {
        self.tasks.lock().await.len() == PARTS
    }

    /// Waits for a part that ends although nobody told it to, and says why.
    pub async fn failed(&self) -> String {
        match self.tasks.lock().await.join_next().await {
            Some(Ok(why)) => why,
            Some(Err(error)) => error.to_string(),
            None => "it has ended".to_owned(),
        }
    }

    /// The machine goes down: ends the pods, if they are to be ended.
    pub async fn shut_down(&self) {
        let (total, critical) = self.grace;
        if !total.is_zero() {
            self.shutdown.run(total, critical).await;
        }
    }

    /// Waits until all parts have ended after they were told to. The containers stay.
    pub async fn stop(&self) {
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

impl Parts<'_> {
    async fn open<'a>(
        place: &Place,
        flags: &'a NodeFlags,
        networks: &'a NetworkFlags,
        world: &'a World,
    ) -> Result<Parts<'a>> {
        let kubelet = place.take_kubelet()?;
        let config = KernelConfig {
            instance: place.instance.clone(),
            data: place.data.clone(),
            run: place.run.clone(),
            shim_exe: PathBuf::from("/proc/self/exe"),
            cluster_cidr: networks.pod_cidr.clone(),
            service_cidr: networks.service_cidr.clone(),
            cluster_dns: cluster_dns(networks)?,
            cluster_domain: "cluster.local".to_owned(),
            kubelet: kubelet.clone(),
            manifests: flags.manifests.clone(),
            credential_providers: flags.credential_providers()?,
            device_plugins: flags.device_plugins.clone(),
            cdi: flags.cdi_dirs.clone(),
            runtimes: flags.runtimes()?,
            criu: on_the_path("criu"),
        };
        let kernel = Kernel::open(config, world.clone()).await.context("cannot ready this machine for containers")?;
        let pod_resources = flags.pod_resources.clone().unwrap_or_else(|| kubelet.join("pod-resources"));
        Ok(Parts { name: node_name(flags), flags, networks, world, kernel, pod_resources })
    }

    /// The addresses others reach this machine at, best first.
    async fn addresses(&self) -> Result<Vec<IpAddr>> {
        if let Some(address) = self.flags.node_address {
            return Ok(vec![address]);
        }
        let found = self.kernel.facts().await.context("cannot find out this machine's addresses")?.addresses;
        if found.is_empty() {
            return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        Ok(found)
    }

    async fn start(self, client: Client, identity: ServerIdentity, stop: watch::Receiver<bool>) -> Result<Node> {
        self.kernel.join_peers(&identity).context("the node's identity cannot be used")?;
        let address =
            *self.addresses().await?.first().context("this machine has no address: give one with --node-address")?;
        let listen = SocketAddr::new(address, self.flags.node_port);
        let config = NodeConfig {
            address: Some(address),
            port: self.flags.node_port,
            cluster_dns: cluster_dns(self.networks)?,
            reserved: self.flags.reserved(),
            cpu_policy: self.flags.cpu_policy()?,
            reserved_cpus: self.flags.reserved_cpus,
            memory_free_bytes_min: self.flags.eviction_memory.map(units),
            disk_free_bytes_min: self.flags.eviction_storage.map(units),
            disk_free_files_min: self.flags.eviction_files,
            pids_free_min: self.flags.eviction_pids,
            image_collection: self.flags.image_collection()?,
            pulls_max: usize::try_from(self.flags.parallel_image_pulls)?,
            pod_resources: Some(self.pod_resources),
            unsafe_sysctls: self.flags.allowed_unsafe_sysctls.clone(),
            lease_duration: Duration::from_secs(self.flags.node_lease_seconds),
            ..NodeConfig::named(&self.name)
        };
        let machine: Arc<dyn Machine> = self.kernel.clone();
        let agent =
            Agent::new(client.clone(), self.world.clone(), machine, config).await.context("cannot start the agent")?;
        let shutdown = agent.shutdown();
        let grace = [self.flags.shutdown_grace, self.flags.shutdown_grace_critical].map(Duration::from_secs);
        let site = Site::new(self.kernel, agent.directory(), agent.starts(), &self.name);
        let mut tasks = JoinSet::new();
        let serving_stop = stop.clone();
        let backoff = Backoff::new(PORT_RETRY_FIRST, PORT_RETRY_MOST);
        let world = self.world.clone();
        tasks.spawn(async move {
            let Some(listener) = bind(listen, backoff, &world, serving_stop.clone()).await else {
                return "its HTTP server ended".to_owned();
            };
            match serve(listener, &identity, site, serving_stop).await {
                Ok(()) => "its HTTP server ended".to_owned(),
                Err(error) => format!("its HTTP server ended: {error}"),
            }
        });
        tasks.spawn(async move {
            agent.run(stop).await;
            "the agent ended".to_owned()
        });
        Ok(Node { name: self.name, client, shutdown, grace: grace.into(), tasks: Mutex::new(tasks) })
    }
}

/// The agent's port, as soon as nobody else holds it: pods run meanwhile, only logs and commands are not to be had.
async fn bind(
    listen: SocketAddr,
    mut backoff: Backoff,
    world: &World,
    mut stop: watch::Receiver<bool>,
) -> Option<TcpListener> {
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return Some(listener),
            Err(error) => {
                let wait = backoff.next(world);
                tracing::error!(
                    %error,
                    ?wait,
                    "the node agent cannot listen on {listen}, so there are no logs and commands; it is tried again. \
                     If the port is in use, stop who uses it or choose another with --node-port"
                );
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return None,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

/// A whole number of bytes; less than nothing is nothing.
fn units(quantity: Quantity) -> u64 {
    u64::try_from(quantity.units()).unwrap_or(0)
}

impl NodeFlags {
    fn credential_providers(&self) -> Result<Option<ProviderFiles>> {
        match (&self.image_credential_provider_config, &self.image_credential_provider_bin_dir) {
            (Some(config), Some(programs)) => {
                Ok(Some(ProviderFiles { config: config.clone(), programs: programs.clone() }))
            }
            (None, None) => Ok(None),
            _ => bail!("--image-credential-provider-config and --image-credential-provider-bin-dir go together"),
        }
    }

    /// What runs containers: programs that everybody knows, where they are, and those that were named.
    fn runtimes(&self) -> Result<RuntimeChoice> {
        let mut choice = RuntimeChoice { default: self.default_runtime.clone(), ..RuntimeChoice::default() };
        let found = RUNTIMES_KNOWN.into_iter().filter_map(|name| Some((name.to_owned(), on_the_path(name)?)));
        choice.programs.extend(found);
        for (name, program) in &self.runtimes {
            if let Some(text) = program.to_str().filter(|text| text.starts_with(CRI_SCHEME)) {
                let endpoint = text.parse().map_err(|why| anyhow!("--runtime {name}={text}: {why}"))?;
                choice.sockets.insert(name.clone(), endpoint);
                choice.programs.remove(name);
                continue;
            }
            if !program.is_absolute() || !is_program(program) {
                bail!(
                    "--runtime {name}={}: expected the whole path of a program, or {CRI_SCHEME}/PATH",
                    program.display()
                );
            }
            choice.programs.insert(name.clone(), program.clone());
        }
        let known: Vec<&str> = choice.programs.keys().chain(choice.sockets.keys()).map(String::as_str).collect();
        if choice.default != EMBEDDED && !known.contains(&choice.default.as_str()) {
            bail!(
                "--default-runtime {}: this node knows {EMBEDDED} {}; name others with --runtime",
                choice.default,
                known.join(" ")
            );
        }
        Ok(choice)
    }

    /// Some CPU must be left to all who have none for themselves.
    fn cpu_policy(&self) -> Result<CpuPolicy> {
        let keeps = self.reserved_cpus.is_some_and(|cpus| !cpus.is_empty()) || self.reserved().cpu_millis > 0;
        match self.cpu_manager_policy {
            CpuPolicyFlag::None => Ok(CpuPolicy::None),
            CpuPolicyFlag::Static if keeps => Ok(CpuPolicy::Static),
            CpuPolicyFlag::Static => {
                bail!(
                    "--cpu-manager-policy static needs a CPU that is kept: give --reserved-cpus 0 or --reserved-cpu 1"
                )
            }
        }
    }

    fn image_collection(&self) -> Result<ImageCollection> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        if low > high {
            bail!("--image-gc-low-threshold {low} is above --image-gc-high-threshold {high}: give a lower one");
        }
        let age_min = Duration::from_secs(self.image_gc_minimum_age);
        Ok(ImageCollection { high_percent: high, low_percent: low, age_min })
    }

    fn reserved(&self) -> Amounts {
        let whole = self.reserved_cpus.map(|cpus| cpus.len() as u64 * 1000);
        let part = self.reserved_cpu.map_or(0, |cpu| u64::try_from(cpu.millis()).unwrap_or(0));
        Amounts {
            cpu_millis: whole.unwrap_or(part),
            memory_bytes: self.reserved_memory.map_or(0, units),
            disk_bytes: self.reserved_storage.map_or(0, units),
            ..Amounts::default()
        }
    }
}

/// A program of the machine. What lies in the directory that this was started in is not the machine's.
fn on_the_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    directories.map(|directory| directory.join(name)).find(|file| is_program(file))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn cluster_dns(networks: &NetworkFlags) -> Result<Ipv4Addr> {
    let range: AddressRange = networks.service_cidr.parse()?;
    Ok(range.at(DNS_OFFSET))
}

/// The name a node gets when none was given: the machine's.
fn node_name(flags: &NodeFlags) -> String {
    let own = || rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    flags.node_name.clone().unwrap_or_else(own)
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
