//! R11: what a StatefulSet says of itself.

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Patch;

use super::{Pass, SetPod};
use crate::plan::{Plan, Target};

pub(super) fn plan(pass: &Pass, collided: bool, plan: &mut Plan) {
    let (view, found) = (pass.view, &pass.view.set.status);
    let count =
        |is: &dyn Fn(&SetPod) -> bool| i64::try_from(pass.pods.values().filter(|pod| is(pod)).count()).unwrap_or(0);
    let of = |revision: &str| count(&|pod: &SetPod| pod.revision == revision && !pod.is_ending());
    let (replicas, ready, updated) = (count(&|_| true), count(&SetPod::is_ready), of(&pass.update));
    for left in pass.pods.values().filter(|pod| pod.is_ready()).filter_map(|pod| pod.available_in) {
        if !left.is_zero() {
            plan.look_again(left, "a ready pod will have been ready for minReadySeconds");
        }
    }
    let wanted = pass.spec().replicas();
    let is_done = pass.spec().rolling().is_some() && [replicas, ready, updated] == [wanted; 3];
    let current = if is_done { &pass.update } else { &pass.current };
    let collisions = found["collisionCount"].as_i64().unwrap_or(0) + i64::from(collided);
    let status = json!({
        "replicas": replicas, "readyReplicas": ready,
        "availableReplicas": count(&SetPod::is_available),
        "currentReplicas": of(current), "updatedReplicas": updated,
        "currentRevision": text(current), "updateRevision": text(&pass.update),
        "observedGeneration": view.header.generation,
        "collisionCount": if collisions > 0 { json!(collisions) } else { Value::Null },
    });
    if !crate::status::differs(found, &status) {
        return;
    }
    let why = format!("status: {replicas} pods, {ready} ready, {updated} updated of {wanted} desired");
    plan.patch_status(Target::of(&kinds::STATEFUL_SET, &view.header), Patch::Merge(json!({"status": status})), why);
}

fn text(revision: &str) -> Value {
    if revision.is_empty() { Value::Null } else { json!(revision) }
}
