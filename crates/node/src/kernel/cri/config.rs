//! What a runtime is told of a sandbox and of a container: the agent's words in CRI's.
//!
//! Rules
//!   C1 exact     what CRI v1 has no word for, or what runtimes of it cannot, is refused by name: nothing is left out
//!   C2 all said  nothing is left to the runtime's own choice that the agent has decided: capabilities are named one by one,
//!                hidden paths are listed, the user is never the image's by accident

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use windlass_api::codec::wire::Writer;
use windlass_runtime::{MASKED_PATHS, READ_ONLY_PATHS};

use super::super::refused;
use crate::machine::{Container, ImageGroups, MachineError, Propagation, Resources, Sandbox, Seccomp};

/// Whose a sandbox or container is: the instance, the pod's uid, `NAME.ATTEMPT`.
pub const INSTANCE: &str = "windlass.instance";
pub const POD: &str = "io.kubernetes.pod.uid";
pub const CONTAINER: &str = "windlass.container";

/// `NamespaceMode` of CRI.
const OF_POD: i64 = 0;
const OF_CONTAINER: i64 = 1;
const OF_NODE: i64 = 2;
const OF_TARGET: i64 = 3;
/// `SecurityProfile.ProfileType`.
const UNCONFINED: i64 = 1;
const LOCALHOST: i64 = 2;

/// What a sandbox was asked to be. It is said again with each container, so it is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub title: String,
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    pub host_pid: bool,
    pub share_pids: bool,
    pub privileged: bool,
    pub sysctls: BTreeMap<String, String>,
}

impl From<&Sandbox> for Asked {
    fn from(sandbox: &Sandbox) -> Asked {
        Asked {
            title: sandbox.title.clone(),
            hostname: sandbox.hostname.clone(),
            host_network: sandbox.host_network,
            host_ipc: sandbox.host_ipc,
            host_pid: sandbox.host_pid,
            share_pids: sandbox.share_pids,
            privileged: sandbox.privileged,
            sysctls: sandbox.sysctls.clone(),
        }
    }
}

/// A pod's place on this machine, as a runtime is told.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub instance: &'a str,
    pub pod: &'a str,
    pub logs: &'a Path,
    pub cgroup_parent: &'a str,
}

/// `PodSandboxConfig`.
pub fn sandbox(asked: &Asked, place: &Place) -> Writer {
    let (namespace, name) = asked.title.split_once('/').unwrap_or(("", &asked.title));
    let metadata = Writer::new().text(1, name).text(2, place.pod).text(3, namespace);
    let seccomp = Writer::new();
    let security = Writer::new().message(1, &namespaces(asked, None)).flag(6, asked.privileged).message(9, &seccomp);
    let linux = Writer::new().text(1, place.cgroup_parent).message(2, &security).pairs(3, &asked.sysctls);
    Writer::new()
        .message(1, &metadata)
        .text(2, &asked.hostname)
        .text(3, &place.logs.to_string_lossy())
        .pairs(6, &labels(asked, place, None))
        .message(8, &linux)
}

/// By what a sandbox or container is found again, by us and by those who look at the machine.
fn labels(asked: &Asked, place: &Place, container: Option<&str>) -> BTreeMap<String, String> {
    let (namespace, name) = asked.title.split_once('/').unwrap_or(("", &asked.title));
    let mut labels: BTreeMap<String, String> = [
        (INSTANCE, place.instance),
        (POD, place.pod),
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.pod.name", name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if let Some(container) = container {
        let name = container.rsplit_once('.').map_or(container, |(name, _)| name);
        labels.insert(CONTAINER.to_owned(), container.to_owned());
        labels.insert("io.kubernetes.container.name".to_owned(), name.to_owned());
    }
    labels
}

/// `NamespaceOption`; `beside` is the runtime's id of the container whose processes are seen.
fn namespaces(asked: &Asked, beside: Option<&str>) -> Writer {
    let of = |is_node: bool| if is_node { OF_NODE } else { OF_POD };
    let pid = match (beside, asked.host_pid, asked.share_pids) {
        (Some(_), _, _) => OF_TARGET,
        (None, true, _) => OF_NODE,
        (None, false, true) => OF_POD,
        (None, false, false) => OF_CONTAINER,
    };
    let options = Writer::new().number(1, of(asked.host_network)).number(2, pid).number(3, of(asked.host_ipc));
    options.text(4, beside.unwrap_or_default())
}

/// What a container gets of this machine, with all its paths as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub mounts: Vec<GivenMount>,
    pub devices: Vec<GivenDevice>,
    pub env: Vec<(String, String)>,
    pub groups: Vec<u32>,
    /// The path of the profile of system calls, if it lies on this machine.
    pub seccomp: Option<String>,
    /// The runtime's id of the container whose processes are seen.
    pub beside: Option<String>,
    /// Where the log is, beneath the pod's.
    pub log: String,
}

/// A path of this machine and where it is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenMount {
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub propagation: Propagation,
}

/// A device node of this machine and where it is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenDevice {
    pub source: String,
    pub target: String,
    pub access: String,
}

/// C1: what no runtime can be asked for.
pub fn check(wanted: &Container) -> Result<(), MachineError> {
    if wanted.image_groups == ImageGroups::Strict {
        return refuse(wanted, "supplementalGroupsPolicy Strict");
    }
    if wanted.mounts.iter().any(|mount| mount.recursive) {
        return refuse(wanted, "recursive read-only mounts");
    }
    Ok(())
}

/// Fails the container by the name of what is asked for.
pub fn refuse<T>(wanted: &Container, what: &str) -> Result<T, MachineError> {
    let why = format!("a runtime that is spoken to by CRI v1 cannot be asked for {what}");
    Err(refused(&format!("make container {}", wanted.id), why))
}

/// `ContainerConfig`.
pub fn container(wanted: &Container, given: &Given, asked: &Asked, place: &Place) -> Writer {
    let (name, attempt) = wanted.id.rsplit_once('.').unwrap_or((&wanted.id, "0"));
    let metadata = Writer::new().text(1, name).number(2, attempt.parse().unwrap_or(0));
    let program = wanted.args.first().map(String::as_str);
    let mut out = Writer::new()
        .message(1, &metadata)
        .message(2, &Writer::new().text(1, &wanted.image))
        .texts(3, program)
        .texts(4, wanted.args.iter().skip(1).map(String::as_str))
        .text(5, if wanted.cwd.is_empty() { "/" } else { &wanted.cwd });
    for (name, value) in &given.env {
        out = out.message(6, &Writer::new().text(1, name).text(2, value));
    }
    for mount in &given.mounts {
        out = out.message(7, &mount_of(mount));
    }
    for device in &given.devices {
        let message = Writer::new().text(1, &device.target).text(2, &device.source).text(3, &device.access);
        out = out.message(8, &message);
    }
    let linux = Writer::new();
    let linux = linux.message(1, &resources(&wanted.resources, wanted.oom_score_adj));
    let linux = linux.message(2, &security(wanted, given, asked));
    out.pairs(9, &labels(asked, place, Some(&wanted.id)))
        .text(11, &given.log)
        .flag(12, wanted.stdin)
        .flag(13, wanted.stdin_once)
        .flag(14, wanted.tty)
        .message(15, &linux)
}

fn mount_of(mount: &GivenMount) -> Writer {
    let propagation = match mount.propagation {
        Propagation::Private => 0,
        Propagation::FromMachine => 1,
        Propagation::Both => 2,
    };
    Writer::new().text(1, &mount.target).text(2, &mount.source).flag(3, mount.read_only).number(5, propagation)
}

/// `LinuxContainerSecurityContext` (C2).
fn security(wanted: &Container, given: &Given, asked: &Asked) -> Writer {
    let capabilities = Writer::new().texts(1, wanted.capabilities.names()).texts(2, ["ALL"]);
    let mut out = Writer::new()
        .message(1, &capabilities)
        .flag(2, wanted.privileged)
        .message(3, &namespaces(asked, given.beside.as_deref()));
    out = user(out, &wanted.user);
    out = out.flag(7, wanted.read_only_root);
    let groups: Vec<u32> = wanted.groups.iter().chain(&given.groups).copied().collect();
    out = out.bytes(8, &packed(&groups)).flag(11, wanted.no_new_privileges);
    if !wanted.privileged && !wanted.proc_unmasked {
        out = out.texts(13, MASKED_PATHS).texts(14, READ_ONLY_PATHS);
    }
    let seccomp = match (&wanted.seccomp, &given.seccomp) {
        (Seccomp::Default, _) => Writer::new(),
        (Seccomp::Unconfined, _) | (Seccomp::Localhost(_), None) => Writer::new().number(1, UNCONFINED),
        (Seccomp::Localhost(_), Some(path)) => Writer::new().number(1, LOCALHOST).text(2, path),
    };
    let app_armor = match &wanted.app_armor {
        Some(profile) => Writer::new().number(1, LOCALHOST).text(2, profile),
        None => Writer::new().number(1, UNCONFINED),
    };
    out.message(15, &seccomp).message(16, &app_armor)
}

/// Who the process is. The numbers of a user who is said by number are numbers here, too: a runtime looks for a name in the
/// image. Nobody said is root, whatever the image says: the agent has looked at the image already.
fn user(out: Writer, user: &str) -> Writer {
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    // A message with the value zero is an empty one, and is there.
    let value = |number: i64| Writer::new().number(1, number);
    match user.split_once(':') {
        None => match number(user) {
            Some(uid) => out.message(5, &value(uid)),
            None if user.is_empty() => out.message(5, &value(0)),
            None => out.text(6, user),
        },
        Some((name, group)) => match (number(name), number(group)) {
            (Some(uid), Some(gid)) => out.message(5, &value(uid)).message(12, &value(gid)),
            (None, Some(gid)) => out.text(6, name).message(12, &value(gid)),
            (_, None) => out.text(6, user),
        },
    }
}

/// `LinuxContainerResources`.
pub fn resources(wanted: &Resources, oom_score_adj: i32) -> Writer {
    let number = |limit: Option<u64>| i64::try_from(limit.unwrap_or(0)).unwrap_or(i64::MAX);
    let period = wanted.cpu_period_us.or(wanted.cpu_quota_us.map(|_| 100_000));
    let mut out = Writer::new()
        .number(1, number(period))
        .number(2, number(wanted.cpu_quota_us))
        .number(3, number(wanted.cpu_shares))
        .number(4, number(wanted.memory_bytes))
        .number(5, oom_score_adj.into());
    if let Some(cpus) = &wanted.cpus {
        out = out.text(6, &cpus.to_string());
    }
    for (size, limit) in [("2MB", wanted.huge_2mi_bytes), ("1GB", wanted.huge_1gi_bytes)] {
        if let Some(limit) = limit {
            out = out.message(8, &Writer::new().text(1, size).number(2, number(Some(limit))));
        }
    }
    out
}

/// A list of numbers as protobuf packs it: each a varint, one behind the other.
fn packed(numbers: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        let mut left = *number;
        while left >= 0x80 {
            out.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Asked, Given, Place, check, container, packed, user};
    use crate::machine::{Container, ImageGroups, Mount, MountSource, Propagation};
    use windlass_api::codec::wire::{Reader, Writer};

    fn fields(message: &[u8]) -> Vec<u32> {
        let (mut reader, mut tags) = (Reader::new(message), Vec::new());
        while let Some((tag, _)) = reader.field().expect("a message") {
            tags.push(tag);
        }
        tags
    }

    #[test]
    fn c1_what_cri_has_no_word_for_is_refused_by_name() {
        let strict = Container { image_groups: ImageGroups::Strict, ..Container::default() };
        let mount = Mount {
            source: MountSource::Volume("v".to_owned()),
            sub_path: String::new(),
            target: "/v".to_owned(),
            read_only: true,
            recursive: true,
            propagation: Propagation::Private,
        };
        let recursive = Container { mounts: vec![mount], ..Container::default() };
        for (wanted, name) in [(strict, "supplementalGroupsPolicy Strict"), (recursive, "recursive read-only mounts")] {
            let why = check(&wanted).expect_err(name).to_string();
            assert!(why.contains(name), "{why}");
        }
        check(&Container::default()).expect("nothing special");
    }

    #[test]
    fn c2_a_user_by_number_is_a_number_and_nobody_is_root_not_the_image_s() {
        let tags = |text: &str| fields(&user(Writer::new(), text).finish());
        assert_eq!(tags(""), [5], "root, said");
        assert_eq!(tags("1000"), [5]);
        assert_eq!(tags("1000:3000"), [5, 12]);
        assert_eq!(tags("web"), [6]);
        assert_eq!(tags("web:3000"), [6, 12]);
        assert_eq!(tags("web:logs"), [6]);
    }

    #[test]
    fn c2_a_container_says_everything_that_a_runtime_would_choose_otherwise() {
        let place = Place { instance: "i", pod: "u", logs: "/logs".as_ref(), cgroup_parent: "/i/u" };
        let wanted = Container {
            id: "web.3".to_owned(),
            args: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            ..Container::default()
        };
        let message = container(&wanted, &Given::default(), &Asked::default(), &place).finish();
        let tags = fields(&message);
        assert!([1, 2, 3, 4, 5, 9, 15].iter().all(|tag| tags.contains(tag)), "{tags:?}");
        let text = String::from_utf8_lossy(&message);
        for part in ["ALL", "NET_BIND_SERVICE", "/proc/kcore", "/proc/sys", "web.3"] {
            assert!(text.contains(part), "{part}");
        }
        let open = Container { proc_unmasked: true, ..wanted };
        let message = container(&open, &Given::default(), &Asked::default(), &place).finish();
        assert!(!String::from_utf8_lossy(&message).contains("/proc/kcore"));
    }

    #[test]
    fn a_packed_list_keeps_group_zero() {
        assert_eq!(packed(&[0, 1, 300]), [0, 1, 0xac, 0x02]);
    }
}
