//! Keeps the traffic of this machine's pods within what NetworkPolicies allow.
//!
//! Flow        policies, namespaces and pods change → `policy` counts what follows → the network writes what differs
//! Guarantees  a pod's containers do not start before what restricts it is in force · nothing is written before all that
//!             is known to matter has been read, so that what an earlier agent wrote stands until then
//! Caveats     the pods of the whole cluster are watched only while a pod here is restricted by what other pods are

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use windlass_api::types::core;
use windlass_api::{Object, kinds};
use windlass_client::{Backoff, Cache, Change, Keep, Notice, Scope, Subscription};

use super::Shared;
use crate::policy::{Labels, Local, Name, Namespace, Peer, Policies, Policy, named_ports, peer_of_pod};

/// How long a pod waits until what restricts it is in force, before it is said that it waits.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is known waits for the first list of the cluster's pods.
const PEERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The key under which the policies of namespaces that end are kept for a later agent; no uid looks like it.
pub(super) const KEY: &str = "policies";
/// More than this is not kept: the largest record that the machine reads back is twice that.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// The pods of this machine that have addresses of their own, and how far what restricts them is in force.
pub struct Locals {
    pods: Mutex<Pods>,
    changed: Notify,
    /// The number of the last change that is in force; `None` before the first.
    in_force: watch::Sender<Option<u64>>,
}

/// Pods of this machine, and what they are now; nothing for one that is gone.
type Changed = Vec<(Arc<str>, Option<Local>)>;

#[derive(Default)]
struct Pods {
    by_uid: BTreeMap<Arc<str>, Local>,
    changed: BTreeSet<Arc<str>>,
    number: u64,
    gateway: Option<Ipv4Addr>,
}

impl Default for Locals {
    fn default() -> Locals {
        Locals { pods: Mutex::default(), changed: Notify::new(), in_force: watch::Sender::new(None) }
    }
}

impl Locals {
    /// Says what a pod is; the number of the change.
    pub fn set(&self, uid: &Arc<str>, pod: &core::Pod, addresses: &[IpAddr]) -> u64 {
        let address = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let (Some(address), Some(spec)) = (address, &pod.spec) else { return 0 };
        if spec.host_network == Some(true) {
            return 0;
        }
        let empty = Labels::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
        let mut pods = self.lock();
        let same = |known: &&Local| known.address == address && known.labels == *labels;
        if pods.by_uid.get(uid).filter(same).is_none() {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let local = Local { namespace, labels: labels.clone(), address, ports: named_ports(spec) };
            pods.by_uid.insert(Arc::clone(uid), local);
            pods.note(uid);
            self.changed.notify_one();
        }
        pods.number
    }

    /// Says that a pod has given its address back.
    pub fn remove(&self, uid: &str) {
        let mut pods = self.lock();
        if let Some((uid, _)) = pods.by_uid.remove_entry(uid) {
            pods.note(&uid);
            self.changed.notify_one();
        }
    }

    /// Returns once this change is in force.
    pub async fn in_force(&self, number: u64) -> Result<(), String> {
        let mut in_force = self.in_force.subscribe();
        let reached = in_force.wait_for(|reached| reached.is_some_and(|reached| reached >= number));
        match tokio::time::timeout(IN_FORCE_TIMEOUT, reached).await {
            Ok(reached) => reached.map(|_| ()).map_err(|_| "the agent ends".to_owned()),
            Err(_) => Err("the network policies for the pod are not in force yet".to_owned()),
        }
    }

    /// What changed since the last look, and the number of the last change.
    fn take(&self) -> (Changed, u64) {
        let mut pods = self.lock();
        let changed = std::mem::take(&mut pods.changed);
        let changed = changed.into_iter().map(|uid| {
            let local = pods.by_uid.get(&uid).cloned();
            (uid, local)
        });
        (changed.collect(), pods.number)
    }

    /// Lets the next look see all of them.
    fn look_at_all(&self) {
        let mut pods = self.lock();
        pods.changed = pods.by_uid.keys().cloned().collect();
    }

    /// Says where this machine answers its pods' questions for names.
    pub fn set_gateway(&self, address: Option<Ipv4Addr>) {
        self.lock().gateway = address;
    }

    fn gateway(&self) -> Option<Ipv4Addr> {
        self.lock().gateway
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pods> {
        self.pods.lock().expect("nothing panics while holding it")
    }
}

impl Pods {
    fn note(&mut self, uid: &Arc<str>) {
        self.changed.insert(Arc::clone(uid));
        self.number += 1;
    }
}

/// A cache and a reader's place in it.
struct Watched {
    /// Kept up to date as long as this is here.
    _cache: Cache,
    changes: Subscription,
    /// What ended the waiting.
    first: Option<Notice>,
}

/// Too much changed unseen: what is known may be wrong.
struct Lagged;

impl Watched {
    fn new(cache: Cache) -> Watched {
        Watched { changes: cache.subscribe(), _cache: cache, first: None }
    }

    /// Waits for a change; it is the first that [`Watched::take`] gives. Cancel safe.
    async fn changed(&mut self) {
        if self.first.is_none() {
            self.first = Some(self.changes.next().await);
        }
    }

    /// Everything that changed since.
    fn take(&mut self) -> Result<Vec<Change>, Lagged> {
        let mut all = Vec::new();
        while let Some(notice) = self.first.take().or_else(|| self.changes.take()) {
            match notice {
                Notice::Changed(change) => all.push(change),
                Notice::Lagged => return Err(Lagged),
            }
        }
        Ok(all)
    }
}

/// What an earlier agent has kept.
fn read_kept(bytes: &[u8]) -> Result<Vec<(Name, Arc<Policy>)>, serde_json::Error> {
    let documents: Vec<Box<RawValue>> = serde_json::from_slice(bytes)?;
    let objects = documents.iter().filter_map(|raw| Object::parse(Bytes::copy_from_slice(raw.get().as_bytes())).ok());
    let named = objects.map(|object| {
        let name = (object.header.namespace().to_owned(), object.header.name().to_owned());
        (name, Arc::new(Policy::read(&object)))
    });
    Ok(named.collect())
}

/// Carries out what the objects say, whenever it changes, for ever. `kept` is what an earlier agent has kept.
pub(super) async fn run(shared: &Arc<Shared>, kept: Option<Bytes>) {
    let mut network_ready = shared.network_ready.subscribe();
    network_ready.wait_for(|ready| *ready).await.expect("the sender lives in `shared`");
    let policies = Cache::start(shared.client.clone(), &kinds::NETWORK_POLICY, Scope::all());
    let namespaces = Cache::start(shared.client.clone(), &kinds::NAMESPACE, Scope::headers());
    policies.synced().await;
    namespaces.synced().await;
    let mut saved = kept.unwrap_or_else(|| Bytes::from_static(b"[]"));
    let kept = read_kept(&saved).unwrap_or_else(|error| {
        tracing::error!(%error, "what was kept of network policies cannot be read; those of ending namespaces are over");
        Vec::new()
    });
    let mut state = Policies::new(shared.locals.gateway()).restored(kept);
    loop {
        let known = Known {
            state,
            saved,
            policies: Watched::new(policies.clone()),
            namespaces: Watched::new(namespaces.clone()),
            peers: None,
        };
        let before;
        (before, saved) = known.keep(shared).await;
        state = Policies::new(shared.locals.gateway()).keeping(&before);
    }
}

/// What is known, and what tells that it changed.
struct Known {
    state: Policies,
    /// What is kept for a later agent.
    saved: Bytes,
    policies: Watched,
    namespaces: Watched,
    /// The cluster's pods, while they matter.
    peers: Option<Watched>,
}

impl Known {
    /// Carries out every change until one was missed; what was known and kept then.
    async fn keep(mut self, shared: &Shared) -> (Policies, Bytes) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        shared.locals.look_at_all();
        loop {
            let (locals, number) = shared.locals.take();
            if let Err(Lagged) = self.take_in(shared, locals).await {
                return (self.state, self.saved);
            }
            self.save(shared).await;
            match shared.machine.apply_policies(self.state.table()).await {
                Ok(()) => {
                    backoff.reset();
                    shared.locals.in_force.send_replace(Some(number));
                    self.changed(shared).await;
                }
                Err(error) => {
                    tracing::error!(%error, "network policies are not in force; it is tried again");
                    tokio::time::sleep(backoff.next(&shared.world)).await;
                }
            }
        }
    }

    /// Keeps for a later agent what the API may not have any more by then, when that is something else than before.
    async fn save(&mut self, shared: &Shared) {
        let all = self.state.lasting();
        let sizes = all.iter().scan(0, |sum, document| {
            *sum += document.len() + 1;
            Some(*sum)
        });
        let fit = sizes.take_while(|sum| *sum < KEPT_BYTES_MAX).count();
        let left_out = all.len() - fit;
        let documents: Vec<&[u8]> = all.into_iter().take(fit).map(|document| &document[..]).collect();
        let bytes = Bytes::from([&b"["[..], &documents.join(&b','), b"]"].concat());
        if bytes == self.saved {
            return;
        }
        if left_out > 0 {
            tracing::warn!(left_out, KEPT_BYTES_MAX, "not all network policies of ending namespaces are kept");
        }
        match shared.machine.save(KEY, bytes.clone()).await {
            Ok(()) => self.saved = bytes,
            Err(error) => tracing::warn!(%error, "the network policies of ending namespaces were not kept"),
        }
    }

    async fn changed(&mut self, shared: &Shared) {
        let peers = async {
            match &mut self.peers {
                Some(peers) => peers.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.locals.changed.notified() => {}
            () = self.policies.changed() => {}
            () = self.namespaces.changed() => {}
            () = peers => {}
        }
    }

    async fn take_in(&mut self, shared: &Shared, locals: Changed) -> Result<(), Lagged> {
        for change in self.namespaces.take()? {
            self.state.set_namespace(change.key.name(), change.new.as_deref().map(namespace_of));
        }
        for (uid, local) in locals {
            self.state.set_local(&uid, local);
        }
        for change in self.policies.take()? {
            self.state.set_policy(name_of(&change), change.new.as_ref().map(|object| object.memo(Policy::read)));
        }
        match (self.state.needs_peers(), &self.peers) {
            (true, None) => {
                let scope = Scope { keep: Keep::Digest(digest), ..Scope::all() };
                let cache = Cache::start(shared.client.clone(), &kinds::POD, scope);
                if tokio::time::timeout(PEERS_TIMEOUT, cache.synced()).await.is_err() {
                    tracing::warn!("the cluster's pods are not known yet; those that policies allow are denied so far");
                }
                self.peers = Some(Watched::new(cache));
            }
            (false, Some(_)) => {
                self.peers = None;
                self.state.forget_peers();
            }
            _ => {}
        }
        if let Some(peers) = &mut self.peers {
            for change in peers.take()? {
                let peer = change.new.as_ref().and_then(|pod| Option::clone(&pod.memo(read_peer)));
                self.state.set_peer(name_of(&change), peer);
            }
        }
        Ok(())
    }
}

/// All that is kept of the cluster's pods.
fn digest(pod: &Object) -> Object {
    let peer = read_peer(pod);
    let small = pod.without_contents();
    small.memo(|_| peer);
    small
}

fn read_peer(pod: &Object) -> Option<Arc<Peer>> {
    peer_of_pod(pod).map(Arc::new)
}

fn name_of(change: &Change) -> Name {
    (change.key.namespace().to_owned(), change.key.name().to_owned())
}

fn namespace_of(object: &Object) -> Namespace {
    let labels = object.header.labels().iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    Namespace { labels: labels.collect(), is_ending: object.header.is_ending() }
}
