//! The pods that wait for a node: which is next, which are not worth trying before something changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_client::{Key, ObjectRef};

use crate::filter::Cure;
use crate::pod::Pod;

/// First wait after a pod was refused or its binding failed.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const BACKOFF_MOST: Duration = Duration::from_secs(10);
/// A refused pod is tried again after this long even if nothing changed that we know of.
const REFUSED_MOST: Duration = Duration::from_secs(300);

/// The waiting pods. Its size is bounded by the number of pods: each is in it once.
#[derive(Default)]
pub(crate) struct Queue {
    entries: BTreeMap<Key, Entry>,
    /// By priority, then in the order they came.
    ready: BTreeSet<(Reverse<i64>, u64, Key)>,
    later: BTreeSet<(Instant, Key)>,
    refused: BTreeMap<Cure, BTreeSet<Key>>,
    /// Those of all that have claims of devices.
    claimants: BTreeSet<Key>,
    came: u64,
}

/// One waiting pod.
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) about: ObjectRef,
    /// What its condition PodScheduled was last made to say; empty before the first time.
    pub(crate) said: String,
    attempts: u32,
    place: Place,
}

/// Where a waiting pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To be tried, as the n-th that came.
    Ready(u64),
    /// Being bound.
    Taken,
    /// Fits nowhere: tried again when something cures that, not before `from`, at the latest at `until`.
    Refused { cured_by: Cure, from: Instant, until: Instant },
    /// Tried again then.
    Later(Instant),
    /// Has scheduling gates: not tried until they are gone.
    Gated,
}

impl Queue {
    /// A pod waits for a node, or changed while it does. A change of what it asks for is worth a try at once.
    pub(crate) fn put(&mut self, key: &Key, pod: Arc<Pod>, about: ObjectRef) {
        let place = self.entries.get(key).map(|entry| (entry.place, entry.pod == pod));
        match place {
            Some((_, true)) => {}
            Some((Place::Taken, false)) => {
                let entry = self.entries.get_mut(key).expect("looked up above");
                entry.pod = pod;
            }
            _ => {
                let said = self.remove(key).map(|entry| entry.said).unwrap_or_default();
                let entry = Entry { pod, about, said, attempts: 0, place: Place::Gated };
                let is_gated = !entry.pod.gates.is_empty();
                if !entry.pod.device_claims.is_empty() {
                    self.claimants.insert(key.clone());
                }
                self.entries.insert(key.clone(), entry);
                if !is_gated {
                    self.make_ready(key);
                }
            }
        }
    }

    /// A pod waits no more.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Entry> {
        self.lift(key);
        self.claimants.remove(key);
        self.entries.remove(key)
    }

    /// The next pod to try, which is then taken.
    pub(crate) fn take(&mut self) -> Option<Key> {
        let (_, _, key) = self.ready.pop_first()?;
        self.entries.get_mut(&key).expect("what is ready has an entry").place = Place::Taken;
        Some(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// The keys of all waiting pods.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.entries.keys().cloned().collect()
    }

    /// A taken pod fits nowhere.
    pub(crate) fn refuse(&mut self, key: &Key, cured_by: Cure, now: Instant) {
        let Some(from) = self.count_attempt(key, now) else { return };
        let until = now + REFUSED_MOST;
        self.lift(key);
        self.later.insert((until, key.clone()));
        self.refused.entry(cured_by).or_default().insert(key.clone());
        self.set(key, Place::Refused { cured_by, from, until });
    }

    /// A taken pod waits for something that was begun for it: it is tried again as soon as that has changed.
    pub(crate) fn hold(&mut self, key: &Key, now: Instant) {
        let until = now + BACKOFF_MOST;
        self.lift(key);
        self.later.insert((until, key.clone()));
        self.refused.entry(Cure::NodeChanged).or_default().insert(key.clone());
        self.set(key, Place::Refused { cured_by: Cure::NodeChanged, from: now, until });
    }

    /// A taken pod's binding failed.
    pub(crate) fn retry(&mut self, key: &Key, now: Instant) {
        let Some(at) = self.count_attempt(key, now) else { return };
        self.lift(key);
        self.later.insert((at, key.clone()));
        self.set(key, Place::Later(at));
    }

    /// Something changed that cures refusals of this kind: those pods are tried again, after their back-off.
    pub(crate) fn cure(&mut self, cure: Cure, now: Instant) {
        // What a changed node cures includes what a leaving pod cures, and that what one that comes does.
        let cured: Vec<Key> = self
            .refused
            .iter()
            .filter(|(cured_by, _)| cure == Cure::NodeChanged || **cured_by >= cure)
            .flat_map(|(_, keys)| keys.iter().cloned())
            .collect();
        cured.iter().for_each(|key| self.release(key, now));
    }

    /// Claims of devices, or what there is of those, changed: refused pods that have any are tried again likewise.
    pub(crate) fn cure_claimants(&mut self, now: Instant) {
        let claimants: Vec<Key> = self.claimants.iter().cloned().collect();
        claimants.iter().for_each(|key| self.release(key, now));
    }

    fn release(&mut self, key: &Key, now: Instant) {
        let Some(Place::Refused { from, .. }) = self.entries.get(key).map(|entry| entry.place) else { return };
        if from <= now {
            self.make_ready(key);
        } else {
            self.lift(key);
            self.later.insert((from, key.clone()));
            self.set(key, Place::Later(from));
        }
    }

    /// Makes those ready whose time has come.
    pub(crate) fn ripen(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.later.pop_first().expect("looked at in the condition");
            self.make_ready(&key);
        }
    }

    /// When the next pod will be ready by time.
    pub(crate) fn next_ripe(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Counts a try and gives the time before which there should be no other.
    fn count_attempt(&mut self, key: &Key, now: Instant) -> Option<Instant> {
        let entry = self.entries.get_mut(key)?;
        let wait = BACKOFF_FIRST.saturating_mul(1 << entry.attempts.min(8)).min(BACKOFF_MOST);
        entry.attempts = entry.attempts.saturating_add(1);
        Some(now + wait)
    }

    fn make_ready(&mut self, key: &Key) {
        self.lift(key);
        self.came += 1;
        let came = self.came;
        if let Some(entry) = self.entries.get_mut(key) {
            self.ready.insert((Reverse(entry.pod.priority), came, key.clone()));
            entry.place = Place::Ready(came);
        }
    }

    /// Takes a pod out of whatever list it is in.
    fn lift(&mut self, key: &Key) {
        let Some(entry) = self.entries.get(key) else { return };
        match entry.place {
            Place::Ready(came) => {
                self.ready.remove(&(Reverse(entry.pod.priority), came, key.clone()));
            }
            Place::Refused { cured_by, until, .. } => {
                self.later.remove(&(until, key.clone()));
                if let Some(keys) = self.refused.get_mut(&cured_by) {
                    keys.remove(key);
                }
            }
            Place::Later(at) => {
                self.later.remove(&(at, key.clone()));
            }
            Place::Taken | Place::Gated => {}
        }
    }

    fn set(&mut self, key: &Key, place: Place) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cure, Queue};
    use crate::fixture::pod;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::Instant;
    use windlass_api::Header;
    use windlass_client::ObjectRef;

    fn put(queue: &mut Queue, key: &str, spec: serde_json::Value) {
        queue.put(&key.into(), Arc::new(pod(spec)), ObjectRef::of(&Header::default()));
    }

    fn take(queue: &mut Queue) -> Option<String> {
        queue.take().map(|key| key.to_string())
    }

    #[test]
    fn r2_pods_are_taken_by_priority_then_in_order() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        put(&mut queue, "b", json!({"priority": 10}));
        put(&mut queue, "c", json!({}));
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut queue)).collect();
        assert_eq!(taken, ["b", "a", "c"]);
    }

    #[test]
    fn r2_a_changed_priority_counts_while_the_pod_waits() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        put(&mut queue, "b", json!({}));
        put(&mut queue, "b", json!({"priority": 10}));
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut queue)).collect();
        assert_eq!(taken, ["b", "a"], "each once");
    }

    #[test]
    fn r1_a_gated_pod_waits_until_its_gates_are_gone() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({"schedulingGates": [{"name": "x"}]}));
        assert_eq!(take(&mut queue), None);
        put(&mut queue, "a", json!({}));
        assert_eq!(take(&mut queue).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn r6_a_refused_pod_waits_for_its_cure_and_its_back_off() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        take(&mut queue);
        let now = Instant::now();
        queue.refuse(&"a".into(), Cure::NodeChanged, now);
        queue.cure(Cure::PodLeft, now);
        queue.ripen(now + Duration::from_secs(60));
        assert_eq!(take(&mut queue), None, "a leaving pod does not cure it");
        queue.cure(Cure::NodeChanged, now);
        assert_eq!(take(&mut queue), None, "its back-off is not over");
        queue.ripen(now + Duration::from_secs(1));
        assert_eq!(take(&mut queue).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn r6_a_change_of_devices_cures_only_pods_that_have_claims() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        put(&mut queue, "b", json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}));
        let now = Instant::now();
        while let Some(key) = queue.take() {
            queue.refuse(&key, Cure::PodLeft, now);
        }
        queue.cure_claimants(now);
        queue.ripen(now + Duration::from_secs(60));
        assert_eq!((take(&mut queue).as_deref(), take(&mut queue)), (Some("b"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn r6_a_refused_pod_is_tried_again_in_the_end() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        take(&mut queue);
        queue.refuse(&"a".into(), Cure::PodLeft, Instant::now());
        queue.ripen(Instant::now() + Duration::from_secs(300));
        assert_eq!(take(&mut queue).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn r6_back_off_grows_and_a_change_of_the_pod_ends_it() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        for wait in [1, 2, 4, 8, 10, 10] {
            take(&mut queue);
            let now = Instant::now();
            queue.retry(&"a".into(), now);
            assert_eq!(queue.next_ripe(), Some(now + Duration::from_secs(wait)));
            queue.ripen(now + Duration::from_secs(wait));
        }
        take(&mut queue);
        queue.retry(&"a".into(), Instant::now());
        put(&mut queue, "a", json!({"priority": 1}));
        assert_eq!(take(&mut queue).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_that_is_gone_is_in_no_list() {
        let mut queue = Queue::default();
        put(&mut queue, "a", json!({}));
        queue.remove(&"a".into());
        assert_eq!(take(&mut queue), None);
    }
}
