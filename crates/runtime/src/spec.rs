//! What a sandbox, a container and an exec'd process shall be: plain values, said once, written to disk as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::cpu_set::CpuSet;
use crate::error::RuntimeError;
use crate::seccomp::SeccompProfile;

/// The longest sandbox or container id: it becomes a file name and a cgroup name.
pub const ID_BYTES_MAX: usize = 128;

/// A group of containers that share a network, host name and System V IPC: what Kubernetes calls a pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Unique on this instance; `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 128 bytes.
    pub id: String,
    /// What `uname -n` says inside. Empty keeps the machine's name.
    pub hostname: String,
    /// Which network the containers see.
    pub network: NetworkMode,
    /// Which System V IPC namespace the containers see.
    pub ipc: IpcMode,
    /// Which processes the containers see.
    pub pid: PidMode,
    /// Root inside is nobody outside: the sandbox has a user namespace with 65,536 ids of its own. Files of the machine are
    /// shown through it. It then shares no namespace of the machine.
    pub user_namespace: bool,
    /// Size of the `/dev/shm` all containers of this sandbox share, in bytes; `None` is 64 MiB.
    pub shm_bytes: Option<u64>,
    /// Namespaced kernel parameters (`net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`); others are refused.
    pub sysctls: BTreeMap<String, String>,
    /// Limits on all containers of the sandbox together.
    pub resources: Resources,
    /// A program of the machine that runs the containers, with the command line of OCI runtimes: `/usr/sbin/runc`. `None`
    /// is the embedded way.
    pub program: Option<PathBuf>,
    /// The caller's own words, kept and given back after a restart of the agent; no meaning here.
    pub labels: BTreeMap<String, String>,
}

/// Which network namespace a sandbox lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The machine's own.
    #[default]
    Host,
    /// The namespace pinned at this path (as `ip netns` does). It must exist when the sandbox is created.
    Path(PathBuf),
}

/// Which System V IPC namespace a sandbox lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// One of its own, shared by its containers.
    #[default]
    Sandbox,
    /// The machine's.
    Host,
}

/// Which process namespace the containers of a sandbox live in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Each container its own; its first process is pid 1.
    #[default]
    Container,
    /// One for all containers of the sandbox.
    Sandbox,
    /// The machine's.
    Host,
}

/// One container. `ContainerSpec { id, layers, args, ..Default::default() }` is a sensible unprivileged container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique in its sandbox; same alphabet as [`SandboxSpec::id`].
    pub id: String,
    /// A running container of the sandbox whose processes it sees and is seen by; `None` is as the sandbox says.
    pub beside: Option<String>,
    /// The caller's own words, kept and given back after a restart of the agent; no meaning here.
    pub labels: BTreeMap<String, String>,
    /// Directories that make the root file system, top first, ready as overlayfs lower directories. 1 to 500.
    pub layers: Vec<PathBuf>,
    /// Program and arguments; the program is looked up in the container's `PATH` unless it contains a slash.
    pub args: Vec<String>,
    /// Environment, in order; a later name wins. `PATH` and `HOME` are added when missing.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute; made when missing. Empty is `/`.
    pub cwd: String,
    /// As in an image: empty, `uid`, `uid:gid`, `name`, `name:group`. Names are looked up in the container's own files.
    pub user: String,
    /// Groups beyond the user's own.
    pub additional_gids: Vec<u32>,
    /// Whether groups that list the user in the container's own `/etc/group` count as well.
    pub image_groups: ImageGroups,
    /// What is mounted into the container beside `/proc`, `/dev`, `/sys`; in this order.
    pub mounts: Vec<Mount>,
    /// Devices of the machine that it may use, beside those that every container has.
    pub devices: Vec<Device>,
    /// Programs of the machine that are run while it is made.
    pub hooks: Vec<Hook>,
    /// What root inside may do. The default has neither `NET_RAW` nor `MKNOD`.
    pub capabilities: Capabilities,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// Mount the root file system read-only.
    pub read_only_root: bool,
    /// Set `no_new_privs`: set-uid programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// A profile of AppArmor that the kernel has loaded, by name.
    pub app_armor: Option<String>,
    /// All capabilities and devices, no seccomp filter, no masked or read-only kernel files.
    pub privileged: bool,
    /// Limits.
    pub resources: Resources,
    /// Resource limits (`setrlimit`); what is not named is inherited.
    pub rlimits: Vec<Rlimit>,
    /// Who is killed first when the machine is out of memory: -1000 … 1000.
    pub oom_score_adj: i32,
    /// Where standard output and error go. `None`: nowhere but to those attached.
    pub log: Option<LogSpec>,
    /// Keep a standard input that can be attached to; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Close standard input when the first one attached to it leaves.
    pub stdin_once: bool,
    /// Give the container a terminal; standard error is then part of standard output.
    pub tty: bool,
    /// Kernel files hidden from the container; `None` is the usual list.
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Kernel files the container may only read; `None` is the usual list.
    pub readonly_paths: Option<Vec<PathBuf>>,
}

/// A device of the machine that a container may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// It is one of blocks, not of characters.
    pub is_block: bool,
    /// Its number.
    pub number: (u32, u32),
    /// Permission bits of its node, and whose that is.
    pub mode: u32,
    /// The node's user and group.
    pub owner: (u32, u32),
    /// What the container may do with it: some of `r`, `w` and `m`, in this order.
    pub access: String,
}

impl Device {
    /// The device whose node is at `source`, or at the end of that link.
    pub fn of(source: &Path, target: &Path, access: &str) -> std::io::Result<Device> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let found = std::fs::metadata(source)?;
        let kind = found.file_type();
        if !kind.is_block_device() && !kind.is_char_device() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "expected a device, found something else",
            ));
        }
        Ok(Device {
            target: target.to_owned(),
            is_block: kind.is_block_device(),
            number: (libc::major(found.rdev()), libc::minor(found.rdev())),
            mode: found.mode() & 0o777,
            owner: (found.uid(), found.gid()),
            access: access.to_owned(),
        })
    }

    /// As the devices controller of v1 has it: `b 7:0 rwm`.
    pub(crate) fn rule(&self) -> String {
        let (major, minor) = self.number;
        format!("{} {major}:{minor} {}", if self.is_block { "b" } else { "c" }, self.access)
    }
}

/// A program of the machine that is run while a container is made, and told about it (OCI runtime specification, "Hooks").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When.
    pub point: HookPoint,
    /// Absolute path on the machine.
    pub path: PathBuf,
    /// Its arguments, its own name first.
    pub args: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Seconds after which it is killed, and the container not made.
    pub timeout_s: Option<u32>,
}

/// When a [`Hook`] is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookPoint {
    /// Outside, when the namespaces are made; deprecated by OCI.
    Prestart,
    /// Outside, when the namespaces are made.
    CreateRuntime,
    /// Inside them, before the root file system is the container's.
    CreateContainer,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A file or directory of the machine.
    Bind(Bind),
    /// The files of an image, read-only and not executable.
    Layers {
        /// Directories ready as overlayfs lower directories, top first. 1 to 500.
        layers: Vec<PathBuf>,
        /// As in [`Bind`], but a missing one is an error.
        sub_path: Option<PathBuf>,
        /// Absolute path in the container; made when missing.
        target: PathBuf,
    },
    /// An empty memory file system.
    Tmpfs {
        /// Absolute path in the container; made when missing.
        target: PathBuf,
        /// Its size; `None` is half of the machine's memory, as the kernel has it.
        bytes_max: Option<u64>,
    },
}

/// A file or directory of the machine, mounted into a container together with its submounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the machine, chosen by someone trusted.
    pub source: PathBuf,
    /// A path inside `source` that the container may have influenced: resolved beneath it, never outside. A missing one
    /// is made as a directory with the permissions of `source`.
    pub sub_path: Option<PathBuf>,
    /// Absolute path in the container; made when missing.
    pub target: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
    /// Refuse them on submounts too.
    #[serde(default)]
    pub recursive: bool,
    /// Where later mounts are seen.
    #[serde(default)]
    pub propagation: Propagation,
}

/// Whether what is mounted later beneath a [`Bind`] is seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// It is not.
    #[default]
    Private,
    /// What the machine mounts, the container sees.
    FromMachine,
    /// What either mounts, both see. It outlives the container. Not together with a `sub_path`.
    Both,
}

/// How many ids a user namespace of a sandbox has; root is the first.
pub(crate) const USER_IDS: u32 = 1 << 16;

/// What the container's own `/etc/group` has to say about a process's groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageGroups {
    /// The groups that list the user are added.
    #[default]
    Merge,
    /// Nothing.
    Strict,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// An allow-list that ordinary programs never notice; it widens with the capabilities granted.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// What this profile says.
    Profile(SeccompProfile),
}

/// Limits on a container or a sandbox. What is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight, 1024 is one CPU's worth (2 … 262144).
    pub cpu_shares: Option<u64>,
    /// CPU time per period, in microseconds.
    pub cpu_quota_us: Option<u64>,
    /// The period, in microseconds; `None` is 100,000.
    pub cpu_period_us: Option<u64>,
    /// Memory in bytes; beyond it the kernel kills. Swap is not given in addition.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The CPUs that it runs on; it must be one at least.
    pub cpus: Option<CpuSet>,
    /// Memory in pages of 2 MiB, in bytes.
    pub huge_2mi_bytes: Option<u64>,
    /// Memory in pages of 1 GiB, in bytes.
    pub huge_1gi_bytes: Option<u64>,
}

impl Resources {
    /// Of each limit the wider one; one that either is without is no limit.
    #[must_use]
    pub fn most(&self, other: &Resources) -> Resources {
        let wider = |pick: fn(&Resources) -> Option<u64>| Some(pick(self)?.max(pick(other)?));
        Resources {
            cpu_shares: wider(|one| one.cpu_shares),
            cpu_quota_us: wider(|one| one.cpu_quota_us),
            cpu_period_us: wider(|one| one.cpu_period_us),
            memory_bytes: wider(|one| one.memory_bytes),
            pids: wider(|one| one.pids),
            cpus: self.cpus.zip(other.cpus).map(|(one, other)| one.union(other)),
            huge_2mi_bytes: wider(|one| one.huge_2mi_bytes),
            huge_1gi_bytes: wider(|one| one.huge_1gi_bytes),
        }
    }
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Its name as `setrlimit(2)` has it, in lower case without `RLIMIT_`: `nofile`, `core`, `nproc`, …
    pub name: String,
    /// The value in force.
    pub soft: u64,
    /// The ceiling.
    pub hard: u64,
}

/// Where a container's output is written, in the CRI log format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The file; its directory must exist. Older output is `PATH.1` (newest) … `PATH.4` (oldest).
    pub path: PathBuf,
    /// A file is rotated when it would grow beyond this.
    pub bytes_max: u64,
    /// How many files are kept in all, at least 1.
    pub files_max: u32,
}

impl LogSpec {
    /// The usual bounds: 10 MiB, five files.
    pub fn new(path: impl Into<PathBuf>) -> LogSpec {
        LogSpec { path: path.into(), bytes_max: 10 << 20, files_max: 5 }
    }
}

/// One more process in a running container, under the same rules as its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// `None` is the container's own working directory.
    pub cwd: Option<String>,
    /// Give it a standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Give it a terminal; standard output and error are then one.
    pub tty: bool,
    /// The terminal's size at the start.
    pub size: Option<TerminalSize>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Refuses what cannot be a file name and a cgroup name.
pub(crate) fn check_id(what: &'static str, id: &str) -> Result<(), RuntimeError> {
    let letters = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if letters && first && id.len() <= ID_BYTES_MAX {
        return Ok(());
    }
    Err(RuntimeError::Invalid {
        field: what,
        why: format!("{id:?} is not 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ . - beginning with a letter or digit"),
    })
}

fn invalid(field: &'static str, why: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid { field, why: why.into() }
}

impl SandboxSpec {
    /// Refuses a spec that could not be carried out, before anything is made.
    pub fn check(&self) -> Result<(), RuntimeError> {
        check_id("sandbox.id", &self.id)?;
        if self.hostname.len() > 64 || self.hostname.contains('\0') {
            return Err(invalid("sandbox.hostname", "longer than the kernel's 64 bytes; shorten it"));
        }
        check_resources("sandbox.resources", &self.resources)?;
        if let Some(program) = self.program.as_ref().filter(|program| !program.is_absolute()) {
            return Err(invalid("sandbox.program", format!("{} is not an absolute path", program.display())));
        }
        if self.user_namespace && (self.ipc == IpcMode::Host || self.pid == PidMode::Host) {
            return Err(invalid("sandbox.user_namespace", "cannot be had with the machine's IPC or processes"));
        }
        for name in self.sysctls.keys() {
            if !is_namespaced_sysctl(name) {
                return Err(invalid(
                    "sandbox.sysctls",
                    format!("{name:?} would change the whole machine; only namespaced ones are allowed"),
                ));
            }
            if name.starts_with("net.") && self.network == NetworkMode::Host {
                return Err(invalid(
                    "sandbox.sysctls",
                    format!("{name:?} would change the machine's network; the sandbox has none of its own"),
                ));
            }
            if !name.starts_with("net.") && self.ipc == IpcMode::Host {
                return Err(invalid(
                    "sandbox.sysctls",
                    format!("{name:?} would change the machine's IPC; the sandbox has none of its own"),
                ));
            }
        }
        Ok(())
    }
}

fn is_namespaced_sysctl(name: &str) -> bool {
    let plain = !name.contains('/') && !name.contains("..");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p)) || name == "kernel.sem";
    plain && (name.starts_with("net.") || ipc)
}

/// Most layers overlayfs takes.
pub(crate) const LAYERS_MAX: usize = 500;

impl ContainerSpec {
    /// Refuses a spec that could not be carried out, before anything is made.
    pub fn check(&self) -> Result<(), RuntimeError> {
        check_id("container.id", &self.id)?;
        if self.layers.is_empty() || self.layers.len() > LAYERS_MAX {
            return Err(invalid(
                "container.layers",
                format!("{} layers; 1 to {LAYERS_MAX} are possible", self.layers.len()),
            ));
        }
        check_command("container.args", &self.args, &self.env)?;
        if !self.cwd.is_empty() && !self.cwd.starts_with('/') || self.cwd.contains('\0') {
            return Err(invalid("container.cwd", format!("{:?} is not an absolute path", self.cwd)));
        }
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            return Err(invalid(
                "container.oom_score_adj",
                format!("{} is not within -1000 … 1000", self.oom_score_adj),
            ));
        }
        check_resources("container.resources", &self.resources)?;
        for mount in &self.mounts {
            check_source(mount)?;
            let target = mount.target();
            if !target.is_absolute() || target.components().any(|c| c.as_os_str() == "..") {
                return Err(invalid(
                    "container.mounts.target",
                    format!("{} is not absolute without ..", target.display()),
                ));
            }
        }
        for limit in &self.rlimits {
            if crate::launch::rlimit_number(&limit.name).is_none() || limit.soft > limit.hard {
                return Err(invalid("container.rlimits", format!("{limit:?} is not a known limit with soft ≤ hard")));
            }
        }
        if self.app_armor.as_ref().is_some_and(|name| name.is_empty() || name.contains(['\0', '\n', ' '])) {
            return Err(invalid("container.app_armor", "not the name of a profile"));
        }
        if self.log.as_ref().is_some_and(|log| log.files_max == 0 || log.bytes_max < 4096) {
            return Err(invalid("container.log", "needs at least one file of 4096 bytes"));
        }
        Ok(())
    }
}

impl Mount {
    /// Where the container finds it.
    pub fn target(&self) -> &Path {
        match self {
            Mount::Bind(Bind { target, .. }) | Mount::Layers { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }
}

fn check_source(mount: &Mount) -> Result<(), RuntimeError> {
    match mount {
        Mount::Bind(bind) if !bind.source.is_absolute() => {
            Err(invalid("container.mounts.source", format!("{} is not absolute", bind.source.display())))
        }
        Mount::Bind(bind) if bind.propagation == Propagation::Both && bind.sub_path.is_some() => {
            let why = "what a container mounts is passed on only from a whole volume; leave out the path inside it";
            Err(invalid("container.mounts.propagation", why))
        }
        Mount::Layers { layers, .. } if layers.is_empty() || layers.len() > LAYERS_MAX => {
            Err(invalid("container.mounts.layers", format!("{} layers; 1 to {LAYERS_MAX} are possible", layers.len())))
        }
        _ => Ok(()),
    }
}

/// Bounds of the kernel's CFS bandwidth control.
fn check_resources(field: &'static str, resources: &Resources) -> Result<(), RuntimeError> {
    let period = resources.cpu_period_us.unwrap_or(100_000);
    if !(1_000..=1_000_000).contains(&period) || resources.cpu_quota_us.is_some_and(|quota| quota < 1_000) {
        return Err(invalid(field, "the CPU quota is at least 1,000 µs and its period 1,000 to 1,000,000 µs"));
    }
    if resources.cpus.is_some_and(|cpus| cpus.is_empty()) {
        return Err(invalid(field, "a set of CPUs has one CPU at least"));
    }
    Ok(())
}

impl ExecSpec {
    /// Refuses a spec that could not be carried out.
    pub fn check(&self) -> Result<(), RuntimeError> {
        check_command("exec.args", &self.args, &self.env)
    }
}

fn check_command(field: &'static str, args: &[String], env: &[(String, String)]) -> Result<(), RuntimeError> {
    if args.first().is_none_or(String::is_empty) {
        return Err(invalid(field, "no program named"));
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(invalid(field, "an argument contains a NUL byte"));
    }
    let bad = env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'));
    match bad {
        Some((name, _)) => {
            Err(invalid("env", format!("variable {name:?} has an empty name, '=' in it, or a NUL byte")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: ContainerSpec) -> String {
        spec.check().expect_err("must be refused").to_string()
    }

    #[test]
    fn ids_that_are_paths_are_refused() {
        for id in ["", ".", "..", "a/b", "../x", "-x", "a b", "ü"] {
            assert!(check_id("sandbox.id", id).is_err(), "{id:?}");
        }
        for id in ["a", "0-1", "web_1.2"] {
            assert!(check_id("sandbox.id", id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn machine_wide_sysctls_are_refused() {
        let network = NetworkMode::Path("/run/netns/x".into());
        let with = |name: &str, network: &NetworkMode| {
            let sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            SandboxSpec { id: "a".into(), network: network.clone(), sysctls, ..Default::default() }.check().is_ok()
        };
        assert!(with("net.ipv4.ip_forward", &network));
        assert!(!with("net.ipv4.ip_forward", &NetworkMode::Host));
        assert!(with("kernel.shmmax", &network));
        assert!(!with("kernel.core_pattern", &network));
        assert!(!with("net/../kernel.core_pattern", &network));
    }

    #[test]
    fn a_container_without_a_program_or_layers_is_refused_with_its_field() {
        let good = ContainerSpec {
            id: "c".into(),
            layers: vec!["/l".into()],
            args: vec!["/bin/true".into()],
            ..Default::default()
        };
        good.check().expect("a minimal container");
        assert!(refused(ContainerSpec { args: vec![], ..good.clone() }).contains("container.args"));
        assert!(refused(ContainerSpec { layers: vec![], ..good.clone() }).contains("container.layers"));
        assert!(refused(ContainerSpec { cwd: "x".into(), ..good.clone() }).contains("container.cwd"));
        assert!(refused(ContainerSpec { env: vec![("A=B".into(), String::new())], ..good }).contains("env"));
    }
}
