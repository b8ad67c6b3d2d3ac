//! Control groups: limits on containers, who is in one, killing all of it, and removing it without a trace.
//!
//! Flow        `Cgroups` (the instance) → `SandboxCgroup` → `ContainerCgroup`; the directories are
//!             `HIERARCHY/PARENT/SANDBOX/CONTAINER`, in each hierarchy of cgroup v1, in the one of v2
//! Guarantees  everything made here is removed here, and what others make for a container in the hierarchies without
//!             limits; libcontainer only puts processes in
//! Assumes     the parent is this instance's alone
//! Caveats     on v2 the kernel has no devices controller; there a container is kept from devices by not having `MKNOD`

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::RuntimeError;
use crate::kernel;
use crate::pressure::Pressure;
use crate::spec::Resources;
use crate::state::Usage;

/// Where the kernel's hierarchies are mounted, by convention of every distribution.
const ROOT: &str = "/sys/fs/cgroup";
/// The group the shims are in, so that they do not end with the service that started them.
const SHIMS: &str = "shims";
/// How often an emptying group is looked at, and how long at most: killed processes go within a few milliseconds unless
/// they hang in the kernel, and then no wait is long enough.
const REMOVE_STEP: Duration = Duration::from_millis(2);
const REMOVE_STEPS_MAX: u32 = 2500;
/// Controllers switched on for containers, v2.
const V2_CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];
/// Hierarchies a container may look at, v1: programs size themselves by them.
const V1_VISIBLE: [&str; 5] = ["memory", "cpu", "cpuacct", "cpuset", "pids"];
/// Of memory.stat: file pages not used of late, pages of no file, faults, faults that read a disk, pages swapped out.
const V1_MEMORY: [&str; 5] = ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault", "total_swap"];
const V2_MEMORY: [&str; 5] = ["inactive_file", "anon", "pgfault", "pgmajfault", ""];
/// Device nodes every container has, v1 devices controller: null, zero, full, random, urandom, tty, console, ptmx, pts/*.
const DEVICES: [&str; 9] = [
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// v1: its controllers, or `name=…`. v2: empty.
    controllers: Vec<String>,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    fn is_named(&self) -> bool {
        self.controllers.iter().any(|c| c.starts_with("name="))
    }
}

/// The groups of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    parent: String,
    is_v2: bool,
    /// Those that carry controllers: containers are in them.
    limiting: Vec<Hierarchy>,
    /// Those a service manager keeps its services apart with: only shims are moved in them, and their children follow.
    tracking: Vec<Hierarchy>,
}

impl Cgroups {
    /// Looks at what this machine has mounted.
    pub fn detect(parent: &str) -> Result<Cgroups, RuntimeError> {
        let table = fs::read_to_string("/proc/self/mountinfo").map_err(RuntimeError::system("list mounts"))?;
        let cgroups = Cgroups::from_mounts(parent, &table);
        if cgroups.limiting.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted below /sys/fs/cgroup");
            return Err(RuntimeError::System { operation: "find control groups", source });
        }
        Ok(cgroups)
    }

    fn from_mounts(parent: &str, table: &str) -> Cgroups {
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from).filter(|m| m.starts_with(ROOT)) else {
                continue;
            };
            let mut right = right.split(' ');
            let (fstype, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
            let is_controller = |o: &&str| !matches!(*o, "rw" | "ro" | "xattr" | "none" | "clone_children");
            let controllers = options.split(',').filter(is_controller).map(str::to_owned).collect();
            match fstype {
                "cgroup" => v1.push(Hierarchy { mount, controllers }),
                "cgroup2" => v2.push(Hierarchy { mount, controllers: Vec::new() }),
                _ => {}
            }
        }
        let is_v2 = v2.iter().any(|h| h.mount == Path::new(ROOT));
        if is_v2 {
            v2.truncate(1);
            return Cgroups { parent: parent.to_owned(), is_v2, limiting: v2, tracking: Vec::new() };
        }
        let (tracking, limiting): (Vec<_>, Vec<_>) = v1.into_iter().partition(Hierarchy::is_named);
        Cgroups { parent: parent.to_owned(), is_v2, limiting, tracking: tracking.into_iter().chain(v2).collect() }
    }

    fn below_parent(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(self.parent.trim_start_matches('/'))
    }

    /// The group of one sandbox; it is made with its first container.
    pub fn sandbox(&self, id: &str) -> SandboxCgroup {
        SandboxCgroup { all: self.clone(), name: id.to_owned() }
    }

    /// What all sandboxes use now.
    pub fn usage(&self) -> Usage {
        self.usage_of(&self.limiting.iter().map(|hierarchy| self.below_parent(hierarchy)).collect::<Vec<_>>())
    }

    /// What a group uses, of which these are the directories, in the order of the limiting hierarchies.
    fn usage_of(&self, dirs: &[PathBuf]) -> Usage {
        let mut usage = Usage::default();
        for (hierarchy, dir) in self.limiting.iter().zip(dirs) {
            let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
            let number = |file: &str| read(file).trim().parse::<u64>().unwrap_or(0);
            let has = |controller: &str| self.is_v2 || hierarchy.has(controller);
            if has("memory") {
                let stat = read("memory.stat");
                // v1 counts the groups below apart, v2 together.
                let names = if self.is_v2 { V2_MEMORY } else { V1_MEMORY };
                let [inactive, rss, faults, major, swap] = names.map(|name| field(&stat, name));
                usage.memory_bytes = number(if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" });
                usage.working_set_bytes = usage.memory_bytes.saturating_sub(inactive);
                usage.swap_bytes = if self.is_v2 { number("memory.swap.current") } else { swap };
                (usage.rss_bytes, usage.page_faults, usage.major_page_faults) = (rss, faults, major);
            }
            if self.is_v2 {
                usage.cpu_ns = field(&read("cpu.stat"), "usage_usec").saturating_mul(1000);
                usage.pressure = Pressure::of_group(dir);
            } else if hierarchy.has("cpuacct") {
                usage.cpu_ns = number("cpuacct.usage");
            }
            if has("pids") {
                usage.pids = number("pids.current");
            }
        }
        usage
    }

    /// Moves this process to where the instance's shims are.
    pub fn join_shims(&self) -> Result<(), RuntimeError> {
        let places = if self.is_v2 { &self.limiting } else { &self.tracking };
        for hierarchy in places {
            let dir = self.below_parent(hierarchy).join(SHIMS);
            fs::create_dir_all(&dir).map_err(RuntimeError::file("make control group", &dir))?;
            put(&dir, "cgroup.procs", "0")?;
        }
        Ok(())
    }

    /// Kills every process of the instance, shims too, and removes its groups.
    pub fn destroy_all(&self) -> Result<(), RuntimeError> {
        let dirs = self.limiting.iter().chain(&self.tracking).map(|h| self.below_parent(h)).collect::<Vec<_>>();
        destroy(&dirs)
    }
}

/// The group of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct SandboxCgroup {
    all: Cgroups,
    name: String,
}

impl SandboxCgroup {
    fn dirs(&self) -> Vec<PathBuf> {
        self.all.limiting.iter().map(|h| self.all.below_parent(h).join(&self.name)).collect()
    }

    /// The group of one container.
    pub fn container(&self, id: &str) -> ContainerCgroup {
        ContainerCgroup { sandbox: self.clone(), name: id.to_owned() }
    }

    /// The absolute path, as whoever makes containers in it has it.
    pub fn path(&self) -> String {
        format!("{}/{}", self.all.parent, self.name)
    }

    /// Sets limits on all containers together. Makes the group.
    pub fn limit(&self, resources: &Resources) -> Result<(), RuntimeError> {
        if *resources == Resources::default() {
            return Ok(());
        }
        for (hierarchy, dir) in self.all.limiting.iter().zip(self.dirs()) {
            make(hierarchy, &dir, &self.all)?;
            limit(hierarchy, &dir, resources, self.all.is_v2)?;
            limit_cpu_time(hierarchy, &dir, resources, self.all.is_v2)?;
        }
        Ok(())
    }

    /// What everything in it uses now.
    pub fn usage(&self) -> Usage {
        self.all.usage_of(&self.dirs())
    }

    /// The same in the hierarchies that limit nothing. We make none there; runtimes of the machine do.
    fn tracking_dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.all.tracking.iter().map(|h| self.all.below_parent(h).join(&self.name))
    }

    /// Kills everything in it, once, without waiting.
    pub fn kill(&self) -> Result<(), RuntimeError> {
        kill(&self.dirs())
    }

    /// Kills everything in it and removes it.
    pub fn destroy(&self) -> Result<(), RuntimeError> {
        destroy(&self.dirs().into_iter().chain(self.tracking_dirs()).collect::<Vec<_>>())
    }
}

/// The group of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerCgroup {
    sandbox: SandboxCgroup,
    name: String,
}

impl ContainerCgroup {
    fn dirs(&self) -> Vec<PathBuf> {
        self.sandbox.dirs().into_iter().map(|dir| dir.join(&self.name)).collect()
    }

    fn hierarchies(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.sandbox.all.limiting.iter().zip(self.dirs())
    }

    /// The absolute path, as an OCI spec has it.
    pub fn path(&self) -> String {
        format!("{}/{}", self.sandbox.path(), self.name)
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.dirs().iter().all(|dir| dir.is_dir())
    }

    /// Makes it, with all limits except that on CPU time: libcontainer's own work must not be slowed by it.
    pub fn create(&self, resources: &Resources, all_devices: bool, devices: &[String]) -> Result<(), RuntimeError> {
        for (hierarchy, dir) in self.hierarchies() {
            make(hierarchy, &dir, &self.sandbox.all)?;
            limit(hierarchy, &dir, resources, self.sandbox.all.is_v2)?;
            if self.sandbox.all.is_v2 {
                // A container that lost one of its processes is no more the program that was asked for: all of it goes.
                put_if_there(&dir, "memory.oom.group", "1")?;
            }
            if hierarchy.has("devices") && !all_devices {
                put(&dir, "devices.deny", "a")?;
                let allowed = DEVICES.into_iter().chain(devices.iter().map(String::as_str));
                allowed.into_iter().try_for_each(|device| put(&dir, "devices.allow", device))?;
            }
        }
        Ok(())
    }

    /// Sets all limits on a running container.
    pub fn update(&self, resources: &Resources) -> Result<(), RuntimeError> {
        self.refuse_to_starve(resources)?;
        for (hierarchy, dir) in self.hierarchies() {
            limit(hierarchy, &dir, resources, self.sandbox.all.is_v2)?;
        }
        self.limit_cpu_time(resources)
    }

    /// v2 kills at once what has more than a new limit; v1 refuses such a limit by itself.
    fn refuse_to_starve(&self, resources: &Resources) -> Result<(), RuntimeError> {
        let Some(limit) = resources.memory_bytes.filter(|_| self.sandbox.all.is_v2) else { return Ok(()) };
        for dir in self.dirs() {
            let used = fs::read_to_string(dir.join("memory.current")).unwrap_or_default();
            let used: u64 = used.trim().parse().unwrap_or(0);
            if used > limit {
                let why = format!("the container uses {used} bytes, more than the new limit of {limit}");
                let source = io::Error::new(io::ErrorKind::ResourceBusy, why);
                return Err(RuntimeError::file("lower the memory limit of", dir)(source));
            }
        }
        Ok(())
    }

    /// Sets the limit on CPU time.
    pub fn limit_cpu_time(&self, resources: &Resources) -> Result<(), RuntimeError> {
        let is_v2 = self.sandbox.all.is_v2;
        self.hierarchies().try_for_each(|(hierarchy, dir)| limit_cpu_time(hierarchy, &dir, resources, is_v2))
    }

    /// Moves the calling process in.
    pub fn join(&self) -> Result<(), RuntimeError> {
        self.dirs().iter().try_for_each(|dir| put(dir, "cgroup.procs", "0"))
    }

    /// What everything in it uses now.
    pub fn usage(&self) -> Usage {
        self.sandbox.all.usage_of(&self.dirs())
    }

    /// How often the kernel killed in it for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.sandbox.all.is_v2 { "memory.events" } else { "memory.oom_control" };
        let counts = self.hierarchies().filter(|(h, _)| self.sandbox.all.is_v2 || h.has("memory")).map(|(_, dir)| {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
        });
        counts.sum()
    }

    /// Kills everything in it, once, without waiting.
    pub fn kill(&self) -> Result<(), RuntimeError> {
        kill(&self.dirs())
    }

    /// Kills everything in it and removes it.
    pub fn destroy(&self) -> Result<(), RuntimeError> {
        let tracking = self.sandbox.tracking_dirs().map(|dir| dir.join(&self.name));
        destroy(&self.dirs().into_iter().chain(tracking).collect::<Vec<_>>())
    }

    /// Its processes.
    pub fn processes(&self) -> BTreeSet<i32> {
        members(&self.dirs().iter().flat_map(|dir| tree(dir)).collect::<Vec<_>>())
    }

    /// Directories of this machine that the container shall see read-only, and where below `/sys/fs/cgroup`.
    pub fn visible(&self) -> Vec<(PathBuf, PathBuf)> {
        if self.sandbox.all.is_v2 {
            return self.dirs().into_iter().map(|dir| (dir, PathBuf::from(ROOT))).collect();
        }
        let shown = |(h, dir): (&Hierarchy, PathBuf)| {
            let is_visible = V1_VISIBLE.iter().any(|controller| h.has(controller));
            is_visible.then(|| (dir, h.mount.clone()))
        };
        self.hierarchies().filter_map(shown).collect()
    }

    /// Whether `/sys/fs/cgroup` of the container has a directory for each hierarchy.
    pub fn is_v1(&self) -> bool {
        !self.sandbox.all.is_v2
    }
}

/// One of the numbers in a file of lines `NAME NUMBER`.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn put(dir: &Path, file: &str, value: &str) -> Result<(), RuntimeError> {
    let path = dir.join(file);
    fs::write(&path, value).map_err(RuntimeError::file("write", path))
}

/// Makes a directory and its missing parents below the hierarchy's root, each fit to have processes.
fn make(hierarchy: &Hierarchy, dir: &Path, all: &Cgroups) -> Result<(), RuntimeError> {
    if dir.exists() && !hierarchy.has("cpuset") {
        return Ok(());
    }
    let below = dir.strip_prefix(&hierarchy.mount).expect("every group lies below its hierarchy's root");
    let mut here = hierarchy.mount.clone();
    for part in below.components() {
        if all.is_v2 {
            for controller in V2_CONTROLLERS {
                // One the machine does not have is not missed until a limit needs it.
                let _ = fs::write(here.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let parent = here.clone();
        here.push(part);
        match fs::create_dir(&here) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(RuntimeError::file("make control group", &here)(error));
            }
            _ => {}
        }
        if hierarchy.has("cpuset") {
            inherit_cpuset(&parent, &here)?;
        }
    }
    Ok(())
}

/// A v1 cpuset takes no process before it has CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), RuntimeError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(child.join(file)).map_err(RuntimeError::file("read", child.join(file)))?;
        if own.trim().is_empty() {
            let theirs =
                fs::read_to_string(parent.join(file)).map_err(RuntimeError::file("read", parent.join(file)))?;
            put(child, file, theirs.trim())?;
        }
    }
    Ok(())
}

/// Sets all limits but that on CPU time.
fn limit(hierarchy: &Hierarchy, dir: &Path, resources: &Resources, is_v2: bool) -> Result<(), RuntimeError> {
    let Resources { cpu_shares, memory_bytes, pids, .. } = *resources;
    if let Some(shares) = cpu_shares.map(|shares| shares.clamp(2, 262_144)) {
        if is_v2 {
            put(dir, "cpu.weight", &weight_of(shares).to_string())?;
        } else if hierarchy.has("cpu") {
            put(dir, "cpu.shares", &shares.to_string())?;
        }
    }
    if let Some(bytes) = memory_bytes {
        if is_v2 {
            put(dir, "memory.max", &bytes.to_string())?;
            put_if_there(dir, "memory.swap.max", "0")?;
        } else if hierarchy.has("memory") {
            limit_memory_v1(dir, bytes)?;
        }
    }
    if let Some(count) = pids
        && (is_v2 || hierarchy.has("pids"))
    {
        put(dir, "pids.max", &count.to_string())?;
    }
    if let Some(cpus) = resources.cpus
        && (is_v2 || hierarchy.has("cpuset"))
    {
        put(dir, "cpuset.cpus", &cpus.to_string())?;
    }
    if is_v2 || hierarchy.has("hugetlb") {
        limit_huge_pages(dir, ("2MB", resources.huge_2mi_bytes), is_v2)?;
        limit_huge_pages(dir, ("1GB", resources.huge_1gi_bytes), is_v2)?;
    }
    Ok(())
}

/// Both what is used and what is reserved: a program that maps more than it may is refused, where it would be killed by
/// a signal when it touched it. A machine without pages of the size gives none.
fn limit_huge_pages(dir: &Path, (size, bytes): (&str, Option<u64>), is_v2: bool) -> Result<(), RuntimeError> {
    let Some(bytes) = bytes else { return Ok(()) };
    let word = if is_v2 { "max" } else { "limit_in_bytes" };
    put_if_there(dir, &format!("hugetlb.{size}.rsvd.{word}"), &bytes.to_string())?;
    let file = format!("hugetlb.{size}.{word}");
    if bytes == 0 { put_if_there(dir, &file, "0") } else { put(dir, &file, &bytes.to_string()) }
}

/// Memory with swap may never be less than memory alone, so growing goes from the outer to the inner, shrinking back.
fn limit_memory_v1(dir: &Path, bytes: u64) -> Result<(), RuntimeError> {
    let (inner, outer) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    let bytes = bytes.to_string();
    if put(dir, inner, &bytes).is_ok() {
        return put_if_there(dir, outer, &bytes);
    }
    put_if_there(dir, outer, &bytes)?;
    put(dir, inner, &bytes)
}

/// Kernels without swap accounting do not have the file, and then there is no swap to limit either.
fn put_if_there(dir: &Path, file: &str, value: &str) -> Result<(), RuntimeError> {
    if dir.join(file).exists() { put(dir, file, value) } else { Ok(()) }
}

/// The v2 weight (1 … 10,000) of v1 shares (2 … 262,144): the linear map of Kubernetes and the OCI runtimes.
fn weight_of(shares: u64) -> u64 {
    1 + (shares - 2) * 9_999 / 262_142
}

fn limit_cpu_time(hierarchy: &Hierarchy, dir: &Path, resources: &Resources, is_v2: bool) -> Result<(), RuntimeError> {
    let Some(quota) = resources.cpu_quota_us else { return Ok(()) };
    let period = resources.cpu_period_us.unwrap_or(100_000);
    if is_v2 {
        put(dir, "cpu.max", &format!("{quota} {period}"))
    } else if hierarchy.has("cpu") {
        put(dir, "cpu.cfs_period_us", &period.to_string())?;
        put(dir, "cpu.cfs_quota_us", &quota.to_string())
    } else {
        Ok(())
    }
}

/// A directory's own groups, deepest first, itself last; none when it does not exist.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        open.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        found.push(next);
    }
    found.reverse();
    found
}

fn kill(dirs: &[PathBuf]) -> Result<(), RuntimeError> {
    let groups: Vec<PathBuf> = dirs.iter().flat_map(|dir| tree(dir)).collect();
    // Frozen processes do not fork while they are killed; v2's cgroup.kill needs no such help.
    let freeze = |word: &str| groups.iter().for_each(|group| drop(put_if_there(group, "freezer.state", word)));
    if groups.iter().all(|group| put_if_there(group, "cgroup.kill", "1").is_ok() && group.join("cgroup.kill").exists())
    {
        return Ok(());
    }
    freeze("FROZEN");
    let killed = members(&groups).iter().try_for_each(|pid| kernel::kill(*pid, libc::SIGKILL));
    freeze("THAWED");
    killed.map_err(RuntimeError::system("kill the processes of a control group"))
}

/// The processes in these groups.
fn members(groups: &[PathBuf]) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    for group in groups {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    // 0 is how the kernel writes a process of another pid namespace than ours: not ours to touch by number.
    pids.remove(&0);
    pids
}

/// Kills and removes until nothing is left, or until it is clear that something hangs in the kernel.
fn destroy(dirs: &[PathBuf]) -> Result<(), RuntimeError> {
    let mut busy = None;
    for step in 0..REMOVE_STEPS_MAX {
        busy = dirs.iter().flat_map(|dir| tree(dir)).fold(None, |busy, group| match fs::remove_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some((group, error)),
            _ => busy,
        });
        if busy.is_none() {
            return Ok(());
        }
        if step % 16 == 0 {
            kill(dirs)?;
        }
        std::thread::sleep(REMOVE_STEP);
    }
    match busy {
        Some((group, error)) => {
            Err(RuntimeError::file("remove control group (a process in it does not end)", group)(error))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 28 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    const UNIFIED: &str = "30 28 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hybrid_machines_limit_by_v1_and_track_by_the_rest() {
        let found = Cgroups::from_mounts("/w", HYBRID);
        assert!(!found.is_v2);
        let limiting: Vec<_> = found.limiting.iter().map(|h| h.controllers.join("+")).collect();
        assert_eq!(limiting, ["cpu+cpuacct", "memory"]);
        assert_eq!(found.tracking.len(), 2);
        let dirs = found.sandbox("s").container("c").dirs();
        assert_eq!(dirs[1], Path::new("/sys/fs/cgroup/memory/w/s/c"));
    }

    #[test]
    fn unified_machines_have_one_hierarchy() {
        let found = Cgroups::from_mounts("/w", UNIFIED);
        assert!(found.is_v2);
        assert_eq!(found.sandbox("s").container("c").dirs(), [PathBuf::from("/sys/fs/cgroup/w/s/c")]);
        assert_eq!(found.sandbox("s").container("c").path(), "/w/s/c");
    }

    #[test]
    fn shares_map_to_weights_at_both_ends() {
        assert_eq!(weight_of(2), 1);
        assert_eq!(weight_of(262_144), 10_000);
        assert_eq!(weight_of(1024), 39);
    }
}
