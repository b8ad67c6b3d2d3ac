//! What a cluster leaves in the kernel: processes, mounts, cgroups, interfaces, namespaces, nftables.

use std::fs;
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
        tables.lines().filter(|line| line.ends_with(&format!(" {instance}"))).map(|line| format!("nft: {line}")),
    );
    found
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
