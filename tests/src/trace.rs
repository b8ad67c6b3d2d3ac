//! What a cluster leaves in the kernel: processes, mounts, cgroups, interfaces, namespaces, nftables.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cluster::{Cluster, run};

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

/// Kills every process in the cluster's control groups, as a machine that loses power does; says how many there were.
pub fn kill_all_of(cluster: &Cluster) -> usize {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup/pids"), PathBuf::from("/sys/fs/cgroup")];
    open.iter_mut().for_each(|root| root.push(cluster.instance()));
    let mut killed = 0;
    while let Some(group) = open.pop() {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            killed += usize::from(run(Command::new("/bin/kill").args(["-KILL", pid])).ok);
        }
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        open.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    killed
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
