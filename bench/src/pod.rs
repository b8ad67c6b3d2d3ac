//! P4, P5 and P7: pods from the API to a running container.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::{Client, DeleteOptions, WatchEvent, WatchOptions};

use crate::Options;
use crate::cluster::Cluster;
use crate::containerd::{Containerd, Runc};
use crate::docker::Docker;
use crate::memory::sleeping;
use crate::sample::Sample;
use crate::usage::{machine_cpu, processes};

/// How long anything here may take.
const TIMEOUT: Duration = Duration::from_secs(120);

fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Watches an object until it satisfies a condition.
async fn until(
    client: &Client,
    kind: &windlass_api::Kind,
    name: &str,
    condition: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let options = WatchOptions {
        linked_only: false,
        labels: String::new(),
        fields: format!("metadata.name={name}"),
        revision: 0,
        timeout: TIMEOUT,
        idle: TIMEOUT,
    };
    let looking = async {
        let mut watch = client.watch(kind, Some("default"), &options).await?;
        while let Some(event) = watch.next().await? {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                let value = object.value();
                if condition(&value) {
                    return Ok(value);
                }
            }
        }
        bail!("the watch of {name} ended")
    };
    tokio::time::timeout(TIMEOUT, looking).await.with_context(|| format!("{name} took longer than {TIMEOUT:?}"))?
}

fn is_running(pod: &Value) -> bool {
    !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()
}

/// P4.
pub fn start(options: Options) -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    let mut peers = if options.alone { Vec::new() } else { peers()? };
    let (mut wall, mut cpu) = Default::default();
    in_runtime(async {
        let client = cluster.client()?;
        for round in 0..options.rounds(20) + 2 {
            let name = format!("one-{round}");
            let used = machine_cpu()?;
            let started = Instant::now();
            let looking = until(&client, &kinds::POD, &name, is_running);
            let pod = sleeping(&name);
            let creating = client.create(&kinds::POD, "default", &pod);
            let (_, created) = futures::future::join(async { looking.await.map(|_| ()) }, creating).await;
            created?;
            if round >= 2 {
                Sample::add_ms(&mut wall, started.elapsed());
                Sample::add_ms(&mut cpu, machine_cpu()?.saturating_sub(used));
            }
            client.delete(&kinds::POD, "default", &name, &DeleteOptions::default()).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            for peer in &mut peers {
                let used = machine_cpu()?;
                let took = (peer.run_once)()?;
                if round >= 2 {
                    peer.wall.add_ms(took);
                    peer.cpu.add_ms(machine_cpu()?.saturating_sub(used));
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        Ok(())
    })?;
    println!(
        "windlass, create → running      ms wall {}   ms CPU (whole machine, client too) {}",
        wall.shown(),
        cpu.shown()
    );
    for peer in &peers {
        println!("{:<31} ms wall {}   ms CPU {}", peer.name, peer.wall.shown(), peer.cpu.shown());
    }
    Ok(())
}

/// Another way to run a container to its end.
struct Peer {
    name: &'static str,
    run_once: Box<dyn FnMut() -> Result<Duration>>,
    wall: Sample,
    cpu: Sample,
}

fn peers() -> Result<Vec<Peer>> {
    let peer = |name, run_once| Peer { name, run_once, wall: Sample::default(), cpu: Sample::default() };
    let (docker, mut containerd, runc) = (Docker::start()?, Containerd::start()?, Runc::bundle()?);
    Ok(vec![
        peer("docker run --rm (start and end)", Box::new(move || docker.run_once())),
        peer("ctr run --rm (start and end)", Box::new(move || containerd.run_once())),
        peer("runc run (start and end)", Box::new(move || runc.run_once())),
    ])
}

/// P5.
pub fn deployment(options: Options) -> Result<()> {
    let replicas = if options.quick { 3 } else { 100 };
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    let (mut wall, mut cpu) = (Sample::default(), Sample::default());
    in_runtime(async {
        let client = cluster.client()?;
        for round in 0..options.rounds(3) {
            let name = format!("many-{round}");
            let template = json!({"metadata": {"labels": {"app": name}}, "spec": sleeping("x")["spec"]});
            let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}});
            let used = machine_cpu()?;
            let started = Instant::now();
            client.create(&kinds::DEPLOYMENT, "default", &object).await?;
            until(&client, &kinds::DEPLOYMENT, &name, |object| object["status"]["availableReplicas"] == replicas)
                .await?;
            wall.add_ms(started.elapsed());
            cpu.add(machine_cpu()?.saturating_sub(used).as_secs_f64() * 1e3 / f64::from(replicas));
            client.delete(&kinds::DEPLOYMENT, "default", &name, &DeleteOptions::default()).await?;
            let gone = Instant::now();
            while !client
                .list(&kinds::POD, Some("default"), &windlass_client::ListOptions::default())
                .await?
                .items
                .is_empty()
            {
                anyhow::ensure!(gone.elapsed() < TIMEOUT, "the pods do not go");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    })?;
    println!(
        "windlass, Deployment of {replicas} → all available   ms wall {}   ms CPU a pod {}",
        wall.shown(),
        cpu.shown()
    );
    Ok(())
}

/// P7.
pub fn restart(options: Options) -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    let mut wall = Sample::default();
    in_runtime(async {
        let client = cluster.client()?;
        for round in 0..options.rounds(10) {
            let name = format!("killed-{round}");
            let seconds = (2_000_000 + round).to_string();
            let mut pod = sleeping(&name);
            pod["spec"]["containers"][0]["command"][1] = json!(seconds);
            client.create(&kinds::POD, "default", &pod).await?;
            until(&client, &kinds::POD, &name, is_running).await?;
            let pid = *processes(|line| line.trim() == format!("sleep {seconds}"))
                .first()
                .context("the container's process")?;
            let restarted = until(&client, &kinds::POD, &name, |pod| {
                is_running(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
            });
            let started = Instant::now();
            anyhow::ensure!(
                Command::new("/bin/kill").args(["-KILL", &pid.to_string()]).status()?.success(),
                "kill failed"
            );
            restarted.await?;
            wall.add_ms(started.elapsed());
            client.delete(&kinds::POD, "default", &name, &DeleteOptions::default()).await?;
        }
        Ok(())
    })?;
    println!("windlass, container killed → replacement running   ms wall {}", wall.shown());
    Ok(())
}
