//! ResourceQuota: what a namespace uses of its quotas is counted again when something was given back.
//!
//! Goal        `status.hard` is `spec.hard`, and `status.used` is what the objects of the namespace use
//! Watches     ResourceQuota; the kinds that are watched anyway and PersistentVolumeClaim (what they use)
//! Writes      ResourceQuota: status
//! Relies on   the API, which adds to `status.used` in the transaction that uses more, and which counts for itself when
//!             the status is written: our copies may be behind, and say only that it is time to count
//!
//! Rules
//!   R1 ending     a quota being deleted is left alone
//!   R2 bounds     a quota whose bounds are not yet in its status is counted
//!   R3 given back one that says that more, or less, is used than we see is counted
//!   R4 others     one that bounds kinds we do not watch is counted every [`RECOUNT_INTERVAL`]
//!   R5 leaves     kinds that the control plane keeps only what is linked of are followed once a quota bounds them
//! Not here       refusing what exceeds a quota (API)

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use windlass_api::quantity::Quantity;
use windlass_api::quota::{self, Amounts};
use windlass_api::{Kind, kinds};
use windlass_client::{Cache, Cached, Caches, Key, Patch, is_leaf};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};

/// How long what is given back of kinds that are not watched may still count.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(60);

/// The kinds whose objects are seen.
fn watched() -> [&'static Kind; 9] {
    [
        &kinds::POD,
        &kinds::SERVICE,
        &kinds::PERSISTENT_VOLUME_CLAIM,
        &kinds::CONFIG_MAP,
        &kinds::SECRET,
        &kinds::RESOURCE_QUOTA,
        &kinds::REPLICATION_CONTROLLER,
        &kinds::REPLICA_SET,
        &kinds::DEPLOYMENT,
    ]
}

/// Whether objects of a kind use more than their number.
fn uses_amounts(kind: &Kind) -> bool {
    [&kinds::POD, &kinds::SERVICE, &kinds::PERSISTENT_VOLUME_CLAIM].contains(&kind)
}

/// The controller of quotas.
pub(crate) struct ResourceQuotas {
    caches: Caches,
    quotas: Cache,
    used_by: Vec<(&'static Kind, Cache)>,
    /// R5: the copies of leaf kinds, once some quota has bounded one, and whether the driver knows of them.
    leaves: OnceLock<Vec<(&'static Kind, Cache)>>,
    has_new_leaves: AtomicBool,
}

/// What a decision about one quota depends on.
pub(crate) struct View {
    quota: Arc<Cached>,
    /// What the objects that are seen use of it.
    seen: Amounts,
}

impl ResourceQuotas {
    pub(crate) fn new(caches: &Caches) -> ResourceQuotas {
        let used_by = watched().into_iter().filter(|kind| !is_leaf(kind)).map(|kind| (kind, caches.of(kind)));
        ResourceQuotas {
            caches: caches.clone(),
            quotas: caches.of(&kinds::RESOURCE_QUOTA),
            used_by: used_by.collect(),
            leaves: OnceLock::new(),
            has_new_leaves: AtomicBool::new(false),
        }
    }

    /// R5.
    fn leaves(&self) -> &[(&'static Kind, Cache)] {
        self.leaves.get_or_init(|| {
            self.has_new_leaves.store(true, Ordering::Relaxed);
            watched().into_iter().filter(|kind| is_leaf(kind)).map(|kind| (kind, self.caches.leaves_of(kind))).collect()
        })
    }

    /// A change of an object that uses more or less than before concerns the quotas of its namespace.
    fn wake_of(&self, kind: &'static Kind) -> Wake {
        let quotas = self.quotas.clone();
        Wake::new(kind, move |change, wake| {
            let quotas = quotas.in_namespace(change.key.namespace());
            let uses = |object: &Option<Arc<Cached>>| object.as_ref().map(|object| uses(kind, object));
            if quotas.is_empty() || uses(&change.old) == uses(&change.new) {
                return;
            }
            quotas.iter().for_each(|quota| wake(Key::of(&quota.header)));
        })
    }
}

/// What an object uses, computed once for each version of it.
fn uses(kind: &Kind, object: &Cached) -> Arc<Amounts> {
    object.memo(|_| quota::usage(kind, &read_for(kind, object)))
}

/// The object, where what it uses depends on what is in it. Of the others we may have no more than the header.
fn read_for(kind: &Kind, object: &Cached) -> Value {
    if uses_amounts(kind) { object.value() } else { Value::Null }
}

impl Controller for ResourceQuotas {
    type View = View;
    const NAME: &'static str = "resourcequota";

    fn wakes(&self) -> Vec<Wake> {
        let of_objects = self.used_by.iter().chain(self.leaves.get().into_iter().flatten());
        let of_objects = of_objects.map(|(kind, cache)| self.wake_of(kind).of(cache.clone()));
        [Wake::itself(&kinds::RESOURCE_QUOTA)].into_iter().chain(of_objects).collect()
    }

    fn has_new_wakes(&self) -> bool {
        self.has_new_leaves.swap(false, Ordering::Relaxed)
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let quota = self.quotas.get_key(key.as_str())?;
        let tree = quota.value();
        let mut seen = Amounts::new();
        let bounds = tree["spec"]["hard"].as_object();
        let bounds_leaf = bounds.into_iter().flatten().any(|(name, _)| is_leaf_count(name));
        let leaves = if bounds_leaf { self.leaves() } else { &[] };
        let is_scoped = !tree["spec"]["scopes"].is_null() || !tree["spec"]["scopeSelector"].is_null();
        for (kind, cache) in self.used_by.iter().chain(leaves) {
            for object in cache.in_namespace(key.namespace()) {
                if is_scoped && !quota::counts(&tree, kind, &read_for(kind, &object)) {
                    continue;
                }
                for (name, amount) in uses(kind, &object).iter() {
                    let slot = seen.entry(name.clone()).or_insert(Quantity::ZERO);
                    *slot = *slot + *amount;
                }
            }
        }
        Some(View { quota, seen })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::nothing();
        if view.quota.header.is_ending() {
            return plan;
        }
        let quota = view.quota.value();
        let (wanted, bounds) = (&quota["spec"]["hard"], &quota["status"]["hard"]);
        let names = || wanted.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let sees_all = names().all(is_seen);
        let why = if read(wanted) != read(bounds) {
            "its bounds are not in its status yet".to_owned()
        } else if let Some(name) = names().find(|name| is_seen(name) && differs(view, &quota, name)) {
            format!("what is used of {name} is not what it says")
        } else if sees_all {
            return plan;
        } else {
            "it bounds objects that are only counted now and then".to_owned()
        };
        let status =
            json!([{"op": "add", "path": "/status", "value": {"hard": wanted, "used": quota["status"]["used"]}}]);
        plan.patch_status(Target::of(&kinds::RESOURCE_QUOTA, &view.quota.header), Patch::Json(status), why);
        if !sees_all {
            plan.look_again(RECOUNT_INTERVAL, "objects that are not watched may have gone");
        }
        plan
    }
}

/// Whether this is the number of objects of a leaf kind.
fn is_leaf_count(resource: &str) -> bool {
    let counted = resource.strip_prefix("count/").unwrap_or(resource);
    watched().into_iter().any(|kind| is_leaf(kind) && kind.plural == counted)
}

fn differs(view: &View, quota: &Value, name: &str) -> bool {
    let seen = view.seen.get(name).copied().unwrap_or(Quantity::ZERO);
    Quantity::from_json(&quota["status"]["used"][name]).is_ok_and(|used| used != seen)
        || quota["status"]["used"][name].is_null()
}

/// Whether what is used of a resource follows from the objects that are watched.
fn is_seen(resource: &str) -> bool {
    if let Some(counted) = resource.strip_prefix("count/") {
        return watched().iter().any(|kind| kind.qualified_plural() == counted);
    }
    let head = resource.split('.').next().unwrap_or_default();
    watched().iter().any(|kind| kind.group.is_empty() && kind.plural == head)
        || matches!(head, "cpu" | "memory" | "ephemeral-storage" | "requests" | "limits")
        || head.starts_with("hugepages-")
        || resource.contains(".storageclass.storage.k8s.io/")
}

fn read(amounts: &Value) -> Amounts {
    let amounts = amounts.as_object().into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Controller, ResourceQuotas, View};
    use crate::fixture::{check, object};
    use serde_json::{Value, json};
    use windlass_api::quantity::Quantity;

    fn view(hard: Value, status: Value, pods: &str) -> View {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "a", "uid": "u"}, "spec": {"hard": hard}, "status": status});
        let pods: Quantity = pods.parse().expect("an amount");
        View { quota: object(&quota), seen: [("pods".to_owned(), pods)].into() }
    }

    fn counted(used: &str) -> Value {
        json!({"hard": {"pods": "5"}, "used": {"pods": used}})
    }

    #[test]
    fn r1_an_ending_quota_is_left_alone() {
        let mut ending = view(json!({"pods": "5"}), json!({}), "1");
        let mut tree = ending.quota.value();
        tree["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        ending.quota = object(&tree);
        check(&ResourceQuotas::plan(&ending), "");
    }

    #[test]
    fn r2_new_bounds_are_counted() {
        let why = "patch resourcequotas a/q status: its bounds are not in its status yet";
        check(&ResourceQuotas::plan(&view(json!({"pods": "5"}), json!({}), "1")), why);
        check(&ResourceQuotas::plan(&view(json!({"pods": "6"}), counted("1"), "1")), why);
    }

    #[test]
    fn r3_what_was_given_back_is_counted() {
        check(&ResourceQuotas::plan(&view(json!({"pods": "5"}), counted("1"), "1")), "");
        let hard = json!({"count/replicasets.apps": "5"});
        let status = json!({"hard": hard, "used": {"count/replicasets.apps": "1"}});
        check(
            &ResourceQuotas::plan(&view(hard, status, "0")),
            "patch resourcequotas a/q status: what is used of count/replicasets.apps is not what it says",
        );
        check(
            &ResourceQuotas::plan(&view(json!({"pods": "5"}), counted("2"), "1")),
            "patch resourcequotas a/q status: what is used of pods is not what it says",
        );
    }

    #[test]
    fn r4_what_is_not_watched_is_counted_now_and_then() {
        let hard = json!({"count/jobs.batch": "5"});
        let status = json!({"hard": hard, "used": {"count/jobs.batch": "1"}});
        check(
            &ResourceQuotas::plan(&view(hard, status, "0")),
            "patch resourcequotas a/q status: it bounds objects that are only counted now and then
             again after 60s: objects that are not watched may have gone",
        );
    }
}
