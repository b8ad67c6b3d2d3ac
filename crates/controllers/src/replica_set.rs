//! ReplicaSet: keep `spec.replicas` matching pods alive.
//!
//! Goal        pods owned by the set, matching its selector, not ended and not ending == spec.replicas
//! Watches     ReplicaSet; Pod (owned, or nobody's and matching)
//! Writes      Pod: create, delete, owner reference · ReplicaSet: status
//! Relies on   nobody else sets our owner reference
//!
//! Rules, in order
//!   R1 ending      a set being deleted creates and deletes nothing; its status is still kept
//!   R2 adopt       matching orphans are adopted, owned strangers released
//!   R3 scale up    missing pods are created, at most BURST_MAX per pass
//!   R4 scale down  surplus pods are deleted, cheapest first (`deletion_order`), at most BURST_MAX per pass
//!   R5 status      counts and conditions are written when they differ
//!   R6 available   a ready pod counts as available once it was ready for minReadySeconds; looked at again then
//! Not here       placement (scheduler) · template hash and rollout (deployment) · what differs for the older
//!                ReplicationController, which the same rules keep (replication_controller)

mod deletion_order;
mod status;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Header, Kind, Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef};

use crate::claim::{Claimant, Claims, candidates};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;
use crate::selector::Selector;

/// Pods created or deleted by one pass; the next goes on.
const BURST_MAX: usize = 500;

/// The controller of ReplicaSets.
pub(crate) type ReplicaSets = Replicas<ReplicaSet>;

/// A kind that keeps a number of equal pods by these rules.
pub(crate) trait Replicated: Send + Sync + 'static {
    /// Its controller's name.
    const NAME: &'static str;

    /// The kind.
    fn kind() -> &'static Kind;

    /// Reads an object of it.
    fn read(object: &Object) -> Result<SetFacts, serde_json::Error>;
}

/// The kind ReplicaSet.
pub(crate) struct ReplicaSet;

impl Replicated for ReplicaSet {
    const NAME: &'static str = "replicaset";

    fn kind() -> &'static Kind {
        &kinds::REPLICA_SET
    }

    fn read(object: &Object) -> Result<SetFacts, serde_json::Error> {
        serde_json::from_slice(&object.json)
    }
}

/// The controller of a kind that keeps a number of equal pods.
pub(crate) struct Replicas<K> {
    sets: Cache,
    pods: Cache,
    kind: PhantomData<K>,
}

/// What a decision about one set depends on.
pub(crate) struct View {
    kind: &'static Kind,
    header: Header,
    set: Arc<SetFacts>,
    /// Owned pods and orphans of the namespace.
    pods: Vec<Arc<Cached>>,
    /// Active pods on each node of all sets that share this set's owner: crowded nodes lose pods first.
    related_on_node: BTreeMap<String, usize>,
    failure: Option<String>,
    now: Timestamp,
}

/// The set as its controller reads it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SetFacts {
    spec: SetSpec,
    status: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SetSpec {
    replicas: Option<i64>,
    min_ready_seconds: Option<i64>,
    selector: Selector,
    template: Value,
}

impl<K: Replicated> Replicas<K> {
    pub(crate) fn new(caches: &Caches) -> Replicas<K> {
        Replicas { sets: caches.of(K::kind()), pods: caches.of(&kinds::POD), kind: PhantomData }
    }
}

fn facts<K: Replicated>(set: &Cached) -> Arc<SetFacts> {
    set.memo(|set: &Object| {
        K::read(set).unwrap_or_else(|error| {
            tracing::error!(set = set.header.key(), %error, "a replica set that cannot be read is left alone");
            SetFacts::default()
        })
    })
}

impl<K: Replicated> Controller for Replicas<K> {
    type View = View;
    const NAME: &'static str = K::NAME;

    fn wakes(&self) -> Vec<Wake> {
        let sets = self.sets.clone();
        let adopters = Wake::new(&kinds::POD, move |change, wake| {
            let Some(pod) = &change.new else { return };
            if pod.header.controller().is_none() && !pod.header.labels().is_empty() {
                for set in sets.in_namespace(pod.header.namespace()) {
                    let selector = &facts::<K>(&set).spec.selector;
                    if !selector.is_empty() && selector.matches(&pod.header.labels()) {
                        wake(Key::of(&set.header));
                    }
                }
            }
        });
        vec![Wake::itself(K::kind()), Wake::owner(&kinds::POD, K::kind()), adopters]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let set = self.sets.get_key(key.as_str())?;
        let facts = facts::<K>(&set);
        let pods = candidates(&self.pods, &set.header);
        let active = pods.iter().filter(|pod| PodFacts::of(pod).is_active()).count();
        let scaling_down = facts.spec.replicas.unwrap_or(1) < i64::try_from(active).unwrap_or(i64::MAX);
        let related_on_node = if scaling_down { self.related(&set.header) } else { BTreeMap::new() };
        Some(View {
            kind: K::kind(),
            header: set.header.clone(),
            set: facts,
            pods,
            related_on_node,
            failure: look.failure.map(str::to_owned),
            now: look.now,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        let spec = &view.set.spec;
        if spec.selector.is_empty() {
            return plan;
        }
        let claimant = Claimant { kind: view.kind, header: &view.header, selector: &spec.selector };
        let claims = claimant.sort(&view.pods);
        claimant.plan(&claims, &kinds::POD, &mut plan);
        let active: Vec<&Arc<Cached>> = claims.owned.iter().filter(|pod| PodFacts::of(pod).is_active()).collect();
        if !view.header.is_ending() {
            let adopted = claims.orphans.iter().filter(|pod| PodFacts::of(pod).is_active()).count();
            let desired = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
            let have = active.len() + adopted;
            if have < desired {
                scale_up(view, &claimant, desired, have, &mut plan);
            } else if active.len() > desired {
                scale_down(view, active.clone(), desired, &mut plan);
            }
        }
        plan_status(view, &claims, &active, &mut plan);
        plan
    }
}

impl<K> Replicas<K> {
    /// How many active pods of this set and its siblings are on each node.
    fn related(&self, set: &Header) -> BTreeMap<String, usize> {
        let siblings = match set.controller() {
            Some(owner) => self.sets.owned_by(&owner.uid),
            None => self.sets.get(set.namespace(), set.name()).into_iter().collect(),
        };
        let mut on_node = BTreeMap::new();
        for pod in siblings.iter().flat_map(|sibling| self.pods.owned_by(sibling.header.uid())) {
            if PodFacts::of(&pod).is_active() {
                *on_node.entry(pod.header.node_name().to_owned()).or_default() += 1;
            }
        }
        on_node
    }
}

fn scale_up(view: &View, claimant: &Claimant, desired: usize, have: usize, plan: &mut Plan) {
    for _ in 0..(desired - have).min(BURST_MAX) {
        plan.create(&kinds::POD, view.header.namespace(), new_pod(view, claimant), "Created pod: {name}")
            .tell(ObjectRef::of(&view.header), "SuccessfulCreate")
            .tell_failure("FailedCreate");
    }
}

/// A pod as the template says, owned by the set.
fn new_pod(view: &View, claimant: &Claimant) -> Value {
    let template = &view.set.spec.template;
    let mut metadata = json!({
        "generateName": format!("{}-", view.header.name()),
        "namespace": view.header.namespace(),
        "ownerReferences": [claimant.reference()],
    });
    for field in ["labels", "annotations", "finalizers"] {
        let value = &template["metadata"][field];
        if !value.is_null() {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

fn scale_down(view: &View, mut active: Vec<&Arc<Cached>>, desired: usize, plan: &mut Plan) {
    let surplus = active.len() - desired;
    deletion_order::sort(&mut active, &view.related_on_node, view.now);
    for pod in active.into_iter().take(surplus.min(BURST_MAX)) {
        let why = format!("Deleted pod: {}", pod.header.name());
        plan.delete(Target::of(&kinds::POD, &pod.header), why)
            .tell(ObjectRef::of(&view.header), "SuccessfulDelete")
            .tell_failure("FailedDelete");
    }
}

fn plan_status(view: &View, claims: &Claims, active: &[&Arc<Cached>], plan: &mut Plan) {
    let counts = status::count(view, claims, active);
    if let Some((after, pods)) = counts.next_available {
        plan.look_again(after, format!("{pods} ready pods will have been ready for minReadySeconds"));
    }
    let desired = status::desired(view, &counts);
    if crate::status::differs(&view.set.status, &desired) {
        let why = format!(
            "status: {} pods, {} ready, {} available of {} desired",
            counts.replicas,
            counts.ready,
            counts.available,
            view.set.spec.replicas.unwrap_or(1)
        );
        let patch = windlass_client::Patch::Merge(json!({"status": desired}));
        plan.patch_status(Target::of(view.kind, &view.header), patch, why);
    }
}

/// A set with its pods, at the time of tests.
#[cfg(test)]
pub(crate) fn view_of<K: Replicated>(set: &Cached, pods: Vec<Arc<Cached>>) -> View {
    View {
        kind: K::kind(),
        header: set.header.clone(),
        set: facts::<K>(set),
        pods,
        related_on_node: BTreeMap::new(),
        failure: None,
        now: crate::fixture::now(),
    }
}

#[cfg(test)]
mod tests;
