//! How much a pod has put into its emptyDirs: one that holds more than its sizeLimit costs the pod its place.
//!
//! Source: Kubernetes documentation, "Local ephemeral storage": a pod over the limit of one of its volumes is evicted.
//! Not here    emptyDirs in memory: the kernel keeps their limit by itself

use std::time::Duration;

use tokio::time::Instant;
use windlass_api::types::core;
use windlass_client::EventKind;

use super::PodTask;
use super::work::{Outcome, Slot};
use crate::plan::Ground;
use crate::steps::{PodContext, volume};

/// How often volumes with a limit are counted; kubelet takes as long.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// What an evicted pod is given to stop: it takes room that it was not given.
const GRACE: Duration = Duration::from_secs(1);

impl PodTask {
    /// Begins to count when it is time. Returns when that will be.
    pub(super) fn look_at_usage(&mut self) -> Option<Instant> {
        let is_up = matches!(self.ground, Ground::Up(_)) && self.ending.is_none();
        if !is_up || limited(&self.context).next().is_none() || self.work.is_busy(&Slot::Usage) {
            return None;
        }
        let now = Instant::now();
        if self.usage_at > now {
            return Some(self.usage_at);
        }
        self.usage_at = now + INTERVAL;
        let context = self.context.clone();
        self.work.begin(Slot::Usage, async move { Outcome::Counted(over_limit(&context).await) });
        None
    }

    /// The pod has taken more than its share.
    pub(super) fn evict(&mut self, why: String) {
        if self.ending.is_some() || self.failure.is_some() {
            return;
        }
        self.context.note(EventKind::Warning, "Evicted", why.clone());
        self.failure = Some(("Evicted", why));
        self.end(GRACE);
    }
}

/// The emptyDirs on disk that have a limit, and it.
fn limited(pod: &PodContext) -> impl Iterator<Item = (&core::Volume, &core::EmptyDirVolumeSource, u64)> {
    let empty = pod.spec().volumes.iter().flatten().filter_map(|volume| Some((volume, volume.empty_dir.as_ref()?)));
    let on_disk = empty.filter(|(_, empty)| empty.medium.as_deref().unwrap_or_default().is_empty());
    on_disk.filter_map(|(volume, empty)| Some((volume, empty, volume::size_limit(empty)?)))
}

async fn over_limit(pod: &PodContext) -> Option<String> {
    for (volume, empty, bytes) in limited(pod) {
        let name = &volume.name;
        match pod.shared.machine.holds_more(&pod.uid, name, bytes).await {
            Ok(false) => {}
            Ok(true) => {
                let limit = empty.size_limit.as_ref().map(|limit| limit.0.as_str()).unwrap_or_default();
                return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}."));
            }
            Err(error) => tracing::warn!(pod = pod.name(), volume = name, %error, "a volume was not counted"),
        }
    }
    None
}
