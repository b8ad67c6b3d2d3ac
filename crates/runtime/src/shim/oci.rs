//! What builds a container is told: an OCI runtime configuration with namespaces, mounts and hidden paths, and nothing else.
//!
//! Who the process is, its capabilities, limits, filter and environment are left out on purpose: [`crate::launch`] sets
//! them for init and exec alike, and [`super::program`] writes them for programs that do it themselves. Control-group
//! limits are set by [`crate::cgroup`]; who builds the container only joins the group.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::machine_devices;
use super::stage::Staged;
use crate::cgroup::ContainerCgroup;
use crate::kernel;
use crate::launch::{Identity, PATH_DEFAULT};
use crate::spec::{Bind, ContainerSpec, HookPoint, Mount, Propagation};

/// Kernel files that tell about the machine or let it be influenced.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Kernel files that programs read and must not write.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Most device nodes that a privileged container is given.
const DEVICES_MAX: usize = 4096;

/// What the configuration depends on.
pub(super) struct Plan<'a> {
    pub spec: &'a ContainerSpec,
    pub cgroup: &'a ContainerCgroup,
    pub identity: &'a Identity,
    /// Where everything is taken from.
    pub staged: &'a Staged,
    /// The machine's `/dev` is put over the container's own when all this is done.
    pub devices_later: bool,
    /// The user namespace to join, a descriptor of this process.
    pub user_namespace: Option<i32>,
    /// The namespace of processes: a new one, one to join, or the machine's.
    pub pid_namespace: PidNamespace,
}

/// Which process namespace the container gets.
#[derive(Clone, Debug)]
pub(super) enum PidNamespace {
    New,
    Join(PathBuf),
    Machine,
}

impl Plan<'_> {
    /// The configuration as OCI's `config.json`.
    pub fn config(&self) -> Value {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
        if let Some(user) = self.user_namespace {
            namespaces.push(json!({"type": "user", "path": format!("/proc/self/fd/{user}")}));
        }
        match &self.pid_namespace {
            PidNamespace::New => namespaces.push(json!({"type": "pid"})),
            PidNamespace::Join(path) => namespaces.push(json!({"type": "pid", "path": path})),
            PidNamespace::Machine => {}
        }
        let Identity { uid, gid, groups, .. } = self.identity;
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": self.staged.rootfs, "readonly": self.spec.read_only_root},
            "process": {
                "terminal": self.spec.tty,
                "user": {"uid": uid, "gid": gid, "additionalGids": groups},
                "args": self.spec.args,
                // Only so that libcontainer does not look for a home in the container's user database by itself.
                "env": [format!("PATH={PATH_DEFAULT}"), "HOME=/"],
                "cwd": "/",
                "oomScoreAdj": kernel::allowed_oom_score(self.spec.oom_score_adj),
            },
            "mounts": self.mounts(),
            "hooks": self.hooks(),
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": self.cgroup.path(),
                "rootfsPropagation": propagation(self.spec),
                "maskedPaths": self.masked(),
                "readonlyPaths": self.read_only(),
                "devices": self.devices(),
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "devpts",
                "devpts",
                "/dev/pts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            self.bind(&self.staged.shm, Path::new("/dev/shm"), &["nosuid", "noexec", "nodev"]),
            match &self.staged.sys {
                Some(sys) => bind(sys, Path::new("/sys"), &[]),
                None => mount(
                    "sysfs",
                    "sysfs",
                    "/sys",
                    if self.spec.privileged {
                        &["nosuid", "noexec", "nodev"]
                    } else {
                        &["nosuid", "noexec", "nodev", "ro"]
                    },
                ),
            },
        ];
        mounts.extend(self.cgroup_mounts());
        // What the spec mounts at the same place is meant instead of ours, not on top of it.
        let is_later = |wanted: &Mount| self.devices_later && machine_devices::is_it(wanted);
        let replaces = |wanted: &Mount, own: &Value| {
            !is_later(wanted) && own["destination"].as_str().is_some_and(|own| wanted.target() == Path::new(own))
        };
        mounts.retain(|own| !self.spec.mounts.iter().any(|wanted| replaces(wanted, own)));
        let wanted = self.spec.mounts.iter().enumerate().filter(|(_, wanted)| !is_later(wanted));
        let (below, above): (Vec<_>, Vec<_>) = wanted.partition(|(_, wanted)| machine_devices::is_it(wanted));
        let [below, above] = [below, above]
            .map(|some| some.into_iter().map(|(index, wanted)| self.wanted_mount(index, wanted)).collect::<Vec<_>>());
        // What is mounted in the machine's `/dev` is mounted after it.
        below.into_iter().chain(mounts).chain(above).collect()
    }

    /// The container's own groups, so that programs can see their limits; binds, because libcontainer would mount v1
    /// hierarchies writable.
    fn cgroup_mounts(&self) -> Vec<Value> {
        let access: &[&str] = if self.spec.privileged {
            &["nosuid", "noexec", "nodev"]
        } else {
            &["nosuid", "noexec", "nodev", "ro", "rro"]
        };
        let binds = self.staged.groups.iter().map(|(source, target)| self.bind(source, target, access));
        let base = self
            .cgroup
            .is_v1()
            .then(|| mount("tmpfs", "tmpfs", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "mode=755"]));
        base.into_iter().chain(binds).collect()
    }

    fn wanted_mount(&self, index: usize, wanted: &Mount) -> Value {
        match wanted {
            Mount::Bind(wanted) => {
                let access: &[&str] = match (wanted.read_only, wanted.recursive) {
                    (false, _) => &[],
                    (true, false) => &["ro"],
                    (true, true) => &["ro", "rro"],
                };
                self.bind(self.source(index).unwrap_or(&wanted.source), &wanted.target, access)
            }
            Mount::Layers { target, .. } => {
                let source = self.source(index).unwrap_or(target);
                self.bind(source, target, &["ro", "rro", "noexec", "nosuid", "nodev"])
            }
            Mount::Tmpfs { target, bytes_max } => {
                let size = bytes_max.map(|bytes| format!("size={bytes}"));
                let options: Vec<&str> = ["nosuid", "nodev", "mode=1777"].into_iter().chain(size.as_deref()).collect();
                mount("tmpfs", "tmpfs", &target.to_string_lossy(), &options)
            }
        }
    }

    fn hooks(&self) -> Value {
        let at = |point: HookPoint| -> Vec<Value> {
            let hooks = self.spec.hooks.iter().filter(|hook| hook.point == point);
            hooks
                .map(|hook| {
                    let mut out = json!({"path": hook.path, "args": hook.args, "env": hook.env});
                    if let Some(seconds) = hook.timeout_s {
                        out["timeout"] = json!(seconds);
                    }
                    out
                })
                .collect()
        };
        json!({
            "prestart": at(HookPoint::Prestart), "createRuntime": at(HookPoint::CreateRuntime),
            "createContainer": at(HookPoint::CreateContainer),
        })
    }

    fn source(&self, index: usize) -> Option<&Path> {
        self.staged.mounts.get(index)?.as_deref()
    }

    fn bind(&self, source: &Path, target: &Path, options: &[&str]) -> Value {
        bind(source, target, if self.staged.is_final { &[] } else { options })
    }

    /// The devices that were asked for, and all of the machine for those who may have them.
    fn devices(&self) -> Vec<Value> {
        let given = self.spec.devices.iter().map(|device| {
            json!({
                "path": device.target, "type": if device.is_block { "b" } else { "c" },
                "major": device.number.0, "minor": device.number.1,
                "fileMode": device.mode, "uid": device.owner.0, "gid": device.owner.1,
            })
        });
        let is_given = |found: &Value| self.spec.devices.iter().any(|device| json!(device.target) == found["path"]);
        let all = self.all_devices().into_iter().filter(|found| !is_given(found));
        given.chain(all).collect()
    }

    fn all_devices(&self) -> Vec<Value> {
        // In a user namespace a device node opens nothing.
        if !self.spec.privileged || self.user_namespace.is_some() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from("/dev")];
        while let Some(directory) = open.pop() {
            let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| !is_own(&entry.path())) {
                let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else { continue };
                let kind = metadata.file_type();
                if kind.is_dir() {
                    open.push(entry.path());
                } else if (kind.is_char_device() || kind.is_block_device()) && found.len() < DEVICES_MAX {
                    let number = metadata.rdev();
                    found.push(json!({
                        "path": entry.path(), "type": if kind.is_char_device() { "c" } else { "b" },
                        "major": libc::major(number), "minor": libc::minor(number),
                        "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
                    }));
                }
            }
        }
        found
    }

    fn masked(&self) -> Vec<PathBuf> {
        match &self.spec.masked_paths {
            _ if self.spec.privileged => Vec::new(),
            Some(paths) => paths.clone(),
            None => MASKED_PATHS.iter().map(PathBuf::from).collect(),
        }
    }

    fn read_only(&self) -> Vec<PathBuf> {
        if self.spec.privileged {
            return Vec::new();
        }
        let mut paths = match &self.spec.readonly_paths {
            Some(paths) => paths.clone(),
            None => READ_ONLY_PATHS.iter().map(PathBuf::from).collect(),
        };
        if self.cgroup.is_v1() {
            paths.push(PathBuf::from("/sys/fs/cgroup"));
        }
        paths
    }
}

/// Whether what is mounted lies ready at a place of the maker's own, and is not taken from where it was said to be.
///
/// What a mount shares is decided before libcontainer takes it over: it gives all mounts of a container the same kind.
pub(super) fn is_staged(spec: &ContainerSpec, wanted: &Bind) -> bool {
    match wanted.propagation {
        _ if machine_devices::is_over(wanted) => true,
        Propagation::Private => wanted.sub_path.is_some() || propagation(spec) != "private",
        Propagation::FromMachine => wanted.sub_path.is_some(),
        Propagation::Both => true,
    }
}

/// What a container has of its own below `/dev`, or libcontainer makes for all.
fn is_own(path: &Path) -> bool {
    let own = [
        "pts", "shm", "mqueue", "fd", "console", "ptmx", "tty", "null", "zero", "full", "random", "urandom", "core",
        "stdin", "stdout", "stderr",
    ];
    path.strip_prefix("/dev").is_ok_and(|name| own.iter().any(|own| name == Path::new(own)))
}

/// What the container's whole mount table begins as: a mount that is to see others must not have been cut off before.
fn propagation(spec: &ContainerSpec) -> &'static str {
    let binds = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Bind(bind) => Some(bind.propagation),
        Mount::Layers { .. } | Mount::Tmpfs { .. } => None,
    });
    binds.fold("private", |widest, next| match (widest, next) {
        (_, Propagation::Both) => "shared",
        ("private", Propagation::FromMachine) => "slave",
        (widest, _) => widest,
    })
}

fn mount(fstype: &str, source: &str, target: &str, options: &[&str]) -> Value {
    json!({"type": fstype, "source": source, "destination": target, "options": options})
}

fn bind(source: &Path, target: &Path, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind"].iter().chain(options).copied().collect();
    json!({"type": "bind", "source": source, "destination": target, "options": options})
}
