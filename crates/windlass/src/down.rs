//! `windlass down`: stop what runs here and leave nothing behind in the kernel.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use windlass_network::Network;
use windlass_node::kernel::end_all_of_other_runtimes;
use windlass_runtime::{Runtime, mounted_on};

use crate::place::{Place, Running};

/// How long the process may take to end by itself.
const INT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the instance down.
pub fn run(place: &Place, purge: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("expected to run as root: only root can remove namespaces and mounts");
    }
    if let Some(running) = place.running() {
        println!("stopping {} (pid {})", running.role, running.pid);
        stop_process(&running)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    // Before their processes are killed with the rest: other runtimes would keep what they know of them.
    let troubles = runtime.block_on(end_all_of_other_runtimes(&place.data, &place.instance));
    let troubles = troubles.unwrap_or_else(|error| vec![error.to_string()]);
    Runtime::destroy_all(&place.runtime()).context("cannot remove the containers")?;
    runtime.block_on(Network::sweep(&place.instance, &place.network_run())).context("cannot remove the network")?;
    let kubelet = place.kubelet();
    for root in [&place.run, &place.data, &kubelet] {
        unmount_below(root)?;
    }
    // Mounted once more over itself, where this machine's mounts are not shared by themselves.
    while mounted_on(&kubelet).is_ok_and(|on| on.path == kubelet && on.is_own_part) {
        unmount(&kubelet, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", kubelet.display()))?;
    }
    // What is unmounted is lent no more, and its drivers' containers are gone.
    for lent in ["pods", "plugins/kubernetes.io"] {
        remove(&kubelet.join(lent))?;
    }
    remove(&place.run)?;
    if purge {
        remove(&place.data)?;
        remove(&kubelet)?;
    }
    if !troubles.is_empty() {
        let instance = &place.instance;
        let advice = if purge { "remove them there" } else { "start it and say down again" };
        bail!(
            "everything is down, but a runtime may still list sandboxes with the label windlass.instance={instance}; {advice}: {}",
            troubles.join("; ")
        );
    }
    println!("down: no process, mount, namespace, cgroup, rule or interface of {} is left", place.instance);
    Ok(())
}

fn stop_process(running: &Running) -> Result<()> {
    let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw).context("the recorded process id is not one")?;
    // INT, because TERM lets the pods end first where the node was told so; here they are killed anyway.
    for (signal, timeout) in [(Signal::INT, INT_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
        match kill_process(pid, signal) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other.with_context(|| format!("cannot signal process {}", running.pid))?,
        }
        if wait_gone(running, timeout) {
            return Ok(());
        }
    }
    bail!("process {} does not end, not even killed: look at its state in /proc/{}/status", running.pid, running.pid)
}

/// Whether the process is gone within the time.
fn wait_gone(running: &Running, timeout: Duration) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let looks = timeout.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        if !running.is_there() {
            return true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    false
}

/// Unmounts everything below a directory, deepest first: what an agent killed half-way could not.
fn unmount_below(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mut points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(root) && Path::new(point) != root)
        .collect();
    points.sort_unstable_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        match unmount(point, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot unmount {point}")),
        }
    }
    Ok(())
}

/// Removes a directory without following links and without recursion: what is in it was written by containers.
fn remove(path: &Path) -> Result<()> {
    windlass_runtime::remove_tree(path).with_context(|| format!("cannot remove {}", path.display()))
}
