//! StatefulSet: pods with numbers, names and volumes of their own, made and ended in order.
//!
//! Goal        the ordinals start … start + replicas - 1 have a pod each, named by the set and the ordinal, with its claims
//! Watches     StatefulSet; Pod (owned, or nobody's and of a matching name); ControllerRevision (owned)
//! Writes      Pod: create, delete, owner reference, identity labels · PersistentVolumeClaim: create, owner references
//!             · ControllerRevision: create, delete, number · StatefulSet: status
//! Relies on   the API to hold at most one pod of a name: there are never two of one identity
//!
//! Rules, in order
//!   R1 ending     a set being deleted creates and deletes nothing; its status is still kept
//!   R2 adopt      matching orphans that have a name of the set are adopted, owned strangers released
//!   R3 revision   the template's ControllerRevision is the newest; below the partition pods are of the current one
//!   R4 identity   a pod knows its name, host name, ordinal and revision, and mounts its own claims (`pod`)
//!   R5 claims     a pod's claims are made before it; persistentVolumeClaimRetentionPolicy says who owns them (`claim`)
//!   R6 up         missing pods are created lowest ordinal first; OrderedReady goes on only after an available pod
//!   R7 ended      a pod that has failed or succeeded is deleted, so that another takes its place
//!   R8 down       pods beyond the range go highest ordinal first; OrderedReady waits for each, and for unhealthy others
//!   R9 rolling    pods of old revisions from the partition on go highest first, at most maxUnavailable away at a time;
//!                 with OnDelete whoever deletes a pod gets a new one
//!   R10 history   revisions beyond revisionHistoryLimit go
//!   R11 status    counts and revisions are written when they differ; the update revision becomes the current one when
//!                 every pod is of it and ready
//! Not here       the volumes of claims (persistent_volume_claim) · deletion of owned claims (garbage)

mod claim;
mod pod;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use windlass_api::{Header, Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef};

use crate::claim::{Claimant, candidates};
use crate::controller::{Controller, Look, Wake};
use crate::controller_revision::{self, Current, Owner, REVISION_LABEL, Revision};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;
use crate::selector::Selector;

/// Pods created or deleted by one pass; the next goes on.
const BURST_MAX: usize = 500;
/// A claim that is ending is looked at again after this.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// The controller of StatefulSets.
pub(crate) struct StatefulSets {
    sets: Cache,
    pods: Cache,
    claims: Cache,
    revisions: Cache,
}

/// What a decision about one set depends on.
pub(crate) struct View {
    header: Header,
    set: Arc<Facts>,
    /// Owned pods, and orphans of the namespace that have a name of the set.
    pods: Vec<Arc<Cached>>,
    /// Claims of its pods, by name.
    claims: BTreeMap<String, Arc<Cached>>,
    revisions: Vec<Arc<Cached>>,
    /// What has the name that the template's revision would get.
    namesake: Option<Arc<Cached>>,
    now: Timestamp,
}

/// The set as its controller reads it.
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
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: Option<i64>,
    selector: Selector,
    template: Value,
    service_name: Option<String>,
    ordinals: Option<Ordinals>,
    pod_management_policy: String,
    volume_claim_templates: Option<Vec<Value>>,
    persistent_volume_claim_retention_policy: Option<Retention>,
    min_ready_seconds: Option<i64>,
    revision_history_limit: Option<i64>,
    update_strategy: Strategy,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Ordinals {
    start: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Retention {
    when_deleted: String,
    when_scaled: String,
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
    partition: Option<i64>,
    max_unavailable: Value,
}

impl Spec {
    fn replicas(&self) -> i64 {
        self.replicas.unwrap_or(1).max(0)
    }

    fn start(&self) -> i64 {
        self.ordinals.as_ref().map_or(0, |ordinals| ordinals.start)
    }

    /// The ordinals that are to have a pod.
    fn range(&self) -> std::ops::Range<i64> {
        self.start()..self.start().saturating_add(self.replicas())
    }

    fn is_ordered(&self) -> bool {
        self.pod_management_policy != "Parallel"
    }

    fn rolling(&self) -> Option<RollingUpdate> {
        (self.update_strategy.kind == "RollingUpdate")
            .then(|| self.update_strategy.rolling_update.clone().unwrap_or_default())
    }

    /// From this ordinal on pods are of the newest revision.
    fn updated_from(&self) -> i64 {
        let partition = self.rolling().and_then(|rolling| rolling.partition).unwrap_or(0);
        self.start().saturating_add(partition)
    }

    /// Percentages are rounded down, to at least one pod.
    fn max_unavailable(&self) -> i64 {
        let most = self.rolling().map(|rolling| rolling.max_unavailable).unwrap_or_default();
        let percent = most.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<i64>().ok());
        let pods = most.as_i64().or_else(|| percent.map(|percent| self.replicas().saturating_mul(percent) / 100));
        pods.unwrap_or(1).max(1)
    }
}

fn facts(set: &Cached) -> Arc<Facts> {
    set.memo(|set: &Object| {
        set.decode().unwrap_or_else(|error| {
            tracing::error!(set = set.header.key(), %error, "a stateful set that cannot be read is left alone");
            Facts::default()
        })
    })
}

fn owner<'a>(header: &'a Header, set: &'a Facts) -> Owner<'a> {
    Owner {
        kind: &kinds::STATEFUL_SET,
        header,
        selector: &set.spec.selector,
        template: &set.spec.template,
        annotations: set.metadata.annotations.as_ref(),
        collisions: set.status["collisionCount"].as_i64().unwrap_or(0),
        history_limit: set.spec.revision_history_limit.unwrap_or(10),
    }
}

/// The ordinal in a pod's name, if it is one of this set's.
fn ordinal(set: &Header, pod: &Header) -> Option<i64> {
    let digits = pod.name().strip_prefix(set.name())?.strip_prefix('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number && (digits == "0" || !digits.starts_with('0')))
}

impl StatefulSets {
    pub(crate) fn new(caches: &Caches) -> StatefulSets {
        StatefulSets {
            sets: caches.of(&kinds::STATEFUL_SET),
            pods: caches.of(&kinds::POD),
            claims: caches.of(&kinds::PERSISTENT_VOLUME_CLAIM),
            revisions: caches.of(&kinds::CONTROLLER_REVISION),
        }
    }

    /// The claims of all pods that there are, and of those that may be made now.
    fn claims(&self, set: &Header, spec: &Spec, pods: &[Arc<Cached>]) -> BTreeMap<String, Arc<Cached>> {
        let mut found = BTreeMap::new();
        let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
        if templates.is_empty() {
            return found;
        }
        let there: BTreeSet<i64> = pods.iter().filter_map(|pod| ordinal(set, &pod.header)).collect();
        // A pass makes at most so many pods, the lowest first.
        let missing = spec.range().filter(|ordinal| !there.contains(ordinal)).take(BURST_MAX);
        for ordinal in missing.chain(there.iter().copied()) {
            for name in templates.iter().map(|template| claim::name(set, template, ordinal)) {
                if let Some(claim) = self.claims.get(set.namespace(), &name) {
                    found.insert(name, claim);
                }
            }
        }
        found
    }
}

impl Controller for StatefulSets {
    type View = View;
    const NAME: &'static str = "statefulset";

    fn wakes(&self) -> Vec<Wake> {
        let sets = self.sets.clone();
        let adopters = Wake::new(&kinds::POD, move |change, wake| {
            let Some(pod) = change.new.as_ref().filter(|pod| pod.header.controller().is_none()) else { return };
            let Some((name, _)) = pod.header.name().rsplit_once('-') else { return };
            if let Some(set) = sets.get(pod.header.namespace(), name) {
                wake(Key::of(&set.header));
            }
        });
        vec![
            Wake::itself(&kinds::STATEFUL_SET),
            Wake::owner(&kinds::POD, &kinds::STATEFUL_SET),
            Wake::owner(&kinds::CONTROLLER_REVISION, &kinds::STATEFUL_SET),
            adopters,
        ]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let found = self.sets.get_key(key.as_str())?;
        let (set, header) = (facts(&found), found.header.clone());
        let mut pods = candidates(&self.pods, &header);
        pods.retain(|pod| pod.header.controller().is_some() || ordinal(&header, &pod.header).is_some());
        Some(View {
            claims: self.claims(&header, &set.spec, &pods),
            revisions: candidates(&self.revisions, &header),
            namesake: self.revisions.get(header.namespace(), &controller_revision::name(&owner(&header, &set))),
            pods,
            set,
            header,
            now: look.now,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        let spec = &view.set.spec;
        if spec.selector.is_empty() {
            return plan;
        }
        let claimant = Claimant { kind: &kinds::STATEFUL_SET, header: &view.header, selector: &spec.selector };
        let claims = claimant.sort(&view.pods);
        claimant.plan(&claims, &kinds::POD, &mut plan);
        let owner = owner(&view.header, &view.set);
        let revisions = controller_revision::claim(&owner, &view.revisions, &mut plan);
        let is_ending = view.header.is_ending();
        let update = if is_ending {
            let name = view.set.status["updateRevision"].as_str().unwrap_or_default();
            Current { name: name.to_owned(), hash: String::new(), is_taken: true }
        } else {
            controller_revision::current(&owner, &revisions, view.namesake.as_deref(), &mut plan)
        };
        let pods = claims.owned.iter().chain(&claims.orphans);
        let mut pass = Pass::new(view, pods, &revisions, &update.name);
        if !is_ending && !update.is_taken {
            // A pass that waits for a pod still does what needs no order.
            pass.own_claims(&mut plan);
            let is_settled = pass.scale_up(&mut plan) && pass.scale_down(&mut plan);
            if is_settled {
                pass.roll(&mut plan);
            }
            let in_use = |name: &str, _: &str| name == update.name || pass.uses(name);
            controller_revision::clean_up(&owner, &revisions, in_use, &mut plan);
        }
        status::plan(&pass, update.is_taken && !is_ending, &mut plan);
        plan
    }
}

/// A set and its pods while a pass decides about them.
struct Pass<'a> {
    view: &'a View,
    /// By ordinal.
    pods: BTreeMap<i64, SetPod>,
    /// Names of the revisions, and the template of the current one if it is another than the set's.
    update: String,
    current: String,
    current_template: Option<Value>,
    changes: usize,
}

/// A pod of the set.
struct SetPod {
    object: Arc<Cached>,
    facts: Arc<PodFacts>,
    revision: String,
    /// How long until it counts as available; `None` while it is not ready.
    available_in: Option<Duration>,
}

impl SetPod {
    fn is_ending(&self) -> bool {
        self.facts.is_ending()
    }

    fn is_ready(&self) -> bool {
        self.object.header.phase() == "Running" && self.facts.is_ready()
    }

    fn is_healthy(&self) -> bool {
        self.is_ready() && !self.is_ending()
    }

    fn is_available(&self) -> bool {
        self.is_healthy() && self.available_in == Some(Duration::ZERO)
    }
}

impl<'a> Pass<'a> {
    fn new<'p>(
        view: &'a View,
        pods: impl Iterator<Item = &'p Arc<Cached>>,
        revisions: &[Revision],
        update: &str,
    ) -> Pass<'a> {
        let min_ready = view.set.spec.min_ready_seconds.unwrap_or(0);
        let read = |object: &Arc<Cached>| {
            let facts = PodFacts::of(object);
            let revision = object.header.labels().get(REVISION_LABEL).unwrap_or_default().to_owned();
            let available_in = facts.available_in(min_ready, view.now);
            SetPod { facts, revision, available_in, object: Arc::clone(object) }
        };
        let pods = pods.filter_map(|pod| Some((ordinal(&view.header, &pod.header)?, read(pod)))).collect();
        let told = view.set.status["currentRevision"].as_str().filter(|name| !name.is_empty());
        let found = told.and_then(|name| revisions.iter().find(|revision| revision.name() == name));
        let (current, current_template) = match found {
            Some(revision) if revision.name() != update => (revision.name().to_owned(), Some(revision.template())),
            // A set without a history, or one whose current revision was deleted, knows only its template.
            _ => (update.to_owned(), None),
        };
        Pass { view, pods, update: update.to_owned(), current, current_template, changes: 0 }
    }

    fn spec(&self) -> &'a Spec {
        &self.view.set.spec
    }

    /// Whether a pod is of this revision, or a new one might be.
    fn uses(&self, revision: &str) -> bool {
        self.current == revision || self.pods.values().any(|pod| pod.revision == revision)
    }

    /// R5, for pods that are there.
    fn own_claims(&self, plan: &mut Plan) {
        for (ordinal, pod) in &self.pods {
            claim::own(self.view, *ordinal, &pod.object.header, plan);
        }
    }

    /// R6, R7. Whether the pass may go on.
    fn scale_up(&mut self, plan: &mut Plan) -> bool {
        let is_ordered = self.spec().is_ordered();
        for ordinal in self.spec().range() {
            let Some(pod) = self.pods.get(&ordinal) else {
                if self.changes >= BURST_MAX || !self.create(ordinal, plan) && is_ordered {
                    return false;
                }
                self.changes += 1;
                if is_ordered {
                    return false;
                }
                continue;
            };
            if pod.facts.is_terminal() && !pod.is_ending() {
                self.recreate(pod, plan);
                if is_ordered {
                    return false;
                }
                continue;
            }
            if pod.object.header.phase() == "Pending" && !pod.is_ending() {
                // A claim that was refused before is wanted all the same.
                claim::make(self.view, ordinal, plan);
            }
            pod::identify(self.view, ordinal, &pod.object.header, plan);
            if is_ordered && !pod.is_available() {
                self.wait_for(pod, plan);
                return false;
            }
        }
        true
    }

    fn wait_for(&self, pod: &SetPod, plan: &mut Plan) {
        if let Some(left) = pod.available_in.filter(|left| !left.is_zero()) {
            plan.look_again(left, format!("pod {} will have been ready for minReadySeconds", pod.object.header.name()));
        }
    }

    /// R3 to R6. Whether the pod could be planned.
    fn create(&self, ordinal: i64, plan: &mut Plan) -> bool {
        let of_current = self.spec().rolling().is_some() && ordinal < self.spec().updated_from();
        let (revision, template) = match &self.current_template {
            Some(template) if of_current => (&self.current, template),
            _ => (&self.update, &self.spec().template),
        };
        if !claim::make(self.view, ordinal, plan) {
            plan.look_again(CLAIM_WAIT, "a claim of an earlier pod will have ended");
            return false;
        }
        let object = pod::new(self.view, ordinal, template, revision);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!("create Pod {name} in StatefulSet {} successful", self.view.header.name());
        plan.create(&kinds::POD, self.view.header.namespace(), object, why)
            .tell(ObjectRef::of(&self.view.header), "SuccessfulCreate")
            .tell_failure("FailedCreate");
        true
    }

    /// R7.
    fn recreate(&self, pod: &SetPod, plan: &mut Plan) {
        let (failed, name) = (pod.object.header.phase() == "Failed", pod.object.header.name());
        let (state, reason) =
            if failed { ("failed", "RecreatingFailedPod") } else { ("terminated", "RecreatingTerminatedPod") };
        let why = format!("StatefulSet {} is recreating {state} Pod {name}", self.view.header.key());
        let item = plan.delete(Target::of(&kinds::POD, &pod.object.header), why);
        item.tell(ObjectRef::of(&self.view.header), reason).tell_failure("FailedDelete");
        if failed {
            item.as_warning();
        }
    }

    fn delete(&self, pod: &SetPod, plan: &mut Plan) {
        let (name, set) = (pod.object.header.name(), self.view.header.name());
        plan.delete(
            Target::of(&kinds::POD, &pod.object.header),
            format!("delete Pod {name} in StatefulSet {set} successful"),
        )
        .tell(ObjectRef::of(&self.view.header), "SuccessfulDelete")
        .tell_failure("FailedDelete");
    }

    /// R8. Whether the pass may go on.
    fn scale_down(&self, plan: &mut Plan) -> bool {
        let (range, is_ordered) = (self.spec().range(), self.spec().is_ordered());
        let first_unhealthy = self.pods.iter().find(|(_, pod)| !pod.is_healthy()).map(|(ordinal, _)| *ordinal);
        let mut deleted = 0;
        for (ordinal, pod) in self.pods.iter().rev().filter(|(ordinal, _)| !range.contains(ordinal)) {
            if pod.is_ending() {
                if is_ordered {
                    return false;
                }
                continue;
            }
            if is_ordered && !pod.is_ready() && first_unhealthy != Some(*ordinal) {
                return false;
            }
            self.delete(pod, plan);
            deleted += 1;
            if is_ordered || deleted >= BURST_MAX {
                return false;
            }
        }
        true
    }

    /// R9.
    fn roll(&self, plan: &mut Plan) {
        if self.spec().rolling().is_none() {
            return;
        }
        let range = self.spec().updated_from().max(self.spec().start())..self.spec().range().end;
        let mut left = self.spec().max_unavailable();
        for ordinal in range.rev() {
            if left <= 0 {
                return;
            }
            let Some(pod) = self.pods.get(&ordinal) else {
                // It is only being made.
                left -= 1;
                continue;
            };
            if pod.revision != self.update && !pod.is_ending() {
                self.delete(pod, plan);
                left -= 1;
            } else if !pod.is_available() {
                self.wait_for(pod, plan);
                left -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
