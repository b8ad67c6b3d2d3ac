//! A19: everybody lists everything at once, and a node still renews its lease.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;
use windlass_api::kinds;
use windlass_client::Patch;

use crate::Options;
use crate::cluster::Cluster;
use crate::objects::settled_kib;
use crate::read::{COLLECTION, get, link, started};
use crate::sample::Sample;
use crate::start::fill;
use crate::usage::process_cpu;

/// Time between two renewals.
const RENEWAL: Duration = Duration::from_millis(100);

/// Clients that list without a limit, each on a connection of its own, and one lease that is renewed meanwhile.
pub fn run(options: Options) -> Result<()> {
    let (count, clients) = if options.quick { (100, 5) } else { (100_000, 200) };
    let (cluster, runtime) = started()?;
    runtime.block_on(fill(&cluster, count, 860))?;
    settled_kib(&cluster)?;
    runtime.block_on(storm(&cluster, clients))
}

async fn storm(cluster: &Cluster, clients: usize) -> Result<()> {
    let pid = cluster.pid()?;
    // The peak of the memory counts from here.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot begin a new peak")?;
    let idle = resident_kib(pid, "VmRSS:");
    let used = process_cpu(pid)?;
    let begun = Instant::now();
    let listing = Arc::new(AtomicUsize::new(clients));
    let mut lists = JoinSet::new();
    for _ in 0..clients {
        let (link, listing) = (link(cluster)?, listing.clone());
        lists.spawn(async move {
            let read = async {
                let mut body = get(&link, COLLECTION, "identity").await?;
                let mut bytes = 0;
                while let Some(frame) = body.frame().await {
                    bytes += frame.map_err(anyhow::Error::from_boxed)?.data_ref().map_or(0, bytes::Bytes::len);
                }
                anyhow::Ok(bytes)
            };
            let read = read.await;
            listing.fetch_sub(1, Ordering::Relaxed);
            read
        });
    }
    let renewals = renew(cluster, &listing).await?;
    let mut bytes = 0;
    while let Some(list) = lists.join_next().await {
        bytes += list??;
    }
    let wall = begun.elapsed().as_secs_f64();
    let cpu = process_cpu(pid)?.saturating_sub(used).as_secs_f64();
    let peak = resident_kib(pid, "VmHWM:");
    println!("{clients} lists at once: {:.1} GB in {wall:.1} s, server CPU {cpu:.1} s", bytes as f64 / 1e9);
    println!(
        "resident {:.0} MiB before, {:.0} at the peak: {:.2} times",
        idle as f64 / 1024.0,
        peak as f64 / 1024.0,
        peak as f64 / idle as f64
    );
    println!(
        "{} renewals of a lease meanwhile: ms p50 {:.1}, p99 {:.1}, longest {:.1}",
        renewals.len(),
        renewals.percentile(0.5),
        renewals.percentile(0.99),
        renewals.percentile(1.0)
    );
    Ok(())
}

/// Renews a lease as long as anybody lists; how long each renewal took.
async fn renew(cluster: &Cluster, listing: &AtomicUsize) -> Result<Sample> {
    let client = cluster.client()?;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "bench", "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": "bench", "leaseDurationSeconds": 40}});
    client.create(&kinds::LEASE, "kube-node-lease", &lease).await?;
    let mut renewals = Sample::default();
    for round in 0.. {
        if listing.load(Ordering::Relaxed) == 0 {
            break;
        }
        let begun = Instant::now();
        let patch = Patch::Merge(json!({"spec": {"leaseTransitions": round}}));
        client.patch(&kinds::LEASE, "kube-node-lease", "bench", &patch, None).await?;
        renewals.add_ms(begun.elapsed());
        tokio::time::sleep(RENEWAL).await;
    }
    Ok(renewals)
}

/// A figure of a process's status.
fn resident_kib(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
