//! Deployment: keep one ReplicaSet per pod template, and move replicas from the old ones to the newest.
//!
//! Goal        the newest set has `spec.replicas` replicas and all others none, moved within maxSurge and maxUnavailable
//! Watches     Deployment; ReplicaSet (owned, or nobody's and matching); Pod (for Recreate: old pods must be gone)
//! Writes      ReplicaSet: create, delete, owner reference, spec.replicas, annotations · Deployment: status, its
//!             revision annotation
//! Relies on   the replica set controller for pods and for the sets' status
//!
//! Rules, in order
//!   R1 ending      a deployment being deleted only keeps its status
//!   R2 adopt       matching orphan sets are adopted, owned strangers released
//!   R3 paused      while paused nothing is rolled out; changed replicas are still spread (R5)
//!   R4 new set     the set of the current template exists, named by the template's hash, with the highest revision
//!   R5 scale       when `spec.replicas` changed in the middle of a rollout the sets share the change by their size
//!   R6 rolling     up as far as maxSurge lets, down as far as maxUnavailable lets, sick old pods first
//!   R7 recreate    old pods are gone before the new set grows
//!   R8 history     old empty sets beyond revisionHistoryLimit are deleted, oldest revision first
//!   R9 status      counts and the conditions Available, Progressing and ReplicaFailure are written when they differ
//! Not here       pods (replica set) · rollback (kubectl patches the template back; R4 finds the old set and raises it)

mod revision;
mod rollout;
mod scale;
mod set;
mod status;

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Header, Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key};

use crate::claim::{Claimant, candidates};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;
use crate::selector::Selector;
use set::Set;

/// The controller of Deployments.
pub(crate) struct Deployments {
    deployments: Cache,
    sets: Cache,
    pods: Cache,
}

/// What a decision about one deployment depends on.
pub(crate) struct View {
    header: Header,
    deployment: Arc<Facts>,
    /// Owned sets and orphans of the namespace.
    sets: Vec<Arc<Cached>>,
    /// The set that has the name which R4 would give, whosever it is.
    namesake: Option<Arc<Cached>>,
    /// Whether pods of old sets are still running. Only looked at for Recreate.
    old_pods_run: bool,
    now: Timestamp,
}

/// The deployment as its controller reads it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Facts {
    metadata: FactsMetadata,
    spec: Spec,
    status: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct FactsMetadata {
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: Option<i64>,
    selector: Selector,
    template: Value,
    strategy: Strategy,
    min_ready_seconds: Option<i64>,
    revision_history_limit: Option<i64>,
    paused: bool,
    progress_deadline_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RollingUpdate {
    max_surge: Value,
    max_unavailable: Value,
}

impl Deployments {
    pub(crate) fn new(caches: &Caches) -> Deployments {
        Deployments {
            deployments: caches.of(&kinds::DEPLOYMENT),
            sets: caches.of(&kinds::REPLICA_SET),
            pods: caches.of(&kinds::POD),
        }
    }
}

fn facts(deployment: &Cached) -> Arc<Facts> {
    deployment.memo(|deployment: &Object| {
        deployment.decode().unwrap_or_else(|error| {
            let key = deployment.header.key();
            tracing::error!(deployment = key, %error, "a deployment that cannot be read is left alone");
            Facts::default()
        })
    })
}

impl Controller for Deployments {
    type View = View;
    const NAME: &'static str = "deployment";

    fn wakes(&self) -> Vec<Wake> {
        let (deployments, sets) = (self.deployments.clone(), self.sets.clone());
        let adopters = Wake::new(&kinds::REPLICA_SET, move |change, wake| {
            let Some(set) = change.new.as_ref().filter(|set| set.header.controller().is_none()) else { return };
            for deployment in deployments.in_namespace(set.header.namespace()) {
                let selector = &facts(&deployment).spec.selector;
                if !selector.is_empty() && selector.matches(&set.header.labels()) {
                    wake(Key::of(&deployment.header));
                }
            }
        });
        // Recreate waits for the last old pod, which no set's status tells about when the set is gone.
        let recreators = Wake::new(&kinds::POD, move |change, wake| {
            let (Some(old), None) = (&change.old, &change.new) else { return };
            let Some(owner) = old.header.controller().filter(|owner| owner.kind == "ReplicaSet") else { return };
            let Some(set) = sets.get(old.header.namespace(), &owner.name) else { return };
            if let Some(owner) = set.header.controller() {
                wake(Key::new(set.header.namespace(), &owner.name));
            }
        });
        vec![
            Wake::itself(&kinds::DEPLOYMENT),
            Wake::owner(&kinds::REPLICA_SET, &kinds::DEPLOYMENT),
            adopters,
            recreators,
        ]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let found = self.deployments.get_key(key.as_str())?;
        let deployment = facts(&found);
        let sets = candidates(&self.sets, &found.header);
        let namesake = self.sets.get(found.header.namespace(), &set::name(&found.header, &deployment));
        let old_pods_run = deployment.spec.strategy.kind == "Recreate"
            && sets.iter().any(|set| {
                let is_old = !set::has_template(set, &deployment.spec.template);
                is_old && self.pods.owned_by(set.header.uid()).iter().any(|pod| !PodFacts::of(pod).is_terminal())
            });
        Some(View { header: found.header.clone(), deployment, sets, namesake, old_pods_run, now: look.now })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        let spec = &view.deployment.spec;
        if spec.selector.is_empty() {
            return plan;
        }
        let claimant = Claimant { kind: &kinds::DEPLOYMENT, header: &view.header, selector: &spec.selector };
        let claims = claimant.sort(&view.sets);
        claimant.plan(&claims, &kinds::REPLICA_SET, &mut plan);
        let sets: Vec<Set> = claims.owned.iter().chain(&claims.orphans).map(|set| Set::of(set)).collect();
        let mut rollout = Rollout::new(view, sets);
        if !view.header.is_ending() {
            rollout.decide(&mut plan);
        }
        status::plan(view, &rollout, &mut plan);
        plan
    }
}

/// The sets of one deployment while a pass decides about them.
struct Rollout<'a> {
    view: &'a View,
    /// Oldest first; their `replicas` change as the pass decides.
    old: Vec<Set>,
    /// The set of the current template.
    new: Option<Set>,
    /// A set was created or found again in this pass: what Progressing says about it.
    found: Option<(&'static str, String)>,
    /// The name was taken by another template: count the collision and try another name.
    collided: bool,
}

impl<'a> Rollout<'a> {
    fn new(view: &'a View, mut sets: Vec<Set>) -> Rollout<'a> {
        sets.sort_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name)));
        // Of several sets of one template the oldest is the one, so that all passes agree.
        let new = sets.iter().position(|set| set::same_template(set, &view.deployment.spec.template));
        let new = new.map(|index| sets.remove(index));
        Rollout { view, old: sets, new, found: None, collided: false }
    }

    fn spec(&self) -> &'a Spec {
        &self.view.deployment.spec
    }

    fn replicas(&self) -> i64 {
        self.spec().replicas.unwrap_or(1)
    }

    fn is_recreate(&self) -> bool {
        self.spec().strategy.kind == "Recreate"
    }

    /// All sets, old ones first.
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    fn decide(&mut self, plan: &mut Plan) {
        if self.spec().paused {
            revision::sync(self, plan);
            scale::spread(self, plan);
            return;
        }
        if scale::is_due(self) {
            revision::sync(self, plan);
            scale::spread(self, plan);
            return;
        }
        if self.is_recreate() {
            rollout::recreate(self, plan);
        } else {
            rollout::rolling(self, plan);
        }
        if status::is_complete(self) {
            revision::clean_up(self, plan);
        }
    }

    /// Plans a set's new size, and remembers it for the rest of the pass.
    fn resize(&self, set: &mut Set, replicas: i64, plan: &mut Plan) {
        let (desired, most) = (self.replicas().to_string(), (self.replicas() + self.max_surge()).to_string());
        let annotated =
            set.annotations.get(set::DESIRED) == Some(&desired) && set.annotations.get(set::MOST) == Some(&most);
        if set.replicas == replicas && annotated {
            return;
        }
        let mut patch = json!({
            "metadata": {"annotations": {set::DESIRED: desired, set::MOST: most}}, "spec": {"replicas": replicas},
        });
        // A set that this pass has written to already is at a revision that we do not know.
        if set.revision_seen > 0 {
            patch["metadata"]["resourceVersion"] = json!(set.revision_seen.to_string());
        }
        let target = Target { kind: kinds::REPLICA_SET.clone(), key: set.key.clone(), uid: set.uid.clone() };
        if set.replicas == replicas {
            let why = format!("replica set {} is told that {desired} replicas are desired", set.name);
            plan.patch(target, patch, why);
        } else {
            let direction = if replicas > set.replicas { "up" } else { "down" };
            let from = set.replicas;
            let why = format!("Scaled {direction} replica set {} from {from} to {replicas}", set.name);
            plan.patch(target, patch, why).tell(windlass_client::ObjectRef::of(&self.view.header), "ScalingReplicaSet");
        }
        set.replicas = replicas;
        set.annotations.insert(set::DESIRED.to_owned(), desired);
        set.annotations.insert(set::MOST.to_owned(), most);
    }

    /// Resizes the new set.
    fn resize_new(&mut self, replicas: i64, plan: &mut Plan) {
        if let Some(mut new) = self.new.take() {
            self.resize(&mut new, replicas, plan);
            self.new = Some(new);
        }
    }

    /// Resizes one of the old sets.
    fn resize_old(&mut self, index: usize, replicas: i64, plan: &mut Plan) {
        let mut set = std::mem::take(&mut self.old[index]);
        self.resize(&mut set, replicas, plan);
        self.old[index] = set;
    }

    /// How many pods there may be beyond `spec.replicas`.
    fn max_surge(&self) -> i64 {
        self.bounds().0
    }

    /// How many of `spec.replicas` may be unavailable.
    fn max_unavailable(&self) -> i64 {
        if self.is_recreate() || self.replicas() == 0 { 0 } else { self.bounds().1.min(self.replicas()) }
    }

    /// maxSurge and maxUnavailable as pods: percentages of a surge are rounded up, of unavailability down, and when
    /// both come to nothing one pod may be unavailable, else nothing could ever move.
    fn bounds(&self) -> (i64, i64) {
        if self.is_recreate() {
            return (0, 0);
        }
        let rolling = self.spec().strategy.rolling_update.clone().unwrap_or_default();
        let surge = pods_of(&rolling.max_surge, self.replicas(), Round::Up);
        let unavailable = pods_of(&rolling.max_unavailable, self.replicas(), Round::Down);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }
}

enum Round {
    Up,
    Down,
}

/// A number of pods, or a percentage of the replicas; absent is 25 %.
fn pods_of(value: &Value, replicas: i64, round: Round) -> i64 {
    if let Some(pods) = value.as_i64() {
        return pods;
    }
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse().ok());
    let hundredths = replicas.saturating_mul(percent.unwrap_or(25_i64));
    match round {
        Round::Up => (hundredths + 99) / 100,
        Round::Down => hundredths / 100,
    }
}

#[cfg(test)]
mod tests;
