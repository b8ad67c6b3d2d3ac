//! How much a pod has put on disk: one that has more than it may loses its place.
//!
//! Rules, in order
//!   U1 volume      an emptyDir on disk holds no more than its sizeLimit
//!   U2 pod         all of the pod's own — layers, logs, emptyDirs, files of the node for it — is no more than the limits of its
//!                  containers together, where one of them has any
//!   U3 container   layers and logs of a container are no more than its limit
//! Not here    emptyDirs in memory: the kernel keeps their limit by itself
//! Source: Kubernetes documentation, "Local ephemeral storage", "How Pods with ephemeral-storage limits run".

use std::time::Duration;

use tokio::time::Instant;
use windlass_api::quantity::{Notation, Quantity};
use windlass_api::types::core;
use windlass_client::EventKind;

use super::PodTask;
use super::work::{Counted, Outcome, Slot};
use crate::machine::PodDisk;
use crate::plan::Ground;
use crate::status::Failure;
use crate::steps::{PodContext, resources, volume};

/// How often it is counted; kubelet takes as long.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// Counting takes one part in so many of the time at most.
const SHARE: u32 = 10;
/// What an evicted pod is given to stop: it takes room that it was not given.
const GRACE: Duration = Duration::from_secs(1);

impl PodTask {
    /// Begins to count when it is time. Returns when that will be.
    pub(super) fn look_at_usage(&mut self) -> Option<Instant> {
        let is_up = matches!(self.ground, Ground::Up(_)) && self.ending.is_none();
        if !is_up || !is_limited(self.context.spec()) || self.work.is_busy(&Slot::Usage) {
            return None;
        }
        let now = Instant::now();
        if self.usage_at > now {
            return Some(self.usage_at);
        }
        let context = self.context.clone();
        self.work.begin(Slot::Usage, async move {
            let over = over_limit(&context).await;
            Outcome::Counted(Counted { over, took: now.elapsed() })
        });
        None
    }

    /// It was counted.
    pub(super) fn counted(&mut self, counted: Counted) {
        self.usage_at = Instant::now() + INTERVAL.max(counted.took * SHARE);
        if let Some(why) = counted.over {
            self.evict(why, false);
        }
    }

    /// The pod has taken more than its share; or only more than others, when its node is short.
    pub(super) fn evict(&mut self, message: String, is_disruption: bool) {
        if self.ending.is_some() || self.failure.is_some() {
            return;
        }
        self.context.note(EventKind::Warning, "Evicted", message.clone());
        self.failure = Some(Failure { reason: "Evicted", message, is_disruption });
        self.end(GRACE);
    }
}

/// Whether there is anything to be counted for.
fn is_limited(spec: &core::PodSpec) -> bool {
    limited_volumes(spec).next().is_some() || resources::disk_limit(spec).is_some()
}

/// The emptyDirs on disk that have a limit, and it.
fn limited_volumes(spec: &core::PodSpec) -> impl Iterator<Item = (&core::Volume, &core::EmptyDirVolumeSource, u64)> {
    let empty = spec.volumes.iter().flatten().filter_map(|volume| Some((volume, volume.empty_dir.as_ref()?)));
    let on_disk = empty.filter(|(_, empty)| empty.medium.as_deref().unwrap_or_default().is_empty());
    on_disk.filter_map(|(volume, empty)| Some((volume, empty, volume::size_limit(empty)?)))
}

async fn over_limit(pod: &PodContext) -> Option<String> {
    match pod.shared.machine.disk(&pod.uid).await {
        Ok(disk) => broken(pod.spec(), &disk),
        Err(error) => {
            tracing::warn!(pod = pod.name(), %error, "what a pod has on disk was not counted");
            None
        }
    }
}

/// What the pod is told of the first rule that it breaks.
fn broken(spec: &core::PodSpec, disk: &PodDisk) -> Option<String> {
    // U1
    let held = |name: &str| disk.volumes.get(name).copied().unwrap_or_default();
    if let Some((volume, empty, _)) =
        limited_volumes(spec).find(|(volume, _, bytes)| held(&volume.name).exceeds(*bytes))
    {
        let limit = empty.size_limit.as_ref().map(|limit| limit.0.as_str()).unwrap_or_default();
        return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {limit:?}. ", volume.name));
    }
    // U2
    if let Some(limit) = resources::disk_limit(spec).filter(|limit| disk.sum().exceeds(*limit)) {
        let limit = Quantity::from_units(i64::try_from(limit).unwrap_or(i64::MAX), Notation::Binary);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    // U3
    spec.containers.iter().find_map(|container| {
        let (bytes, limit) = resources::container_disk_limit(container)?;
        let name = &container.name;
        let is_over = disk.of_container(name).exceeds(bytes);
        is_over.then(|| format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. "))
    })
}

#[cfg(test)]
mod tests {
    use super::{broken, is_limited};
    use crate::machine::{Held, PodDisk};
    use serde_json::{Value, json};
    use windlass_api::types::core;

    fn held(mib: u64) -> Held {
        Held { bytes: mib << 20, files: 1, is_whole: true }
    }

    fn check(spec: Value, layer: u64, log: u64, volume: u64) -> String {
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        assert!(is_limited(&spec));
        let disk = PodDisk {
            // What an attempt has left before it is removed counts too.
            layers: [("a.0".to_owned(), held(1)), ("a.1".to_owned(), held(layer))].into(),
            logs: [("a".to_owned(), held(log))].into(),
            volumes: [("v".to_owned(), held(volume))].into(),
            ..PodDisk::default()
        };
        broken(&spec, &disk).unwrap_or_default()
    }

    fn limited(limit: &str) -> Value {
        json!({"name": "a", "resources": {"limits": {"ephemeral-storage": limit}}})
    }

    #[test]
    fn u1_an_empty_dir_holds_no_more_than_its_size_limit() {
        let spec = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}]});
        assert_eq!(check(spec.clone(), 90, 90, 5), "");
        assert_eq!(check(spec, 0, 0, 6), "Usage of EmptyDir volume \"v\" exceeds the limit \"5Mi\". ");
    }

    #[test]
    fn u2_a_pod_has_no_more_than_the_limits_of_its_containers_together() {
        let spec = json!({"containers": [limited("6Mi"), {"name": "b", "resources": {"limits": {"ephemeral-storage": "4Mi"}}}]});
        assert_eq!(check(spec.clone(), 2, 2, 5), "");
        let message = "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ";
        assert_eq!(check(spec, 2, 2, 6), message);
    }

    #[test]
    fn u3_a_container_has_no_more_than_its_limit() {
        let spec = json!({"containers": [limited("5Mi"), {"name": "b", "resources": {"limits": {"ephemeral-storage": "90Mi"}}}]});
        assert_eq!(check(spec.clone(), 2, 2, 9), "");
        assert_eq!(check(spec, 3, 2, 0), "Container a exceeded its local ephemeral storage limit \"5Mi\". ");
    }
}
