//! Which pod goes first when there are too many: the one whose loss costs least.
//!
//! Source: Kubernetes "ReplicaSet, scaling down" and the annotation `controller.kubernetes.io/pod-deletion-cost`:
//! unbound before bound, pending before unknown before running, not ready before ready, cheaper before dearer, from
//! crowded nodes before others, ready for less long before longer, more restarts before fewer, younger before older.
//! Ages are compared by their power of two, so that pods of about the same age go by uid and not strictly youngest first.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use windlass_client::Cached;

use crate::pod::PodFacts;

const COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What one pod is ranked by, in this order; the smallest goes first.
type Rank<'a> = (bool, u8, bool, i32, Reverse<usize>, Option<u32>, Reverse<i64>, u32, &'a str);

/// Sorts pods: those to delete first come first.
pub(super) fn sort(pods: &mut [&Arc<Cached>], related_on_node: &BTreeMap<String, usize>, now: Timestamp) {
    pods.sort_by(|one, other| compare(one, other, related_on_node, now));
}

fn compare(one: &Cached, other: &Cached, related_on_node: &BTreeMap<String, usize>, now: Timestamp) -> Ordering {
    rank(one, related_on_node, now).cmp(&rank(other, related_on_node, now))
}

fn rank<'a>(pod: &'a Cached, related_on_node: &BTreeMap<String, usize>, now: Timestamp) -> Rank<'a> {
    let facts = PodFacts::of(pod);
    let phase = match facts.phase() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = facts.metadata.annotations.as_ref().and_then(|annotations| annotations.get(COST_ANNOTATION));
    let cost = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let related = related_on_node.get(pod.header.node_name()).copied().unwrap_or(0);
    let is_bound = !pod.header.node_name().is_empty();
    let ready_for = facts.ready_since().map(|since| magnitude(since, now));
    let age = facts.metadata.creation_timestamp.map_or(0, |created| magnitude(created, now));
    (
        is_bound,
        phase,
        facts.is_ready(),
        cost,
        Reverse(related),
        ready_for,
        Reverse(facts.restarts()),
        age,
        pod.header.uid(),
    )
}

/// The power of two of an age in seconds.
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0);
    u64::BITS - seconds.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::sort;
    use crate::fixture::{now, object};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    /// A running, ready, bound pod of an hour ago, changed by `change`.
    fn pod(name: &str, change: Value) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "a", "uid": name, "creationTimestamp": "2026-01-01T11:00:00Z"},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "conditions":
                [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:00:10Z"}]},
        });
        for (pointer, value) in change.as_object().expect("a map of pointers") {
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
            pod.pointer_mut(parent).expect("the parent exists")[field] = value.clone();
        }
        pod
    }

    #[test]
    fn r4_the_cheapest_pod_goes_first() {
        let related: BTreeMap<String, usize> = [("n1".to_owned(), 1), ("n2".to_owned(), 2)].into();
        for (rule, first) in [
            ("unbound", json!({"/spec/nodeName": ""})),
            ("pending", json!({"/status/phase": "Pending"})),
            ("not ready", json!({"/status/conditions": []})),
            ("cheap", json!({"/metadata/annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}})),
            ("crowded", json!({"/spec/nodeName": "n2"})),
            ("just ready", json!({"/status/conditions/0/lastTransitionTime": "2026-01-01T11:59:00Z"})),
            ("restarted", json!({"/status/containerStatuses": [{"restartCount": 3}]})),
            ("young", json!({"/metadata/creationTimestamp": "2026-01-01T11:58:00Z"})),
        ] {
            let plain = object(&pod("a-plain", json!({})));
            let first = object(&pod("z-first", first));
            let mut pods = vec![&plain, &first];
            sort(&mut pods, &related, now());
            assert_eq!(pods[0].header.name(), "z-first", "{rule}");
        }
    }
}
