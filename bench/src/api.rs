//! P8: requests over TLS by many clients, each with a connection of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use windlass_api::kinds;
use windlass_client::{Client, DeleteOptions, Patch};
use windlass_stdx::World;

use crate::Options;
use crate::cluster::{Cluster, transport};
use crate::etcd::{self, Etcd};
use crate::sample::Sample;
use crate::start::config_map;
use crate::usage::process_cpu;

#[derive(Clone, Copy, PartialEq)]
enum Verb {
    Create,
    Get,
    Patch,
    Delete,
}

/// P8.
pub fn run(options: Options) -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.spawn("server")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        wait_ready(&cluster).await?;
        println!(
            "{:<11} {:>8} {:>12} {:>10} {:>10} {:>22}",
            "verb", "clients", "requests/s", "p50 ms", "p99 ms", "server CPU us/request"
        );
        let peer = if options.alone { None } else { Some(Etcd::start()?) };
        for clients in [10, 100] {
            let each = if options.quick { 2 } else { 20_000 / clients };
            let links = (0..clients)
                .map(|_| transport(&cluster.data().join("admin.kubeconfig")))
                .collect::<Result<Vec<_>>>()?;
            let links: Vec<Client> = links.into_iter().map(|link| Client::new(link, World::real())).collect();
            for verb in [Verb::Create, Verb::Get, Verb::Patch, Verb::Delete] {
                measure(&cluster, &links, verb, each).await?;
            }
            if let Some(peer) = &peer {
                for verb in ["put", "range", "deleterange"] {
                    measure_etcd(peer, verb, clients, each).await?;
                }
            }
        }
        Ok(())
    })
}

/// Waits until the server is ready.
pub async fn wait_ready(cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    loop {
        if cluster.is_ready().await {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(30) {
            bail!("not ready within 30 s:\n{}", cluster.log());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn measure(cluster: &Cluster, links: &[Client], verb: Verb, each: usize) -> Result<()> {
    // The handshake is not part of a request.
    for link in links {
        link.get(&kinds::NAMESPACE, "", "default").await?;
    }
    let used = process_cpu(cluster.pid()?)?;
    let started = Instant::now();
    let tasks: Vec<_> = links
        .iter()
        .cloned()
        .enumerate()
        .map(|(lane, client)| tokio::spawn(async move { one_client(&client, verb, lane, each).await }))
        .collect();
    let mut latency = Sample::default();
    for task in tasks {
        latency.extend(&task.await??);
    }
    let wall = started.elapsed().as_secs_f64();
    let cpu = process_cpu(cluster.pid()?)?.saturating_sub(used).as_secs_f64();
    let name = match verb {
        Verb::Create => "create",
        Verb::Get => "get",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
    };
    print_row(name, links.len(), (wall, cpu), &latency);
    Ok(())
}

/// What was done, by how many clients, in how many seconds of wall and of the server's CPU.
fn print_row(name: &str, clients: usize, (wall, cpu): (f64, f64), latency: &Sample) {
    let count = latency.len() as f64;
    println!(
        "{name:<11} {clients:>8} {:>12.0} {:>10.2} {:>10.2} {:>22.0}",
        count / wall,
        latency.percentile(0.5),
        latency.percentile(0.99),
        cpu / count * 1e6
    );
}

/// The same number of keys of the same size, straight into etcd.
async fn measure_etcd(etcd: &Etcd, verb: &'static str, clients: usize, each: usize) -> Result<()> {
    let mut links = Vec::new();
    for _ in 0..clients {
        links.push(etcd::Client::connect().await?);
    }
    let used = process_cpu(etcd.pid())?;
    let started = Instant::now();
    let tasks: Vec<_> = links
        .into_iter()
        .enumerate()
        .map(|(lane, link)| tokio::spawn(async move { one_etcd_client(link, verb, lane, each).await }))
        .collect();
    let mut latency = Sample::default();
    for task in tasks {
        latency.extend(&task.await??);
    }
    let wall = started.elapsed().as_secs_f64();
    let cpu = process_cpu(etcd.pid())?.saturating_sub(used).as_secs_f64();
    print_row(&format!("etcd {verb}"), clients, (wall, cpu), &latency);
    Ok(())
}

async fn one_etcd_client(mut link: etcd::Client, verb: &str, lane: usize, each: usize) -> Result<Sample> {
    let mut latency = Sample::default();
    for number in 0..each {
        let name = format!("c{lane}-{number}");
        let key = format!("/registry/configmaps/default/{name}");
        let value = config_map(&name).to_string();
        let started = Instant::now();
        match verb {
            "put" => link.put(&key, value.as_bytes()).await?,
            "range" => link.get(&key).await?,
            _ => link.delete(&key).await?,
        }
        latency.add_ms(started.elapsed());
    }
    Ok(latency)
}

async fn one_client(client: &Client, verb: Verb, lane: usize, each: usize) -> Result<Sample> {
    let mut latency = Sample::default();
    for number in 0..each {
        let name = format!("c{lane}-{number}");
        let started = Instant::now();
        match verb {
            Verb::Create => drop(client.create(&kinds::CONFIG_MAP, "default", &config_map(&name)).await?),
            Verb::Get => drop(client.get(&kinds::CONFIG_MAP, "default", &name).await?),
            Verb::Patch => {
                let patch = Patch::Merge(json!({"data": {"more": number.to_string()}}));
                client.patch(&kinds::CONFIG_MAP, "default", &name, &patch, None).await?;
            }
            Verb::Delete => drop(client.delete(&kinds::CONFIG_MAP, "default", &name, &DeleteOptions::default()).await?),
        }
        latency.add_ms(started.elapsed());
    }
    Ok(latency)
}
