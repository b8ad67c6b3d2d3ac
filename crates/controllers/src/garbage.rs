//! Garbage: what an object's owners decide about its end.
//!
//! Goal        no object outlives all its owners; an owner deleted in the foreground goes after what blocks it
//! Watches     every kind that objects are stored of (`served`), custom ones included
//! Writes      dependents: delete, owner references · owners: the finalizers `foregroundDeletion` and `orphan`
//! Relies on   uids are never used again, so a namesake with another uid means: the owner is gone
//!
//! Rules, in order
//!   R1 orphan      an ending object with finalizer `orphan` is taken out of its dependents, then loses the finalizer
//!   R2 foreground  an ending object with finalizer `foregroundDeletion` has its dependents deleted, and loses the
//!                  finalizer when none that blocks it is left
//!   R3 absent      an object all of whose owners are gone is deleted, once the API itself says that they are gone
//!   R4 dangling    an object with an owner that is there loses its references to those that are gone
//!   R5 scope       an owner is looked for in the object's own namespace or cluster-wide, never in another namespace;
//!                  a kind that we do not know may exist, so what it owns stays
//!   R6 unserved    an owner whose kind is served no more is gone once the API says that the kind's definition is
//!   R7 unseen      while the copy of some kind is not complete, a dependent may be unseen: R1 and R2 keep the finalizer,
//!                  and an owner of that kind is not known to be gone. What waits for a kind to be seen is looked at again
//!   R8 leaf        an owner of a leaf kind has us see all of that kind from then on
//! Not here       who sets owner references (the controllers)

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use windlass_api::{Kind, OwnerRef, kinds};
use windlass_client::{Cache, Cached, Caches, Change, DeleteOptions, Key, Propagation};

use crate::claim::{owner_json, owners_patch};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Action, Guard, Plan, Target};
use crate::served::Served;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How long until an object is looked at again that our copy and the API disagree about.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The garbage collector.
pub(crate) struct Garbage {
    graph: Arc<Graph>,
}

/// All objects, and who owns whom.
struct Graph {
    served: Served,
}

/// What a decision about one object depends on.
pub(crate) struct View {
    kind: Kind,
    object: Arc<Cached>,
    owners: Vec<(OwnerRef, Owner)>,
    dependents: Vec<(Kind, Arc<Cached>)>,
    /// Whether there may be more that our copies do not show yet.
    is_partial: bool,
}

/// What is known of an owner.
enum Owner {
    /// It is there.
    Present,
    /// It is there and waits for this object to go first.
    Waiting,
    /// Our copy does not hold it, or a namesake with another uid.
    Absent(Target),
    /// We cannot tell.
    Unknown,
}

impl Graph {
    fn dependents(&self, owner: &Cached) -> Vec<(Kind, Arc<Cached>)> {
        let namespace = owner.header.namespace();
        let mut found = Vec::new();
        for cache in self.served.now().caches() {
            for dependent in cache.owned_by(owner.header.uid()) {
                if namespace.is_empty() || dependent.header.namespace() == namespace {
                    found.push((cache.kind().clone(), dependent));
                }
            }
        }
        found
    }

    fn owner(&self, reference: &OwnerRef, dependent_namespace: &str) -> Owner {
        let served = self.served.now();
        let group = group_of(&reference.api_version);
        let Some(cache) = served.find(group, &reference.kind).filter(|cache| cache.is_synced()) else {
            return served.find_gone(group, &reference.kind).map_or(Owner::Unknown, |kind| {
                let key = Key::new("", &kind.qualified_plural());
                Owner::Absent(Target { kind: kinds::CUSTOM_RESOURCE_DEFINITION.clone(), key, uid: String::new() })
            });
        };
        if cache.is_linked_only() {
            // R8. The next look finds it complete.
            self.served.widen(cache.kind());
            return Owner::Unknown;
        }
        let namespace = if cache.kind().namespaced { dependent_namespace } else { "" };
        if cache.kind().namespaced && namespace.is_empty() {
            return Owner::Unknown;
        }
        match cache.get(namespace, &reference.name) {
            Some(found) if found.header.uid() == reference.uid => {
                let waits = found.header.is_ending() && has_finalizer(&found, FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Present }
            }
            _ => Owner::Absent(Target {
                kind: cache.kind().clone(),
                key: Key::new(namespace, &reference.name),
                uid: reference.uid.clone(),
            }),
        }
    }

    /// The keys that a change concerns: the object, what it owned, and owners that may wait for it.
    fn concerned(&self, kind: &Kind, change: &Change, wake: &mut dyn FnMut(Key)) {
        if let Some(new) = &change.new {
            let owners_changed = change.old.as_ref().is_none_or(|old| old.header.owners() != new.header.owners());
            let is_owned = owners_changed && !new.header.owners().is_empty();
            if is_owned || waits_for_dependents(new) {
                wake(key_of(kind, &change.key));
            }
            if !owners_changed {
                return;
            }
        }
        if let (Some(old), None) = (&change.old, &change.new) {
            for (kind, dependent) in self.dependents(old) {
                wake(key_of(&kind, &Key::of(&dependent.header)));
            }
        }
        for seen in [&change.old, &change.new].into_iter().flatten() {
            for owner in seen.header.owners() {
                let served = self.served.now();
                let Some(cache) = served.find(group_of(&owner.api_version), &owner.kind) else { continue };
                let namespace = if cache.kind().namespaced { seen.header.namespace() } else { "" };
                if cache.get(namespace, &owner.name).is_some_and(|found| waits_for_dependents(&found)) {
                    wake(key_of(cache.kind(), &Key::new(namespace, &owner.name)));
                }
            }
        }
    }
}

/// Whether what becomes of its dependents decides about its end.
fn waits_for_dependents(object: &Cached) -> bool {
    object.header.is_ending() && (has_finalizer(object, FOREGROUND) || has_finalizer(object, ORPHAN))
}

fn has_finalizer(object: &Cached, finalizer: &str) -> bool {
    object.header.has_finalizer(finalizer)
}

/// The group of an `apiVersion`; empty for the core group.
fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// A key of any kind: `group|Kind|namespace/name`.
fn key_of(kind: &Kind, key: &Key) -> Key {
    Key::from(format!("{}|{}|{key}", kind.group, kind.kind).as_str())
}

impl Garbage {
    pub(crate) fn new(caches: &Caches) -> Garbage {
        Garbage { graph: Arc::new(Graph { served: Served::new(caches) }) }
    }
}

impl Controller for Garbage {
    type View = View;
    const NAME: &'static str = "garbage";

    fn wakes(&self) -> Vec<Wake> {
        let wake = |cache: &Cache| {
            let (graph, kind) = (Arc::clone(&self.graph), cache.kind().clone());
            Wake::new(cache.kind(), move |change, wake| graph.concerned(&kind, change, wake)).of(cache.clone())
        };
        self.graph.served.refresh().caches().map(wake).collect()
    }

    fn has_new_wakes(&self) -> bool {
        self.graph.served.take_widened()
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let mut parts = key.as_str().splitn(3, '|');
        let served = self.graph.served.now();
        let cache = served.find(parts.next()?, parts.next()?)?;
        let object = cache.get_key(parts.next()?)?;
        let header = &object.header;
        let owners = header.owners().iter().map(|owner| (owner.clone(), self.graph.owner(owner, header.namespace())));
        let owners = owners.collect();
        let dependents = self.graph.dependents(&object);
        let is_partial = !served.are_synced();
        Some(View { kind: cache.kind().clone(), object, owners, dependents, is_partial })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if view.object.header.is_ending() {
            if has_finalizer(&view.object, ORPHAN) {
                orphan(view, &mut plan);
            } else if has_finalizer(&view.object, FOREGROUND) {
                foreground(view, &mut plan);
            }
            return plan;
        }
        owned(view, &mut plan);
        plan
    }
}

/// R1.
fn orphan(view: &View, plan: &mut Plan) {
    let owner = &view.object.header;
    for (kind, dependent) in &view.dependents {
        let others = dependent.header.owners().iter().filter(|reference| reference.uid != owner.uid());
        let patch = owners_patch(&dependent.header, others.map(owner_json).collect());
        let why = format!("{} {} is deleted without its dependents", view.kind.kind, owner.name());
        plan.patch(Target::of(kind, &dependent.header), patch, why);
    }
    if view.dependents.is_empty() {
        take_off(view, ORPHAN, "no dependent refers to it any more", plan);
    }
}

/// R2.
fn foreground(view: &View, plan: &mut Plan) {
    let owner = &view.object.header;
    let mut blocked = 0;
    for (kind, dependent) in &view.dependents {
        let mut references = dependent.header.owners().iter();
        blocked += usize::from(references.any(|found| found.uid == owner.uid() && found.block_owner_deletion));
        let has_other_owner = dependent.header.owners().iter().any(|found| found.uid != owner.uid());
        if dependent.header.is_ending() || has_other_owner {
            continue;
        }
        let target = Target::of(kind, &dependent.header);
        // Its own dependents go before it, as it goes before its owner. A pod owns nothing.
        let propagation = if *kind == kinds::POD { Propagation::Background } else { Propagation::Foreground };
        let options = DeleteOptions::of_uid(&target.uid).propagate(propagation);
        let why = format!("its owner {} {} is deleted in the foreground", view.kind.kind, owner.name());
        plan.add(Action::Delete { target, options }, why);
    }
    if blocked == 0 {
        take_off(view, FOREGROUND, "no dependent blocks its deletion", plan);
        return;
    }
    // A dependent that somebody else owns too stays: it only loses this owner.
    for (kind, dependent) in &view.dependents {
        let others: Vec<_> = dependent.header.owners().iter().filter(|found| found.uid != owner.uid()).collect();
        if !others.is_empty() && !dependent.header.is_ending() {
            let patch = owners_patch(&dependent.header, others.into_iter().map(owner_json).collect());
            let why = format!("it has another owner than {} {}", view.kind.kind, owner.name());
            plan.patch(Target::of(kind, &dependent.header), patch, why);
        }
    }
}

fn take_off(view: &View, finalizer: &str, why: &str, plan: &mut Plan) {
    if view.is_partial {
        plan.look_again(LOOK_AGAIN, "whether all kinds are seen by then");
        return;
    }
    let header = &view.object.header;
    let left: Vec<&str> = header.finalizers().filter(|found| *found != finalizer).collect();
    let patch = json!({"metadata": {"resourceVersion": header.revision.to_string(), "finalizers": left}});
    plan.patch(Target::of(&view.kind, header), patch, why);
}

/// R3 to R7.
fn owned(view: &View, plan: &mut Plan) {
    let header = &view.object.header;
    let absent: Vec<Target> = view
        .owners
        .iter()
        .filter_map(|(_, owner)| match owner {
            Owner::Absent(target) => Some(target.clone()),
            Owner::Present | Owner::Waiting | Owner::Unknown => None,
        })
        .collect();
    if view.owners.iter().any(|(_, owner)| matches!(owner, Owner::Unknown)) {
        plan.look_again(LOOK_AGAIN, "whether all kinds are seen by then");
    }
    if absent.is_empty() {
        return;
    }
    let names: Vec<String> =
        absent.iter().map(|target| format!("{} {}", target.kind.kind, target.key.name())).collect();
    let names = names.join(", ");
    let target = Target::of(&view.kind, header);
    // Should the API still hold an owner that our copy does not, its end may come and go before we see it.
    plan.look_again(LOOK_AGAIN, "whether the owners are gone by then");
    if absent.len() == view.owners.len() {
        let options = DeleteOptions::of_uid(&target.uid).propagate(Propagation::Background);
        plan.add(Action::Delete { target, options }, format!("its owner {names} is gone")).guard(Guard::Absent(absent));
        return;
    }
    // While an owner waits for this object, or we cannot tell, the references stay as they are.
    if view.owners.iter().any(|(_, owner)| matches!(owner, Owner::Present)) {
        let kept = view.owners.iter().filter(|(_, owner)| !matches!(owner, Owner::Absent(_)));
        let patch = owners_patch(header, kept.map(|(reference, _)| owner_json(reference)).collect());
        plan.patch(target, patch, format!("of its owners {names} is gone")).guard(Guard::Absent(absent));
    }
}

#[cfg(test)]
mod tests;
