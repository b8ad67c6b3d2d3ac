//! A node that is short of something lets one pod go at each look, until it is not short any more; of disk space, images
//! first.

use std::sync::Arc;

use windlass_api::types::core;

use super::{PodDirectory, Shared};
use crate::eviction::{self, Candidate, Shortage};
use crate::machine::MachineError;
use crate::node;
use crate::steps::resources;

/// Ends one pod for the first thing the node says it is short of.
pub(super) async fn relieve(shared: &Arc<Shared>, directory: &PodDirectory) {
    let Some(shortage) = shared.pressure().into_iter().find_map(Shortage::of_condition) else { return };
    let shortage = if shortage == Shortage::Disk { of_disk(shared) } else { shortage };
    if matches!(shortage, Shortage::Disk | Shortage::Files) && has_reclaimed(shared, shortage).await {
        return;
    }
    let mut candidates = Vec::new();
    for entry in directory.list() {
        let Ok(pod) = serde_json::from_slice::<core::Pod>(&entry.shown.json) else { continue };
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
    if let Some((uid, why)) = eviction::choose(shortage, &candidates) {
        tracing::warn!(pod = &*uid, why, "the pod is evicted");
        directory.evict(&uid, why);
    }
}

/// What of the disk is short: its bytes, or room for new files.
fn of_disk(shared: &Shared) -> Shortage {
    let found = shared.node_facts();
    let bytes = node::disk_free_bytes_min(&shared.config, &found.facts);
    let files = node::disk_free_files_min(&shared.config, &found.facts);
    let is_short = |free: u64, bound: u64| node::is_short(true, free, bound);
    match is_short(found.facts.disk_free_files, files) && !is_short(found.facts.disk_free_bytes, bytes) {
        true => Shortage::Files,
        false => Shortage::Disk,
    }
}

/// Images that nobody uses go before any pod does; all of them where it is files that are too many.
async fn has_reclaimed(shared: &Arc<Shared>, shortage: Shortage) -> bool {
    let free = shared.node_facts().facts.disk_free_bytes;
    let wanted = match shortage {
        Shortage::Files => u64::MAX,
        _ => {
            let wanted = node::disk_free_bytes_min(&shared.config, &shared.node_facts().facts);
            (wanted + wanted / 5).saturating_sub(free)
        }
    };
    match shared.machine.reclaim(wanted).await {
        Ok(freed) => {
            if freed > 0 {
                tracing::info!(freed, "images that nobody used were removed: the disk is nearly full");
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
