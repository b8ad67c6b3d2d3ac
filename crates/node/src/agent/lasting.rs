//! Removes the directories of PersistentVolumes that end, and then lets the volumes go.
//!
//! Rules
//!   L1 own         only volumes of the node's own driver that lie on this node, and that the API has marked as ending
//!   L2 unused      not before no claim has the volume: until then another finalizer keeps it
//!   L3 in order    the directory first, then the finalizer: a node that dies between them begins again
//!   L4 unknown     a directory of which the API has no volume stays: it may hold what somebody looks for

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::MissedTickBehavior;
use windlass_api::binding::{self, LOCAL_FINALIZER};
use windlass_api::kinds;
use windlass_client::{Cache, Cached, Patch, Scope};

use super::Shared;

/// How often it is looked which directories there are; their volumes are watched.
const INTERVAL: Duration = Duration::from_secs(1);

/// Does so, for ever.
pub(super) async fn run(shared: &Shared) {
    let mut watched: BTreeMap<String, Cache> = BTreeMap::new();
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let names = match shared.machine.lasting().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the directories of volumes were not listed");
                continue;
            }
        };
        watched.retain(|name, _| names.contains(name));
        for name in names {
            let begin = || Cache::start(shared.client.clone(), &kinds::PERSISTENT_VOLUME, Scope::named(None, &name));
            let cache = watched.entry(name.clone()).or_insert_with(begin);
            let Some(volume) = cache.get("", &name).filter(|volume| is_due(shared, volume)) else { continue };
            if let Err(why) = remove(shared, &volume).await {
                tracing::warn!(volume = name, why, "an ended volume was not removed; it is tried again");
            }
        }
    }
}

/// L3.
async fn remove(shared: &Shared, object: &Cached) -> Result<(), String> {
    let name = object.header.name();
    shared.machine.remove_lasting(name).await.map_err(|error| error.to_string())?;
    tracing::info!(volume = name, why = "its PersistentVolume ends", "a directory was removed");
    let left: Vec<&str> = object.header.finalizers().filter(|found| *found != LOCAL_FINALIZER).collect();
    let patch = json!({"metadata": {"finalizers": left, "resourceVersion": object.header.revision.to_string()}});
    let done = shared.client.patch(&kinds::PERSISTENT_VOLUME, "", name, &Patch::Merge(patch), None).await;
    match done {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// L1, L2.
fn is_due(shared: &Shared, object: &Cached) -> bool {
    let header = &object.header;
    let is_unused = header.finalizers().all(|found| found == LOCAL_FINALIZER);
    header.is_ending()
        && is_unused
        && header.has_finalizer(LOCAL_FINALIZER)
        && binding::is_local_on(&object.value(), &shared.config.name)
}
