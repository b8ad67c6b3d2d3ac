//! The machine that is this computer: containers by `runtime`, addresses and services by `network`, files by itself.
//!
//! Relies on   root; one agent per instance
//! Not here    what any of it is for (`agent`, `pod`)

mod checkpoint;
mod collect;
mod container;
mod content;
mod counters;
mod cri;
mod csi;
mod damage;
mod device;
mod disk;
mod disk_image;
mod dra;
mod facts;
mod fetch;
mod group;
mod health;
pub(crate) mod layout;
mod make;
mod manifests;
pub(crate) mod namespace;
mod plugins;
mod provider;
mod reserve;
mod resolver;
mod runtimes;
mod seccomp;
mod signal;
mod volume;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{RwLock, broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use windlass_network::{
    AttachSpec, Attachment, Cidr, DnsConfig, DnsTable, Network, NetworkConfig, PolicyTable, ServiceTable, Verified,
};
use windlass_runtime::image::{Access, Credentials, ImageError, Images, Peer, PullOptions, Reference, Registries};
use windlass_runtime::{Runtime, RuntimeConfig, RuntimeError};
use windlass_stdx::World;

use crate::machine::{
    Allocated, Answer, ClaimToPrepare, Container, DeviceTable, DeviceWish, Exec, ExecResult, Facts, HealthCheck,
    HttpAnswer, HttpGet, Image, LentVolume, Machine, MachineError, MessageSource, Observed, Plugin, PodDisk, PodUsage,
    PreparedDevice, ProcessUser, Resize, Sandbox, Stop, Usage, Volume, VolumeContent, VolumeStats,
};
pub(crate) use counters::{Interface, Machine as MachineCounters, Room};
use cri::Cri;
pub(crate) use cri::StreamAsk;
pub use cri::{CriEndpoint, SCHEME as CRI_SCHEME, end_all as end_all_of_other_runtimes};
use csi::{Borrower, Lending};
pub use device::cdi::DIRECTORIES as CDI_DIRECTORIES;
use layout::Layout;
use plugins::Plugins;
pub use provider::ProviderFiles;
use provider::Providers;
use runtimes::Runtimes;
pub use runtimes::{EMBEDDED, RuntimeChoice};

/// Hints that wait for a slow agent; one that lags is told so and looks at everything.
const CHANGES_MAX: usize = 4096;
/// How often it is looked whether the network still is as it was made.
const VERIFY_INTERVAL: Duration = Duration::from_secs(2);
/// The largest packet of a pod's interface: what an Ethernet carries.
const MTU: u32 = 1500;
/// The largest record that is read back.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// What the kernel side of a node is told.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Keeps several clusters on one machine apart: bridge, nft table, cgroup; at most 13 of `a-z0-9-`.
    pub instance: String,
    /// What survives a reboot: `/var/lib/windlass`.
    pub data: PathBuf,
    /// What does not: `/run/windlass`.
    pub run: PathBuf,
    /// The program that is started as `PROGRAM shim …`.
    pub shim_exe: PathBuf,
    /// The network of all pods of the cluster: `10.42.0.0/16`.
    pub cluster_cidr: String,
    /// The network of all ClusterIPs: `10.43.0.0/16`.
    pub service_cidr: String,
    /// The ClusterIP that pods ask for names.
    pub cluster_dns: Ipv4Addr,
    /// The domain that services have their names in.
    pub cluster_domain: String,
    /// Where drivers of volumes and devices meet the node: `/var/lib/kubelet`.
    pub kubelet: PathBuf,
    /// The directory whose files are static pods.
    pub manifests: Option<PathBuf>,
    /// Programs that provide credentials for registries.
    pub credential_providers: Option<ProviderFiles>,
    /// Where device plugins register and serve; `None` is `device-plugins` in [`KernelConfig::kubelet`].
    pub device_plugins: Option<PathBuf>,
    /// Where what devices need is described; later ones have precedence.
    pub cdi: Vec<PathBuf>,
    /// What runs containers.
    pub runtimes: RuntimeChoice,
    /// What saves running containers, if there is CRIU.
    pub criu: Option<PathBuf>,
}

/// This computer.
pub struct Kernel {
    config: KernelConfig,
    layout: Layout,
    world: World,
    runtime: Runtime,
    runtimes: Runtimes,
    /// Pods whose containers are none of ours.
    cri: Arc<Cri>,
    images: Images,
    uses: collect::Uses,
    reserve: Arc<reserve::Reserve>,
    providers: Providers,
    /// How other nodes are spoken to, once it is known who this one is.
    peer_tls: OnceLock<Arc<rustls::ClientConfig>>,
    network: RwLock<Option<Up>>,
    plugins: Arc<Plugins>,
    lending: Lending,
    preparing: dra::Preparing,
    changes: broadcast::Sender<String>,
    /// Where each attached pod's network namespace is.
    namespaces: Mutex<BTreeMap<String, PathBuf>>,
    /// Pods from which somebody else took something they need, and what.
    damaged: Mutex<BTreeMap<String, &'static str>>,
    device_plugins: device::Plugins,
    /// Tasks that pass on what happens in sandboxes.
    listeners: Mutex<BTreeMap<String, AbortHandle>>,
}

/// A network that is up.
struct Up {
    pod_cidr: String,
    network: Network,
    resolver: Arc<resolver::Resolver>,
    verify: AbortHandle,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.verify.abort();
    }
}

fn runtime_config(config: &KernelConfig) -> RuntimeConfig {
    RuntimeConfig {
        root: config.data.join("runtime"),
        run: config.run.join("runtime"),
        shim_exe: config.shim_exe.clone(),
        cgroup_parent: format!("/{}", config.instance),
    }
}

impl Kernel {
    /// Opens this computer's instance and takes over what an earlier agent left running.
    pub async fn open(config: KernelConfig, world: World) -> Result<Arc<Kernel>, MachineError> {
        let layout = Layout { data: config.data.clone() };
        for directory in [layout.pods(), layout.records(), layout.reserve()] {
            make_private_dir(&directory)?;
        }
        let reserve = Arc::new(reserve::Reserve::open(layout.reserve()));
        let registry = config.kubelet.join("plugins_registry");
        for directory in [registry.clone(), config.kubelet.join("plugins"), config.kubelet.join("pods")] {
            csi::make_dir(&directory)?;
        }
        make_private_dir(&config.kubelet.join("dra"))?;
        checkpoint::remove_unfinished(&config.kubelet);
        // Drivers mount there what pods are to have; not every machine's mounts are shared with those who are to see them.
        windlass_runtime::share(&config.kubelet)
            .map_err(|error| file_error("share the mounts beneath", &config.kubelet, &error))?;
        let plugins = Arc::new(Plugins::new(registry));
        let images = Images::open(config.data.join("images"), world.clone());
        let images = images.map_err(|error| failed("open the image store", &error))?;
        let providers = config.credential_providers.as_ref().map(Providers::open).transpose();
        let providers = providers.map_err(|why| refused("read the credential providers", why))?.unwrap_or_default();
        let runtimes = Runtimes::open(config.runtimes.clone()).await?;
        let runtime = Runtime::open(runtime_config(&config));
        let runtime = runtime.await.map_err(|error| failed("open the container runtime", &error))?;
        let changes = broadcast::Sender::new(CHANGES_MAX);
        let ground = cri::Ground {
            layout: layout.clone(),
            instance: config.instance.clone(),
            runtime: runtime.clone(),
            images: images.clone(),
            world: world.clone(),
            cdi: config.cdi.clone(),
            changes: changes.clone(),
        };
        let cri = Cri::open(ground, &runtimes.endpoints(), &config.shim_exe)?;
        let devices = config.device_plugins.clone().unwrap_or_else(|| config.kubelet.join("device-plugins"));
        let kernel = Arc::new(Kernel {
            device_plugins: device::Plugins::open(&devices)?,
            layout,
            world,
            runtimes,
            cri,
            uses: collect::Uses::of(&images)?,
            reserve,
            images,
            providers,
            peer_tls: OnceLock::new(),
            network: RwLock::new(None),
            lending: Lending::new(config.kubelet.clone(), facts::boot_id(), Arc::clone(&plugins)),
            preparing: dra::Preparing::new(config.kubelet.join("dra"), facts::boot_id(), Arc::clone(&plugins)),
            plugins,
            changes,
            namespaces: Mutex::default(),
            damaged: Mutex::default(),
            listeners: Mutex::default(),
            runtime: runtime.clone(),
            config,
        });
        for sandbox in runtime.sandboxes() {
            kernel.listen(&sandbox);
        }
        damage::begin(&kernel);
        Ok(kernel)
    }

    /// Clock and randomness.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Says who this node is to the other nodes of its cluster, which then are asked for layers.
    pub fn join_peers(&self, identity: &crate::server::ServerIdentity) -> Result<(), crate::server::ServerError> {
        let tls = identity.to_client_tls()?;
        self.peer_tls.get_or_init(|| tls);
        Ok(())
    }

    /// The images of this computer.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The sandbox of a pod, for those who exec into and attach to its containers.
    pub fn sandbox(&self, pod: &str) -> Option<windlass_runtime::Sandbox> {
        self.runtime.sandbox(pod)
    }

    /// Where a stream with a container of another runtime is opened; `None` is a pod of ours.
    pub(crate) async fn foreign_stream(
        &self,
        pod: &str,
        container: &str,
        ask: &StreamAsk,
    ) -> Option<Result<String, MachineError>> {
        let found = self.cri.pod(pod)?;
        Some(self.cri.stream(&found, container, ask).await)
    }

    /// Whether another runtime runs the containers of this pod.
    pub(crate) fn is_foreign(&self, pod: &str) -> bool {
        self.cri.pod(pod).is_some()
    }

    /// The network namespace of an attached pod, for those who forward ports into it; `None` is the machine's.
    pub fn network_namespace(&self, pod: &str) -> Option<PathBuf> {
        self.namespaces.lock().expect("nothing panics while holding it").get(pod).cloned()
    }

    /// Where a container's log is: the directory that must not be left, and the path beneath it.
    pub fn log_place(&self, pod: &str, container: &str) -> Result<(PathBuf, PathBuf), MachineError> {
        Ok((self.layout.logs(pod)?, layout::log_name(container)?))
    }

    /// What this computer uses, what all pods do, its interfaces and the one that leads out, and how many process ids it has.
    pub(crate) async fn counters(&self) -> (MachineCounters, Usage, Vec<Interface>, Option<String>, u64) {
        let runtime = self.runtime.clone();
        let read = tokio::task::spawn_blocking(move || {
            let network = (counters::interfaces(None), counters::default_interface());
            (counters::machine(), runtime.usage(), network.0, network.1, facts::pids_max())
        });
        read.await.expect("reading the kernel's files does not panic")
    }

    /// The interfaces of the network that a process is in.
    pub(crate) async fn interfaces_of(&self, pid: u32) -> Vec<Interface> {
        let read = tokio::task::spawn_blocking(move || counters::interfaces(Some(pid)));
        read.await.expect("reading the kernel's files does not panic")
    }

    /// The room of the disk that images, layers, logs and volumes are on.
    pub(crate) fn room(&self) -> Option<Room> {
        counters::room(&self.config.data)
    }

    /// The room of the file system that a volume of a pod is on; `None` where it is not one.
    pub(crate) fn volume_room(&self, pod: &str, volume: &str) -> Option<Room> {
        match volume::source(&self.layout, pod, volume).ok()? {
            // A driver's volume may keep whoever looks at it waiting for ever.
            volume::Source::Path(path) if !path.starts_with(&self.config.kubelet) => counters::room(&path),
            volume::Source::Path(_) | volume::Source::Image(_) => None,
        }
    }

    fn living_sandbox(&self, pod: &str) -> Result<windlass_runtime::Sandbox, MachineError> {
        let found = self.runtime.sandbox(pod).filter(windlass_runtime::Sandbox::is_alive);
        found.ok_or_else(|| MachineError::NotFound { what: "sandbox", id: pod.to_owned() })
    }

    /// Passes on every change in this sandbox as a hint to look.
    fn listen(&self, sandbox: &windlass_runtime::Sandbox) {
        let (changes, pod, mut events) = (self.changes.clone(), sandbox.id().to_owned(), sandbox.events());
        let own = pod.clone();
        let task = tokio::spawn(async move {
            while events.next().await.is_some() {
                // Nobody need listen.
                let _ = changes.send(own.clone());
            }
            let _ = changes.send(own);
        });
        self.listeners.lock().expect("nothing panics while holding it").insert(pod, task.abort_handle());
    }

    async fn end_sandbox(&self, pod: &str) -> Result<(), MachineError> {
        if let Some(sandbox) = self.runtime.sandbox(pod) {
            sandbox.stop().await.map_err(|error| of_runtime("stop sandbox", &error))?;
        }
        self.cri.end(pod).await?;
        let listener = self.listeners.lock().expect("nothing panics while holding it").remove(pod);
        if let Some(listener) = listener {
            listener.abort();
        }
        self.forget_damage(pod);
        Ok(())
    }

    async fn raise_network(&self, pod_cidr: &str) -> Result<(), MachineError> {
        let mut network = self.network.write().await;
        if network.as_ref().is_some_and(|up| up.pod_cidr == pod_cidr) {
            return Ok(());
        }
        *network = None;
        let parse = |what: &str, text: &str| {
            text.parse::<Cidr>().map_err(|error| failed(&format!("read the {what} network"), &error))
        };
        let (pods, cluster) = (parse("pod", pod_cidr)?, parse("cluster", &self.config.cluster_cidr)?);
        let services = parse("service", &self.config.service_cidr)?;
        let made = Network::open(NetworkConfig {
            instance: self.config.instance.clone(),
            pod_cidr: pods,
            cluster_cidr: cluster,
            service_cidr: services,
            dns_address: self.config.cluster_dns,
            run_dir: self.config.run.join("network"),
            mtu: MTU,
        });
        let made = made.await.map_err(|error| failed("open the network", &error))?;
        let dns = DnsConfig {
            listen: vec![SocketAddr::from((made.gateway(), 53))],
            domain: self.config.cluster_domain.clone(),
            local: vec![cluster, services],
            resolvers: windlass_network::resolvers_of(&facts::resolv_conf()),
        };
        let resolver = Arc::new(resolver::Resolver::new(dns, self.world.clone()));
        resolver.ensure();
        // Pods that an earlier agent attached.
        let attached = made.attachments().into_iter().map(|attached| (attached.id, attached.netns));
        self.namespaces.lock().expect("nothing panics while holding it").extend(attached);
        let verify = tokio::spawn(keep_intact(made.clone(), Arc::clone(&resolver))).abort_handle();
        *network = Some(Up { pod_cidr: pod_cidr.to_owned(), network: made, resolver, verify });
        Ok(())
    }

    async fn network(&self) -> Result<Network, MachineError> {
        let network = self.network.read().await;
        let why = "the network is not up: the node waits for spec.podCIDR".to_owned();
        network
            .as_ref()
            .map(|up| up.network.clone())
            .ok_or(MachineError::Failed { operation: "use the network".to_owned(), why })
    }

    /// The pod's place in the network, made unless it is there.
    async fn place_in_network(&self, pod: &str) -> Result<Attachment, MachineError> {
        let attached = self.network().await?.attach(AttachSpec { id: pod.to_owned() }).await;
        attached.map_err(|error| failed(&format!("attach pod {pod} to the network"), &error))
    }

    /// What this machine's owner says about registries, now.
    async fn registries(&self) -> Result<Arc<Registries>, MachineError> {
        let path = crate::registries::path(&self.config.data);
        let read = move || crate::registries::load(&path).map_err(|why| refused("read the registries", why));
        off_the_runtime(read).await.map(Arc::new)
    }

    async fn find(&self, name: &str) -> Result<Option<Image>, MachineError> {
        let reference = image_name(name)?;
        let found = self.images.find_named(&reference).map_err(|error| of_image(&error))?;
        let Some((image, access)) = found.filter(|(image, _)| self.uses.ask(&image.id, Instant::now())) else {
            return Ok(None);
        };
        let registries = self.registries().await.unwrap_or_else(|error| {
            // What is here starts even so, by the usual rules.
            tracing::warn!(%error, "the usual rules decide who may use images");
            Arc::default()
        });
        if !self.images.is_trusted(&reference, &registries).map_err(|error| of_image(&error))? {
            tracing::info!(image = name, "an image that no trusted key was seen to have signed is as if not here");
            return Ok(None);
        }
        let access = registries.access(&reference, access);
        Ok(Some(container::image(image, name, access)))
    }

    async fn pull(&self, name: &str, credentials: &[Credentials], peers: &[String]) -> Result<Image, MachineError> {
        let reference = image_name(name)?;
        let mut credentials = credentials.to_vec();
        credentials.extend(self.providers.find(&reference).await);
        let peers = self.peer_tls.get().map_or_else(Vec::new, |tls| {
            peers.iter().map(|host| Peer { host: host.clone(), tls: Arc::clone(tls) }).collect()
        });
        let registries = self.registries().await?;
        let options = PullOptions { credentials, registries, peers: peers.into(), progress: None };
        let record = self.images.pull(name, options).await.map_err(|error| of_image(&error))?;
        let image = self.images.find(&record.id).map_err(|error| of_image(&error))?;
        let image = image.filter(|image| self.uses.ask(&image.id, Instant::now()));
        let image = image.ok_or(MachineError::NotFound { what: "image", id: record.id })?;
        Ok(container::image(image, name, Access::Anyone))
    }

    async fn left_pods(&self) -> Result<Vec<String>, MachineError> {
        let mut all: BTreeSet<String> = names(&self.layout.pods())?.into_iter().collect();
        all.extend(self.runtime.sandboxes().iter().map(|sandbox| sandbox.id().to_owned()));
        all.extend(self.lending.pods().await?);
        all.extend(self.preparing.pods().await?);
        if let Ok(network) = self.network().await {
            all.extend(network.held());
        }
        Ok(all.into_iter().collect())
    }

    async fn remove_pod(&self, pod: &str) -> Result<(), MachineError> {
        self.end_sandbox(pod).await?;
        let detached = self.give_back(pod).await;
        let unprepared = self.preparing.unprepare(pod).await;
        // What drivers have mounted is theirs to unmount, and lies elsewhere: it keeps nothing else of the pod here.
        let given_back = self.lending.give_back(pod).await;
        let (layout, pod) = (self.layout.clone(), pod.to_owned());
        off_the_runtime(move || {
            volume::remove_all(&layout, &pod)?;
            remove_tree(&layout.pod(&pod)?)?;
            // As long as something of it is left, the pod is known.
            detached.and(unprepared).and(given_back)?;
            remove_file(&layout.record(&pod)?)
        })
        .await
    }

    async fn give_back(&self, pod: &str) -> Result<(), MachineError> {
        // Without a network nothing was attached by this agent, and what an earlier one attached is seen as a stray later.
        if let Ok(network) = self.network().await {
            network.detach(pod).await.map_err(|error| failed(&format!("detach pod {pod}"), &error))?;
        }
        self.namespaces.lock().expect("nothing panics while holding it").remove(pod);
        Ok(())
    }
}

/// Puts right what others did to the network, for ever.
async fn keep_intact(network: Network, resolver: Arc<resolver::Resolver>) {
    let mut timer = tokio::time::interval(VERIFY_INTERVAL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        resolver.ensure();
        match network.verify().await {
            Ok(Verified::Intact) => {}
            Ok(Verified::Restored { why }) => tracing::warn!(why, "the network was put right"),
            Err(error) => tracing::error!(%error, "the network could not be looked at"),
        }
    }
}

impl Machine for Kernel {
    fn facts(&self) -> Answer<'_, Facts> {
        let (images, data) = (self.images.clone(), self.config.data.clone());
        let gateway = self.config.cluster_cidr.parse::<Cidr>().ok();
        let handlers = self.runtimes.handlers();
        async move {
            let listed = off_the_runtime(move || images.list().map_err(|error| of_image(&error))).await?;
            self.uses.see(&listed, Instant::now());
            let facts = off_the_runtime(move || facts::read(listed, &data, gateway)).await?;
            Ok(Facts { handlers, ..facts })
        }
        .boxed()
    }

    fn network_up<'a>(&'a self, pod_cidr: &'a str) -> Answer<'a, ()> {
        self.raise_network(pod_cidr).boxed()
    }

    fn find_image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Image>> {
        self.find(name).boxed()
    }

    fn pull_image<'a>(
        &'a self,
        name: &'a str,
        credentials: &'a [Credentials],
        peers: &'a [String],
    ) -> Answer<'a, Image> {
        self.pull(name, credentials, peers).boxed()
    }

    fn attach<'a>(&'a self, pod: &'a str) -> Answer<'a, Vec<IpAddr>> {
        async move {
            let attached = self.place_in_network(pod).await?;
            let mut namespaces = self.namespaces.lock().expect("nothing panics while holding it");
            namespaces.insert(pod.to_owned(), attached.netns);
            Ok(vec![IpAddr::V4(attached.address)])
        }
        .boxed()
    }

    fn sandbox_up<'a>(&'a self, sandbox: &'a Sandbox) -> Answer<'a, ()> {
        self.make_sandbox(sandbox).boxed()
    }

    fn pod_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.remove_pod(pod).boxed()
    }

    fn sandbox_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.end_sandbox(pod).boxed()
    }

    fn detach<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.give_back(pod).boxed()
    }

    fn pods(&self) -> Answer<'_, Vec<String>> {
        self.left_pods().boxed()
    }

    fn volume_up<'a>(&'a self, pod: &'a str, volume: &'a Volume) -> Answer<'a, ()> {
        let (layout, own, wanted) = (self.layout.clone(), pod.to_owned(), volume.clone());
        async move {
            if let VolumeContent::Lent(lent) = &wanted.content {
                let (volume, group, trust_top) = (wanted.name.as_str(), wanted.group, wanted.trust_top);
                let path = self.lending.lend(Borrower { pod: &own, volume, group, trust_top }, lent).await?;
                let name = wanted.name.clone();
                return off_the_runtime(move || volume::point(&layout, &own, &name, &path)).await;
            }
            off_the_runtime(move || volume::up(&layout, &own, &wanted)).await
        }
        .boxed()
    }

    fn volumes_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.lending.give_back(pod).boxed()
    }

    fn expand_volume<'a>(&'a self, pod: &'a str, volume: &'a LentVolume, bytes: u64) -> Answer<'a, ()> {
        self.lending.expand(pod, volume, bytes).boxed()
    }

    fn volume_stats<'a>(&'a self, pod: &'a str) -> Answer<'a, BTreeMap<String, VolumeStats>> {
        self.lending.stats(pod).boxed()
    }

    fn lent(&self) -> Answer<'_, Vec<(String, String, String)>> {
        self.lending.lent().boxed()
    }

    fn plugins(&self) -> Answer<'_, Vec<Arc<Plugin>>> {
        self.plugins.look().boxed()
    }

    fn prepare_claims<'a>(&'a self, pod: &'a str, claims: &'a [ClaimToPrepare]) -> Answer<'a, ()> {
        self.preparing.prepare(pod, claims).boxed()
    }

    fn prepared<'a>(&'a self, pod: &'a str) -> Answer<'a, Vec<PreparedDevice>> {
        self.preparing.prepared(pod).boxed()
    }

    fn unprepare_claims<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.preparing.unprepare(pod).boxed()
    }

    fn lasting(&self) -> Answer<'_, Vec<String>> {
        let directory = self.config.data.join("volumes");
        off_the_runtime(move || names(&directory)).boxed()
    }

    fn remove_lasting<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        let (layout, name) = (self.layout.clone(), name.to_owned());
        off_the_runtime(move || volume::remove_lasting(&layout, &name)).boxed()
    }

    fn read_volume<'a>(&'a self, pod: &'a str, volume: &'a str, path: &'a str) -> Answer<'a, Option<Bytes>> {
        let (layout, pod, volume, path) = (self.layout.clone(), pod.to_owned(), volume.to_owned(), path.to_owned());
        off_the_runtime(move || content::read(&layout, &pod, &volume, &path)).boxed()
    }

    fn create<'a>(&'a self, pod: &'a str, container: &'a Container) -> Answer<'a, ()> {
        self.make_container(pod, container).boxed()
    }

    fn user<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ProcessUser> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.user(&found, container).await;
            }
            let sandbox = self.living_sandbox(pod)?;
            let found = sandbox.identity(container).map_err(|error| of_runtime("look at container", &error))?;
            let missing = || MachineError::NotFound { what: "container", id: container.to_owned() };
            let (uid, gid, groups) = found.ok_or_else(missing)?;
            Ok(ProcessUser { uid, gid, groups })
        }
        .boxed()
    }

    fn start<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.start(&found, container).await;
            }
            let sandbox = self.living_sandbox(pod)?;
            sandbox.start(container).await.map_err(|error| of_runtime(&format!("start container {container}"), &error))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, pod: &'a str, container: &'a str, stop: &'a Stop) -> Answer<'a, ()> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.stop(&found, container, stop).await;
            }
            let Ok(sandbox) = self.living_sandbox(pod) else { return Ok(()) };
            let signal = signal::number(&stop.signal);
            match sandbox.stop_container(container, signal, stop.grace).await {
                Err(RuntimeError::NotFound { .. }) => Ok(()),
                other => other.map_err(|error| of_runtime(&format!("stop container {container}"), &error)),
            }
        }
        .boxed()
    }

    fn resize<'a>(&'a self, pod: &'a str, resize: &'a Resize) -> Answer<'a, ()> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.resize(&found, resize).await;
            }
            let sandbox = self.living_sandbox(pod)?;
            let of = |error| of_runtime("resize pod", &error);
            // No container may have more than the pod has at any moment, so the pod grows first and shrinks last.
            sandbox.limit(resize.before.most(&resize.after)).await.map_err(of)?;
            for (container, resources) in &resize.containers {
                sandbox.update(container, *resources).await.map_err(of)?;
            }
            sandbox.limit(resize.after).await.map_err(of)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.remove(&found, container).await;
            }
            let Some(sandbox) = self.runtime.sandbox(pod) else { return Ok(()) };
            match sandbox.remove(container).await {
                Err(RuntimeError::NotFound { .. }) => Ok(()),
                other => other.map_err(|error| of_runtime(&format!("remove container {container}"), &error)),
            }?;
            let message = self.layout.message(pod, container)?;
            off_the_runtime(move || remove_file(&message)).await
        }
        .boxed()
    }

    fn remove_logs<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()> {
        async move {
            let log = self.layout.log(pod, container)?;
            off_the_runtime(move || crate::logs::remove(&log).map_err(|error| failed("remove logs", &error))).await
        }
        .boxed()
    }

    fn reclaim(&self, bytes: u64, age_min: Duration) -> Answer<'_, u64> {
        async move {
            // First what is here twice: a runtime is given it again when it needs it.
            let freed = self.cri.reclaim(&self.runtimes.endpoints()).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a runtime's images could not be looked at");
                0
            });
            Ok(freed.saturating_add(self.collect_images(bytes.saturating_sub(freed), age_min).await?))
        }
        .boxed()
    }

    fn usage<'a>(&'a self, pod: &'a str) -> Answer<'a, PodUsage> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.usage(&found).await;
            }
            let Some(sandbox) = self.runtime.sandbox(pod) else { return Ok(PodUsage::default()) };
            sandbox.usage().await.map_err(|error| of_runtime("look at what a pod uses", &error))
        }
        .boxed()
    }

    fn disk<'a>(&'a self, pod: &'a str) -> Answer<'a, PodDisk> {
        async move {
            let (layout, own) = (self.layout.clone(), pod.to_owned());
            let mut disk = off_the_runtime(move || disk::of_pod(&layout, &own)).await?;
            if let Some(found) = self.cri.pod(pod) {
                self.cri.add_layers(&found, &mut disk).await?;
            }
            Ok(disk)
        }
        .boxed()
    }

    fn observe<'a>(&'a self, pod: &'a str) -> Answer<'a, Observed> {
        async move {
            if let Some(found) = self.cri.pod(pod) {
                return self.cri.observe(&found).await;
            }
            let Some(sandbox) = self.runtime.sandbox(pod) else { return Ok(Observed::default()) };
            let containers = sandbox.states().into_iter();
            let containers =
                containers.map(|status| crate::machine::ContainerStatus { id: status.id, state: status.state });
            let damage = self.damage(pod);
            let sandbox_alive = sandbox.is_alive() && damage.is_none();
            Ok(Observed { sandbox_alive, damage, containers: containers.collect() })
        }
        .boxed()
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.changes.subscribe()
    }

    fn devices(&self) -> watch::Receiver<Arc<DeviceTable>> {
        self.device_plugins.table()
    }

    fn prefer_devices<'a>(&'a self, resource: &'a str, wish: &'a DeviceWish) -> Answer<'a, Vec<String>> {
        self.device_plugins.prefer(resource, wish).boxed()
    }

    fn allocate_devices<'a>(&'a self, resource: &'a str, devices: &'a [String]) -> Answer<'a, Allocated> {
        self.device_plugins.allocate(resource, devices).boxed()
    }

    fn ready_devices<'a>(&'a self, resource: &'a str, devices: &'a [String]) -> Answer<'a, ()> {
        self.device_plugins.ready(resource, devices).boxed()
    }

    fn exec<'a>(&'a self, pod: &'a str, container: &'a str, exec: &'a Exec) -> Answer<'a, ExecResult> {
        async move {
            match self.cri.pod(pod) {
                Some(found) => self.cri.exec(&found, container, exec).await,
                None => fetch::exec(self.living_sandbox(pod)?, container, exec).await,
            }
        }
        .boxed()
    }

    fn http_get<'a>(&'a self, get: &'a HttpGet) -> Answer<'a, HttpAnswer> {
        async move {
            let namespace = get.from.as_deref().and_then(|pod| self.network_namespace(pod));
            fetch::http_get(get, namespace.as_deref()).await
        }
        .boxed()
    }

    fn check_health<'a>(&'a self, check: &'a HealthCheck) -> Answer<'a, ()> {
        health::check(check).boxed()
    }

    fn connect(&self, address: SocketAddr, timeout: Duration) -> Answer<'_, ()> {
        fetch::connect(address, timeout).boxed()
    }

    fn last_words<'a>(&'a self, pod: &'a str, container: &'a str, from: MessageSource) -> Answer<'a, String> {
        async move {
            let (message, log) = (self.layout.message(pod, container)?, self.log_place(pod, container)?);
            off_the_runtime(move || container::last_words(&message, &log, from)).await
        }
        .boxed()
    }

    fn apply_services<'a>(&'a self, services: &'a ServiceTable, names: &'a DnsTable) -> Answer<'a, ()> {
        async move {
            let applied = self.network().await?.apply_services(services.clone()).await;
            let applied = applied.map_err(|error| failed("write the service rules", &error))?;
            if !applied.refused.is_empty() {
                tracing::warn!(refused = ?applied.refused, "some endpoints are not used");
            }
            if let Some(up) = &*self.network.read().await {
                up.resolver.replace(names);
            }
            Ok(())
        }
        .boxed()
    }

    fn apply_policies(&self, policies: PolicyTable) -> Answer<'_, ()> {
        async move {
            let applied = self.network().await?.apply_policies(policies).await;
            applied.map_err(|error| failed("write the network policies", &error))
        }
        .boxed()
    }

    fn save<'a>(&'a self, key: &'a str, record: Bytes) -> Answer<'a, ()> {
        async move {
            let (path, reserve) = (self.layout.record(key)?, Arc::clone(&self.reserve));
            off_the_runtime(move || save_record(&path, &record, &reserve)).await
        }
        .boxed()
    }

    fn load(&self) -> Answer<'_, BTreeMap<String, Bytes>> {
        let records = self.layout.records();
        off_the_runtime(move || load_all(&records)).boxed()
    }

    fn manifests(&self) -> Answer<'_, BTreeMap<String, Bytes>> {
        let directory = self.config.manifests.clone();
        async move {
            match directory {
                Some(directory) => off_the_runtime(move || manifests::read(&directory)).await,
                None => Ok(BTreeMap::new()),
            }
        }
        .boxed()
    }
}

fn load_all(records: &Path) -> Result<BTreeMap<String, Bytes>, MachineError> {
    let mut out = BTreeMap::new();
    for name in names(records)? {
        let Some(key) = name.strip_suffix(".json") else { continue };
        let path = records.join(&name);
        let size = std::fs::metadata(&path).map_err(|error| file_error("read", &path, &error))?.len();
        if size > RECORD_BYTES_MAX {
            tracing::error!(path = %path.display(), size, "a record is larger than any of ours; it is not read");
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|error| file_error("read", &path, &error))?;
        out.insert(key.to_owned(), Bytes::from(bytes));
    }
    Ok(out)
}

/// All of a regular file that is no longer than this.
pub(crate) fn read_bounded(file: impl Into<std::fs::File>, bytes_max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let file = file.into();
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("expected a regular file, found something else"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > bytes_max {
        true => Err(io::Error::other(format!("expected at most {bytes_max} bytes, found more; make it shorter"))),
        false => Ok(bytes),
    }
}

/// Writes a file so that a reader sees all of the old or all of the new, on a full disk as well.
fn save_record(path: &Path, bytes: &[u8], reserve: &reserve::Reserve) -> Result<(), MachineError> {
    let is_full = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let written = match replace(path, bytes, |_| Ok(())) {
        Err(full) if is_full(&full) => {
            // What of it was written takes room.
            remove_file(&path.with_extension("tmp"))?;
            reserve.replace(path, bytes).and_then(|is_done| if is_done { Ok(()) } else { Err(full) })
        }
        other => other,
    };
    reserve.fill();
    written.map_err(|error| file_error("write", path, &error))
}

/// The same, not on a full disk, but so that it is there after the power has failed.
fn save_file_for_good(path: &Path, bytes: &[u8]) -> Result<(), MachineError> {
    let parent = path.parent().expect("it lies beneath the node's directory");
    let written = replace(path, bytes, std::fs::File::sync_all).and_then(|()| std::fs::File::open(parent)?.sync_all());
    written.map_err(|error| file_error("write", path, &error))
}

fn replace(path: &Path, bytes: &[u8], settle: impl FnOnce(&std::fs::File) -> io::Result<()>) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    settle(&file)?;
    std::fs::rename(&temporary, path)
}

fn make_private_dir(path: &Path) -> Result<(), MachineError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| file_error("make directory", path, &error))
}

fn remove_file(path: &Path) -> Result<(), MachineError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path, &error)),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<(), MachineError> {
    windlass_runtime::remove_tree(path).map_err(|error| file_error("remove", path, &error))
}

fn names(directory: &Path) -> Result<Vec<String>, MachineError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error("list", directory, &error)),
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap_or_default()));
    let mut names: Vec<String> =
        names.collect::<Result<_, _>>().map_err(|error| file_error("list", directory, &error))?;
    names.retain(|name| !name.is_empty());
    names.sort();
    Ok(names)
}

/// Work that waits for the disk, on a thread that may wait.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
) -> Result<T, MachineError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed("work on the disk", &error)))
}

/// The same, with a path of its own.
async fn off_with<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(PathBuf) -> Result<T, MachineError> + Send + 'static,
) -> Result<T, MachineError> {
    let path = path.to_owned();
    off_the_runtime(move || work(path)).await
}

fn file_error(doing: &str, path: &Path, error: &dyn std::error::Error) -> MachineError {
    failed(&format!("{doing} {}", path.display()), error)
}

/// What failed, and why: the error with all its causes.
fn failed(operation: &str, error: &dyn std::error::Error) -> MachineError {
    MachineError::Failed { operation: operation.to_owned(), why: crate::grpc::words(error) }
}

fn of_runtime(operation: &str, error: &RuntimeError) -> MachineError {
    match error {
        RuntimeError::NotFound { what, id } => MachineError::NotFound { what, id: id.clone() },
        RuntimeError::TimedOut { after, .. } => {
            MachineError::TimedOut { operation: operation.to_owned(), after: *after }
        }
        // It names the operation in the runtime's words; the agent's are enough.
        RuntimeError::Refused { why, .. } => MachineError::Failed { operation: operation.to_owned(), why: why.clone() },
        other => failed(operation, other),
    }
}

fn refused(operation: &str, why: String) -> MachineError {
    MachineError::Failed { operation: operation.to_owned(), why }
}

/// A name as pods say it; never an id, which would pass by who may use the image.
fn image_name(name: &str) -> Result<Reference, MachineError> {
    name.parse().map_err(|why: windlass_runtime::image::ReferenceError| MachineError::ImageName(why.to_string()))
}

fn of_image(error: &ImageError) -> MachineError {
    match error {
        ImageError::Reference(why) => MachineError::ImageName(why.to_string()),
        other => failed("image", other),
    }
}
