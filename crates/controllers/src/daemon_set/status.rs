//! R10: what a DaemonSet says of itself.

use std::time::Duration;

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Patch;

use super::node::Suits;
use super::{OnNodes, View};
use crate::plan::{Plan, Target};

pub(super) fn plan(view: &View, nodes: &OnNodes, collided: bool, plan: &mut Plan) {
    let [mut desired, mut current, mut astray, mut ready, mut available, mut updated] = [0_i64; 6];
    for node in &nodes.nodes {
        let runs = node.suits == Suits::Runs;
        desired += i64::from(runs);
        // Beside an old pod that still runs the new one of a surge does not count.
        let first = node.pods.iter().find(|pod| pod.is_active()).or_else(|| node.pods.first());
        let Some(pod) = first else { continue };
        if !runs {
            astray += i64::from(node.suits == Suits::Not || pod.is_active());
            continue;
        }
        current += 1;
        ready += i64::from(pod.facts.is_ready());
        available += i64::from(pod.is_available());
        updated += i64::from(pod.is_new);
        if let Some(left) = pod.available_in.filter(|left| *left > Duration::ZERO) {
            plan.look_again(left, "a ready pod will have been ready for minReadySeconds");
        }
    }
    let found = &view.set.status;
    let collisions = found["collisionCount"].as_i64().unwrap_or(0) + i64::from(collided);
    let wanted = json!({
        "desiredNumberScheduled": desired, "currentNumberScheduled": current, "numberMisscheduled": astray,
        "numberReady": ready, "numberAvailable": available, "numberUnavailable": desired - available,
        "updatedNumberScheduled": updated, "observedGeneration": view.header.generation,
        "collisionCount": if collisions > 0 { json!(collisions) } else { Value::Null },
    });
    if !crate::status::differs(found, &wanted) {
        return;
    }
    let why =
        format!("status: {current} of {desired} nodes have a pod, {ready} ready, {updated} of the newest template");
    plan.patch_status(Target::of(&kinds::DAEMON_SET, &view.header), Patch::Merge(json!({"status": wanted})), why);
}
