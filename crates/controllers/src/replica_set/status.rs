//! What a ReplicaSet says of itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Cached;

use super::View;
use crate::claim::Claims;
use crate::condition::{self, Wanted};
use crate::pod::PodFacts;

/// The pods of a set, counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: usize,
    fully_labeled: usize,
    pub(super) ready: usize,
    pub(super) available: usize,
    terminating: usize,
    /// After how long how many more will be available.
    pub(super) next_available: Option<(Duration, usize)>,
}

pub(super) fn count(view: &View, claims: &Claims, active: &[&Arc<Cached>]) -> Counts {
    let labels = view.set.spec.template["metadata"]["labels"].as_object();
    let mut counts = Counts { replicas: active.len(), ..Counts::default() };
    let ending = |pod: &&Arc<Cached>| PodFacts::of(pod).is_ending() && !PodFacts::of(pod).is_terminal();
    counts.terminating = claims.owned.iter().filter(ending).count();
    for pod in active {
        let facts = PodFacts::of(pod);
        let carries = |(label, value): (&String, &Value)| pod.header.labels().get(label) == value.as_str();
        if labels.is_none_or(|labels| labels.iter().all(carries)) {
            counts.fully_labeled += 1;
        }
        let Some(left) = facts.available_in(view.set.spec.min_ready_seconds.unwrap_or(0), view.now) else { continue };
        counts.ready += 1;
        if left.is_zero() {
            counts.available += 1;
            continue;
        }
        let (soonest, pods) = counts.next_available.unwrap_or((left, 0));
        counts.next_available = Some((soonest.min(left), pods + 1));
    }
    counts
}

/// The status as it should be.
pub(super) fn desired(view: &View, counts: &Counts) -> Value {
    let mut conditions = view.set.status["conditions"].as_array().cloned().unwrap_or_default();
    match &view.failure {
        Some(failure) => {
            let reason = if failure.starts_with("delete") { "FailedDelete" } else { "FailedCreate" };
            let wanted = Wanted { kind: "ReplicaFailure", status: "True", reason, message: failure.clone() };
            condition::set(&mut conditions, &wanted, view.now, false);
        }
        None => conditions.retain(|condition| condition["type"] != "ReplicaFailure"),
    }
    let mut status = json!({
        "replicas": counts.replicas,
        "fullyLabeledReplicas": counts.fully_labeled,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "observedGeneration": view.header.generation,
        "conditions": if conditions.is_empty() { Value::Null } else { Value::Array(conditions) },
    });
    // A ReplicationController has no such field.
    if *view.kind == kinds::REPLICA_SET {
        status["terminatingReplicas"] = json!(counts.terminating);
    }
    status
}
