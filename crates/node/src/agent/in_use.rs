//! The volumes of drivers that pods of this node use, as its Node names them: what it names is not detached from it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

/// By pod, the names of its volumes.
pub struct InUse(watch::Sender<BTreeMap<String, BTreeSet<String>>>);

impl Default for InUse {
    fn default() -> InUse {
        InUse(watch::Sender::new(BTreeMap::new()))
    }
}

impl InUse {
    /// A pod uses a volume, or is about to.
    pub fn add(&self, pod: &str, volume: &str) {
        self.0.send_if_modified(|all| all.entry(pod.to_owned()).or_default().insert(volume.to_owned()));
    }

    /// A pod has given everything back.
    pub fn remove(&self, pod: &str) {
        self.0.send_if_modified(|all| all.remove(pod).is_some());
    }

    /// All volumes in use, each once.
    pub fn names(&self) -> Vec<String> {
        let all: BTreeSet<String> = self.0.borrow().values().flatten().cloned().collect();
        all.into_iter().collect()
    }

    /// Sees changes.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, BTreeSet<String>>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::InUse;

    #[test]
    fn a_volume_is_in_use_until_its_last_pod_has_given_it_back() {
        let in_use = InUse::default();
        in_use.add("a", "v");
        in_use.add("b", "v");
        in_use.remove("a");
        assert_eq!(in_use.names(), ["v"]);
        in_use.remove("b");
        assert!(in_use.names().is_empty());
    }
}
