//! What this node and its pods use: the summary that kubelet has, and the same few figures for Prometheus.
//!
//! Rules
//!   S1 rates      what a CPU is used for is a rate: the difference of two looks, at least a second apart. Nobody looks while
//!                 nobody asks; who asks after a long time waits that second
//!   S2 apart      the figures of disks are counted only when asked for, and at most once a minute for each pod
//!   S3 running    pods and containers that run are told of, no others
//!   S4 stalls     what was waited for is told where the kernel counts it: of the machine, and of pods on cgroup v2
//!
//! Not here       accelerators, figures of single devices
//! Source: kubelet's stats/v1alpha1 Summary; KEP-4205 "Expose PSI Metrics"; Kubernetes documentation, "Node metrics data", "Resource metrics pipeline".

mod sample;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_runtime::{Pressure, Stall, Stalls};

use super::{Query, Refusal, Site};
use crate::kernel::{Interface, Room};
use crate::machine::{Held, Machine as _, PodDisk, Usage};
use sample::{PodSample, Sample};

/// A look is good for so long: who asks at the same time as others gets what they get.
const FRESH: Duration = Duration::from_secs(5);
/// An older look is no beginning of a rate any more: it would be an average over a time long gone.
const STALE: Duration = Duration::from_secs(90);
/// What lies between two looks at least.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// S2.
const DISK_FRESH: Duration = Duration::from_secs(60);

/// The looks of late.
#[derive(Default)]
pub struct Sampler {
    last: Mutex<Option<Arc<Sample>>>,
    disks: Mutex<BTreeMap<Arc<str>, Counted>>,
}

/// What a pod had on disk, and when that was counted.
struct Counted {
    at: Instant,
    disk: Arc<PodDisk>,
}

impl Sampler {
    /// S1.
    async fn look(&self, site: &Site) -> Arc<Sample> {
        let mut last = self.last.lock().await;
        if let Some(sample) = last.as_ref().filter(|sample| sample.is_younger_than(FRESH)) {
            return Arc::clone(sample);
        }
        let before = match last.take().filter(|sample| sample.is_younger_than(STALE)) {
            Some(before) => before,
            None => {
                let first = Arc::new(Sample::take(site, None).await);
                tokio::time::sleep(WINDOW_MIN).await;
                first
            }
        };
        let sample = Arc::new(Sample::take(site, Some(&before)).await);
        *last = Some(Arc::clone(&sample));
        sample
    }

    /// S2.
    async fn disk(&self, site: &Site, pod: &Arc<str>) -> Option<Arc<PodDisk>> {
        let mut disks = self.disks.lock().await;
        if let Some(counted) = disks.get(pod).filter(|counted| counted.at.elapsed() < DISK_FRESH) {
            return Some(Arc::clone(&counted.disk));
        }
        let counted = site.kernel.disk(pod).await;
        let disk = Arc::new(counted.inspect_err(|error| tracing::warn!(%error, "a pod's disk was not counted")).ok()?);
        disks.insert(Arc::clone(pod), Counted { at: Instant::now(), disk: Arc::clone(&disk) });
        Some(disk)
    }

    async fn forget_disks(&self, sample: &Sample) {
        let mut disks = self.disks.lock().await;
        disks.retain(|uid, _| sample.pods.iter().any(|pod| pod.uid == *uid));
    }
}

/// `/metrics/resource`.
pub(super) async fn metrics(site: &Site) -> String {
    text::of(&*site.stats.look(site).await)
}

/// `/stats/summary`; with `only_cpu_and_memory` without what takes longer. `windowSeconds` says what rates are over; it is not
/// kubelet's.
pub(super) async fn summary(site: &Site, query: &Query) -> Result<Value, Refusal> {
    let sample = site.stats.look(site).await;
    let is_short = query.flag("only_cpu_and_memory");
    let mut pods = Vec::new();
    for pod in &sample.pods {
        let disk = if is_short { None } else { site.stats.disk(site, &pod.uid).await };
        pods.push(of_pod(site, &sample, pod, disk.as_deref()));
    }
    let mut node = of_node(site, &sample);
    if !is_short {
        site.stats.forget_disks(&sample).await;
        let room = site.kernel.room().unwrap_or_default();
        let images = site.kernel.images().list().map_err(Refusal::internal)?;
        let images: u64 = images.iter().map(|image| image.size).sum();
        node["fs"] = of_room(sample.at, room, None);
        node["runtime"] = json!({"imageFs": of_room(sample.at, room, Some(Held { bytes: images, ..Held::default() }))});
        node["network"] = of_network(sample.at, &sample.network, sample.way_out.as_deref());
        node["rlimit"] =
            json!({"time": moment(sample.at), "maxpid": sample.pids_max, "curproc": sample.machine.usage.pids});
    }
    Ok(json!({"node": node, "pods": pods, "windowSeconds": sample.window.as_secs_f64()}))
}

/// A time as the API has it.
fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn of_node(site: &Site, sample: &Sample) -> Value {
    let machine = &sample.machine;
    let usage = &machine.usage;
    let mut pods = of_usage(sample, "pods", &sample.all_pods, None);
    pods["name"] = json!("pods");
    pods["startTime"] = json!(moment(machine.booted));
    let mut node = of_usage(sample, "", usage, Some(machine.memory_bytes));
    node["nodeName"] = json!(site.node);
    node["startTime"] = json!(moment(machine.booted));
    node["systemContainers"] = json!([pods]);
    node["swap"] = json!({
        "time": moment(sample.at), "swapAvailableBytes": machine.swap_bytes.saturating_sub(usage.swap_bytes),
        "swapUsageBytes": usage.swap_bytes,
    });
    node
}

/// CPU, memory and swap; `whole_bytes` is how much there is, where that is known.
fn of_usage(sample: &Sample, key: &str, usage: &Usage, whole_bytes: Option<u64>) -> Value {
    let time = moment(sample.at);
    let mut memory = json!({
        "time": time, "usageBytes": usage.memory_bytes, "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes, "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    });
    if let Some(whole) = whole_bytes {
        memory["availableBytes"] = json!(whole.saturating_sub(usage.working_set_bytes));
    }
    let mut cpu = json!({"time": time, "usageCoreNanoSeconds": usage.cpu_ns});
    if let Some(rate) = sample.rates.get(key) {
        cpu["usageNanoCores"] = json!(rate);
    }
    // S4
    let Pressure { cpu: for_cpu, memory: for_memory, io: for_io } = usage.pressure;
    for (out, stalls) in [(&mut cpu, for_cpu), (&mut memory, for_memory)] {
        if let Some(stalls) = stalls {
            out["psi"] = of_stalls(stalls);
        }
    }
    let mut out = json!({"cpu": cpu, "memory": memory, "swap": {"time": time, "swapUsageBytes": usage.swap_bytes}});
    if let Some(stalls) = for_io {
        out["io"] = json!({"time": time, "psi": of_stalls(stalls)});
    }
    out
}

/// S4. Shares are percents; the sums are the kernel's, in millionths of a second, as kubelet passes them on.
fn of_stalls(stalls: Stalls) -> Value {
    let of = |stall: Stall| {
        let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
        json!({
            "total": stall.total_us, "avg10": percent(stall.of_10_s), "avg60": percent(stall.of_60_s),
            "avg300": percent(stall.of_300_s),
        })
    };
    json!({"some": of(stalls.some), "full": of(stalls.full)})
}

fn of_pod(site: &Site, sample: &Sample, pod: &PodSample, disk: Option<&PodDisk>) -> Value {
    let room = disk.and_then(|_| site.kernel.room()).unwrap_or_default();
    let containers = pod.containers.iter().map(|container| {
        let limit = container.memory_bytes_max;
        let mut out = of_usage(sample, &format!("{}/{}", pod.uid, container.id), &container.usage, limit);
        out["name"] = json!(container.name);
        out["startTime"] = json!(moment(container.since));
        if let Some(disk) = disk {
            let layer = disk.layers.get(&container.id).copied().unwrap_or_default();
            out["rootfs"] = of_room(sample.at, room, Some(layer));
            let logs = disk.logs.get(&container.name).copied().unwrap_or_default();
            out["logs"] = of_room(sample.at, room, Some(logs));
        }
        out
    });
    let mut out = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": *pod.uid}, "startTime": pod.started,
        "containers": containers.collect::<Vec<_>>(), "process_stats": {"process_count": pod.usage.pids},
    });
    for (field, value) in of_usage(sample, &pod.uid, &pod.usage, None).as_object().into_iter().flatten() {
        out[field.as_str()] = value.clone();
    }
    let Some(disk) = disk else { return out };
    out["ephemeral-storage"] = of_room(sample.at, room, Some(disk.sum()));
    if let Some(network) = &pod.network {
        out["network"] = of_network(sample.at, network, Some("eth0"));
    }
    let volumes = pod.volumes.iter().filter_map(|volume| {
        let held = disk.volumes.get(&volume.name).copied();
        let mut out = of_room(sample.at, site.kernel.volume_room(&pod.uid, &volume.name)?, held);
        out["name"] = json!(volume.name);
        if let Some(claim) = &volume.claim {
            out["pvcRef"] = json!({"name": claim, "namespace": pod.namespace});
        }
        Some(out)
    });
    out["volume"] = volumes.collect();
    out
}

/// What a place has of the room of its file system; the whole of it where nobody has counted.
fn of_room(at: Timestamp, room: Room, held: Option<Held>) -> Value {
    let used = held.map_or(room.bytes.saturating_sub(room.free_bytes), |held| held.bytes);
    let files = held.map_or(room.files.saturating_sub(room.free_files), |held| held.files);
    json!({
        "time": moment(at), "availableBytes": room.free_bytes, "capacityBytes": room.bytes, "usedBytes": used,
        "inodesFree": room.free_files, "inodes": room.files, "inodesUsed": files,
    })
}

/// All interfaces, and beside them the one that leads out.
fn of_network(at: Timestamp, interfaces: &[Interface], way_out: Option<&str>) -> Value {
    let of = |interface: &Interface| {
        json!({
            "name": interface.name, "rxBytes": interface.received_bytes, "rxErrors": interface.received_errors,
            "txBytes": interface.sent_bytes, "txErrors": interface.sent_errors,
        })
    };
    let first = interfaces.iter().find(|one| Some(one.name.as_str()) == way_out);
    let mut out = first.map_or_else(|| json!({}), of);
    out["time"] = json!(moment(at));
    out["interfaces"] = interfaces.iter().map(of).collect();
    out
}
