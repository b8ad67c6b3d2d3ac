//! One look at what the node and its pods use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use windlass_api::types::core;

use super::super::Site;
use crate::agent::PodEntry;
use crate::kernel::{Interface, MachineCounters};
use crate::machine::{ContainerState, Machine as _, MachineError, Usage};
use crate::steps::container::containers_of;
use crate::steps::resources;

/// What was seen at one moment.
pub(super) struct Sample {
    pub at: Timestamp,
    taken: Instant,
    /// What lies between this look and the one before.
    pub window: Duration,
    pub machine: MachineCounters,
    pub pids_max: u64,
    pub network: Vec<Interface>,
    pub way_out: Option<String>,
    /// All pods together.
    pub all_pods: Usage,
    pub pods: Vec<PodSample>,
    /// Not everything could be looked at.
    pub is_partial: bool,
    /// CPU time in billionths of a second for each second of the window: of the node (the empty key), of all pods (`pods`), of
    /// each pod by its uid and of each container by `UID/NAME.ATTEMPT`.
    pub rates: BTreeMap<String, u64>,
}

/// A pod that runs.
pub(super) struct PodSample {
    pub uid: Arc<str>,
    pub namespace: String,
    pub name: String,
    pub started: String,
    pub usage: Usage,
    pub containers: Vec<ContainerSample>,
    /// `None` in the machine's own network.
    pub network: Option<Vec<Interface>>,
    pub volumes: Vec<VolumeSample>,
}

/// A container that runs.
pub(super) struct ContainerSample {
    pub name: String,
    /// `NAME.ATTEMPT`.
    pub id: String,
    pub since: Timestamp,
    pub usage: Usage,
    pub memory_bytes_max: Option<u64>,
}

/// A volume that is told of.
pub(super) struct VolumeSample {
    pub name: String,
    /// The claim it was made for.
    pub claim: Option<String>,
}

impl Sample {
    /// Looks. Without a look before there are no rates.
    pub async fn take(site: &Site, before: Option<&Sample>) -> Sample {
        let (mut pods, mut is_partial) = (Vec::new(), false);
        for entry in site.pods.list() {
            match pod(site, entry).await {
                Ok(pod) => pods.extend(pod),
                Err(error) => {
                    tracing::warn!(%error, "what a pod uses is not known");
                    is_partial = true;
                }
            }
        }
        let (machine, all_pods, network, way_out, pids_max) = site.kernel.counters().await;
        let (at, taken) = (site.kernel.world().now(), Instant::now());
        let mut sample = Sample {
            at,
            taken,
            window: before.map_or(Duration::ZERO, |before| taken - before.taken),
            machine,
            pids_max,
            network,
            way_out,
            all_pods,
            pods,
            is_partial,
            rates: BTreeMap::new(),
        };
        if let Some(before) = before {
            sample.rates = rates(&before.cpu_ns(), &sample.cpu_ns(), sample.window);
        }
        sample
    }

    pub fn is_younger_than(&self, age: Duration) -> bool {
        self.taken.elapsed() < age
    }

    fn cpu_ns(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        all.insert(String::new(), self.machine.usage.cpu_ns);
        all.insert("pods".to_owned(), self.all_pods.cpu_ns);
        for pod in &self.pods {
            all.insert(pod.uid.to_string(), pod.usage.cpu_ns);
            for container in &pod.containers {
                all.insert(format!("{}/{}", pod.uid, container.id), container.usage.cpu_ns);
            }
        }
        all
    }
}

/// What was not there before has used nothing before.
fn rates(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, window: Duration) -> BTreeMap<String, u64> {
    let window_ns = window.as_nanos().max(1);
    let rate = |(key, cpu_ns): (&String, &u64)| {
        let used = cpu_ns.saturating_sub(before.get(key).copied().unwrap_or(0));
        let rate = u128::from(used) * 1_000_000_000 / window_ns;
        (key.clone(), u64::try_from(rate).unwrap_or(u64::MAX))
    };
    now.iter().map(rate).collect()
}

/// S3.
async fn pod(site: &Site, entry: PodEntry) -> Result<Option<PodSample>, MachineError> {
    // A pod whose task has only begun shows nothing yet.
    let Ok(pod) = serde_json::from_slice::<core::Pod>(&entry.shown.json) else { return Ok(None) };
    let Some(spec) = &pod.spec else { return Ok(None) };
    let observed = site.kernel.observe(&entry.uid).await?;
    let usage = site.kernel.usage(&entry.uid).await?;
    let mut pid_of_any = None;
    let containers: Vec<ContainerSample> = observed
        .containers
        .iter()
        .filter_map(|status| {
            let ContainerState::Running { pid, at } = status.state else { return None };
            pid_of_any = Some(pid);
            let name = status.id.rsplit_once('.')?.0.to_owned();
            let known = containers_of(spec).find(|container| container.name == name);
            let memory_bytes_max = known.and_then(|container| resources::of_container(container).memory_bytes);
            let usage = *usage.containers.get(&status.id)?;
            Some(ContainerSample { name, id: status.id.clone(), since: at, usage, memory_bytes_max })
        })
        .collect();
    let Some(pid) = pid_of_any else { return Ok(None) };
    let network = match entry.shown.host_network {
        true => None,
        false => Some(site.kernel.interfaces_of(pid).await),
    };
    let told = |volume: &core::Volume| {
        let of_claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let claim = of_claim.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)));
        let is_own = volume.empty_dir.is_some() || crate::steps::volume::is_ours(volume);
        (is_own || claim.is_some()).then(|| VolumeSample { name: volume.name.clone(), claim })
    };
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    Ok(Some(PodSample {
        volumes: spec.volumes.iter().flatten().filter_map(told).collect(),
        started: started.map(|time| time.0.to_string()).unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: entry.uid,
        usage: usage.whole,
        containers,
        network,
    }))
}

#[cfg(test)]
mod tests {
    use super::rates;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn s1_a_rate_is_what_was_used_between_two_looks() {
        let of = |all: &[(&str, u64)]| all.iter().map(|(key, ns)| ((*key).to_owned(), *ns)).collect::<BTreeMap<_, _>>();
        let before = of(&[("old", 1_000_000_000), ("gone", 7), ("again", 500)]);
        let now = of(&[("old", 2_000_000_000), ("new", 500_000_000), ("again", 100)]);
        let found = rates(&before, &now, Duration::from_secs(2));
        assert_eq!(found, of(&[("old", 500_000_000), ("new", 250_000_000), ("again", 0)]));
    }
}
