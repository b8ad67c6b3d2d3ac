//! R4 and R8: the set of the current template, its place in the history, and how long history is kept.

use std::collections::BTreeMap;

use serde_json::json;
use windlass_api::kinds;
use windlass_client::{Key, ObjectRef};

use super::Rollout;
use super::set::{self, REVISION, REVISION_HISTORY, Set};
use crate::plan::{Plan, Target};

/// Makes sure that the set of the current template exists and has the highest revision.
pub(super) fn find_or_create(rollout: &mut Rollout, replicas: i64, plan: &mut Plan) {
    if rollout.new.is_some() {
        sync(rollout, plan);
        return;
    }
    let view = rollout.view;
    let name = set::name(&view.header, &view.deployment);
    if view.namesake.is_some() {
        // A set of another template (or another owner) has the name: the next pass tries the next name.
        rollout.collided = true;
        return;
    }
    let revision = (highest(rollout) + 1).to_string();
    let mut annotations: BTreeMap<String, String> =
        set::inherited(&view.deployment).map(|(name, value)| (name.clone(), value.clone())).collect();
    annotations.insert(REVISION.to_owned(), revision.clone());
    annotations.insert(set::DESIRED.to_owned(), rollout.replicas().to_string());
    annotations.insert(set::MOST.to_owned(), (rollout.replicas() + rollout.max_surge()).to_string());
    let object = set::new(&view.header, &view.deployment, &annotations, replicas);
    let why = if replicas > 0 {
        format!("Scaled up replica set {name} from 0 to {replicas}")
    } else {
        format!("replica set {name} is the first of its template")
    };
    let item = plan.create(&kinds::REPLICA_SET, view.header.namespace(), object, why);
    // What has no pods yet is no news to people, but that it cannot be made is.
    let about = ObjectRef::of(&view.header);
    if replicas > 0 {
        item.tell(about, "ScalingReplicaSet").tell_failure("ReplicaSetCreateError");
    } else {
        item.tell_only_failure(about, "ReplicaSetCreateError");
    }
    rollout.found = Some(("NewReplicaSetCreated", format!("Created new replica set {name:?}")));
    let key = Key::new(view.header.namespace(), &name);
    rollout.new = Some(Set { key, name, annotations, replicas, ..Set::default() });
    annotate_deployment(rollout, &revision, plan);
}

/// Gives the set of the current template the highest revision, and the deployment the same.
pub(super) fn sync(rollout: &mut Rollout, plan: &mut Plan) {
    let Some(mut new) = rollout.new.take() else { return };
    let highest_old = highest(rollout);
    let before = new.annotations.clone();
    let mut revision = new.revision();
    if revision <= highest_old {
        if revision > 0 {
            let history = new.annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&revision.to_string());
        }
        revision = highest_old + 1;
        new.annotations.insert(REVISION.to_owned(), revision.to_string());
    }
    for (name, value) in set::inherited(&rollout.view.deployment) {
        new.annotations.insert(name.clone(), value.clone());
    }
    let min_ready_seconds = rollout.spec().min_ready_seconds.unwrap_or(0);
    if new.annotations != before || new.min_ready_seconds != min_ready_seconds {
        let patch = json!({
            "metadata": {"annotations": new.annotations}, "spec": {"minReadySeconds": min_ready_seconds},
        });
        let target = Target { kind: kinds::REPLICA_SET.clone(), key: new.key.clone(), uid: new.uid.clone() };
        plan.patch(target, patch, format!("replica set {} is revision {revision}", new.name));
        // The sizes of this pass must not be refused because of this write.
        new.revision_seen = 0;
    }
    if super::status::lacks_progress(rollout) {
        rollout.found = Some(("FoundNewReplicaSet", format!("Found new replica set {:?}", new.name)));
    }
    rollout.new = Some(new);
    annotate_deployment(rollout, &revision.to_string(), plan);
}

fn highest(rollout: &Rollout) -> i64 {
    rollout.old.iter().map(Set::revision).max().unwrap_or(0)
}

fn annotate_deployment(rollout: &Rollout, revision: &str, plan: &mut Plan) {
    let view = rollout.view;
    let annotations = view.deployment.metadata.annotations.as_ref();
    if annotations.and_then(|annotations| annotations.get(REVISION)).is_some_and(|found| found == revision) {
        return;
    }
    let patch = json!({"metadata": {"annotations": {REVISION: revision}}});
    plan.patch(Target::of(&kinds::DEPLOYMENT, &view.header), patch, format!("the rollout is revision {revision}"));
}

/// Deletes old empty sets beyond the history limit, oldest revision first.
pub(super) fn clean_up(rollout: &mut Rollout, plan: &mut Plan) {
    let limit = rollout.spec().revision_history_limit.unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return };
    let mut alive: Vec<&Set> = rollout.old.iter().filter(|set| !set.is_ending).collect();
    let surplus = alive.len().saturating_sub(limit);
    alive.sort_by_key(|set| set.revision());
    for set in alive.into_iter().take(surplus) {
        let in_use = set.status.replicas != 0 || set.replicas != 0 || set.generation > set.status.observed_generation;
        if !in_use {
            let target = Target { kind: kinds::REPLICA_SET.clone(), key: set.key.clone(), uid: set.uid.clone() };
            let why = format!("revision {} is beyond the last {limit} kept", set.revision());
            plan.delete(target, why);
        }
    }
}
