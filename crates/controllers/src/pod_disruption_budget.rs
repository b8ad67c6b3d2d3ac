//! PodDisruptionBudget: counts the pods of each budget, so that evictions know how many more may go.
//!
//! Goal        `status.disruptionsAllowed` is how many healthy pods there are beyond those the budget wants
//! Watches     PodDisruptionBudget; Pod (selected); ReplicaSet, ReplicationController, StatefulSet, Deployment (their
//!             replicas)
//! Writes      PodDisruptionBudget: status
//! Relies on   the API, which takes one from `disruptionsAllowed` and notes the pod in `disruptedPods` in the transaction
//!             that evicts it; a status is written only onto the revision it was counted from
//!
//! Rules, in order
//!   R1 ending     a budget being deleted is left alone
//!   R2 expected   the pods there should be: with `maxUnavailable` or a share, the replicas of the pods' owners, each
//!                 once; else the pods there are
//!   R3 desired    what must be healthy: `minAvailable`, or the expected less `maxUnavailable`; shares are rounded up
//!   R4 healthy    a ready pod that is not ending and not about to be
//!   R5 disrupted  an evicted pod counts as about to end for DISRUPTED_MAX, or until it is ending or gone
//!   R6 allowed    healthy less desired, never below none; none where no pod is expected
//!   R7 unknown    pods whose owner has no replicas that we know of fail the count: nothing may go, and it says why
//! Not here       refusing evictions (apiserver: eviction) · replicas of custom kinds

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Object, OwnerRef, kinds};
use windlass_client::{Cache, Cached, Caches, Key, Patch};

use crate::condition::{self, Wanted};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};
use crate::pod::PodFacts;
use crate::selector::Selector;

/// How long an evicted pod may take until it is seen ending. After that the eviction is taken for failed.
const DISRUPTED_MAX: Duration = Duration::from_secs(120);
const CONDITION: &str = "DisruptionAllowed";

/// The controller of disruption budgets.
pub(crate) struct PodDisruptionBudgets {
    budgets: Cache,
    pods: Cache,
    owners: Owners,
}

/// The kinds whose replicas pods are.
struct Owners {
    replica_sets: Cache,
    replication_controllers: Cache,
    stateful_sets: Cache,
    deployments: Cache,
}

/// What a decision about one budget depends on.
pub(crate) struct View {
    budget: Arc<Cached>,
    facts: Arc<Facts>,
    pods: Vec<Arc<Cached>>,
    /// The replicas of the pods' owners together, or why they are not known.
    replicas: Result<i64, String>,
    now: Timestamp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    min_available: Value,
    max_unavailable: Value,
    selector: Selector,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    disrupted_pods: Option<BTreeMap<String, Timestamp>>,
    conditions: Option<Vec<Value>>,
}

fn facts(budget: &Cached) -> Arc<Facts> {
    budget.memo(|budget: &Object| {
        budget.decode().unwrap_or_else(|error| {
            tracing::error!(budget = budget.header.key(), %error, "a budget that cannot be read covers no pod");
            Facts::default()
        })
    })
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Scaled {
    spec: Replicas,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Replicas {
    replicas: Option<i64>,
}

/// `spec.replicas`, which is one where it is not said.
fn replicas(owner: &Cached) -> i64 {
    let read = owner.memo(|owner: &Object| owner.decode::<Scaled>().unwrap_or_default());
    read.spec.replicas.unwrap_or(1)
}

impl Owners {
    /// The uid and replicas of what scales this owner's pods: a Deployment scales those of its ReplicaSets.
    fn find(&self, namespace: &str, owner: &OwnerRef) -> Option<(String, i64)> {
        let cache = match owner.kind.as_str() {
            "ReplicaSet" => &self.replica_sets,
            "ReplicationController" => &self.replication_controllers,
            "StatefulSet" => &self.stateful_sets,
            _ => return None,
        };
        let found = cache.get(namespace, &owner.name).filter(|found| found.header.uid() == owner.uid)?;
        let above = found.header.controller().filter(|above| above.kind == "Deployment").and_then(|above| {
            self.deployments.get(namespace, &above.name).filter(|found| found.header.uid() == above.uid)
        });
        let scaling = above.unwrap_or(found);
        Some((scaling.header.uid().to_owned(), replicas(&scaling)))
    }

    /// R2: each owner once.
    fn total(&self, pods: &[Arc<Cached>]) -> Result<i64, String> {
        let mut seen = BTreeMap::new();
        for pod in pods {
            let Some(owner) = pod.header.controller() else { continue };
            let found = self.find(pod.header.namespace(), owner);
            let (uid, replicas) =
                found.ok_or_else(|| format!("found no controllers for pod {:?}", pod.header.name()))?;
            seen.insert(uid, replicas);
        }
        Ok(seen.values().fold(0, |sum: i64, replicas| sum.saturating_add(*replicas)))
    }
}

impl PodDisruptionBudgets {
    pub(crate) fn new(caches: &Caches) -> PodDisruptionBudgets {
        PodDisruptionBudgets {
            budgets: caches.of(&kinds::POD_DISRUPTION_BUDGET),
            pods: caches.of(&kinds::POD),
            owners: Owners {
                replica_sets: caches.of(&kinds::REPLICA_SET),
                replication_controllers: caches.of(&kinds::REPLICATION_CONTROLLER),
                stateful_sets: caches.of(&kinds::STATEFUL_SET),
                deployments: caches.of(&kinds::DEPLOYMENT),
            },
        }
    }
}

/// What of a pod is counted.
fn counted(pod: &Cached) -> (bool, bool, bool, Option<&str>) {
    let facts = PodFacts::of(pod);
    let owner = pod.header.controller().map(|owner| owner.uid.as_str());
    (facts.is_ready(), facts.is_ending(), facts.is_terminal(), owner)
}

impl Controller for PodDisruptionBudgets {
    type View = View;
    const NAME: &'static str = "disruption";

    fn wakes(&self) -> Vec<Wake> {
        let budgets = self.budgets.clone();
        let selected = Wake::new(&kinds::POD, move |change, wake| {
            let budgets = budgets.in_namespace(change.key.namespace());
            if budgets.is_empty() {
                return;
            }
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && old.header.labels() == new.header.labels()
                && counted(old) == counted(new)
            {
                return;
            }
            let seen: Vec<_> = [&change.old, &change.new].into_iter().flatten().collect();
            for budget in budgets {
                let selector = &facts(&budget).spec.selector;
                if seen.iter().any(|pod| selector.matches(&pod.header.labels())) {
                    wake(Key::of(&budget.header));
                }
            }
        });
        let owners = [&kinds::REPLICA_SET, &kinds::REPLICATION_CONTROLLER, &kinds::STATEFUL_SET, &kinds::DEPLOYMENT];
        let scaled = owners.into_iter().map(|kind| {
            let budgets = self.budgets.clone();
            Wake::new(kind, move |change, wake| {
                let of = |found: &Option<Arc<Cached>>| found.as_ref().map(|owner| replicas(owner));
                if of(&change.old) != of(&change.new) {
                    budgets.in_namespace(change.key.namespace()).iter().for_each(|found| wake(Key::of(&found.header)));
                }
            })
        });
        [Wake::itself(&kinds::POD_DISRUPTION_BUDGET), selected].into_iter().chain(scaled).collect()
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let budget = self.budgets.get_key(key.as_str())?;
        let facts = facts(&budget);
        let mut pods = self.pods.in_namespace(key.namespace());
        pods.retain(|pod| facts.spec.selector.matches(&pod.header.labels()) && !PodFacts::of(pod).is_terminal());
        let replicas = self.owners.total(&pods);
        Some(View { budget, facts, pods, replicas, now: look.now })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::nothing();
        if view.budget.header.is_ending() {
            return plan;
        }
        let disrupted = disrupted(view, &mut plan);
        let mut status = match counts(view, &disrupted) {
            Ok(counts) => counted_status(view, &counts, &disrupted),
            Err(why) => failed_status(view, why),
        };
        let before = view.budget.value()["status"].take();
        if status.as_object().into_iter().flatten().all(|(field, value)| before[field] == *value) {
            return plan;
        }
        // A merge patch keeps what it does not name.
        for gone in before["disruptedPods"].as_object().into_iter().flatten().map(|(name, _)| name) {
            if !disrupted.contains_key(gone) {
                status["disruptedPods"][gone.as_str()] = Value::Null;
            }
        }
        let why = match &status["disruptionsAllowed"] {
            Value::Number(allowed) => format!("{allowed} more of its pods may be away"),
            _ => "its pods cannot be counted".to_owned(),
        };
        let patch = json!({
            "metadata": {"resourceVersion": view.budget.header.revision.to_string()}, "status": status,
        });
        plan.patch_status(Target::of(&kinds::POD_DISRUPTION_BUDGET, &view.budget.header), Patch::Merge(patch), why);
        plan
    }
}

struct Counts {
    expected: i64,
    desired: i64,
    healthy: i64,
}

/// R2 to R4.
fn counts(view: &View, disrupted: &BTreeMap<String, Timestamp>) -> Result<Counts, String> {
    let spec = &view.facts.spec;
    let present = i64::try_from(view.pods.len()).unwrap_or(i64::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Value::Null, Value::Number(count)) => (present, count.as_i64().unwrap_or(0)),
        (Value::Null, Value::Null) => (0, 0),
        (Value::Null, share) => {
            let expected = view.replicas.clone()?;
            (expected, part(share, expected))
        }
        (unavailable, _) => {
            let expected = view.replicas.clone()?;
            (expected, (expected - part(unavailable, expected)).max(0))
        }
    };
    let healthy = view.pods.iter().filter(|pod| {
        let facts = PodFacts::of(pod);
        facts.is_ready() && !facts.is_ending() && !disrupted.contains_key(pod.header.name())
    });
    Ok(Counts { expected, desired, healthy: i64::try_from(healthy.count()).unwrap_or(i64::MAX) })
}

/// A count, or a share of all, rounded up.
fn part(amount: &Value, all: i64) -> i64 {
    let share = amount.as_str().and_then(|text| text.strip_suffix('%')).and_then(|digits| digits.parse::<i64>().ok());
    match share {
        Some(percent) => all.saturating_mul(percent).saturating_add(99).div_euclid(100),
        None => amount.as_i64().unwrap_or(0),
    }
}

/// R5: the evicted pods that still are to end.
fn disrupted(view: &View, plan: &mut Plan) -> BTreeMap<String, Timestamp> {
    let there: BTreeSet<&str> =
        view.pods.iter().filter(|pod| !PodFacts::of(pod).is_ending()).map(|pod| pod.header.name()).collect();
    let mut kept = BTreeMap::new();
    for (name, since) in view.facts.status.disrupted_pods.iter().flatten() {
        let age = Duration::try_from(view.now.duration_since(*since)).unwrap_or_default();
        if !there.contains(name.as_str()) || age >= DISRUPTED_MAX {
            continue;
        }
        plan.look_again(DISRUPTED_MAX - age, format!("pod {name} was evicted and may not have gone"));
        kept.insert(name.clone(), *since);
    }
    kept
}

/// R6.
fn counted_status(view: &View, counts: &Counts, disrupted: &BTreeMap<String, Timestamp>) -> Value {
    let spare = (counts.healthy - counts.desired).max(0);
    let allowed = if counts.expected <= 0 { 0 } else { spare };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let times = disrupted.iter().map(|(name, since)| (name.clone(), json!(condition::text(*since))));
    let mut wanted = json!({
        "disruptionsAllowed": allowed, "currentHealthy": counts.healthy, "desiredHealthy": counts.desired,
        "expectedPods": counts.expected, "observedGeneration": view.budget.header.generation,
        "conditions": conditions(view, status, reason, String::new()),
    });
    if !disrupted.is_empty() || view.facts.status.disrupted_pods.is_some() {
        wanted["disruptedPods"] = times.collect();
    }
    wanted
}

/// R7: the counts stay as they were, but nothing may go.
fn failed_status(view: &View, why: String) -> Value {
    json!({
        "disruptionsAllowed": 0, "observedGeneration": view.budget.header.generation,
        "conditions": conditions(view, "False", "SyncFailed", why),
    })
}

fn conditions(view: &View, status: &str, reason: &str, message: String) -> Vec<Value> {
    let mut conditions = view.facts.status.conditions.clone().unwrap_or_default();
    condition::set(&mut conditions, &Wanted { kind: CONDITION, status, reason, message }, view.now, false);
    for found in conditions.iter_mut().filter(|found| found["type"] == CONDITION) {
        found["observedGeneration"] = json!(view.budget.header.generation);
    }
    conditions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use windlass_client::Patch;

    use super::{PodDisruptionBudgets, View, facts};
    use crate::controller::Controller;
    use crate::fixture::{change, check, now, object};
    use crate::plan::{Action, Plan};

    fn budget(spec: Value, status: Value) -> Value {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "a", "uid": "b", "generation": 3, "resourceVersion": "9"},
            "spec": spec, "status": status})
    }

    fn pod(name: &str, changes: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        change(&mut pod, changes);
        pod
    }

    fn pods(count: usize) -> Vec<Value> {
        (0..count).map(|index| pod(&format!("p{index}"), json!({}))).collect()
    }

    fn plan(budget: &Value, pods: &[Value], replicas: Result<i64, String>) -> Plan {
        let budget = object(budget);
        let facts = facts(&budget);
        PodDisruptionBudgets::plan(&View {
            budget,
            facts,
            pods: pods.iter().map(object).collect(),
            replicas,
            now: now(),
        })
    }

    fn status(plan: &Plan) -> Value {
        match &plan.items.first().expect("a status is written").action {
            Action::Patch { patch: Patch::Merge(patch), .. } => patch["status"].clone(),
            other => panic!("expected a merge patch, found {other}"),
        }
    }

    /// Allowed, healthy, desired and expected.
    #[track_caller]
    fn counts(spec: Value, pods: &[Value], replicas: i64, expected: [i64; 4]) {
        let status = status(&plan(&budget(spec, json!({})), pods, Ok(replicas)));
        let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        assert_eq!(fields.map(|field| status[field].as_i64().expect("a count")), expected);
    }

    #[test]
    fn r1_an_ending_budget_is_left_alone() {
        let mut ending = budget(json!({"minAvailable": 1}), json!({}));
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        check(&plan(&ending, &pods(2), Ok(2)), "");
    }

    #[test]
    fn r2_and_r3_what_is_expected_and_desired() {
        counts(json!({"minAvailable": 1}), &pods(3), 9, [2, 3, 1, 3]);
        counts(json!({"minAvailable": "50%"}), &pods(5), 5, [2, 5, 3, 5]);
        counts(json!({"maxUnavailable": 1}), &pods(3), 3, [1, 3, 2, 3]);
        counts(json!({"maxUnavailable": "30%"}), &pods(5), 5, [2, 5, 3, 5]);
        counts(json!({"maxUnavailable": 1}), &pods(3), 5, [0, 3, 4, 5]);
    }

    #[test]
    fn r4_only_ready_pods_that_stay_are_healthy() {
        let all = [
            pod("fine", json!({})),
            pod("unready", json!({"/status/conditions": []})),
            pod("ending", json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"})),
        ];
        counts(json!({"minAvailable": 1}), &all, 3, [0, 1, 1, 3]);
    }

    #[test]
    fn r5_an_evicted_pod_counts_as_away_until_it_is_gone_or_too_late() {
        let evicted = |at: &str| budget(json!({"minAvailable": 1}), json!({"disruptedPods": {"p0": at}}));
        let fresh = plan(&evicted("2026-01-01T11:59:00Z"), &pods(2), Ok(2));
        assert_eq!(status(&fresh)["currentHealthy"], 1);
        assert_eq!(status(&fresh)["disruptedPods"], json!({"p0": "2026-01-01T11:59:00Z"}));
        assert_eq!(fresh.again.as_ref().map(|again| again.after.as_secs()), Some(60));
        let late = plan(&evicted("2026-01-01T11:58:00Z"), &pods(2), Ok(2));
        assert_eq!(
            (&status(&late)["currentHealthy"], &status(&late)["disruptedPods"]),
            (&json!(2), &json!({"p0": null}))
        );
        let gone = plan(&evicted("2026-01-01T11:59:00Z"), &pods(2)[1..], Ok(2));
        assert_eq!(status(&gone)["disruptedPods"], json!({"p0": null}));
    }

    #[test]
    fn r6_what_is_said_already_is_not_written_again() {
        let spec = json!({"minAvailable": 1});
        let first = plan(&budget(spec.clone(), json!({})), &pods(2), Ok(2));
        check(&first, "patch poddisruptionbudgets a/b status: 1 more of its pods may be away");
        let said = status(&first);
        assert_eq!(
            (&said["conditions"][0]["status"], &said["conditions"][0]["reason"]),
            (&json!("True"), &json!("SufficientPods"))
        );
        assert_eq!((&said["observedGeneration"], &said["conditions"][0]["observedGeneration"]), (&json!(3), &json!(3)));
        check(&plan(&budget(spec.clone(), said.clone()), &pods(2), Ok(2)), "");
        let fewer = plan(&budget(spec.clone(), said), &pods(1), Ok(2));
        assert_eq!(status(&fewer)["conditions"][0]["reason"], "InsufficientPods");
        counts(spec, &[], 0, [0, 0, 1, 0]);
    }

    #[test]
    fn r7_pods_of_an_unknown_owner_let_nothing_go() {
        let why = Err("found no controllers for pod \"p0\"".to_owned());
        let failed = status(&plan(&budget(json!({"maxUnavailable": 1}), json!({})), &pods(1), why));
        assert_eq!(
            (&failed["disruptionsAllowed"], &failed["conditions"][0]["reason"]),
            (&json!(0), &json!("SyncFailed"))
        );
    }
}
