//! Network: the pods' addresses and the services of this machine, in the kernel.
//!
//! Rules
//!   R1 routed      every pod has a cable of its own to the machine and a /32 route; pods share no link, so none can
//!                  answer for another, and every packet between two pods passes the machine's rules
//!   R2 gateway     the first pod address stands on the bridge `<instance>0`, which has no ports: it is where the machine
//!                  itself, the DNS server and the services' route are, whatever pods come and go
//!   R3 idempotent  opening, attaching and detaching may be repeated after a crash at any point
//!   R4 clean       teardown leaves no interface, namespace, rule, route or changed setting

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::attach::{Cable, POD_INTERFACE, connect, plug, unplug};
use crate::cidr::Cidr;
use crate::conntrack;
use crate::lease::{LeaseError, Leases};
use crate::namespace::{self, NamespaceError};
use crate::netlink::{Messages, NetlinkError, Protocol as Family, Socket};
use crate::nft::{self, Applied, Layout, Nft, Verified};
use crate::policy::PolicyTable;
use crate::route::{self, Route};
use crate::service::{Backend, Frontend, Protocol, ServiceTable};
use crate::sysctl;

/// What a machine's network is made from.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The instance: names the bridge `<instance>0`, the nft table and the interfaces; at most 13 of `a-z0-9-`.
    pub instance: String,
    /// The network the pods of this machine take their addresses from; its first address is the gateway.
    pub pod_cidr: Cidr,
    /// The network that contains the pods of every machine.
    pub cluster_cidr: Cidr,
    /// The network that contains the ClusterIPs.
    pub service_cidr: Cidr,
    /// The ClusterIP of the DNS server, which this machine answers itself.
    pub dns_address: Ipv4Addr,
    /// Where leases and network namespaces are kept; should not outlive a reboot (`/run/<instance>/network`).
    pub run_dir: PathBuf,
    /// The largest packet of a pod's interface, in bytes.
    pub mtu: u32,
}

/// Which pod is to be attached.
#[derive(Clone, Debug)]
pub struct AttachSpec {
    /// The sandbox id: at most 128 of `a-zA-Z0-9._-`, not starting with a dot.
    pub id: String,
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox id it was attached under.
    pub id: String,
    /// The pod's network namespace, to be joined by path.
    pub netns: PathBuf,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The pod's default gateway: also where the DNS server and the node answer.
    pub gateway: Ipv4Addr,
    /// The interface inside the namespace.
    pub interface: String,
}

/// Why the network is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration cannot work.
    #[error("network configuration: {0}")]
    Config(String),
    /// The sandbox id cannot name a file.
    #[error("expected a sandbox id of 1 to 128 letters, digits, '.', '_' or '-', found {0:?}")]
    Id(String),
    /// No address, or the lease could not be kept.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The namespace could not be made or removed.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused an interface, address, route or rule.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: NetlinkError,
    },
    /// A file or kernel setting.
    #[error("could not {doing} {}", path.display())]
    File {
        /// Read, write, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A thread of ours panicked; its own message is on standard error.
    #[error("a network operation was cut off by a bug: see the log")]
    CutOff,
}

/// The machine's network. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    config: NetworkConfig,
    gateway: Ipv4Addr,
    leases: Mutex<Leases>,
    nft: Mutex<Nft>,
    /// One lock per pod being attached or detached, so that the two never meet on one pod.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

const FORWARDING: &str = "ipv4/ip_forward";

impl Network {
    /// Makes what is missing of the bridge, the settings and the nft table; pods and services that stand, stay.
    ///
    /// Everything happens in the network namespace of the calling thread and the threads it starts.
    pub async fn open(config: NetworkConfig) -> Result<Network, NetworkError> {
        off_the_runtime(move || Network::open_here(config)).await
    }

    fn open_here(config: NetworkConfig) -> Result<Network, NetworkError> {
        let gateway = check(&config)?;
        ensure_directories(&config.run_dir)?;
        let leases = Leases::open(&config.run_dir.join("leases"), config.pod_cidr)?;
        ensure_forwarding(&config.run_dir)?;
        ensure_bridge(&config, gateway)?;
        let layout = Layout {
            table: config.instance.clone(),
            pod_interfaces: interface_prefix(&config.instance),
            pod_cidr: config.pod_cidr,
            cluster_cidr: config.cluster_cidr,
            service_cidr: config.service_cidr,
            gateway,
        };
        let mut nft = Nft::open(layout).map_err(kernel("opening nftables"))?;
        if !nft.exists().map_err(kernel("reading nftables"))? {
            nft.apply(own_services(&config, gateway)).map_err(kernel("writing the nft table"))?;
        }
        let shared =
            Shared { config, gateway, leases: Mutex::new(leases), nft: Mutex::new(nft), turns: Mutex::default() };
        Ok(Network { shared: Arc::new(shared) })
    }

    /// The address of the machine as its pods know it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.shared.gateway
    }

    /// Gives a pod a namespace, a cable and an address; a pod that has them keeps them (R3).
    pub async fn attach(&self, spec: AttachSpec) -> Result<Attachment, NetworkError> {
        check_id(&spec.id)?;
        let turn = self.turn(&spec.id);
        let held = turn.lock().await;
        let network = self.clone();
        let id = spec.id.clone();
        let result = on_a_thread(move || network.attach_here(&id)).await;
        drop(held);
        self.end_turn(&spec.id, turn);
        result
    }

    fn attach_here(&self, id: &str) -> Result<Attachment, NetworkError> {
        let known = self.leases().get(id);
        let address = self.leases().take(id)?;
        let attachment = self.attachment(id, address);
        let cable = self.cable(&attachment);
        let stands = known.is_some_and(|(_, ready)| ready) && cable.stands().map_err(kernel("reading interfaces"))?;
        if !stands {
            unplug(&cable)?;
            plug(&cable)?;
            self.leases().mark_ready(id)?;
            tracing::debug!(pod = id, %address, "attached");
        }
        Ok(attachment)
    }

    /// Takes cable, namespace and address from a pod; one that has none is fine (R3).
    pub async fn detach(&self, id: &str) -> Result<(), NetworkError> {
        check_id(id)?;
        let turn = self.turn(id);
        let held = turn.lock().await;
        let network = self.clone();
        let pod = id.to_owned();
        let result = off_the_runtime(move || network.detach_here(&pod)).await;
        drop(held);
        self.end_turn(id, turn);
        result
    }

    fn detach_here(&self, id: &str) -> Result<(), NetworkError> {
        let Some((address, _)) = self.leases().get(id) else { return Ok(()) };
        unplug(&self.cable(&self.attachment(id, address)))?;
        self.leases().give_back(id)?;
        tracing::debug!(pod = id, %address, "detached");
        Ok(())
    }

    /// Every pod that is completely attached.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.leases().ready().map(|(id, address)| self.attachment(id, address)).collect()
    }

    /// The ids of attached pods whose namespace or interface is gone. Reads all interfaces.
    pub fn unplugged(&self) -> Result<BTreeSet<String>, NetworkError> {
        // Before the interfaces: what is attached meanwhile is whole.
        let attached = self.attachments();
        let links = route::link_names(&interface_prefix(&self.shared.config.instance));
        let links: BTreeSet<String> = links.map_err(kernel("listing interfaces"))?.into_iter().collect();
        let is_whole = |attached: &Attachment| {
            namespace::exists(&attached.netns) && links.contains(&self.cable(attached).host_interface)
        };
        let still: BTreeSet<String> = self.attachments().into_iter().map(|attached| attached.id).collect();
        let lost = attached.into_iter().filter(|attached| !is_whole(attached)).map(|attached| attached.id);
        Ok(lost.filter(|id| still.contains(id)).collect())
    }

    /// Every id that holds an address, also those whose attaching was cut off: `detach` is right for each of them.
    pub fn held(&self) -> Vec<String> {
        self.leases().held().map(|(id, _)| id.to_owned()).collect()
    }

    /// Makes the kernel's services equal to `desired` and the cluster's DNS, in one step for all packets.
    pub async fn apply_services(&self, desired: ServiceTable) -> Result<Applied, NetworkError> {
        let network = self.clone();
        off_the_runtime(move || {
            let mut table = own_services(&network.shared.config, network.shared.gateway);
            table.extend(desired);
            let applied = network.nft().apply(table).map_err(kernel("writing services"))?;
            conntrack::forget(&applied.gone).map_err(kernel("forgetting connections"))?;
            Ok(applied)
        })
        .await
    }

    /// Makes the kernel's restrictions of pods equal to `desired`, in one step for all packets.
    pub async fn apply_policies(&self, desired: PolicyTable) -> Result<(), NetworkError> {
        let network = self.clone();
        off_the_runtime(move || network.nft().apply_policies(&desired).map_err(kernel("writing network policies")))
            .await
    }

    /// Looks whether the kernel still has what was written, and puts right what has not. Costs one question when all
    /// is well, so it may be called every few seconds.
    pub async fn verify(&self) -> Result<Verified, NetworkError> {
        let network = self.clone();
        off_the_runtime(move || {
            let config = &network.shared.config;
            ensure_directories(&config.run_dir)?;
            let leases = network.leases().mend()?;
            let forwarding = ensure_forwarding(&config.run_dir)?;
            let bridge = ensure_bridge(config, network.shared.gateway)?;
            if bridge {
                // The kernel removes every route that names an address of a removed interface as its source.
                for attachment in network.attachments() {
                    connect(&network.cable(&attachment))?;
                }
            }
            let rules = network.nft().verify().map_err(kernel("verifying the nft tables"))?;
            Ok(match (forwarding, bridge, leases) {
                (true, _, _) => Verified::Restored { why: "forwarding of packets had been switched off" },
                (_, true, _) => Verified::Restored { why: "the bridge was missing" },
                (_, _, true) => Verified::Restored { why: "leases of addresses were missing in the run directory" },
                (false, false, false) => rules,
            })
        })
        .await
    }

    /// Detaches every pod and removes everything that was made (R4).
    pub async fn teardown(self) -> Result<(), NetworkError> {
        let Shared { config, .. } = &*self.shared;
        Network::sweep(&config.instance, &config.run_dir).await
    }

    /// Removes everything of an instance, also when its process is gone and its configuration is not known (R4).
    pub async fn sweep(instance: &str, run_dir: &Path) -> Result<(), NetworkError> {
        check_instance(instance)?;
        let (instance, run_dir) = (instance.to_owned(), run_dir.to_owned());
        off_the_runtime(move || sweep_here(&instance, &run_dir)).await
    }

    fn attachment(&self, id: &str, address: Ipv4Addr) -> Attachment {
        Attachment {
            id: id.to_owned(),
            netns: self.shared.config.run_dir.join("netns").join(id),
            address,
            gateway: self.shared.gateway,
            interface: POD_INTERFACE.to_owned(),
        }
    }

    fn cable(&self, attachment: &Attachment) -> Cable {
        let prefix = interface_prefix(&self.shared.config.instance);
        Cable {
            netns: attachment.netns.clone(),
            host_interface: format!("{prefix}{:08x}", attachment.address.to_bits()),
            address: attachment.address,
            gateway: attachment.gateway,
            mtu: self.shared.config.mtu,
        }
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.shared.leases.lock().expect("nothing panics while holding the leases")
    }

    fn nft(&self) -> MutexGuard<'_, Nft> {
        self.shared.nft.lock().expect("nothing panics while holding the table")
    }

    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.shared.turns.lock().expect("nothing panics while holding the turns");
        turns.entry(id.to_owned()).or_default().clone()
    }

    /// Forgets the lock when nobody else waits for it.
    fn end_turn(&self, id: &str, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.shared.turns.lock().expect("nothing panics while holding the turns");
        if Arc::strong_count(&turn) == 2 {
            turns.remove(id);
        }
    }
}

pub(crate) fn kernel(doing: &str) -> impl FnOnce(NetlinkError) -> NetworkError {
    let doing = doing.to_owned();
    move |source| NetworkError::Kernel { doing, source }
}

/// The gateway, when the configuration can work.
fn check(config: &NetworkConfig) -> Result<Ipv4Addr, NetworkError> {
    check_instance(&config.instance)?;
    let refuse = |why: String| Err(NetworkError::Config(why));
    if !(16..=29).contains(&config.pod_cidr.prefix_length()) {
        return refuse(format!("expected a pod network of 16 to 29 bits, found {}", config.pod_cidr));
    }
    if !config.cluster_cidr.contains(config.pod_cidr.address()) {
        return refuse(format!(
            "the pod network {} is not within the cluster's {}",
            config.pod_cidr, config.cluster_cidr
        ));
    }
    if config.cluster_cidr.contains(config.service_cidr.address())
        || config.service_cidr.contains(config.cluster_cidr.address())
    {
        return refuse(format!(
            "the service network {} overlaps the pods' {}",
            config.service_cidr, config.cluster_cidr
        ));
    }
    if !config.service_cidr.contains(config.dns_address) {
        return refuse(format!("the DNS address {} is not within {}", config.dns_address, config.service_cidr));
    }
    if !(576..=65_535).contains(&config.mtu) {
        return refuse(format!("expected an mtu of 576 to 65535 bytes, found {}", config.mtu));
    }
    Ok(config.pod_cidr.nth(1).expect("a network of at most 29 bits has more than one address"))
}

fn check_instance(instance: &str) -> Result<(), NetworkError> {
    let good = (1..=13).contains(&instance.len())
        && instance.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    match good {
        true => Ok(()),
        false => {
            Err(NetworkError::Config(format!("expected an instance of 1 to 13 of a-z, 0-9, '-', found {instance:?}")))
        }
    }
}

fn check_id(id: &str) -> Result<(), NetworkError> {
    let good = (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if good { Ok(()) } else { Err(NetworkError::Id(id.chars().take(140).collect())) }
}

/// What the names of an instance's pod interfaces begin with: 15 characters are not enough for the instance's own name
/// and the address, so four digits stand for the instance.
fn interface_prefix(instance: &str) -> String {
    let folded =
        instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("wl{:04x}-", (folded >> 16) ^ (folded & 0xffff))
}

fn bridge_name(instance: &str) -> String {
    format!("{instance}0")
}

/// The services that this machine answers by itself: the cluster's DNS.
fn own_services(config: &NetworkConfig, gateway: Ipv4Addr) -> ServiceTable {
    const DNS_PORT: u16 = 53;
    let endpoint = std::net::SocketAddrV4::new(gateway, DNS_PORT);
    let frontends = [Protocol::Udp, Protocol::Tcp].map(|protocol| Frontend {
        address: Some(config.dns_address),
        protocol,
        port: DNS_PORT,
    });
    frontends.map(|frontend| (frontend, Backend { endpoints: vec![endpoint], client_affinity: false })).into()
}

fn ensure_directories(run_dir: &Path) -> Result<(), NetworkError> {
    ["leases", "netns"].iter().try_for_each(|directory| {
        let path = run_dir.join(directory);
        std::fs::create_dir_all(&path).map_err(|source| NetworkError::File { doing: "make", path, source })
    })
}

/// Switches forwarding on; whether that was necessary. The first time, what was there before is noted for teardown.
fn ensure_forwarding(run_dir: &Path) -> Result<bool, NetworkError> {
    let failed = |doing, path: &str| {
        let path = PathBuf::from(path);
        move |source| NetworkError::File { doing, path, source }
    };
    if sysctl::read(FORWARDING).map_err(failed("read the setting", FORWARDING))? != "0" {
        return Ok(false);
    }
    let note = run_dir.join("forwarding-was-off");
    std::fs::write(&note, b"").map_err(|source| NetworkError::File { doing: "write", path: note, source })?;
    sysctl::write(FORWARDING, "1").map_err(failed("write the setting", FORWARDING))?;
    Ok(true)
}

/// Makes the bridge with the gateway's address and the services' route; whether it was missing.
fn ensure_bridge(config: &NetworkConfig, gateway: Ipv4Addr) -> Result<bool, NetworkError> {
    let name = bridge_name(&config.instance);
    let mut socket = Socket::open(Family::Route).map_err(kernel("opening rtnetlink"))?;
    let mut find = || route::link_index(&mut socket, &name).map_err(kernel("reading interfaces"));
    let (index, made) = match find()? {
        Some(index) => (index, false),
        None => {
            let mut messages = Messages::new();
            route::add_bridge(&mut messages, &name);
            socket.change(messages).map_err(kernel("making the bridge"))?;
            let index = route::link_index(&mut socket, &name).map_err(kernel("reading interfaces"))?;
            (index.ok_or_else(|| NetworkError::Config(format!("bridge {name} vanished while it was made")))?, true)
        }
    };
    let mut messages = Messages::new();
    route::add_address(&mut messages, index, gateway);
    route::set_up(&mut messages, index);
    let services = Route { destination: config.service_cidr, index, gateway: None, source: Some(gateway) };
    route::add_route(&mut messages, &services);
    socket.change(messages).map_err(kernel("setting the bridge up"))?;
    Ok(made)
}

fn sweep_here(instance: &str, run_dir: &Path) -> Result<(), NetworkError> {
    nft::remove(instance).map_err(kernel("removing the nft tables"))?;
    let mut links = route::link_names(&interface_prefix(instance)).map_err(kernel("listing interfaces"))?;
    let bridge = bridge_name(instance);
    links.extend(
        route::link_names(&bridge).map_err(kernel("listing interfaces"))?.into_iter().filter(|name| *name == bridge),
    );
    let mut socket = Socket::open(Family::Route).map_err(kernel("opening rtnetlink"))?;
    for name in links {
        let mut messages = Messages::new();
        route::delete_link(&mut messages, &name);
        match socket.change(messages) {
            Err(error) if error.refusal() != Some(libc::ENODEV) => return Err(kernel("deleting an interface")(error)),
            _ => {}
        }
    }
    let namespaces = run_dir.join("netns");
    for entry in std::fs::read_dir(&namespaces).into_iter().flatten() {
        let entry = entry.map_err(|source| NetworkError::File { doing: "list", path: namespaces.clone(), source })?;
        namespace::remove(&entry.path())?;
    }
    if run_dir.join("forwarding-was-off").exists() {
        let path = PathBuf::from(FORWARDING);
        sysctl::write(FORWARDING, "0").map_err(|source| NetworkError::File {
            doing: "write the setting",
            path,
            source,
        })?;
    }
    match std::fs::remove_dir_all(run_dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::File { doing: "remove", path: run_dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Runs what blocks for microseconds to milliseconds where it keeps no task waiting.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(NetworkError::CutOff))
}

/// Runs what changes its thread's namespace on a thread that ends with it.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("pod-network".to_owned()).spawn(move || {
        // The receiver is gone only when the caller stopped waiting; what was attached is found by its lease.
        let _ = tell.send(work());
    });
    spawned.map_err(|source| NetworkError::File { doing: "start a thread for", path: "pod-network".into(), source })?;
    told.await.unwrap_or(Err(NetworkError::CutOff))
}
