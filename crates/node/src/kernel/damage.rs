//! What somebody else took away from a pod that lives: its place in the network, control groups, memory volumes.
//!
//! Such a pod may look well while its limits or its network are gone; it is treated as one whose sandbox is lost.
//!
//! Not here    what becomes of such a pod (`plan`); rules and the bridge, which are put right in place (network)

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use windlass_runtime::Sandbox;

use super::{Kernel, file_error, off_the_runtime};
use crate::machine::MachineError;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was seen mounted in the volumes of each pod.
type Mounted = BTreeMap<String, BTreeSet<PathBuf>>;

/// Looks for damage as long as somebody uses the kernel.
pub(super) async fn watch(kernel: Weak<Kernel>) {
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mounted = Mounted::new();
    loop {
        timer.tick().await;
        let Some(kernel) = kernel.upgrade() else { return };
        if let Err(error) = kernel.look_for_damage(&mut mounted).await {
            tracing::warn!(%error, "it could not be looked whether pods are whole");
        }
    }
}

impl Kernel {
    async fn look_for_damage(&self, mounted: &mut Mounted) -> Result<(), MachineError> {
        // Before the mounts: what ends meanwhile is not damaged.
        let living: Vec<Sandbox> = self.runtime.sandboxes().into_iter().filter(Sandbox::is_alive).collect();
        if living.is_empty() {
            mounted.clear();
            return Ok(());
        }
        let network = self.network().await.ok();
        let volumes = self.layout.pods();
        let looked = living.clone();
        let (unplugged, without_groups, now) = off_the_runtime(move || {
            let unplugged = match network {
                Some(network) => network.unplugged().map_err(|error| super::failed("look at the network", &error))?,
                None => BTreeSet::new(),
            };
            let without: BTreeSet<String> =
                looked.iter().filter(|sandbox| !sandbox.has_groups()).map(|sandbox| sandbox.id().to_owned()).collect();
            Ok((unplugged, without, mounts(&volumes)?))
        })
        .await?;
        mounted.retain(|pod, _| living.iter().any(|sandbox| sandbox.id() == pod));
        for sandbox in living.iter().filter(|sandbox| sandbox.is_alive()) {
            let pod = sandbox.id();
            let here = now.get(pod).cloned().unwrap_or_default();
            let before = mounted.insert(pod.to_owned(), here.clone()).unwrap_or_default();
            let why = if unplugged.contains(pod) {
                "its network namespace or interface is gone"
            } else if without_groups.contains(pod) {
                "a control group of its containers is gone"
            } else if !before.is_subset(&here) {
                "what was mounted in its volumes is gone"
            } else {
                continue;
            };
            let known = self.damaged.lock().expect("nothing panics while holding it").insert(pod.to_owned(), why);
            if known.is_none() {
                tracing::warn!(pod, why, "somebody else damaged a pod");
                // Nobody need listen.
                let _ = self.changes.send(pod.to_owned());
            }
        }
        Ok(())
    }

    /// What is known to be missing of a pod.
    pub(super) fn damage(&self, pod: &str) -> Option<&'static str> {
        self.damaged.lock().expect("nothing panics while holding it").get(pod).copied()
    }

    /// The pod's sandbox is gone, and its damage with it.
    pub(super) fn forget_damage(&self, pod: &str) {
        self.damaged.lock().expect("nothing panics while holding it").remove(pod);
    }
}

/// What is mounted in the volumes of each pod: `PODS/UID/volumes/NAME`.
fn mounts(pods: &Path) -> Result<Mounted, MachineError> {
    let found = windlass_runtime::mounts_below(pods);
    let mut out = Mounted::new();
    for path in found.map_err(|error| file_error("look for mounts below", pods, &error))? {
        let Ok(below) = path.strip_prefix(pods) else { continue };
        let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
        if let [pod, "volumes", _] = parts[..] {
            out.entry(pod.to_owned()).or_default().insert(path);
        }
    }
    Ok(out)
}

/// Begins to look.
pub(super) fn begin(kernel: &Arc<Kernel>) {
    tokio::spawn(watch(Arc::downgrade(kernel)));
}
