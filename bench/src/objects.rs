//! What 100,000 stored objects cost: memory in proportion to their JSON, and the time until a server that has them is ready.

use std::time::Duration;

use anyhow::{Context, Result};
use windlass_api::kinds;

use crate::Options;
use crate::api::wait_ready;
use crate::cluster::Cluster;
use crate::sample::Sample;
use crate::start::{fill, time_to_ready};
use crate::usage::pss_kib;

/// Memory and restart.
pub fn run(options: Options) -> Result<()> {
    let count = if options.quick { 100 } else { 100_000 };
    let mut cluster = Cluster::new()?;
    cluster.spawn("server")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait_ready(&cluster))?;
    let empty = pss_kib(cluster.pid()?);
    runtime.block_on(fill(&cluster, count, 860))?;
    let client = cluster.client()?;
    let one = runtime.block_on(client.get(&kinds::CONFIG_MAP, "default", "filler-0"))?.context("it was created")?;
    let json_kib = count as f64 * one.json.len() as f64 / 1024.0;
    let shown = |what: &str, kib: u64| {
        let grown = kib.saturating_sub(empty) as f64;
        println!(
            "{count} ConfigMaps, {what:<16} {:.2} KiB each, {:.2} of their JSON",
            grown / count as f64,
            grown / json_kib
        );
    };
    println!("a ConfigMap of 1 KiB as it is served: {} bytes of JSON", one.json.len());
    shown("just written", settled_kib(&cluster)?);
    cluster.stop()?;
    let mut ready = Sample::default();
    for round in 0..options.rounds(5) {
        ready.add_ms(runtime.block_on(time_to_ready(&mut cluster))?);
        if round == 0 {
            shown("after a restart", settled_kib(&cluster)?);
        }
        cluster.stop()?;
    }
    println!("start with {count} ConfigMaps of 1 KiB   ms min/median/max  {}", ready.shown());
    Ok(())
}

/// Memory once it has stopped moving: the controllers read what is there after the server is ready.
pub fn settled_kib(cluster: &Cluster) -> Result<u64> {
    let mut before = pss_kib(cluster.pid()?);
    for _ in 0..SETTLE_ROUNDS_MAX {
        std::thread::sleep(Duration::from_secs(1));
        let now = pss_kib(cluster.pid()?);
        if now.abs_diff(before) * 200 < before {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

/// Seconds after which memory that still moves is taken as it is.
const SETTLE_ROUNDS_MAX: usize = 20;
