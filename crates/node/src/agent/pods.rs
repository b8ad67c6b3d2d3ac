//! Which pods have a task: those the API binds to this node, and those that are left here and must go.
//!
//! Rules
//!   R1 taken over   a pod with a record goes on at once, before the API has been heard
//!   R2 bound        a pod the API binds here has a task until it is gone from the API and from the machine
//!   R3 left         once the API has been heard, what it does not know is torn down; before, nothing is
//!   R4 apart        a task that panics is begun again; the others do not notice
//!   R5 static       a pod that a file of the machine says has a task as long as the file says so; its likeness in the API
//!                   is passed to it, and one without an original is deleted
//!   R6 unread       files that cannot be read, and one that is half written, take no static pod away

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use windlass_api::{Object, kinds};
use windlass_client::{Backoff, Cache, Cached, DeleteOptions, Notice, Scope};

use super::{PodDirectory, Shared};
use crate::manifest;
use crate::pod::{self, Desired, PodTask};
use crate::record::Known;

/// Ended tasks that wait to be struck off the list.
const ENDED_MAX: usize = 256;
/// A task that panicked is begun again after this long, so that a pod that always makes it panic costs little.
const PANIC_PAUSE: Duration = Duration::from_secs(5);

/// How soon it is tried again to tear down what is left of a pod, and how late at most.
const STRAY_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often the files of static pods are looked at.
const MANIFESTS_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps the tasks in line with the API and the machine's own files, for ever.
pub(super) async fn run(shared: &Arc<Shared>, directory: &PodDirectory, records: BTreeMap<String, Bytes>) {
    let (ended, mut ended_queue) = mpsc::channel(ENDED_MAX);
    let (shared, directory) = (Arc::clone(shared), directory.clone());
    let (files, torn_down) = (Files::default(), Arc::default());
    let mut pods = Pods { shared, directory, ended, files, torn_down };
    let shared = Arc::clone(&pods.shared);
    for (uid, record) in &records {
        pods.take_over(uid, record);
    }
    let cache = Cache::start(shared.client.clone(), &kinds::POD, Scope::on_node(&shared.config.name));
    let mut changes = cache.subscribe();
    pods.look_at_files().await;
    let mut files = tokio::time::interval(MANIFESTS_INTERVAL);
    files.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first_list = cache.synced();
    tokio::pin!(first_list);
    let mut is_synced = false;
    loop {
        tokio::select! {
            biased;
            Some(ended) = ended_queue.recv() => pods.strike_off(ended, &cache),
            notice = changes.next() => match notice {
                Notice::Changed(change) => pods.changed(change.old.as_deref(), change.new.as_deref()),
                Notice::Lagged => pods.compare(&cache).await,
            },
            () = &mut first_list, if !is_synced => {
                is_synced = true;
                pods.compare(&cache).await;
            }
            _ = files.tick() => pods.look_at_files().await,
        }
    }
}

/// Tells the tasks of pods whose containers changed, for ever.
pub(super) async fn pass_on_hints(shared: &Arc<Shared>, directory: &PodDirectory) {
    let mut changes = shared.machine.changes();
    loop {
        match changes.recv().await {
            Ok(uid) => directory.hint(&uid),
            Err(RecvError::Lagged(_)) => directory.uids().iter().for_each(|uid| directory.hint(uid)),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Notes the address that a pod had, so that what restricts it stays.
pub(super) fn recall(shared: &Shared, uid: &str, record: &[u8]) {
    let Ok((pod, known)) = pod::read_record(record) else { return };
    match pod.decode() {
        Ok(pod) if !known.left => drop(shared.locals.set(&uid.into(), &pod, &known.addresses)),
        _ => {}
    }
}

/// Tears down what is left of a pod; what it has borrowed can only be given back when its lender is there.
async fn tear_down(shared: &Shared, uid: &str) {
    tracing::info!(uid, why = "the API does not know this pod", "what is left of a pod is torn down");
    let mut backoff = Backoff::new(STRAY_RETRY.0, STRAY_RETRY.1);
    while let Err(error) = shared.machine.pod_down(uid).await {
        tracing::warn!(uid, %error, "what is left of a pod was not torn down; it is tried again");
        tokio::time::sleep(backoff.next(&shared.world)).await;
    }
    shared.in_use.remove(uid);
}

/// A task that ended.
struct Ended {
    uid: Arc<str>,
    panicked: bool,
}

/// The files of static pods.
#[derive(Default)]
struct Files {
    /// What they said when they were looked at; `None` before that has worked once.
    seen: Option<BTreeMap<String, Bytes>>,
    /// What each of them says, or has said before somebody damaged it.
    says: BTreeMap<String, Arc<Object>>,
    /// Some file has said nothing to this agent: it may be that of a pod of before.
    is_unclear: bool,
    /// The static pods of before this agent, by uid.
    of_before: BTreeSet<String>,
}

impl Files {
    /// Takes in what the files say now. Returns the uids of the pods that no file says any more.
    fn look(&mut self, files: BTreeMap<String, Bytes>, node: &str) -> Vec<String> {
        let mut says = BTreeMap::new();
        self.is_unclear = false;
        for (name, text) in &files {
            match manifest::pod(text, node) {
                Ok(object) => drop(says.insert(name.clone(), Arc::new(object))),
                Err(why) => {
                    tracing::error!(file = name, why, "a file says no static pod; what it has said before goes on");
                    // R6
                    match self.says.remove(name) {
                        Some(before) => drop(says.insert(name.clone(), before)),
                        None => self.is_unclear = true,
                    }
                }
            }
        }
        let before = std::mem::replace(&mut self.says, says);
        self.seen = Some(files);
        let mut gone: BTreeSet<String> = before.values().map(|object| object.header.uid().to_owned()).collect();
        if !self.is_unclear {
            gone.append(&mut self.of_before);
        }
        gone.retain(|uid| !self.says(uid));
        gone.into_iter().collect()
    }

    fn says(&self, uid: &str) -> bool {
        self.says.values().any(|object| object.header.uid() == uid)
    }

    /// Whether a pod that is not in the API is here by right, or may be.
    fn may_say(&self, uid: &str) -> bool {
        self.says(uid) || self.of_before.contains(uid)
    }
}

struct Pods {
    shared: Arc<Shared>,
    directory: PodDirectory,
    ended: mpsc::Sender<Ended>,
    files: Files,
    /// What pods that nobody knows have left, by uid, while it is being removed.
    torn_down: Arc<Mutex<BTreeSet<String>>>,
}

impl Pods {
    /// R1.
    fn take_over(&mut self, uid: &str, record: &[u8]) {
        match pod::read_record(record) {
            Ok((object, known)) if object.header.uid() == uid => {
                if manifest::says_static(&object) {
                    self.files.of_before.insert(uid.to_owned());
                }
                self.begin(Arc::new(object), Some(known));
            }
            Ok(_) => tracing::error!(uid, "a pod's record names another pod; it is left to the API to say"),
            Err(error) => tracing::error!(uid, error, "a pod's record cannot be read; it is left to the API to say"),
        }
    }

    fn begin(&self, object: Arc<Object>, known: Option<Known>) {
        let uid: Arc<str> = object.header.uid().into();
        let (task, link) = match PodTask::new(&self.shared, Arc::clone(&object), known) {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(
                    pod = object.header.key(),
                    error = &error as &dyn std::error::Error,
                    "pod not taken in"
                );
                return;
            }
        };
        let (ended, own) = (self.ended.clone(), Arc::clone(&uid));
        let handle = tokio::spawn(async move {
            let panicked = AssertUnwindSafe(task.run()).catch_unwind().await.is_err();
            if panicked {
                tokio::time::sleep(PANIC_PAUSE).await;
            }
            // The agent is going down when nobody listens.
            let _ = ended.send(Ended { uid: own, panicked }).await;
        });
        self.directory.insert(uid, link, handle.abort_handle());
    }

    /// R5.
    async fn look_at_files(&mut self) {
        let files = match self.shared.machine.manifests().await {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(%error, "the files of static pods cannot be read; those that run go on");
                return;
            }
        };
        if self.files.seen.as_ref() == Some(&files) {
            return;
        }
        for uid in self.files.look(files, &self.shared.config.name) {
            self.directory.tell(&uid, Desired::Gone);
        }
        for object in self.files.says.values() {
            self.begin_static(object);
        }
    }

    /// One that has another's name waits until the other is gone.
    fn begin_static(&self, object: &Arc<Object>) {
        let (namespace, name) = (object.header.namespace(), object.header.name());
        if self.directory.find(namespace, name).is_none() {
            self.begin(Arc::clone(object), None);
        }
    }

    /// R5: the API's likeness of a static pod has changed.
    fn mirror_changed(&self, hash: &str, mirror: &Cached) {
        let name = (mirror.header.namespace(), mirror.header.name());
        if !self.directory.tell_mirror(hash, name, Some(Arc::new(Object::clone(mirror)))) {
            self.delete_mirror(mirror);
        }
    }

    fn delete_mirror(&self, mirror: &Cached) {
        let (client, header) = (self.shared.client.clone(), mirror.header.apart());
        tokio::spawn(async move {
            let options = DeleteOptions::of_uid(header.uid()).at_once();
            match client.delete(&kinds::POD, header.namespace(), header.name(), &options).await {
                Ok(_) => tracing::info!(pod = header.key(), "the mirror of a static pod that is gone is deleted"),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    tracing::warn!(pod = header.key(), %error, "a mirror without an original was not deleted")
                }
            }
        });
    }

    /// R2.
    fn changed(&self, old: Option<&Cached>, new: Option<&Cached>) {
        if let Some((hash, mirror)) = new.and_then(|new| Some((manifest::mirrored(new)?, new))) {
            return self.mirror_changed(&hash, mirror);
        }
        if let Some((hash, mirror)) = old.and_then(|old| Some((manifest::mirrored(old)?, old))) {
            self.directory.tell_mirror(&hash, (mirror.header.namespace(), mirror.header.name()), None);
        }
        if let Some(old) = old
            && new.is_none_or(|new| new.header.uid() != old.header.uid())
        {
            self.directory.tell(old.header.uid(), Desired::Gone);
        }
        if let Some(new) = new {
            let object = Arc::new(Object::clone(new));
            if !self.directory.tell(new.header.uid(), Desired::Object(Arc::clone(&object))) {
                self.begin(object, None);
            }
        }
    }

    /// R3: everything here against everything in the API.
    async fn compare(&self, cache: &Cache) {
        let bound: BTreeSet<String> = cache.list().iter().map(|object| object.header.uid().to_owned()).collect();
        for object in cache.list() {
            self.changed(None, Some(&object));
        }
        let known = self.directory.uids();
        for uid in known.iter().filter(|uid| !bound.contains(&***uid) && !self.files.may_say(uid)) {
            self.directory.tell(uid, Desired::Gone);
        }
        let left = self.shared.machine.pods().await.unwrap_or_else(|error| {
            tracing::error!(%error, "the machine could not say what is left on it");
            Vec::new()
        });
        let strays = left.into_iter().filter(|uid| !bound.contains(uid) && !known.iter().any(|known| &**known == uid));
        let (shared, torn_down) = (Arc::clone(&self.shared), Arc::clone(&self.torn_down));
        let strays: Vec<String> = {
            let mut under_way = torn_down.lock().expect("nothing panics while holding it");
            strays.filter(|uid| under_way.insert(uid.clone())).collect()
        };
        // Apart: what a pod has left may take minutes to remove, and the others must not wait for it.
        tokio::spawn(async move {
            let removals = strays.iter().map(|uid| async {
                tear_down(&shared, uid).await;
                torn_down.lock().expect("nothing panics while holding it").remove(uid);
            });
            futures::future::join_all(removals).await;
        });
    }

    /// R4.
    fn strike_off(&self, ended: Ended, cache: &Cache) {
        self.directory.remove(&ended.uid);
        self.shared.set_host_ports(&ended.uid, Vec::new());
        if !ended.panicked {
            self.shared.locals.remove(&ended.uid);
        }
        for object in self.files.says.values() {
            self.begin_static(object);
        }
        for object in cache.list() {
            if manifest::mirrored(&object).is_some_and(|hash| *hash == *ended.uid) {
                self.delete_mirror(&object);
            }
        }
        let still = cache.list().into_iter().find(|object| *object.header.uid() == *ended.uid);
        let Some(object) = still.filter(|_| ended.panicked) else { return };
        tracing::error!(pod = object.header.key(), "a pod's task panicked; it is begun again");
        self.begin(Arc::new(Object::clone(&object)), None);
    }
}

#[cfg(test)]
mod tests {
    use super::Files;
    use bytes::Bytes;
    use std::collections::BTreeMap;

    fn files(rows: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
        rows.iter().map(|(name, text)| ((*name).to_owned(), Bytes::from((*text).to_owned()))).collect()
    }

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
        )
    }

    #[test]
    fn r6_a_file_that_is_half_written_takes_no_pod_away() {
        let (mut seen, whole) = (Files::default(), manifest("web"));
        assert!(seen.look(files(&[("web", &whole)]), "n").is_empty());
        let uid = seen.says["web"].header.uid().to_owned();
        assert!(seen.look(files(&[("web", &whole[..40])]), "n").is_empty());
        assert!(seen.says(&uid), "what it said before goes on");
        assert!(seen.look(files(&[("web", &whole)]), "n").is_empty());
        let gone = seen.look(files(&[("web", &manifest("other"))]), "n");
        assert_eq!(gone, std::slice::from_ref(&uid), "another text is another pod");
        assert_eq!(seen.look(files(&[]), "n").len(), 1, "a file that is gone says nothing");
    }

    #[test]
    fn r6_pods_of_before_stay_until_every_file_has_been_understood() {
        let whole = manifest("web");
        let mut first = Files::default();
        first.look(files(&[("web", &whole)]), "n");
        let uid = first.says["web"].header.uid().to_owned();
        let mut seen = Files { of_before: [uid.clone(), "old".to_owned()].into(), ..Files::default() };
        assert!(seen.may_say(&uid) && seen.may_say("old"), "nothing has been read yet");
        assert!(seen.look(files(&[("web", "{")]), "n").is_empty());
        assert!(seen.may_say(&uid) && seen.may_say("old"), "the file may be that of either");
        assert_eq!(seen.look(files(&[("web", &whole)]), "n"), ["old"]);
        assert!(seen.may_say(&uid) && !seen.may_say("old"));
    }
}
