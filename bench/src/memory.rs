//! P2 and P3: what an idle cluster costs, and what an idle pod adds.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::{Client, ListOptions};

use crate::Options;
use crate::cluster::Cluster;
use crate::containerd::Containerd;
use crate::docker::Docker;
use crate::usage::{process_cpu, processes, pss_kib, writes};

/// P2.
pub fn idle(options: Options) -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    let pid = cluster.pid()?;
    let watched = if options.quick { Duration::from_secs(1) } else { Duration::from_secs(60) };
    std::thread::sleep(watched.min(Duration::from_secs(15)));
    let (cpu, (calls, bytes)) = (process_cpu(pid)?, writes(pid));
    std::thread::sleep(watched);
    let seconds = watched.as_secs_f64();
    let used = process_cpu(pid)?.saturating_sub(cpu).as_secs_f64();
    let (calls, bytes) = (writes(pid).0 - calls, writes(pid).1 - bytes);
    println!("windlass, server and node   PSS {:.1} MiB", pss_kib(pid) as f64 / 1024.0);
    println!(
        "windlass, over {seconds} s      CPU {:.2} % of a core, {:.2} write calls/s, {:.0} B/s to disk",
        used / seconds * 100.0,
        calls as f64 / seconds,
        bytes as f64 / seconds
    );
    if !options.alone {
        let docker = Docker::start()?;
        std::thread::sleep(Duration::from_secs(5));
        println!("dockerd and containerd      PSS {:.1} MiB", docker.pss_kib() as f64 / 1024.0);
        let containerd = Containerd::start()?;
        std::thread::sleep(Duration::from_secs(5));
        println!("containerd alone            PSS {:.1} MiB", containerd.pss_kib() as f64 / 1024.0);
    }
    Ok(())
}

/// P3.
pub fn pods(options: Options) -> Result<()> {
    let count = if options.quick { 2 } else { 50 };
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = cluster.client()?;
        // The first pods make the server load what all later ones share.
        run_pods(&client, "warm", 2).await?;
        let agent = pss_kib(cluster.pid()?);
        run_pods(&client, "idle", count).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let run = cluster.run_dir().display().to_string();
        let shims = processes(|line| line.split(' ').nth(1) == Some("shim") && line.contains(&run));
        let of_shims: u64 = shims.iter().map(|pid| pss_kib(*pid)).sum();
        let grown = pss_kib(cluster.pid()?).saturating_sub(agent);
        println!("windlass, {count} idle pods: {} shims of {:.2} MiB PSS each, server and agent grew by {:.2} MiB a pod: {:.2} MiB a pod in all",
            shims.len(), of_shims as f64 / 1024.0 / shims.len().max(1) as f64, grown as f64 / 1024.0 / count as f64,
            (of_shims as f64 / shims.len().max(1) as f64 + grown as f64 / count as f64) / 1024.0);
        Ok::<_, anyhow::Error>(())
    })?;
    if !options.alone {
        let docker = Docker::start()?;
        docker.run_detached(1)?;
        let before = docker.pss_kib();
        docker.run_detached(count.min(20))?;
        std::thread::sleep(Duration::from_secs(5));
        println!(
            "docker, {} idle containers: {:.2} MiB a container in all",
            count.min(20),
            (docker.pss_kib() - before) as f64 / 1024.0 / count.min(20) as f64
        );
        let mut containerd = Containerd::start()?;
        containerd.run_detached(1)?;
        let before = containerd.pss_kib();
        containerd.run_detached(count.min(20))?;
        std::thread::sleep(Duration::from_secs(5));
        println!(
            "containerd, {} idle containers: {:.2} MiB a container in all",
            count.min(20),
            (containerd.pss_kib() - before) as f64 / 1024.0 / count.min(20) as f64
        );
    }
    Ok(())
}

/// Runs pods that only sleep, and waits until all run.
async fn run_pods(client: &Client, prefix: &str, count: usize) -> Result<()> {
    for number in 0..count {
        client.create(&kinds::POD, "default", &sleeping(&format!("{prefix}-{number}"))).await?;
    }
    let started = Instant::now();
    loop {
        let pods = client.list(&kinds::POD, Some("default"), &ListOptions::default()).await?;
        let running =
            pods.items.iter().filter(|pod| pod.header.name().starts_with(prefix) && pod.header.phase() == "Running");
        if running.count() == count {
            return Ok(());
        }
        anyhow::ensure!(started.elapsed() < Duration::from_secs(120), "the pods do not all run within 120 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A pod that sleeps.
pub fn sleeping(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "windlass.local/demo:1", "command": ["sleep", "1000000"]}]}})
}
