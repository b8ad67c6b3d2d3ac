//! P9: a large list. P10: watch fan-out under a steady and under a full load, and what a watcher that waits costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;
use windlass_api::kinds;
use windlass_client::{Client, HttpsTransport, Patch};
use windlass_stdx::{Body, Transport, World, body_empty};

use crate::Options;
use crate::api::wait_ready;
use crate::cluster::{Cluster, transport};
use crate::sample::Sample;
use crate::start::fill;
use crate::usage::{process_cpu, pss_kib};

/// Where the objects are.
pub const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
/// Objects that are changed in turn, so that writers do not meet.
const CHANGED: usize = 64;
/// One watcher in so many reads the time that its events were sent at.
const SAMPLED: usize = 10;
/// How long watchers may take to receive everything after the last write.
const PATIENCE: Duration = Duration::from_secs(60);
/// Writes under way at one time.
const WRITERS: usize = 32;

/// A server that is ready, and a runtime for its clients.
pub fn started() -> Result<(Cluster, tokio::runtime::Runtime)> {
    let mut cluster = Cluster::new()?;
    cluster.spawn("server")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(wait_ready(&cluster))?;
    Ok((cluster, runtime))
}

/// A connection of its own, as the administrator.
pub fn link(cluster: &Cluster) -> Result<Arc<HttpsTransport>> {
    transport(&cluster.data().join("admin.kubeconfig"))
}

/// The body of a GET.
pub async fn get(link: &HttpsTransport, path: &str, encoding: &str) -> Result<Body> {
    let request = http::Request::get(path).header("accept-encoding", encoding).body(body_empty())?;
    let response = link.call(request).await?;
    ensure!(response.status() == http::StatusCode::OK, "{path}: {}", response.status());
    Ok(response.into_body())
}

/// P9.
pub fn list(options: Options) -> Result<()> {
    let (cluster, runtime) = started()?;
    runtime.block_on(async {
        fill(&cluster, if options.quick { 50 } else { 5_000 }, 410).await?;
        let link = link(&cluster)?;
        for encoding in ["identity", "gzip"] {
            let (mut wall, mut cpu, mut bytes) = (Sample::default(), Sample::default(), 0);
            for _ in 0..options.rounds(40) {
                let used = process_cpu(cluster.pid()?)?;
                let started = Instant::now();
                let mut body = get(&link, COLLECTION, encoding).await?;
                bytes = 0;
                while let Some(frame) = body.frame().await {
                    bytes += frame.map_err(anyhow::Error::from_boxed)?.data_ref().map_or(0, bytes::Bytes::len);
                }
                wall.add_ms(started.elapsed());
                cpu.add_ms(process_cpu(cluster.pid()?)?.saturating_sub(used));
            }
            let megabytes = bytes as f64 / 1e6;
            println!(
                "list, {encoding:<8} {megabytes:.1} MB   wall ms min/median/max {}   server CPU ms {}",
                wall.shown(),
                cpu.shown()
            );
        }
        Ok(())
    })
}

/// P10.
pub fn fan_out(options: Options) -> Result<()> {
    let (cluster, runtime) = started()?;
    runtime.block_on(async {
        let writer = Client::new(link(&cluster)?, World::real());
        fill(&cluster, CHANGED, 860).await?;
        println!(
            "{:<9} {:<7} {:>14} {:>8} {:>8} {:>28}",
            "watchers", "load", "deliveries/s", "p50 ms", "p99 ms", "server CPU us per delivery"
        );
        for (watchers, rate, events) in [(100, 1_500, 15_000), (1_000, 150, 1_500), (100, 0, 30_000), (1_000, 0, 3_000)]
        {
            let events = if options.quick { 10 } else { events };
            measure(&cluster, &writer, watchers, Load { rate, events }).await?;
        }
        Ok(())
    })
}

/// So many events, so many of them a second; 0 is as fast as they are taken.
#[derive(Clone, Copy)]
struct Load {
    rate: u64,
    events: u64,
}

async fn measure(cluster: &Cluster, writer: &Client, watchers: usize, load: Load) -> Result<()> {
    let epoch = Instant::now();
    let delivered = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..watchers {
        let link = link(cluster)?;
        let body =
            get(&link, &format!("{COLLECTION}?watch=1&resourceVersion={}", newest(cluster).await?), "identity").await?;
        let delivered = delivered.clone();
        let sampled = number % SAMPLED == 0;
        tasks.spawn(async move {
            let latency = receive(body, load.events, &delivered, sampled.then_some(epoch)).await;
            drop(link);
            latency
        });
    }
    let used = process_cpu(cluster.pid()?)?;
    let begun = Instant::now();
    write(writer, load, epoch).await?;
    let mut latency = Sample::default();
    let all = async {
        while let Some(received) = tasks.join_next().await {
            latency.extend(&received??);
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, all).await.context("the watchers did not receive everything in time")??;
    let wall = begun.elapsed().as_secs_f64();
    let cpu = process_cpu(cluster.pid()?)?.saturating_sub(used).as_secs_f64();
    let delivered = delivered.load(Ordering::Relaxed) as f64;
    println!(
        "{watchers:<9} {:<7} {:>14.0} {:>8.1} {:>8.1} {:>28.2}",
        if load.rate > 0 { "steady" } else { "full" },
        delivered / wall,
        latency.percentile(0.5),
        latency.percentile(0.99),
        cpu / delivered * 1e6
    );
    Ok(())
}

async fn newest(cluster: &Cluster) -> Result<String> {
    let client = cluster.client()?;
    let list = client.list(&kinds::CONFIG_MAP, Some("kube-system"), &Default::default()).await?;
    Ok(list.revision.to_string())
}

/// Changes objects in turn; each change says when it was sent.
async fn write(writer: &Client, load: Load, epoch: Instant) -> Result<()> {
    let begun = Instant::now();
    let mut waiting = FuturesUnordered::new();
    for number in 0..load.events {
        if load.rate > 0 {
            let due = Duration::from_secs_f64(number as f64 / load.rate as f64);
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
        let writer = writer.clone();
        waiting.push(async move {
            let patch = Patch::Merge(json!({"data": {"sent": epoch.elapsed().as_micros().to_string()}}));
            let name = format!("filler-{}", number as usize % CHANGED);
            writer.patch(&kinds::CONFIG_MAP, "default", &name, &patch, None).await
        });
        if waiting.len() >= WRITERS {
            waiting.next().await.context("a write is under way")??;
        }
    }
    while let Some(result) = waiting.next().await {
        result?;
    }
    Ok(())
}

/// Reads events until all have come. With `epoch` also how long each was under way.
async fn receive(mut body: Body, events: u64, delivered: &AtomicU64, epoch: Option<Instant>) -> Result<Sample> {
    const SENT: &[u8] = b"\"sent\":\"";
    let (mut count, mut latency) = (0, Sample::default());
    while count < events {
        let frame = body.frame().await.context("the watch ended early")?.map_err(anyhow::Error::from_boxed)?;
        let Some(data) = frame.data_ref() else { continue };
        let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64;
        count += lines;
        delivered.fetch_add(lines, Ordering::Relaxed);
        let Some(epoch) = epoch else { continue };
        let now_us = epoch.elapsed().as_micros() as f64;
        for at in data.windows(SENT.len()).enumerate().filter(|(_, window)| *window == SENT).map(|(at, _)| at) {
            let digits = data[at + SENT.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let sent_us = digits.fold(0.0, |number, digit| number * 10.0 + f64::from(digit - b'0'));
            latency.add((now_us - sent_us) / 1e3);
        }
    }
    Ok(latency)
}

/// P10: watchers that wait.
pub fn waiting(options: Options) -> Result<()> {
    let (cluster, runtime) = started()?;
    runtime.block_on(async {
        fill(&cluster, 1, 860).await?;
        for (watchers, each) in [(10_000, 100), (2_000, 1)] {
            let watchers = if options.quick { each } else { watchers };
            let before = pss_kib(cluster.pid()?);
            let mut bodies = Vec::new();
            for _ in 0..watchers / each {
                let link = link(&cluster)?;
                for _ in 0..each {
                    bodies.push((
                        get(&link, &format!("{COLLECTION}?watch=1&resourceVersion=1"), "identity").await?,
                        link.clone(),
                    ));
                }
            }
            let grown = pss_kib(cluster.pid()?).saturating_sub(before) as f64;
            println!("{watchers} watchers, {each} on a connection: {:.1} KiB each", grown / watchers as f64);
        }
        Ok(())
    })
}
