//! What a cluster leaves in the kernel: processes, mounts, cgroups, interfaces, namespaces, nftables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Cluster, run, until};

/// How long killed processes may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything in the kernel that bears the cluster's name; empty after `windlass down`.
pub fn left_behind(cluster: &Cluster) -> Vec<String> {
    let instance = cluster.instance();
    let run_dir = cluster.run_dir().to_string_lossy().into_owned();
    let data_dir = cluster.data_dir().to_string_lossy().into_owned();
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&run_dir) || line.contains(&data_dir))
            .map(|line| format!("mount: {line}")),
    );
    for (pid, command_line) in processes() {
        if command_line.contains(&run_dir) || command_line.contains(&data_dir) {
            found.push(format!("process {pid}: {command_line}"));
        }
    }
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let path = controller.path().join(&instance);
        if path.exists() {
            found.push(format!("cgroup: {}", path.display()));
        }
    }
    let links = run(Command::new("/sbin/ip").args(["-o", "link"])).stdout;
    found.extend(
        links.lines().filter(|line| line.contains(&format!(" {instance}"))).map(|line| format!("interface: {line}")),
    );
    let tables = run(Command::new("/usr/sbin/nft").args(["list", "tables"])).stdout;
    found.extend(
        tables
            .lines()
            .filter(|line| line.ends_with(&format!(" {instance}")) || line.ends_with(&format!(" {instance}-policy")))
            .map(|line| format!("nft: {line}")),
    );
    found
}

/// How long the machine may take to be rid of a pod that the API has forgotten.
const RID_PATIENCE: Duration = Duration::from_secs(60);

/// Waits until nothing is left of any pod, while the cluster still runs: `windlass down` would sweep it away unseen.
pub fn until_no_pod_is_left(cluster: &Cluster) {
    until("nothing of a pod is left on the machine", RID_PATIENCE, || match left_of_pods(cluster) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("\n")),
    });
}

/// What is there of pods: directories, records, shims, mounts, cgroups, addresses, interfaces.
fn left_of_pods(cluster: &Cluster) -> Vec<String> {
    let (data, run_dir) = (cluster.data_dir(), cluster.run_dir());
    let mut found = Vec::new();
    let places = [data.join("pods"), data.join("runtime/containers"), run_dir.join("runtime/sandboxes")];
    let places = places.into_iter().chain([run_dir.join("network/netns")]);
    let mut all: Vec<PathBuf> = places.flat_map(|place| entries(&place)).collect();
    // An address that was given back is remembered as such, so that it is given out late.
    let is_held = |path: &PathBuf| !fs::read_to_string(path).unwrap_or_default().contains("\"id\":null");
    all.extend(entries(&run_dir.join("network/leases")).into_iter().filter(is_held));
    // The node's own records have names, a pod's is its uid.
    all.extend(
        entries(&data.join("records")).into_iter().filter(|path| path.file_stem().is_some_and(|stem| stem.len() >= 32)),
    );
    found.extend(all.iter().map(|path| format!("file: {}", path.display())));
    let (data, run_dir) = (data.to_string_lossy().into_owned(), run_dir.to_string_lossy().into_owned());
    for (pid, line) in processes() {
        if line.contains(" shim ") && (line.contains(&run_dir) || line.contains(&data)) {
            found.push(format!("process {pid}: {line}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let is_of_pod = |line: &&str| {
        ["pods/", "runtime/"].iter().any(|place| line.contains(&format!("{data}/{place}")))
            || ["runtime/sandboxes/", "network/netns/"].iter().any(|place| line.contains(&format!("{run_dir}/{place}")))
    };
    found.extend(mounts.lines().filter(is_of_pod).map(|line| format!("mount: {line}")));
    for controller in entries(Path::new("/sys/fs/cgroup")).into_iter().chain([PathBuf::from("/sys/fs/cgroup")]) {
        let groups = entries(&controller.join(cluster.instance())).into_iter();
        let of_pods = groups.filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name.len() >= 32));
        found.extend(of_pods.map(|path| format!("cgroup: {}", path.display())));
    }
    let links = run(Command::new("/sbin/ip").args(["-o", "link"])).stdout;
    let plugged = format!(" master {}0 ", cluster.instance());
    found.extend(links.lines().filter(|line| line.contains(&plugged)).map(|line| format!("interface: {line}")));
    found
}

/// What is in a directory; nothing when it is not there.
fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Kills every process in the cluster's control groups, as a machine that loses power does; says how many there were.
pub fn kill_all_of(cluster: &Cluster) -> usize {
    let found = members_of(cluster);
    // What one of them had just begun is not among those found at first.
    until("all of them are gone", GONE_TIMEOUT, || {
        let left = members_of(cluster);
        for pid in &left {
            // It may be gone with another one: a container does not outlive its shim.
            run(Command::new("/bin/kill").args(["-KILL", pid]));
        }
        if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
    });
    found.len()
}

/// The processes in the cluster's control groups that run.
fn members_of(cluster: &Cluster) -> Vec<String> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup/pids"), PathBuf::from("/sys/fs/cgroup")];
    open.iter_mut().for_each(|root| root.push(cluster.instance()));
    let mut found = Vec::new();
    while let Some(group) = open.pop() {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(members.lines().filter(|pid| is_running(pid)).map(str::to_owned));
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        open.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    // Each hierarchy has it.
    found.sort();
    found.dedup();
    found
}

/// Whether a process is there and no zombie, which nobody can kill.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// All processes with their command lines.
pub fn processes() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc is mounted").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let command_line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found.push((pid, String::from_utf8_lossy(&command_line).replace('\0', " ")));
    }
    found
}
