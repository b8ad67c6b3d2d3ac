//! R9: what a deployment says of itself. `kubectl rollout status` reads these counts, conditions and reasons.
//!
//! Source: API reference, apps/v1 DeploymentStatus; Kubernetes "Deployment status".

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Patch;

use super::{Rollout, View};
use crate::condition::{self, Wanted};
use crate::plan::{Plan, Target};

/// A deadline of this many seconds means: none.
const NO_DEADLINE: i64 = i32::MAX as i64;

struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
    unavailable: i64,
    terminating: i64,
}

/// Plans the status if it differs.
pub(super) fn plan(view: &View, rollout: &Rollout, plan: &mut Plan) {
    let counts = count(rollout);
    let found = &view.deployment.status;
    let mut conditions = found["conditions"].as_array().cloned().unwrap_or_default();
    if !view.header.is_ending() {
        set_available(rollout, &counts, &mut conditions);
        set_progressing(rollout, &counts, &mut conditions, plan);
        set_failure(rollout, &mut conditions);
    }
    let collisions = found["collisionCount"].as_i64().unwrap_or(0) + i64::from(rollout.collided);
    let desired = json!({
        "observedGeneration": view.header.generation,
        "replicas": counts.replicas, "updatedReplicas": counts.updated, "readyReplicas": counts.ready,
        "availableReplicas": counts.available, "unavailableReplicas": counts.unavailable,
        "terminatingReplicas": counts.terminating, "collisionCount": collisions,
        "conditions": conditions,
    });
    let mut patch = serde_json::Map::new();
    for (field, value) in desired.as_object().expect("an object literal") {
        let says_nothing =
            |value: &Value| value.is_null() || *value == 0 || value.as_array().is_some_and(Vec::is_empty);
        if found[field] == *value || says_nothing(&found[field]) && says_nothing(value) {
            continue;
        }
        // Zero is left out, as the API does.
        patch.insert(field.clone(), if says_nothing(value) { Value::Null } else { value.clone() });
    }
    if !patch.is_empty() {
        let why = format!(
            "status: {} of {} replicas updated, {} ready, {} available",
            counts.updated,
            rollout.replicas(),
            counts.ready,
            counts.available
        );
        let patch = Patch::Merge(json!({"status": patch}));
        plan.patch_status(Target::of(&kinds::DEPLOYMENT, &view.header), patch, why);
    }
}

fn count(rollout: &Rollout) -> Counts {
    let sum = |read: fn(&super::Set) -> i64| rollout.all().map(read).sum::<i64>();
    let available = sum(|set| set.status.available_replicas);
    Counts {
        replicas: sum(|set| set.status.replicas),
        updated: rollout.new.as_ref().map_or(0, |set| set.status.replicas),
        ready: sum(|set| set.status.ready_replicas),
        available,
        unavailable: (sum(|set| set.replicas) - available).max(0),
        terminating: sum(|set| set.status.terminating_replicas),
    }
}

/// Whether the rollout has reached its goal.
pub(super) fn is_complete(rollout: &Rollout) -> bool {
    complete(rollout, &count(rollout)) && rollout.old.iter().all(|set| set.replicas == 0)
}

fn complete(rollout: &Rollout, counts: &Counts) -> bool {
    let desired = rollout.replicas();
    rollout.new.is_some() && counts.updated == desired && counts.replicas == desired && counts.available == desired
}

fn set_available(rollout: &Rollout, counts: &Counts, conditions: &mut Vec<Value>) {
    let is_available = counts.available >= rollout.replicas() - rollout.max_unavailable();
    let (status, reason, verb) = if is_available {
        ("True", "MinimumReplicasAvailable", "has")
    } else {
        ("False", "MinimumReplicasUnavailable", "does not have")
    };
    let message = format!("Deployment {verb} minimum availability.");
    condition::set(conditions, &Wanted { kind: "Available", status, reason, message }, rollout.view.now, true);
}

fn has_deadline(rollout: &Rollout) -> Option<i64> {
    rollout.spec().progress_deadline_seconds.filter(|seconds| *seconds < NO_DEADLINE)
}

/// Whether Progressing has never been said although it should be.
pub(super) fn lacks_progress(rollout: &Rollout) -> bool {
    let conditions = rollout.view.deployment.status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    has_deadline(rollout).is_some() && condition::find(conditions, "Progressing").is_none()
}

/// What the rollout does, in the words that kubectl knows.
fn set_progressing(rollout: &Rollout, counts: &Counts, conditions: &mut Vec<Value>, plan: &mut Plan) {
    let Some(deadline_seconds) = has_deadline(rollout) else {
        conditions.retain(|condition| condition["type"] != "Progressing");
        return;
    };
    let now = rollout.view.now;
    let found = condition::find(conditions, "Progressing").cloned().unwrap_or(Value::Null);
    let reason_before = found["reason"].as_str().unwrap_or_default();
    let mut say = |status: &str, reason: &str, message: String| {
        replace_progressing(conditions, status, reason, message, now);
    };
    if rollout.spec().paused {
        if reason_before != "DeploymentPaused" {
            say("Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
        }
        return;
    }
    if reason_before == "DeploymentPaused" {
        say("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        return;
    }
    if let Some((reason, message)) = &rollout.found {
        say("True", reason, message.clone());
        return;
    }
    let subject = match &rollout.new {
        Some(new) => format!("ReplicaSet {:?}", new.name),
        None => format!("Deployment {:?}", rollout.view.header.name()),
    };
    let was_complete = reason_before == "NewReplicaSetAvailable" && counts.replicas == counts.updated;
    if complete(rollout, counts) {
        if reason_before != "NewReplicaSetAvailable" {
            say("True", "NewReplicaSetAvailable", format!("{subject} has successfully progressed."));
        }
    } else if was_complete {
        // A pod of a finished rollout that is sick for a while does not make it a rollout again.
    } else if has_progressed(rollout, counts) {
        say("True", "ReplicaSetUpdated", format!("{subject} is progressing."));
    } else if !matches!(reason_before, "ProgressDeadlineExceeded" | "NewReplicaSetAvailable") {
        // The deadline of a rollout that has not moved yet does not count from the end of the one before.
        let since = condition::time(&found, "lastUpdateTime").unwrap_or(now);
        let left = SignedDuration::from_secs(deadline_seconds) - now.duration_since(since);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => plan.look_again(left, "the rollout's progress deadline"),
            _ => say("False", "ProgressDeadlineExceeded", format!("{subject} has timed out progressing.")),
        }
    }
}

/// Like `condition::set`, but the update time always moves: the deadline counts from it.
fn replace_progressing(conditions: &mut Vec<Value>, status: &str, reason: &str, message: String, now: Timestamp) {
    let transition = condition::find(conditions, "Progressing")
        .filter(|found| found["status"] == status)
        .map_or_else(|| json!(condition::text(now)), |found| found["lastTransitionTime"].clone());
    let said = json!({
        "type": "Progressing", "status": status, "reason": reason, "message": message,
        "lastUpdateTime": condition::text(now), "lastTransitionTime": transition,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == "Progressing") {
        Some(found) => *found = said,
        None => conditions.push(said),
    }
}

/// Whether anything moved in the right direction since the status was written.
fn has_progressed(rollout: &Rollout, counts: &Counts) -> bool {
    let before = |field: &str| rollout.view.deployment.status[field].as_i64().unwrap_or(0);
    counts.updated > before("updatedReplicas")
        || counts.replicas - counts.updated < before("replicas") - before("updatedReplicas")
        || counts.ready > before("readyReplicas")
        || counts.available > before("availableReplicas")
}

/// Passes a set's failure to make pods on.
fn set_failure(rollout: &Rollout, conditions: &mut Vec<Value>) {
    let sets = rollout.new.iter().chain(&rollout.old);
    let mut failures = sets.filter_map(|set| condition::find(set.status.conditions.as_deref()?, "ReplicaFailure"));
    let failure = failures.find(|failure| failure["status"] == "True");
    match failure {
        Some(failure) => {
            let text = |field: &str| failure[field].as_str().unwrap_or_default();
            let (reason, message) = (text("reason"), text("message").to_owned());
            let wanted = Wanted { kind: "ReplicaFailure", status: "True", reason, message };
            condition::set(conditions, &wanted, rollout.view.now, true);
        }
        None => conditions.retain(|condition| condition["type"] != "ReplicaFailure"),
    }
}
