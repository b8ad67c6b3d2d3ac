//! Whose an object is: adoption of orphans that an owner's selector matches, release of owned ones that it does not.
//!
//! Source: Kubernetes "controller references": at most one owner reference has `controller: true`.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::{Header, Kind, OwnerRef};
use windlass_client::{Cache, Cached};

use crate::plan::{Plan, Target};
use crate::selector::Selector;

/// Who claims objects.
pub(crate) struct Claimant<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) header: &'a Header,
    pub(crate) selector: &'a Selector,
}

/// Objects by what the claimant does with them.
#[derive(Default)]
pub(crate) struct Claims {
    /// Owned and selected.
    pub(crate) owned: Vec<Arc<Cached>>,
    /// Selected and nobody's: to be adopted.
    pub(crate) orphans: Vec<Arc<Cached>>,
    /// Owned and not selected any more: to be released.
    pub(crate) strangers: Vec<Arc<Cached>>,
}

/// The objects that a claimant owns or might adopt.
pub(crate) fn candidates(cache: &Cache, claimant: &Header) -> Vec<Arc<Cached>> {
    let mut found = cache.owned_by(claimant.uid());
    found.retain(|object| object.header.namespace() == claimant.namespace());
    found.extend(cache.uncontrolled(claimant.namespace()));
    found
}

impl Claimant<'_> {
    /// Sorts the candidates. Objects that are ending are nobody's to adopt or release.
    pub(crate) fn sort(&self, candidates: &[Arc<Cached>]) -> Claims {
        let mut claims = Claims::default();
        for object in candidates {
            let selected = self.selector.matches(&object.header.labels());
            let ending = object.header.is_ending();
            match object.header.controller() {
                Some(owner) if owner.uid == self.header.uid() => {
                    if selected {
                        claims.owned.push(Arc::clone(object));
                    } else if !ending && !self.header.is_ending() {
                        claims.strangers.push(Arc::clone(object));
                    }
                }
                Some(_) => {}
                None if selected && !ending && !self.header.is_ending() => claims.orphans.push(Arc::clone(object)),
                None => {}
            }
        }
        claims
    }

    /// Plans the adoptions and releases.
    pub(crate) fn plan(&self, claims: &Claims, of: &Kind, plan: &mut Plan) {
        for orphan in &claims.orphans {
            let mut owners: Vec<Value> = orphan.header.owners().iter().map(owner_json).collect();
            owners.retain(|owner| owner["uid"] != json!(self.header.uid()));
            owners.push(self.reference());
            let why = format!("{} {} is selected and nobody's", of.kind, orphan.header.name());
            plan.patch(Target::of(of, &orphan.header), owners_patch(&orphan.header, owners), why);
        }
        for stranger in &claims.strangers {
            let others = stranger.header.owners().iter().filter(|owner| owner.uid != self.header.uid());
            let owners = others.map(owner_json).collect();
            let why = format!("{} {} is not selected any more", of.kind, stranger.header.name());
            plan.patch(Target::of(of, &stranger.header), owners_patch(&stranger.header, owners), why);
        }
    }

    /// The owner reference that says: this is mine.
    pub(crate) fn reference(&self) -> Value {
        controller_reference(self.kind, self.header)
    }
}

/// The owner reference of an object that goes with this one.
pub(crate) fn owner_reference(kind: &Kind, owner: &Header) -> Value {
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "name": owner.name(), "uid": owner.uid()})
}

/// The owner reference of an object that this one controls.
pub(crate) fn controller_reference(kind: &Kind, owner: &Header) -> Value {
    json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Replaces an object's owner references, if it is still at the revision that was seen.
pub(crate) fn owners_patch(header: &Header, owners: Vec<Value>) -> Value {
    let owners = if owners.is_empty() { Value::Null } else { Value::Array(owners) };
    json!({"metadata": {"resourceVersion": header.revision.to_string(), "uid": header.uid(), "ownerReferences": owners}})
}

/// An owner reference as the API writes it.
pub(crate) fn owner_json(owner: &OwnerRef) -> Value {
    let mut out = json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid});
    if owner.controller {
        out["controller"] = json!(true);
    }
    if owner.block_owner_deletion {
        out["blockOwnerDeletion"] = json!(true);
    }
    out
}
