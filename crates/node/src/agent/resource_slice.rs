//! Takes away what drivers of devices have offered on this node when they are not here any more.
//!
//! Goal        every ResourceSlice of this node is of a driver that has registered
//! Writes      ResourceSlice: deletes those of its own node
//!
//! Rules
//!   S1 gone       a driver that is not registered for [`PATIENCE`] offers nothing: its slices are deleted
//!   S2 begin      an agent that begins gives drivers the same time: they are there before us, and register again
//! Relies on   drivers publish their slices anew when they are back; the slices of a node that is deleted go with it
//!             (`garbage`: their drivers name it as their owner)
//! Source: kubelet, DRA plugin manager: slices are wiped 30 seconds after the last plugin of a driver is gone. Kubelet wipes
//! all of them when it starts, which takes devices away from pods that wait while nothing is wrong with their drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::{Object, kinds};
use windlass_client::{Cache, ClientError, DeleteOptions, Scope};

use super::Shared;
use crate::machine::{Plugin, PluginKind};

/// S1.
const PATIENCE: Duration = Duration::from_secs(30);

/// The slices of this node.
pub(super) struct Slices {
    cache: Cache,
    /// Drivers that offer something and are not here, since when.
    absent: BTreeMap<String, Instant>,
}

impl Slices {
    pub(super) fn new(shared: &Shared) -> Slices {
        let fields = format!("spec.nodeName={}", shared.config.name);
        let scope = Scope { fields, ..Scope::default() };
        let cache = Cache::start(shared.client.clone(), &kinds::RESOURCE_SLICE, scope);
        Slices { cache, absent: BTreeMap::new() }
    }

    /// Takes away what is to go now that these plugins are here.
    pub(super) async fn look(&mut self, shared: &Shared, plugins: &[Arc<Plugin>]) {
        let slices = self.cache.list();
        let here: BTreeSet<&str> =
            plugins.iter().filter(|plugin| plugin.kind == PluginKind::Dra).map(|plugin| plugin.name.as_str()).collect();
        let offered: BTreeSet<String> = slices.iter().map(|slice| slice.memo(driver).to_string()).collect();
        let gone = overdue(&mut self.absent, &offered, &here, Instant::now());
        for slice in slices.iter().filter(|slice| gone.contains(slice.memo(driver).as_str())) {
            let name = slice.header.name();
            match delete(shared, slice).await {
                Ok(()) => tracing::info!(
                    slice = name,
                    why = "its driver is not registered here",
                    "a ResourceSlice is deleted"
                ),
                Err(error) => tracing::warn!(slice = name, %error, "a ResourceSlice was not deleted"),
            }
        }
    }
}

async fn delete(shared: &Shared, slice: &Object) -> Result<(), ClientError> {
    let options = DeleteOptions::of_uid(slice.header.uid());
    match shared.client.delete(&kinds::RESOURCE_SLICE, "", slice.header.name(), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

fn driver(slice: &Object) -> String {
    slice.value()["spec"]["driver"].as_str().unwrap_or_default().to_owned()
}

/// The drivers that offer something and have been away for too long.
fn overdue(
    absent: &mut BTreeMap<String, Instant>,
    offered: &BTreeSet<String>,
    here: &BTreeSet<&str>,
    now: Instant,
) -> BTreeSet<String> {
    absent.retain(|driver, _| offered.contains(driver) && !here.contains(driver.as_str()));
    for driver in offered.iter().filter(|driver| !here.contains(driver.as_str())) {
        absent.entry(driver.clone()).or_insert(now);
    }
    absent
        .iter()
        .filter(|(_, since)| now.duration_since(**since) >= PATIENCE)
        .map(|(driver, _)| driver.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{PATIENCE, overdue};
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn s1_a_driver_that_is_away_for_too_long_offers_nothing() {
        let (mut absent, now) = (BTreeMap::new(), Instant::now());
        let offered = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let mut look = |here: &[&str], after: Duration| {
            overdue(&mut absent, &offered, &here.iter().copied().collect(), now + after).into_iter().collect::<Vec<_>>()
        };
        assert!(look(&["b"], Duration::ZERO).is_empty());
        assert!(look(&["b"], PATIENCE / 2).is_empty());
        assert_eq!(look(&["b"], PATIENCE), ["a"]);
        assert!(look(&["a"], PATIENCE).is_empty(), "it is back, and the other one has just gone");
        assert_eq!(look(&["a"], PATIENCE * 2), ["b"]);
    }
}
