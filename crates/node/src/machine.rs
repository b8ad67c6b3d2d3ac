//! Machine: everything the agent asks of the computer under it. The seam between the agent and its kernel.
//!
//! Two implementations: [`crate::Kernel`] (containers, network and files of this computer) and the simulator's.
//!
//! Guarantees  an `…_up` that is already done is `Ok` at once; a `…_down` without an `…_up` is `Ok`
//! Assumes     a pod's uid is a file name: the API server makes uids
//! Caveats     every call may be dropped half-way; the next `up` or `down` then finishes or undoes it

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use windlass_network::{PolicyTable, ServiceTable};
pub use windlass_runtime::image::{Access, Credentials};
pub use windlass_runtime::{
    Capabilities, ContainerState, CpuSet, Exit, ExitReason, ImageGroups, Propagation, Resources,
    SandboxUsage as PodUsage, Usage,
};

/// The most of a probe's or hook's output that is kept.
pub const OUTPUT_BYTES_MAX: usize = 10 << 10;
/// The most of a termination message that is kept (API reference, Container.terminationMessagePath).
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The longest file that variables are read from.
pub const ENV_FILE_BYTES_MAX: usize = 64 << 10;

/// The result of a call.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, MachineError>>;

/// Why the machine did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// An image's name is malformed.
    #[error("{0}")]
    ImageName(String),
    /// The sandbox or container is not there (any more).
    #[error("{what} {id} does not exist")]
    NotFound {
        /// `sandbox`, `container`.
        what: &'static str,
        /// Which.
        id: String,
    },
    /// It was tried and did not work.
    #[error("{operation}: {why}")]
    Failed {
        /// What was tried, as `create container web.0`.
        operation: String,
        /// What went wrong, with its causes.
        why: String,
    },
    /// It took too long; it may still happen.
    #[error("{operation}: not done within {after:?}")]
    TimedOut {
        /// What was tried.
        operation: String,
        /// How long it was waited for.
        after: Duration,
    },
}

/// What a machine can do for the agent. A *pod* is named by its uid; a *container* by `NAME.ATTEMPT` within it.
pub trait Machine: Send + Sync + 'static {
    /// What this machine is and has.
    fn facts(&self) -> Answer<'_, Facts>;

    /// Readies the network for pods with addresses of this range (`10.42.3.0/24`).
    fn network_up<'a>(&'a self, pod_cidr: &'a str) -> Answer<'a, ()>;

    /// The image of this name, if it is here.
    fn find_image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Image>>;

    /// Fetches the image of this name. Credentials are tried in order, then none. Peers are nodes (`host:port`) that have an
    /// image of that name.
    fn pull_image<'a>(
        &'a self,
        name: &'a str,
        credentials: &'a [Credentials],
        peers: &'a [String],
    ) -> Answer<'a, Image>;

    /// Gives the pod its place in the network; the same one when it has one already.
    fn attach<'a>(&'a self, pod: &'a str) -> Answer<'a, Vec<IpAddr>>;

    /// Makes what the pod's containers share.
    fn sandbox_up<'a>(&'a self, sandbox: &'a Sandbox) -> Answer<'a, ()>;

    /// Ends the pod: its containers are killed, and they, its sandbox, place, volumes, logs and record removed.
    fn pod_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;

    /// Removes the sandbox and its containers; place, volumes, logs and record stay. For a sandbox that is broken or
    /// not needed any more.
    fn sandbox_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;

    /// Gives the pod's place in the network back.
    fn detach<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;

    /// The uids of all pods of which anything is left on this machine.
    fn pods(&self) -> Answer<'_, Vec<String>>;

    /// Makes a volume of the pod hold exactly this. Files change all at once for those who look.
    fn volume_up<'a>(&'a self, pod: &'a str, volume: &'a Volume) -> Answer<'a, ()>;

    /// Gives back what drivers have lent to the pod; it may be done already. What cannot be given back yet is an error.
    fn volumes_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;

    /// Lets what is on a lent volume of the pod grow to this many bytes.
    fn expand_volume<'a>(&'a self, pod: &'a str, volume: &'a LentVolume, bytes: u64) -> Answer<'a, ()>;

    /// How the lent volumes of the pod are, by name; of those whose drivers say.
    fn volume_stats<'a>(&'a self, pod: &'a str) -> Answer<'a, BTreeMap<String, VolumeStats>>;

    /// All volumes that drivers have lent, or are about to: for which pod, which driver, its handle.
    fn lent(&self) -> Answer<'_, Vec<(String, String, String)>>;

    /// The plugins that have registered, looking for new ones first.
    fn plugins(&self) -> Answer<'_, Vec<Arc<Plugin>>>;

    /// Has the devices of these claims prepared for the pod by their drivers; they may be already.
    fn prepare_claims<'a>(&'a self, pod: &'a str, claims: &'a [ClaimToPrepare]) -> Answer<'a, ()>;

    /// What has been prepared for the pod.
    fn prepared<'a>(&'a self, pod: &'a str) -> Answer<'a, Vec<PreparedDevice>>;

    /// Has undone what was prepared for the pod and for nobody else; it may be already. What cannot be undone yet is an error.
    fn unprepare_claims<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;

    /// The names of all [`Lasting::Own`] directories.
    fn lasting(&self) -> Answer<'_, Vec<String>>;

    /// Removes a [`Lasting::Own`] directory with everything in it; it may be gone already.
    fn remove_lasting<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// A file that a container has left in a volume of the pod; `None` when there is none. One that is longer than
    /// [`ENV_FILE_BYTES_MAX`] is refused.
    fn read_volume<'a>(&'a self, pod: &'a str, volume: &'a str, path: &'a str) -> Answer<'a, Option<Bytes>>;

    /// Makes a container; it does not run yet.
    fn create<'a>(&'a self, pod: &'a str, container: &'a Container) -> Answer<'a, ()>;

    /// Who the processes of a created container are.
    fn user<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ProcessUser>;

    /// Lets a created container run.
    fn start<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()>;

    /// Sends the signal, waits for the grace, kills what is left; done when the container is over.
    fn stop<'a>(&'a self, pod: &'a str, container: &'a str, stop: &'a Stop) -> Answer<'a, ()>;

    /// Changes the limits of a pod and of containers that run, without touching them otherwise.
    fn resize<'a>(&'a self, pod: &'a str, resize: &'a Resize) -> Answer<'a, ()>;

    /// Removes a container that does not run; its log stays.
    fn remove<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()>;

    /// Removes the logs of a container that is removed.
    fn remove_logs<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()>;

    /// Removes images until so many bytes are free, the one first that was not used for longest; says how many were freed.
    /// Spared are those that a container or volume of a pod is made of or about to be, those that have been here for less
    /// than `age_min`, and those that the machine's owner has imported: nobody could fetch them again.
    fn reclaim(&self, bytes: u64, age_min: Duration) -> Answer<'_, u64>;

    /// What the pod's containers use now.
    fn usage<'a>(&'a self, pod: &'a str) -> Answer<'a, PodUsage>;

    /// What the pod has on disk. Counting takes time: seconds where there are many files.
    fn disk<'a>(&'a self, pod: &'a str) -> Answer<'a, PodDisk>;

    /// What there is of the pod's sandbox and containers.
    fn observe<'a>(&'a self, pod: &'a str) -> Answer<'a, Observed>;

    /// Says which pod has a container or sandbox that changed; after a lag, look at all.
    fn changes(&self) -> broadcast::Receiver<String>;

    /// The devices that plugins of this machine list, and when that changes.
    fn devices(&self) -> watch::Receiver<Arc<DeviceTable>>;

    /// Which devices their plugin would give together; none when it does not care.
    fn prefer_devices<'a>(&'a self, resource: &'a str, wish: &'a DeviceWish) -> Answer<'a, Vec<String>>;

    /// What a container needs to use these devices.
    fn allocate_devices<'a>(&'a self, resource: &'a str, devices: &'a [String]) -> Answer<'a, Allocated>;

    /// Readies devices for a container that is about to start.
    fn ready_devices<'a>(&'a self, resource: &'a str, devices: &'a [String]) -> Answer<'a, ()>;

    /// Runs a command in a running container. It is killed when the time is over.
    fn exec<'a>(&'a self, pod: &'a str, container: &'a str, exec: &'a Exec) -> Answer<'a, ExecResult>;

    /// Sends a GET request to the pod, or from the pod to somebody else.
    fn http_get<'a>(&'a self, get: &'a HttpGet) -> Answer<'a, HttpAnswer>;

    /// Asks a server of the pod by gRPC whether it is well; an error says why it is not.
    fn check_health<'a>(&'a self, check: &'a HealthCheck) -> Answer<'a, ()>;

    /// Opens a connection and closes it.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> Answer<'_, ()>;

    /// What the container left as its last words: its message file, or the end of its log.
    fn last_words<'a>(&'a self, pod: &'a str, container: &'a str, from: MessageSource) -> Answer<'a, String>;

    /// Makes services reachable by address and by name as these tables say.
    fn apply_services<'a>(
        &'a self,
        services: &'a ServiceTable,
        names: &'a windlass_network::DnsTable,
    ) -> Answer<'a, ()>;

    /// Restricts the traffic of pods as this table says.
    fn apply_policies(&self, policies: PolicyTable) -> Answer<'_, ()>;

    /// Keeps what the agent wants to know of a pod after its own restart; it goes with the pod.
    fn save<'a>(&'a self, key: &'a str, record: Bytes) -> Answer<'a, ()>;

    /// Everything kept, by key.
    fn load(&self) -> Answer<'_, BTreeMap<String, Bytes>>;

    /// What files of the machine say shall run here, by file name.
    fn manifests(&self) -> Answer<'_, BTreeMap<String, Bytes>>;
}

/// What a machine is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its host name.
    pub hostname: String,
    /// The addresses it is reached at inside the cluster, best first.
    pub addresses: Vec<IpAddr>,
    /// How many CPUs it has.
    pub cpus: u32,
    /// Where each of them is.
    pub cpu_places: Vec<CpuPlace>,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Disk space for images, containers and emptyDirs in bytes.
    pub disk_bytes: u64,
    /// Memory that could be given out now.
    pub memory_free_bytes: u64,
    /// Disk space that is free now.
    pub disk_free_bytes: u64,
    /// Files that the disk can hold; 0 where its file system has no such number.
    pub disk_files: u64,
    /// How many more it can hold now.
    pub disk_free_files: u64,
    /// Memory set apart in pages of 2 MiB and of 1 GiB, in bytes; `None` where there are no pages of the size.
    pub huge_bytes: [Option<u64>; 2],
    /// Process ids the kernel has and those in use.
    pub pids: (u64, u64),
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub operating_system: String,
    /// `6.18.44`.
    pub kernel_version: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub os_image: String,
    /// Stays while the machine is not reinstalled.
    pub machine_id: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// What runs containers, as `windlass://0.1.0`.
    pub runtime_version: String,
    /// The ways it can run them; the one with the empty name is the default.
    pub handlers: Vec<Handler>,
    /// The images here, by their names, with their sizes in bytes.
    pub images: Vec<(Vec<String>, u64)>,
    /// The kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// The AppArmor profile that stands for "the usual" is loaded.
    pub app_armor_default: bool,
    /// The kernel enforces an SELinux policy.
    pub se_linux: bool,
    /// What the machine itself has as `/etc/hosts`.
    pub hosts: String,
    /// What the machine itself has as `/etc/resolv.conf`.
    pub resolv_conf: String,
}

/// One of the ways to run containers, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// By what a RuntimeClass means it.
    pub name: String,
    /// Mounts below a read-only one may be made read-only too.
    pub recursive_read_only_mounts: bool,
    /// Root inside may be nobody outside.
    pub user_namespaces: bool,
}

/// Where a CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuPlace {
    /// Its number.
    pub cpu: usize,
    /// The core it is a thread of, unique in its socket.
    pub core: u32,
    /// The socket.
    pub socket: u32,
}

/// An image and what it says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What it is, whatever it is called: `sha256:…`.
    pub id: String,
    /// What a pod's status names it by.
    pub digest: String,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program when there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute path or empty.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid` or empty.
    pub user: String,
    /// Signal name or number, or empty.
    pub stop_signal: String,
    /// Unpacked size in bytes.
    pub size: u64,
    /// Who may use it under the name it was asked for by.
    pub access: Access,
}

/// What the containers of a pod share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The pod's uid.
    pub pod: String,
    /// `namespace/name`, for people who look at the machine.
    pub title: String,
    /// The name of what runs the containers, empty for the default. `None` while nobody can tell: only a sandbox that is
    /// there already will do.
    pub handler: Option<String>,
    /// The host name inside; empty keeps the machine's.
    pub hostname: String,
    /// Use the machine's network.
    pub host_network: bool,
    /// Use the machine's System V IPC.
    pub host_ipc: bool,
    /// Use the machine's process numbers.
    pub host_pid: bool,
    /// The containers see each other's processes.
    pub share_pids: bool,
    /// Root inside is nobody outside.
    pub user_namespace: bool,
    /// Some container may do everything.
    pub privileged: bool,
    /// Kernel parameters of the pod's own.
    pub sysctls: BTreeMap<String, String>,
    /// Limits on all containers together.
    pub resources: Resources,
    /// Files that containers mount by name: `hosts`, `resolv.conf`, `hostname`.
    pub files: BTreeMap<String, String>,
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// The group that may use it beside its owner.
    pub group: Option<u32>,
    /// A lasting directory whose top is the group's already is not walked through again.
    pub trust_top: bool,
    /// What it holds.
    pub content: VolumeContent,
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    /// These files, by relative path.
    Files {
        /// By relative path.
        files: BTreeMap<String, FileContent>,
        /// Never write them to disk.
        secret: bool,
    },
    /// What containers put there; empty at first.
    Empty {
        /// Where.
        medium: Medium,
        /// How much may be put there.
        bytes_max: Option<u64>,
    },
    /// Whatever files an earlier agent wrote; an error when there are none.
    Kept,
    /// A path of this machine.
    Host {
        /// The path, absolute.
        path: PathBuf,
        /// What must be there, in the API's word (`DirectoryOrCreate`, …); empty means anything.
        expect: String,
    },
    /// A directory that outlives the pod.
    Lasting(Lasting),
    /// A device of this machine.
    Device(PathBuf),
    /// What a CSI driver lends.
    Lent(Box<LentVolume>),
    /// The files of an image; nobody writes to them.
    Image {
        /// [`Image::id`].
        image: String,
    },
}

/// Where an empty volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// On disk.
    Disk,
    /// In memory.
    Memory,
    /// In pages of memory of this size in bytes.
    HugePages(u64),
}

/// A directory that outlives the pods that use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// A path of this machine; it must be there.
    There(PathBuf),
    /// A directory of the node's own, by name; made when it is missing.
    Own(String),
    /// A file system of the node's own that holds so many bytes, by name; made when it is missing, grown when it is smaller.
    Sized(String, u64),
    /// A device of the node's own that holds so many bytes, by name; likewise.
    Device(String, u64),
}

/// A volume that a CSI driver of this machine lends. Everything is resolved; the words are the API's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LentVolume {
    /// The driver's name.
    pub driver: String,
    /// What the driver calls it.
    pub handle: String,
    /// The name of its PersistentVolume; of one that lives and ends with its pod, its name in the pod.
    pub name: String,
    /// It lives and ends with its pod.
    pub is_inline: bool,
    /// It is a device, not a file system.
    pub is_block: bool,
    /// How it may be mounted, in the API's words.
    pub access: Vec<String>,
    /// Empty leaves it to the driver.
    pub fs_type: String,
    /// More words for the mount.
    pub mount_options: Vec<String>,
    /// Refuse writes.
    pub read_only: bool,
    /// What its maker has said of it.
    pub attributes: BTreeMap<String, String>,
    /// What the driver is told of the pod.
    pub pod_attributes: BTreeMap<String, String>,
    /// What whoever attached it to this node has said.
    pub attachment: BTreeMap<String, String>,
    /// For staging it.
    pub stage_secrets: Secrets,
    /// For publishing it.
    pub publish_secrets: Secrets,
    /// For letting it grow.
    pub expand_secrets: Secrets,
    /// What is in it is given to the pod's group, unless the driver does that.
    pub is_groups: bool,
    /// Publish it again although it is published: the driver brings it up to date so.
    pub is_republished: bool,
}

/// What nobody may see in a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

/// How full a volume is, and whether it is well; zero is what the driver does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// Bytes that can be written.
    pub bytes_free: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes in use.
    pub bytes_used: u64,
    /// Files that can be made.
    pub inodes_free: u64,
    /// Files in all.
    pub inodes_total: u64,
    /// Files there are.
    pub inodes_used: u64,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// What a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginKind {
    /// A driver of volumes.
    Csi,
    /// A driver of devices that pods claim.
    Dra,
}

/// A program of this machine that has offered itself and was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// What it is.
    pub kind: PluginKind,
    /// Its name, as objects have it.
    pub name: String,
    /// The socket where it serves.
    pub endpoint: PathBuf,
    /// The versions that it speaks.
    pub versions: Vec<String>,
    /// Of a CSI driver: what it says of this node and itself.
    pub driver: Option<DriverFacts>,
}

/// What a CSI driver says of this node and of what it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverFacts {
    /// What the driver calls this node.
    pub node_id: String,
    /// How many of its volumes this node takes; `None` is any number.
    pub volumes_max: Option<u32>,
    /// Where this node is to the driver.
    pub topology: BTreeMap<String, String>,
    /// It stages.
    pub stages: bool,
    /// It counts what is in volumes.
    pub counts: bool,
    /// It lets file systems grow.
    pub expands: bool,
    /// It says when something is wrong with a volume.
    pub tells_health: bool,
    /// It tells one writer of a node from several.
    pub tells_writers: bool,
    /// It gives a volume to a group itself.
    pub takes_group: bool,
}

/// A file in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// What it holds.
    pub bytes: Bytes,
    /// Its permission bits.
    pub mode: u32,
    /// Whom it belongs to; root when nobody is named.
    pub owner: Option<u32>,
}

/// A container to be made. Everything is resolved: nothing here refers to another object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// `NAME.ATTEMPT`, unique in the pod.
    pub id: String,
    /// The container whose processes it sees, by its id; `None` is as the sandbox says.
    pub beside: Option<String>,
    /// [`Image::id`].
    pub image: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; empty is the root.
    pub cwd: String,
    /// As in an image: empty, `uid`, `uid:gid`, `name`, `name:group`.
    pub user: String,
    /// More groups.
    pub groups: Vec<u32>,
    /// Whether the groups that list the user in the image's own files count as well.
    pub image_groups: ImageGroups,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Devices that it may use.
    pub devices: Vec<Device>,
    /// Names of devices that files of this machine explain (Container Device Interface).
    pub cdi: Vec<String>,
    /// What root may do.
    pub capabilities: Capabilities,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// An AppArmor profile that the kernel has loaded.
    pub app_armor: Option<String>,
    /// Everything is allowed.
    pub privileged: bool,
    /// The image cannot be written to.
    pub read_only_root: bool,
    /// Programs cannot gain privileges.
    pub no_new_privileges: bool,
    /// Nothing of `/proc` is hidden or read-only.
    pub proc_unmasked: bool,
    /// Limits.
    pub resources: Resources,
    /// Who goes first when memory is short: -1000 … 1000.
    pub oom_score_adj: i32,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close standard input with its first client.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Where inside it may leave its last words.
    pub message_path: String,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// What ordinary programs need.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// What the profile at this path of the machine says.
    Localhost(String),
}

/// Who a container's processes are, as numbered inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessUser {
    /// The user.
    pub uid: u32,
    /// The first group.
    pub gid: u32,
    /// More groups.
    pub groups: Vec<u32>,
}

/// The devices that plugins list, by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceTable(pub BTreeMap<String, Vec<ListedDevice>>);

/// A device as its plugin lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedDevice {
    /// Its name, unique in the resource.
    pub id: String,
    /// It can be used.
    pub is_healthy: bool,
    /// Where it is near.
    pub numa_nodes: Vec<i64>,
}

/// What devices are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceWish {
    /// Those that nobody has.
    pub available: Vec<String>,
    /// Those of them that are to be among the chosen.
    pub included: Vec<String>,
    /// How many.
    pub count: usize,
}

/// What a container needs to use its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Allocated {
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<DeviceMount>,
    /// Device nodes.
    pub nodes: Vec<Device>,
    /// Names of devices that files of this machine explain (Container Device Interface).
    pub cdi: Vec<String>,
}

/// A claim whose devices a pod of this machine is to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimToPrepare {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The drivers of its devices.
    pub drivers: Vec<String>,
}

/// A device that its driver has prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct PreparedDevice {
    /// The name of the claim that it is of.
    pub claim: String,
    /// The requests of the claim that it is for; none means all.
    pub requests: Vec<String>,
    /// Who has prepared it.
    pub driver: String,
    /// Its pool.
    pub pool: String,
    /// Its name in the pool.
    pub device: String,
    /// Names of devices that files of this machine explain (Container Device Interface).
    pub cdi: Vec<String>,
}

/// A path of this machine that comes with a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceMount {
    /// The path.
    pub source: PathBuf,
    /// Where it is seen, absolute.
    pub target: String,
    /// Refuse writes.
    pub read_only: bool,
}

/// A device that a container may use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Which.
    pub source: DeviceSource,
    /// Where, absolute.
    pub target: String,
    /// Some of `r`, `w` and `m`, in this order.
    pub access: String,
}

/// Where a device is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeviceSource {
    /// A volume of the pod, by name.
    Volume(String),
    /// A path of this machine.
    Path(PathBuf),
}

/// Something a container sees at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub source: MountSource,
    /// A path inside of it; empty is all.
    pub sub_path: String,
    /// Where, absolute.
    pub target: String,
    /// Refuse writes.
    pub read_only: bool,
    /// Refuse them on what is mounted beneath it too.
    pub recursive: bool,
    /// Where later mounts beneath it are seen.
    pub propagation: Propagation,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A volume of the pod, by name.
    Volume(String),
    /// A file of the sandbox, by name.
    File(String),
    /// A path of this machine.
    Path(PathBuf),
}

/// What a pod has on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// Writable layers, by `NAME.ATTEMPT`.
    pub layers: BTreeMap<String, Held>,
    /// Logs of all attempts, by the container's name.
    pub logs: BTreeMap<String, Held>,
    /// Volumes that go with the pod and are not in memory, by name.
    pub volumes: BTreeMap<String, Held>,
    /// What the node keeps for it beside these.
    pub rest: Held,
}

impl PodDisk {
    /// All of it together.
    pub fn sum(&self) -> Held {
        let parts = self.layers.values().chain(self.logs.values()).chain(self.volumes.values());
        parts.fold(self.rest, |sum, part| sum.and(*part))
    }

    /// What a container has, all its attempts together: layers and logs.
    pub fn of_container(&self, name: &str) -> Held {
        let is_own = |id: &str| id.rsplit_once('.').is_some_and(|(own, _)| own == name);
        let layers = self.layers.iter().filter(|(id, _)| is_own(id)).map(|(_, held)| *held);
        layers.chain(self.logs.get(name).copied()).fold(Held::default(), Held::and)
    }
}

/// What a place on disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The room it takes.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
    /// There was not too much to be counted.
    pub is_whole: bool,
}

impl Default for Held {
    fn default() -> Held {
        Held { bytes: 0, files: 0, is_whole: true }
    }
}

impl Held {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Held) -> Held {
        Held {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
            is_whole: self.is_whole && other.is_whole,
        }
    }

    /// Whether it is more than this. Whoever hides what it holds gets no more than who shows it.
    pub fn exceeds(self, bytes: u64) -> bool {
        !self.is_whole || self.bytes > bytes
    }
}

/// New limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// Of all containers together, before.
    pub before: Resources,
    /// Of all containers together, after.
    pub after: Resources,
    /// Of single containers, by `NAME.ATTEMPT`.
    pub containers: Vec<(String, Resources)>,
}

/// What there is of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The sandbox can take containers. Without one, containers can at most be over.
    pub sandbox_alive: bool,
    /// What somebody else took away from it, if that is why it cannot.
    pub damage: Option<&'static str>,
    /// Its containers.
    pub containers: Vec<ContainerStatus>,
}

/// How a container is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Name (`SIGTERM`) or number; empty is `SIGTERM`.
    pub signal: String,
    /// How long it may take before it is killed.
    pub grace: Duration,
}

/// A container and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// `NAME.ATTEMPT`.
    pub id: String,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code.
    pub code: i32,
    /// The beginning of what it said, at most [`OUTPUT_BYTES_MAX`].
    pub output: String,
}

/// A GET request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// `http` or `https`; certificates are not checked (API reference, HTTPGetAction).
    pub scheme: String,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
    /// Headers; a `Host` here replaces the host's own.
    pub headers: Vec<(String, String)>,
    /// The pod from whose network it is sent, by its uid; `None` is the machine's.
    pub from: Option<String>,
    /// What it is sent for.
    pub purpose: Purpose,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What a GET request is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn how a pod is: a redirect to the same host is followed, any other is an answer.
    Probe,
    /// To tell somebody something: whoever is asked by TLS and does not speak it is told without, but no secret.
    Hook,
}

/// A question of the gRPC health checking protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Who is asked.
    pub address: SocketAddr,
    /// The service that is asked about; empty is the server itself.
    pub service: String,
    /// By TLS, whose certificate is not checked (API reference, GRPCAction).
    pub tls: bool,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// The answer to a GET request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The beginning of the body, at most [`OUTPUT_BYTES_MAX`].
    pub body: String,
}

/// Where a container's last words are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSource {
    /// The file it may write.
    File,
    /// The file it may write; when that is empty, the end of its log.
    FileOrLog,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.keys()).finish()
    }
}

impl Facts {
    /// The part of the facts that does not change by itself all the time: when this differs, the Node is written.
    #[must_use]
    pub fn lasting(&self) -> Facts {
        Facts { memory_free_bytes: 0, disk_free_bytes: 0, disk_free_files: 0, pids: (self.pids.0, 0), ..self.clone() }
    }
}

/// How a container ended that is gone without anybody having seen how.
pub fn lost_exit(at: Timestamp) -> Exit {
    Exit {
        code: 137,
        signal: None,
        oom: false,
        reason: ExitReason::Unknown,
        message: "the container could not be located when the pod was looked at".to_owned(),
        started_at: None,
        finished_at: at,
    }
}
