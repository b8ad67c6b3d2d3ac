//! P1: how long the server takes to be ready. P18: how large the binary is.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use windlass_api::kinds;

use crate::Options;
use crate::cluster::{Cluster, given};
use crate::sample::Sample;

/// P1.
pub fn run(options: Options) -> Result<()> {
    let mut cluster = Cluster::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut empty = Sample::default();
    for _ in 0..options.rounds(10) {
        fs::remove_dir_all(cluster.data()).ok();
        empty.add_ms(runtime.block_on(time_to_ready(&mut cluster))?);
        cluster.stop()?;
    }
    println!("start, empty directory            ms min/median/max  {}", empty.shown());
    cluster.spawn("server")?;
    runtime.block_on(fill(&cluster, if options.quick { 100 } else { 10_000 }, 860))?;
    cluster.stop()?;
    let mut filled = Sample::default();
    for _ in 0..options.rounds(10) {
        filled.add_ms(runtime.block_on(time_to_ready(&mut cluster))?);
        cluster.stop()?;
    }
    println!("start, 10,000 ConfigMaps of 1 KiB  ms min/median/max  {}", filled.shown());
    Ok(())
}

/// From just before exec until `/readyz` says ok over TLS.
pub async fn time_to_ready(cluster: &mut Cluster) -> Result<Duration> {
    let kubeconfig = cluster.data().join("admin.kubeconfig");
    fs::remove_file(&kubeconfig).ok();
    let started = Instant::now();
    cluster.spawn("server")?;
    loop {
        if kubeconfig.exists() && cluster.is_ready().await {
            return Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(30) {
            bail!("not ready within 30 s; its log:\n{}", cluster.log());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Creates ConfigMaps `filler-0`… with a payload of so many bytes.
pub async fn fill(cluster: &Cluster, count: usize, payload_bytes: usize) -> Result<()> {
    let started = Instant::now();
    while !cluster.is_ready().await {
        anyhow::ensure!(started.elapsed() < Duration::from_secs(30), "not ready within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let client = cluster.client()?;
    let mut waiting = futures::stream::FuturesUnordered::new();
    for number in 0..count {
        let client = client.clone();
        waiting.push(async move {
            let object = sized_config_map(&format!("filler-{number}"), payload_bytes);
            client.create(&kinds::CONFIG_MAP, "default", &object).await
        });
        if waiting.len() >= 64 {
            futures::StreamExt::next(&mut waiting).await.context("a create is under way")??;
        }
    }
    while let Some(result) = futures::StreamExt::next(&mut waiting).await {
        result?;
    }
    Ok(())
}

/// A ConfigMap of about 1 KiB.
pub fn config_map(name: &str) -> serde_json::Value {
    sized_config_map(name, 860)
}

fn sized_config_map(name: &str, payload_bytes: usize) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"by": "bench"}},
        "data": {"payload": "x".repeat(payload_bytes)}})
}

/// P18.
pub fn size(_options: Options) -> Result<()> {
    let path = given("WINDLASS_BIN")?;
    let bytes = fs::metadata(&path)?.len();
    println!("{}: {:.1} MB", path.display(), bytes as f64 / 1e6);
    let kind = std::process::Command::new("/usr/bin/ldd").arg(&path).output()?;
    println!("{}", String::from_utf8_lossy(&[kind.stdout, kind.stderr].concat()).trim());
    Ok(())
}
