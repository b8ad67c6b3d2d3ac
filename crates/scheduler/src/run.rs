//! The loop: takes in changes, places pods, binds them, and says what keeps the others.
//!
//! Flow        changes of nodes and pods → queue and cluster → place (no waiting) → bind, many at a time → settle
//! Guarantees  a placement is made on everything seen so far and everything assumed

mod choose;
mod reserve;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use windlass_api::{Subresource, kinds};
use windlass_client::{
    Cache, Cached, Caches, Change, Client, ClientError, EventKind, Key, Note, Notice, ObjectRef, Patch, Recorder,
    Subscription,
};

use crate::cluster::{Cluster, Placed};
use crate::device::{Asked, Devices};
use crate::filter::Cure;
use crate::node::NodeFacts;
use crate::place::{Placement, Refusal, place};
use crate::pod::Pod;
use crate::queue::Queue;
use crate::storage::{Need, Storage};
use reserve::Reservation;

/// Bindings and conditions that are written at a time.
const WRITES_MAX: usize = 256;
/// The annotation of a bound pod that says why it is where it is.
const WHY_ANNOTATION: &str = "windlass.dev/why";

/// What the scheduler is told.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// The `spec.schedulerName` of the pods it places.
    pub name: String,
}

impl Default for SchedulerConfig {
    fn default() -> SchedulerConfig {
        SchedulerConfig { name: "default-scheduler".to_owned() }
    }
}

/// Runs the scheduler until `shutdown` says true.
///
/// Guarantees  nothing is placed before all nodes and pods are known
/// Assumes     at most one process of a cluster runs this at a time; two would only refuse each other's bindings
pub async fn run(caches: Caches, config: SchedulerConfig, mut shutdown: watch::Receiver<bool>) {
    let (pods, nodes) = (caches.of(&kinds::POD), caches.of(&kinds::NODE));
    let (namespaces, budgets) = (caches.of(&kinds::NAMESPACE), caches.of(&kinds::POD_DISRUPTION_BUDGET));
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => return,
        () = async {
            for cache in [&pods, &nodes, &namespaces, &budgets] {
                cache.synced().await;
            }
        } => {}
    }
    let (storage, devices) = (Storage::new(&caches), Devices::new(&caches));
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => return,
        () = async {
            storage.synced().await;
            devices.synced().await;
        } => {}
    }
    let client = caches.client().named("scheduler");
    let recorder = Recorder::new(client.clone(), &config.name, "");
    let scheduler = Scheduler {
        client,
        recorder,
        config,
        node_changes: nodes.subscribe(),
        pod_changes: pods.subscribe(),
        namespace_changes: namespaces.subscribe(),
        pods,
        nodes,
        namespaces,
        budgets,
        leaving: BTreeMap::new(),
        storage,
        devices,
        cluster: Cluster::default(),
        queue: Queue::default(),
        binding: BTreeMap::new(),
        writes: FuturesUnordered::new(),
    };
    scheduler.run(shutdown).await;
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    config: SchedulerConfig,
    pods: Cache,
    nodes: Cache,
    namespaces: Cache,
    budgets: Cache,
    pod_changes: Subscription,
    node_changes: Subscription,
    namespace_changes: Subscription,
    cluster: Cluster,
    queue: Queue,
    /// The assumed pods whose binding is under way.
    binding: BTreeMap<Key, Assumed>,
    /// By the pod that they make way for: the pods that are to end and are still there.
    leaving: BTreeMap<Key, BTreeSet<Key>>,
    storage: Storage,
    devices: Devices,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
}

/// A pod that counts on a node before it is seen there.
struct Assumed {
    /// Of the pod: its namesake is another one.
    uid: String,
    placed: Placed,
}

/// What a pod's claims ask of its node, and those that are told which one it is.
type Wanted = (Vec<Need>, Vec<Key>, Asked);

/// What a write came to.
enum Written {
    /// With the revision at which claims were given their devices, if they were.
    Bound(Key, ObjectRef, Placement, Option<u64>, Result<(), ClientError>),
    GivenBack(Key, Result<(), ClientError>),
    Said(Key, Result<(), ClientError>),
    Chosen(Key, Result<(), ClientError>),
    Ended {
        for_pod: Key,
        victim: Key,
        ended: Result<(), ClientError>,
    },
}

impl Scheduler {
    async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            self.take_in_all();
            self.queue.ripen(Instant::now());
            while self.writes.len() < WRITES_MAX
                && let Some(key) = self.queue.take()
            {
                self.schedule(&key);
            }
            let timer = self.queue.next_ripe();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                Some(written) = self.writes.next() => self.settle(written),
                notice = self.namespace_changes.next() => self.take_in_namespace(notice),
                notice = self.node_changes.next() => self.take_in_node(notice),
                notice = self.pod_changes.next() => self.take_in_pod(notice),
                _ = self.storage.changed() => self.queue.cure(Cure::NodeChanged, Instant::now()),
                () = self.devices.changed() => self.queue.cure_claimants(Instant::now()),
                () = sleep_until(timer) => {}
            }
        }
    }

    /// Takes in everything that is there. Nodes first: a pod on an unknown node counts all the same, but a node that is
    /// known late could refuse a pod.
    fn take_in_all(&mut self) {
        while let Some(notice) = self.namespace_changes.take() {
            self.take_in_namespace(notice);
        }
        while let Some(notice) = self.node_changes.take() {
            self.take_in_node(notice);
        }
        while let Some(notice) = self.pod_changes.take() {
            self.take_in_pod(notice);
        }
        if self.storage.has_changed() {
            self.queue.cure(Cure::NodeChanged, Instant::now());
        }
        if self.devices.has_changed() {
            self.queue.cure_claimants(Instant::now());
        }
    }

    fn take_in_namespace(&mut self, notice: Notice) {
        match notice {
            Notice::Lagged => self.rebuild(),
            Notice::Changed(change) => {
                let labels = change.new.as_ref().map(|namespace| namespace.header.labels().to_map());
                self.cluster.set_namespace(change.key.name(), labels);
            }
        }
    }

    fn take_in_node(&mut self, notice: Notice) {
        match notice {
            Notice::Lagged => self.rebuild(),
            Notice::Changed(change) => match &change.new {
                Some(node) => self.see_node(node),
                None => self.cluster.drop_node(change.key.name()),
            },
        }
    }

    fn see_node(&mut self, node: &Cached) {
        if self.cluster.set_node(node.header.name(), NodeFacts::read(node)) {
            self.queue.cure(Cure::NodeChanged, Instant::now());
        }
    }

    fn take_in_pod(&mut self, notice: Notice) {
        match notice {
            Notice::Lagged => self.rebuild(),
            Notice::Changed(Change { key, old, new: Some(pod) }) => {
                // Two changes may be seen as one: what was there is gone, and a namesake is another pod.
                if old.is_some_and(|old| old.header.uid() != pod.header.uid()) {
                    self.lose_pod(&key);
                }
                self.see_pod(&key, &pod);
            }
            Notice::Changed(Change { key, new: None, .. }) => self.lose_pod(&key),
        }
    }

    fn see_pod(&mut self, key: &Key, pod: &Cached) {
        let header = &pod.header;
        if matches!(header.phase(), "Succeeded" | "Failed") {
            self.lose_pod(key);
            return;
        }
        if !header.node_name().is_empty() {
            let footprint = Pod::read(pod).footprint;
            if self.cluster.put(key, header.node_name(), footprint) {
                self.queue.cure(Cure::PodsChanged, Instant::now());
            }
            self.binding.remove(key);
            self.leaving.remove(key);
            self.queue.remove(key);
            return;
        }
        if header.is_ending() {
            self.lose_pod(key);
            return;
        }
        if self.binding.contains_key(key) {
            // What we assume is newer than what we see.
            return;
        }
        let mut read = Pod::read(pod);
        if read.scheduler != self.config.name {
            return;
        }
        // Where it will go is no wish of the pod's: a change of it is no reason to try again.
        let nominated = std::mem::take(&mut read.nominated);
        if !nominated.is_empty() {
            self.cluster.nominate(key, &nominated, Arc::clone(&read.footprint));
        }
        let is_gated = !read.gates.is_empty();
        // A namesake of a pod that is gone is another pod.
        if self.queue.get_mut(key).is_some_and(|entry| entry.pod.uid != read.uid) {
            self.queue.remove(key);
        }
        self.queue.put(key, Arc::new(read), ObjectRef::of(header));
        if is_gated {
            let message = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
            self.say(key, "SchedulingGated", message, None);
        }
    }

    fn lose_pod(&mut self, key: &Key) {
        self.queue.remove(key);
        self.binding.remove(key);
        self.is_gone(key);
        if self.cluster.take(key) {
            self.queue.cure(Cure::PodLeft, Instant::now());
        }
    }

    /// Begins anew with what the caches hold; what is assumed stays assumed.
    fn rebuild(&mut self) {
        self.cluster = Cluster::default();
        let binding = std::mem::take(&mut self.binding);
        for (key, assumed) in binding {
            if self.pods.get_key(key.as_str()).is_some_and(|pod| pod.header.uid() == assumed.uid) {
                self.cluster.put(&key, &assumed.placed.node, Arc::clone(&assumed.placed.footprint));
                self.binding.insert(key, assumed);
            }
        }
        for key in self.queue.keys() {
            if self.pods.get_key(key.as_str()).is_none() {
                self.lose_pod(&key);
            }
        }
        for namespace in self.namespaces.list() {
            self.cluster.set_namespace(namespace.header.name(), Some(namespace.header.labels().to_map()));
        }
        for node in self.nodes.list() {
            self.see_node(&node);
        }
        for pod in self.pods.list() {
            self.see_pod(&Key::of(&pod.header), &pod);
        }
    }

    /// Places one pod and begins to bind it, or says why it goes nowhere.
    fn schedule(&mut self, key: &Key) {
        let Some(entry) = self.queue.get_mut(key) else { return };
        let (pod, about) = (Arc::clone(&entry.pod), entry.about.clone());
        let (needs, undecided, devices) = match self.wants(&pod) {
            Ok(wants) => wants,
            Err((cured_by, why)) => {
                let message = format!("0/{} nodes are available: {why}.", self.cluster.len());
                match cured_by {
                    Some(cured_by) => self.queue.refuse(key, cured_by, Instant::now()),
                    None => self.queue.hold(key, Instant::now()),
                }
                self.tell(about, EventKind::Warning, "FailedScheduling", message.clone());
                self.give_back(key, &pod);
                return self.say(key, "Unschedulable", message, None);
            }
        };
        let pod = match needs.is_empty() && devices.get().is_none() {
            true => pod,
            false => Arc::new(Pod { needs, devices, ..Pod::clone(&pod) }),
        };
        match place(&pod, &mut self.cluster) {
            Ok(placement) if !undecided.is_empty() => self.choose(key, &placement.node, undecided),
            Ok(placement) => self.begin_binding(key, pod, about, placement),
            Err(Refusal { message, cured_by }) => {
                self.queue.refuse(key, cured_by, Instant::now());
                tracing::info!(pod = %key, why = message, "fits nowhere");
                self.tell(about, EventKind::Warning, "FailedScheduling", message.clone());
                let nominated = self.make_room(key, &pod);
                self.give_back(key, &pod);
                self.say(key, "Unschedulable", message, nominated);
            }
        }
    }

    /// What a pod's claims ask of its node: of its volumes, those that wait to be told it, and its devices. Or why it waits,
    /// and what may change that; `None` is something that was begun already.
    fn wants(&mut self, pod: &Pod) -> Result<Wanted, (Option<Cure>, String)> {
        let placed = self.binding.iter().map(|(key, placed)| (key, &*placed.placed.node));
        let volumes = self.storage.wants(pod, placed).map_err(|(cured_by, why)| (Some(cured_by), why))?;
        let devices = self.devices.wants(pod);
        let devices = devices.map_err(|wait| ((!wait.is_brief).then_some(Cure::NodeChanged), wait.why))?;
        Ok((volumes.needs, volumes.undecided, devices))
    }

    /// The pod counts on its node, and its devices are its own, from here on.
    fn begin_binding(&mut self, key: &Key, pod: Arc<Pod>, about: ObjectRef, placement: Placement) {
        let (footprint, uid) = (Arc::clone(&pod.footprint), pod.uid.clone());
        let reservation = pod
            .devices
            .get()
            .map(|ask| Reservation { allocations: ask.allocations(&placement.node), claims: ask.reserve.clone() });
        // It looks at what is taken, which changes now.
        drop(pod);
        let reservation = reservation.unwrap_or_default();
        self.devices.assume(&uid, &reservation.allocations);
        self.cluster.put(key, &placement.node, Arc::clone(&footprint));
        let placed = Placed { node: placement.node.clone(), footprint };
        self.binding.insert(key.clone(), Assumed { uid, placed });
        self.queue.cure(Cure::PodsChanged, Instant::now());
        let write = bind(self.client.clone(), key.clone(), about, placement, reservation);
        self.writes.push(Box::pin(write));
    }

    /// Makes the pod's condition say why it waits, and where it will go if that is known, unless it says so already.
    fn say(&mut self, key: &Key, reason: &'static str, message: String, nominated: Option<String>) {
        let Some(entry) = self.queue.get_mut(key) else { return };
        if entry.said == message && nominated.is_none() {
            return;
        }
        let mut condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastProbeTime": null,
        });
        if entry.said.is_empty() {
            condition["lastTransitionTime"] = json!(self.client.world().now_rfc3339());
        }
        entry.said = message;
        let mut patch = json!({"metadata": {"uid": entry.pod.uid}, "status": {"conditions": [condition]}});
        if let Some(node) = nominated {
            patch["status"]["nominatedNodeName"] = json!(node);
        }
        let patch = Patch::Strategic(patch);
        let (client, key) = (self.client.clone(), key.clone());
        self.writes.push(Box::pin(async move {
            let status = Some(Subresource::Status);
            let said = client.patch(&kinds::POD, key.namespace(), key.name(), &patch, status).await;
            Written::Said(key, said.map(drop))
        }));
    }

    fn settle(&mut self, written: Written) {
        match written {
            Written::Bound(key, about, placement, claims, Ok(())) => {
                self.devices.settle(&about.uid, claims);
                tracing::info!(pod = %key, node = placement.node, why = placement.why, "bound");
                let message = format!("Successfully assigned {key} to {}", placement.node);
                if self.queue.get_mut(&key).is_some_and(|entry| entry.pod.uid == about.uid) {
                    self.queue.remove(&key);
                }
                self.tell(about, EventKind::Normal, "Scheduled", message);
            }
            Written::Bound(key, about, placement, claims, Err(error)) => {
                if self.devices.settle(&about.uid, claims) {
                    self.queue.cure_claimants(Instant::now());
                }
                self.bind_failed(&key, about, &placement, &error);
            }
            Written::GivenBack(_, Ok(())) => {}
            Written::GivenBack(key, Err(error)) => {
                // The pod is tried again, and then it is looked at again.
                tracing::debug!(pod = %key, %error, "a claim was not given back");
            }
            Written::Chosen(key, told) => self.settle_choice(&key, told),
            Written::Ended { for_pod, victim, ended } => self.settle_end(&for_pod, &victim, ended),
            Written::Said(_, Ok(())) => {}
            Written::Said(key, Err(error)) => {
                // A pod that is gone or changed needs no condition now; it is said again when it is tried again.
                if !error.is_not_found() && !error.is_conflict() {
                    tracing::warn!(pod = %key, %error, "a pod's condition was not written");
                }
                if let Some(entry) = self.queue.get_mut(&key) {
                    entry.said.clear();
                }
            }
        }
    }

    fn bind_failed(&mut self, key: &Key, about: ObjectRef, placement: &Placement, error: &ClientError) {
        tracing::warn!(pod = %key, node = placement.node, %error, "a binding failed");
        if self.binding.get(key).is_none_or(|assumed| assumed.uid != about.uid) {
            // Our copy shows the pod bound, or gone: nothing is assumed of it any more.
            return;
        }
        self.binding.remove(key);
        if self.cluster.take(key) {
            self.queue.cure(Cure::PodLeft, Instant::now());
        }
        if error.is_not_found() {
            self.queue.remove(key);
            return;
        }
        self.queue.retry(key, Instant::now());
        if !error.is_conflict() {
            let message = format!("binding rejected: {error}");
            self.tell(about, EventKind::Warning, "FailedScheduling", message);
        }
        // The pod may have changed while it was being bound.
        if let Some(pod) = self.pods.get_key(key.as_str()) {
            self.see_pod(key, &pod);
        }
    }

    fn tell(&self, about: ObjectRef, kind: EventKind, reason: &str, message: String) {
        self.recorder.note(Note { about, kind, reason: reason.to_owned(), message });
    }
}

async fn sleep_until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn bind(client: Client, key: Key, about: ObjectRef, placement: Placement, reservation: Reservation) -> Written {
    let (namespace, name) = (key.namespace(), key.name());
    let (claims, reserved) = reserve::reserve(&client, &about, &reservation).await;
    if let Err(error) = reserved {
        return Written::Bound(key, about, placement, claims, Err(error));
    }
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": about.uid,
            "annotations": {WHY_ANNOTATION: placement.why}},
        "target": {"apiVersion": "v1", "kind": "Node", "name": placement.node},
    });
    let bound = client.create_sub(&kinds::POD, namespace, name, "binding", &binding).await;
    Written::Bound(key.clone(), about, placement, claims, bound.map(drop))
}
