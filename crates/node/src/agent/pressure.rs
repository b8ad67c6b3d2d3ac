//! A node that is short of something lets one pod go at each look, until it is not short any more; of disk space and
//! room for files, images first. Images that nobody uses go earlier than that: from a share of the disk in use on.
//!
//! Relies on   what the machine said at the last look: the API may be away, and is only told

use std::sync::Arc;

use windlass_api::types::core;

use super::{PodDirectory, Shared};
use crate::eviction::{self, Candidate, Shortage};
use crate::machine::MachineError;
use crate::manifest;
use crate::node;
use crate::steps::resources;

/// Removes images where the disk fills up, and ends one pod for the first thing the node is short of that has one to end.
pub(super) async fn relieve(shared: &Arc<Shared>, directory: &PodDirectory) {
    let node = shared.node_facts();
    let (all, free) = (node.facts.disk_bytes, node.facts.disk_free_bytes);
    let images = node.shortages.iter().map(|shortage| match shortage {
        Shortage::Disk => {
            let wanted = node::disk_free_bytes_min(&shared.config, &node.facts);
            wanted.saturating_add(wanted / 5).saturating_sub(free)
        }
        // How many files an image has nobody counts.
        Shortage::Files => u64::MAX,
        Shortage::Memory | Shortage::Pids => 0,
    });
    let images = images.fold(shared.config.image_collection.surplus_bytes(all, free), u64::max);
    let has_room = images > 0 && reclaim(shared, images).await;
    for shortage in node.shortages.iter().copied() {
        if has_room && matches!(shortage, Shortage::Disk | Shortage::Files) {
            continue;
        }
        if let Some((uid, why)) = choose(shared, directory, shortage).await {
            tracing::warn!(pod = &*uid, why, "the pod is evicted");
            directory.evict(&uid, why);
            return;
        }
    }
}

/// The pod that goes for what the node is short of, and what it is told.
async fn choose(shared: &Arc<Shared>, directory: &PodDirectory, shortage: Shortage) -> Option<(Arc<str>, String)> {
    let mut candidates = Vec::new();
    for entry in directory.list() {
        let Ok(pod) = serde_json::from_slice::<core::Pod>(&entry.shown.json) else { continue };
        if manifest::is_static(&entry.uid, pod.metadata.annotations.as_ref()) {
            // The machine's owner wants it here, and nobody would make it anew elsewhere.
            continue;
        }
        let Some(spec) = pod.spec.filter(|spec| spec.priority < Some(resources::CRITICAL_PRIORITY)) else { continue };
        let runs = entry.shown.containers.values().flatten().any(|(_, runs)| *runs);
        if !runs || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match used(shared, &entry.uid, shortage).await {
            Ok(used) => candidates.push(candidate(entry.uid, &spec, used, shortage)),
            Err(error) => tracing::warn!(pod = &*entry.uid, %error, "what a pod uses is not known"),
        }
    }
    eviction::choose(shortage, &candidates)
}

/// Removes images that nobody uses; whether there were any.
async fn reclaim(shared: &Arc<Shared>, bytes: u64) -> bool {
    match shared.machine.reclaim(bytes, shared.config.image_collection.age_min).await {
        Ok(freed) => {
            if freed > 0 {
                tracing::info!(freed, "images that nobody used were removed: the disk fills up");
            }
            freed > 0
        }
        Err(error) => {
            tracing::warn!(%error, "images could not be removed");
            false
        }
    }
}

/// How much a pod uses of what the node is short of.
async fn used(shared: &Shared, pod: &str, shortage: Shortage) -> Result<u64, MachineError> {
    Ok(match shortage {
        Shortage::Memory => shared.machine.usage(pod).await?.whole.working_set_bytes,
        Shortage::Pids => shared.machine.usage(pod).await?.whole.pids,
        Shortage::Disk => shared.machine.disk(pod).await?.sum().bytes,
        Shortage::Files => shared.machine.disk(pod).await?.sum().files,
    })
}

fn candidate(uid: Arc<str>, spec: &core::PodSpec, used: u64, shortage: Shortage) -> Candidate {
    let promised = resources::promised(spec);
    let promised = match shortage {
        Shortage::Memory => promised.memory_bytes,
        Shortage::Disk => promised.disk_bytes,
        Shortage::Files | Shortage::Pids => 0,
    };
    Candidate { uid, priority: spec.priority.unwrap_or(0), promised, used }
}
