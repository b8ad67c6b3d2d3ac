//! The pods of this node by name and uid, for the agent and for its HTTP server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use windlass_api::Object;

use crate::pod::{Desired, Dismissal, PodLink, Shown};

/// All pods of this node. Cheap to clone.
#[derive(Clone, Default)]
pub struct PodDirectory(Arc<Mutex<BTreeMap<Arc<str>, Resident>>>);

struct Resident {
    link: PodLink,
    task: AbortHandle,
}

/// A pod as others may see it.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// Its uid, which names it to the machine.
    pub uid: Arc<str>,
    /// What is known of it.
    pub shown: Arc<Shown>,
    watched: watch::Receiver<Arc<Shown>>,
}

impl PodEntry {
    /// How the pod looks now.
    pub fn now(&self) -> Arc<Shown> {
        Arc::clone(&self.watched.borrow())
    }
}

impl PodDirectory {
    /// The pod of this name. Of several (an old one is ending) the one that came last in the API's eyes.
    pub fn find(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        let all = self.0.lock().expect("nothing panics while holding it");
        let mut found =
            all.iter().filter(|(_, resident)| resident.link.key.0 == namespace && resident.link.key.1 == name);
        let is_current = |resident: &Resident| !matches!(&*resident.link.desired.borrow(), Desired::Gone);
        let pick = found.clone().find(|(_, resident)| is_current(resident)).or_else(|| found.next());
        pick.map(|(uid, resident)| entry(uid, resident))
    }

    /// Every pod, by uid.
    pub fn list(&self) -> Vec<PodEntry> {
        let all = self.0.lock().expect("nothing panics while holding it");
        all.iter().map(|(uid, resident)| entry(uid, resident)).collect()
    }

    pub(super) fn insert(&self, uid: Arc<str>, link: PodLink, task: AbortHandle) {
        self.0.lock().expect("nothing panics while holding it").insert(uid, Resident { link, task });
    }

    /// The pod's task has ended.
    pub(super) fn remove(&self, uid: &str) {
        self.0.lock().expect("nothing panics while holding it").remove(uid);
    }

    /// Tells a pod's task what the pod should be; `false` when it has none.
    pub(super) fn tell(&self, uid: &str, desired: Desired) -> bool {
        let all = self.0.lock().expect("nothing panics while holding it");
        all.get(uid).is_some_and(|resident| {
            resident.link.desired.send_if_modified(|now| {
                // What is gone stays so, whatever its likeness does.
                let counts = !matches!((&*now, &desired), (Desired::Gone, Desired::Mirror(_)));
                if counts {
                    *now = desired;
                }
                counts
            });
            true
        })
    }

    /// Tells a static pod's task how its likeness is; `false` when there is no such pod of this name: who says that it is
    /// the likeness of another need not be.
    pub(super) fn tell_mirror(&self, uid: &str, (namespace, name): (&str, &str), mirror: Option<Arc<Object>>) -> bool {
        let is_named = {
            let all = self.0.lock().expect("nothing panics while holding it");
            all.get(uid).is_some_and(|resident| resident.link.key.0 == namespace && resident.link.key.1 == name)
        };
        is_named && self.tell(uid, Desired::Mirror(mirror))
    }

    pub(super) fn hint(&self, uid: &str) {
        let all = self.0.lock().expect("nothing panics while holding it");
        if let Some(resident) = all.get(uid) {
            Notify::notify_one(&resident.link.hint);
        }
    }

    /// Lets a pod go, for this reason.
    pub(super) fn evict(&self, uid: &str, why: String) {
        self.dismiss(uid, Dismissal::Evicted(why));
    }

    /// Lets a pod go.
    pub(super) fn dismiss(&self, uid: &str, why: Dismissal) {
        let all = self.0.lock().expect("nothing panics while holding it");
        if let Some(resident) = all.get(uid) {
            resident.link.dismiss.send_replace(Some(why));
        }
    }

    pub(super) fn uids(&self) -> Vec<Arc<str>> {
        self.0.lock().expect("nothing panics while holding it").keys().cloned().collect()
    }

    /// Ends every pod's task; the pods go on.
    pub(super) fn stop(&self) {
        let all = std::mem::take(&mut *self.0.lock().expect("nothing panics while holding it"));
        for resident in all.values() {
            resident.task.abort();
        }
    }
}

fn entry(uid: &Arc<str>, resident: &Resident) -> PodEntry {
    let shown = Arc::clone(&resident.link.shown.borrow());
    PodEntry { uid: Arc::clone(uid), shown, watched: resident.link.shown.clone() }
}
