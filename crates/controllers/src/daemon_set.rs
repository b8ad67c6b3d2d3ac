//! DaemonSet: one pod on each node that its template suits.
//!
//! Goal        each node that selector, affinity and taints let in has one pod of the newest template, and no other has one
//! Watches     DaemonSet; Pod (owned, or nobody's and matching); Node; ControllerRevision (owned)
//! Writes      Pod: create, delete, owner reference · ControllerRevision: create, delete, number · DaemonSet: status
//! Relies on   the scheduler to bind each pod to the node that its affinity names
//!
//! Rules, in order
//!   R1 ending       a set being deleted creates and deletes nothing; its status is still kept
//!   R2 adopt        matching orphans are adopted, owned strangers released
//!   R3 revision     the template's ControllerRevision is the newest (`controller_revision`); pods carry its hash
//!   R4 node         a node is suited by name, node selector, required node affinity and tolerated taints; a pod stays
//!                   where only a NoSchedule taint came later (`node`)
//!   R5 tolerations  every pod tolerates what a node daemon must: not-ready, unreachable, pressure, unschedulable
//!   R6 one a node   missing pods are created for their node, surplus ones and those of unsuited nodes deleted
//!   R7 ended        a pod that has failed (or succeeded) is deleted so that another comes; failures on one node wait
//!                   1 s, doubled each time up to 15 min
//!   R8 rolling      old pods are replaced at most maxUnavailable at a time, or new ones come first, maxSurge at a time;
//!                   with OnDelete whoever deletes a pod gets a new one (`rollout`)
//!   R9 history      revisions beyond revisionHistoryLimit go
//!   R10 status      counts are written when they differ
//! Not here       binding (scheduler) · rollback (`rollout undo` patches the template back; R3 finds its revision)

mod node;
mod rollout;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Header, Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef};

use crate::claim::{Claimant, candidates};
use crate::controller::{Controller, Look, Wake};
use crate::controller_revision::{self, Current, Owner, REVISION_LABEL};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;
use crate::selector::Selector;
use node::{NodeFacts, Suits, Wants};

/// Pods created or deleted by one pass; the next goes on.
const BURST_MAX: usize = 500;
/// R7.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MOST: Duration = Duration::from_secs(15 * 60);
/// A node whose last failed pod is longer ago begins anew.
const BACKOFF_FORGOTTEN: Duration = Duration::from_secs(30 * 60);

/// The controller of DaemonSets.
pub(crate) struct DaemonSets {
    sets: Cache,
    pods: Cache,
    nodes: Cache,
    revisions: Cache,
    /// R7, by the set's uid and the node. What is old is forgotten.
    failures: Mutex<BTreeMap<(String, String), Failures>>,
}

/// The failed pods of a set on one node.
struct Failures {
    /// When the latest was created, and its uid.
    last: (String, String),
    count: u32,
    since: tokio::time::Instant,
}

/// What a decision about one set depends on.
pub(crate) struct View {
    header: Header,
    set: Arc<Facts>,
    nodes: Vec<Arc<Cached>>,
    /// Owned pods and orphans of the namespace.
    pods: Vec<Arc<Cached>>,
    revisions: Vec<Arc<Cached>>,
    /// What has the name that the template's revision would get.
    namesake: Option<Arc<Cached>>,
    /// R7: how long failed pods, by uid, stay before they are replaced.
    waits: BTreeMap<String, Duration>,
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
    selector: Selector,
    template: Value,
    min_ready_seconds: Option<i64>,
    revision_history_limit: Option<i64>,
    update_strategy: Strategy,
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
    max_unavailable: Value,
    max_surge: Value,
}

fn facts(set: &Cached) -> Arc<Facts> {
    set.memo(|set: &Object| {
        set.decode().unwrap_or_else(|error| {
            tracing::error!(set = set.header.key(), %error, "a daemon set that cannot be read is left alone");
            Facts::default()
        })
    })
}

fn owner<'a>(header: &'a Header, set: &'a Facts) -> Owner<'a> {
    Owner {
        kind: &kinds::DAEMON_SET,
        header,
        selector: &set.spec.selector,
        template: &set.spec.template,
        annotations: set.metadata.annotations.as_ref(),
        collisions: set.status["collisionCount"].as_i64().unwrap_or(0),
        history_limit: set.spec.revision_history_limit.unwrap_or(10),
    }
}

impl DaemonSets {
    pub(crate) fn new(caches: &Caches) -> DaemonSets {
        DaemonSets {
            sets: caches.of(&kinds::DAEMON_SET),
            pods: caches.of(&kinds::POD),
            nodes: caches.of(&kinds::NODE),
            revisions: caches.of(&kinds::CONTROLLER_REVISION),
            failures: Mutex::default(),
        }
    }

    /// R7: how long each failed pod stays.
    fn waits(&self, set: &Header, pods: &[Arc<Cached>], now: tokio::time::Instant) -> BTreeMap<String, Duration> {
        let is_own = |pod: &&Arc<Cached>| pod.header.controller().is_some_and(|owner| owner.uid == set.uid());
        let failed = pods.iter().filter(is_own);
        let failed = failed.filter(|pod| pod.header.phase() == "Failed" && !pod.header.is_ending());
        let mut failed = failed.peekable();
        if failed.peek().is_none() {
            return BTreeMap::new();
        }
        let mut known = self.failures.lock().expect("nothing panics while holding it");
        known.retain(|_, failures| now.duration_since(failures.since) < BACKOFF_FORGOTTEN);
        let mut waits = BTreeMap::new();
        for pod in failed {
            let key = (set.uid().to_owned(), node::of(pod));
            let new = || Failures { last: Default::default(), count: 0, since: now };
            let failures = known.entry(key).or_insert_with(new);
            let latest = (pod.header.created().to_owned(), pod.header.uid().to_owned());
            if failures.last < latest {
                *failures = Failures { last: latest, count: failures.count.saturating_add(1), since: now };
            }
            // The first is replaced at once.
            let wait = match failures.count {
                0 | 1 => Duration::ZERO,
                more => BACKOFF_FIRST.saturating_mul(1 << (more - 2).min(16)).min(BACKOFF_MOST),
            };
            let left = wait.saturating_sub(now.duration_since(failures.since));
            waits.insert(pod.header.uid().to_owned(), left);
        }
        waits
    }
}

impl Controller for DaemonSets {
    type View = View;
    const NAME: &'static str = "daemonset";

    fn wakes(&self) -> Vec<Wake> {
        let sets = self.sets.clone();
        let adopters = Wake::new(&kinds::POD, move |change, wake| {
            let Some(pod) = change.new.as_ref().filter(|pod| pod.header.controller().is_none()) else { return };
            if pod.header.labels().is_empty() {
                return;
            }
            for set in sets.in_namespace(pod.header.namespace()) {
                let selector = &facts(&set).spec.selector;
                if !selector.is_empty() && selector.matches(&pod.header.labels()) {
                    wake(Key::of(&set.header));
                }
            }
        });
        let sets = self.sets.clone();
        // Nodes report all the time; only what decides where daemons run matters.
        let nodes = Wake::new(&kinds::NODE, move |change, wake| {
            let seen = |node: &Option<Arc<Cached>>| node.as_ref().map(|node| NodeFacts::of(node));
            if seen(&change.old) != seen(&change.new) {
                sets.list().iter().for_each(|set| wake(Key::of(&set.header)));
            }
        });
        vec![
            Wake::itself(&kinds::DAEMON_SET),
            Wake::owner(&kinds::POD, &kinds::DAEMON_SET),
            Wake::owner(&kinds::CONTROLLER_REVISION, &kinds::DAEMON_SET),
            adopters,
            nodes,
        ]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let found = self.sets.get_key(key.as_str())?;
        let (set, header) = (facts(&found), found.header.clone());
        let pods = candidates(&self.pods, &header);
        Some(View {
            nodes: self.nodes.list(),
            revisions: candidates(&self.revisions, &header),
            namesake: self.revisions.get(header.namespace(), &controller_revision::name(&owner(&header, &set))),
            waits: self.waits(&header, &pods, look.instant),
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
        let claimant = Claimant { kind: &kinds::DAEMON_SET, header: &view.header, selector: &spec.selector };
        let claims = claimant.sort(&view.pods);
        claimant.plan(&claims, &kinds::POD, &mut plan);
        let owner = owner(&view.header, &view.set);
        let revisions = controller_revision::claim(&owner, &view.revisions, &mut plan);
        let is_ending = view.header.is_ending();
        let current = if is_ending {
            Current { name: String::new(), hash: String::new(), is_taken: true }
        } else {
            controller_revision::current(&owner, &revisions, view.namesake.as_deref(), &mut plan)
        };
        let pods: Vec<Arc<Cached>> = claims.owned.into_iter().chain(claims.orphans).collect();
        let nodes = OnNodes::of(view, pods, &current);
        if !is_ending && !current.is_taken {
            let mut changes = Changes::default();
            nodes.keep(view, &mut changes, &mut plan);
            rollout::plan(view, &nodes, &mut changes, &mut plan);
            changes.plan(view, &current, &mut plan);
            let is_live = |name: &str, hash: &str| name == current.name || nodes.has_revision(hash);
            controller_revision::clean_up(&owner, &revisions, is_live, &mut plan);
        }
        status::plan(view, &nodes, current.is_taken && !is_ending, &mut plan);
        plan
    }
}

/// The pods of a set by their nodes.
struct OnNodes {
    nodes: Vec<OnNode>,
    /// Pods that are meant for nodes which there are not.
    astray: Vec<Arc<Cached>>,
}

/// What is on one node, or should be.
struct OnNode {
    name: String,
    suits: Suits,
    /// Oldest first.
    pods: Vec<DaemonPod>,
}

/// A pod of the set.
#[derive(Clone)]
struct DaemonPod {
    object: Arc<Cached>,
    facts: Arc<PodFacts>,
    /// It is of the set's template as it is now.
    is_new: bool,
    /// How long until it counts as available; `None` while it is not ready.
    available_in: Option<Duration>,
}

impl DaemonPod {
    fn is_available(&self) -> bool {
        self.available_in == Some(Duration::ZERO)
    }

    fn is_active(&self) -> bool {
        self.facts.is_active()
    }
}

impl OnNode {
    /// The oldest pod that runs or is to run, of the new template or of an old one.
    fn active(&self, is_new: bool) -> Option<&DaemonPod> {
        self.pods.iter().find(|pod| pod.is_active() && pod.is_new == is_new)
    }
}

impl OnNodes {
    fn of(view: &View, pods: Vec<Arc<Cached>>, current: &Current) -> OnNodes {
        let wants = Wants::of(&view.set.spec.template);
        let mut by_node: BTreeMap<String, Vec<DaemonPod>> = BTreeMap::new();
        for object in pods {
            let facts = PodFacts::of(&object);
            let available_in = facts.available_in(view.set.spec.min_ready_seconds.unwrap_or(0), view.now);
            let is_new = object.header.labels().get(REVISION_LABEL) == Some(current.hash.as_str());
            let pod = DaemonPod { facts, is_new, available_in, object };
            by_node.entry(node::of(&pod.object)).or_default().push(pod);
        }
        let nodes = view.nodes.iter().map(|node| {
            let mut pods = by_node.remove(node.header.name()).unwrap_or_default();
            pods.sort_by_key(|pod| (pod.object.header.created().to_owned(), pod.object.header.uid().to_owned()));
            OnNode {
                name: node.header.name().to_owned(),
                suits: wants.suit(node.header.name(), &NodeFacts::of(node)),
                pods,
            }
        });
        let nodes = nodes.collect();
        OnNodes { nodes, astray: by_node.into_values().flatten().map(|pod| pod.object).collect() }
    }

    fn has_revision(&self, hash: &str) -> bool {
        let is_of = |pod: &Arc<Cached>| pod.header.labels().get(REVISION_LABEL) == Some(hash);
        self.astray.iter().any(is_of) || self.nodes.iter().flat_map(|node| &node.pods).any(|pod| is_of(&pod.object))
    }

    /// R6, R7.
    fn keep(&self, view: &View, changes: &mut Changes, plan: &mut Plan) {
        // A pod that is bound to a node which is gone is the pod garbage collector's.
        // One that names no node was never for one.
        let is_lost = |pod: &&Arc<Cached>| {
            !pod.header.is_ending() && pod.header.node_name().is_empty() && !node::of(pod).is_empty()
        };
        for pod in self.astray.iter().filter(is_lost) {
            changes.deleted.push(Arc::clone(pod));
        }
        let surges = rollout::surges(view);
        for node in &self.nodes {
            match node.suits {
                Suits::Not => changes.delete(node.pods.iter().filter(|pod| !pod.facts.is_ending())),
                Suits::Stays | Suits::Runs => {
                    end_terminal(view, node, plan, changes);
                    let mut active: Vec<&DaemonPod> = node.pods.iter().filter(|pod| pod.is_active()).collect();
                    // A bound pod is further than one that waits.
                    active.sort_by_key(|pod| pod.object.header.node_name().is_empty());
                    if surges {
                        let of = |is_new: bool| active.iter().copied().filter(move |pod| pod.is_new == is_new);
                        changes.delete(of(true).skip(1));
                        changes.delete(of(false).skip(1));
                    } else {
                        changes.delete(active.iter().copied().skip(1));
                    }
                    if matches!(node.suits, Suits::Runs) && node.pods.is_empty() {
                        changes.created.push(node.name.clone());
                    }
                }
            }
        }
    }
}

/// R7.
fn end_terminal(view: &View, node: &OnNode, plan: &mut Plan, changes: &mut Changes) {
    for pod in node.pods.iter().filter(|pod| pod.facts.is_terminal() && !pod.facts.is_ending()) {
        let (name, header) = (&node.name, &pod.object.header);
        let key = header.key();
        let (state, reason) = if header.phase() == "Failed" {
            ("failed", "FailedDaemonPod")
        } else {
            ("succeeded", "SucceededDaemonPod")
        };
        let left = view.waits.get(header.uid()).copied().unwrap_or_default();
        if !left.is_zero() {
            plan.look_again(left, format!("the back-off of node {name} will be over"));
            continue;
        }
        let why = format!("Found {state} daemon pod {key} on node {name}, will try to kill it");
        let item = plan.say(ObjectRef::of(&view.header), reason, why);
        if state == "failed" {
            item.as_warning();
        }
        changes.deleted.push(Arc::clone(&pod.object));
    }
}

/// The pods to make and to end.
#[derive(Default)]
struct Changes {
    /// By the names of their nodes.
    created: Vec<String>,
    deleted: Vec<Arc<Cached>>,
}

impl Changes {
    fn delete<'a>(&mut self, pods: impl Iterator<Item = &'a DaemonPod>) {
        self.deleted.extend(pods.map(|pod| Arc::clone(&pod.object)));
    }

    fn plan(self, view: &View, current: &Current, plan: &mut Plan) {
        let set = ObjectRef::of(&view.header);
        for node in self.created.iter().take(BURST_MAX) {
            plan.create(&kinds::POD, view.header.namespace(), new_pod(view, node, current), "Created pod: {name}")
                .tell(set.clone(), "SuccessfulCreate")
                .tell_failure("FailedCreate");
        }
        for pod in self.deleted.iter().take(BURST_MAX) {
            plan.delete(Target::of(&kinds::POD, &pod.header), format!("Deleted pod: {}", pod.header.name()))
                .tell(set.clone(), "SuccessfulDelete")
                .tell_failure("FailedDelete");
        }
    }
}

/// A pod as the template says, for this node.
fn new_pod(view: &View, node: &str, current: &Current) -> Value {
    let template = &view.set.spec.template;
    let mut metadata = json!({
        "generateName": format!("{}-", view.header.name()),
        "namespace": view.header.namespace(),
        "ownerReferences": [crate::claim::controller_reference(&kinds::DAEMON_SET, &view.header)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        let value = &template["metadata"][field];
        if !value.is_null() {
            metadata[field] = value.clone();
        }
    }
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][REVISION_LABEL] = json!(current.hash);
    let mut spec = template["spec"].clone();
    node::bind(&mut spec, node);
    node::tolerate(&mut spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

#[cfg(test)]
mod tests;
