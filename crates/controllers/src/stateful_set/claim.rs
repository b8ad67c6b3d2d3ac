//! R5: the claims of a set's pods.
//!
//! ```text
//! whenDeleted  whenScaled   owner of a claim            of one whose pod is beyond the range
//! Retain       Retain       nobody                      nobody
//! Delete       Retain       the set                     the set
//! Retain       Delete       nobody                      its pod
//! Delete       Delete       the set                     its pod
//! ```
//! Source: API reference, apps/v1 persistentVolumeClaimRetentionPolicy; KEP-1847.

use serde_json::{Value, json};
use windlass_api::{Header, kinds};
use windlass_client::ObjectRef;

use super::View;
use crate::claim::{owner_json, owner_reference, owners_patch};
use crate::plan::{Plan, Target};

/// The name of the claim that this template makes for an ordinal.
pub(super) fn name(set: &Header, template: &Value, ordinal: i64) -> String {
    format!("{}-{}-{ordinal}", template["metadata"]["name"].as_str().unwrap_or_default(), set.name())
}

fn templates(view: &View) -> &[Value] {
    view.set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// Who is to own the claims of an ordinal.
fn owner(view: &View, ordinal: i64, pod: Option<&Header>) -> Option<Value> {
    let retention = view.set.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    let when_scaled = deletes(retention.map(|retention| &retention.when_scaled));
    if when_scaled && !view.set.spec.range().contains(&ordinal) {
        return pod.map(|pod| owner_reference(&kinds::POD, pod));
    }
    let when_deleted = deletes(retention.map(|retention| &retention.when_deleted));
    when_deleted.then(|| owner_reference(&kinds::STATEFUL_SET, &view.header))
}

/// Makes the claims that an ordinal's pod needs; `false` while one of them is ending, or goes with an earlier pod.
pub(super) fn make(view: &View, ordinal: i64, plan: &mut Plan) -> bool {
    let pod = format!("{}-{ordinal}", view.header.name());
    // A claim that belongs to an earlier pod is about to be deleted with it.
    let is_going = |header: &Header| {
        header.is_ending() || header.owners().iter().any(|owner| owner.kind == "Pod" && owner.name == pod)
    };
    let names = templates(view).iter().map(|template| name(&view.header, template, ordinal));
    if names.filter_map(|name| view.claims.get(&name)).any(|claim| is_going(&claim.header)) {
        return false;
    }
    for template in templates(view) {
        let name = name(&view.header, template, ordinal);
        if view.claims.contains_key(&name) {
            continue;
        }
        let mut labels = template["metadata"]["labels"].clone();
        for (key, value) in view.set.spec.selector.json["matchLabels"].as_object().into_iter().flatten() {
            labels[key] = value.clone();
        }
        let owners = owner(view, ordinal, None).map(|owner| json!([owner]));
        let object = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": view.header.namespace(), "labels": labels,
                "annotations": template["metadata"]["annotations"], "ownerReferences": owners},
            "spec": template["spec"],
        });
        let set = view.header.name();
        let why = format!("create Claim {name} Pod {set}-{ordinal} in StatefulSet {set} success");
        plan.create(&kinds::PERSISTENT_VOLUME_CLAIM, view.header.namespace(), object, why)
            .tell(ObjectRef::of(&view.header), "SuccessfulCreate")
            .tell_failure("FailedCreate");
    }
    true
}

/// Gives the claims of a pod the owner that they are to have.
pub(super) fn own(view: &View, ordinal: i64, pod: &Header, plan: &mut Plan) {
    for template in templates(view) {
        let Some(claim) = view.claims.get(&name(&view.header, template, ordinal)) else { continue };
        let header = &claim.header;
        let wanted = owner(view, ordinal, Some(pod));
        let is_ours = |uid: &str| uid == view.header.uid() || uid == pod.uid();
        let ours: Vec<&str> =
            header.owners().iter().map(|owner| owner.uid.as_str()).filter(|uid| is_ours(uid)).collect();
        let wanted_uid = wanted.as_ref().and_then(|owner| owner["uid"].as_str());
        if header.is_ending() || ours == wanted_uid.into_iter().collect::<Vec<_>>() {
            continue;
        }
        let others = header.owners().iter().filter(|owner| !is_ours(&owner.uid)).map(owner_json);
        let patch = owners_patch(header, others.chain(wanted).collect());
        let why = format!("claim {} is owned as persistentVolumeClaimRetentionPolicy says", header.name());
        plan.patch(Target::of(&kinds::PERSISTENT_VOLUME_CLAIM, header), patch, why);
    }
}
