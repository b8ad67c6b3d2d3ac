//! Each rule of the replica set controller, by its number.

use serde_json::{Value, json};

use super::{Controller, ReplicaSet, ReplicaSets, View, facts, view_of};
use crate::fixture::{check, object};
use crate::plan::Action;

fn set(change: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "a", "uid": "set", "generation": 1, "resourceVersion": "9"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}},
        "status": {"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "observedGeneration": 1},
    });
    crate::fixture::change(&mut set, change);
    set
}

fn pod(name: &str, change: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}, "resourceVersion": "5",
            "creationTimestamp": "2026-01-01T11:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}]},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:59:50Z"}]},
    });
    crate::fixture::change(&mut pod, change);
    pod
}

fn view(set: Value, pods: &[Value]) -> View {
    view_of::<ReplicaSet>(&object(&set), pods.iter().map(object).collect())
}

#[test]
fn in_order_nothing_is_done() {
    let view = view(set(json!({})), &[pod("p1", json!({})), pod("p2", json!({}))]);
    check(&ReplicaSets::plan(&view), "");
}

#[test]
fn r1_a_set_being_deleted_is_left_alone() {
    let ending = set(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z", "/status/replicas": 0,
        "/status/readyReplicas": 0, "/status/availableReplicas": 0, "/status/fullyLabeledReplicas": 0}));
    check(&ReplicaSets::plan(&view(ending, &[])), "");
}

#[test]
fn r2_orphans_are_adopted_and_strangers_released() {
    let orphan = pod("orphan", json!({"/metadata/ownerReferences": null}));
    let stranger = pod("stranger", json!({"/metadata/labels": {"app": "db"}}));
    let view = view(set(json!({})), &[pod("p1", json!({})), orphan, stranger]);
    let plan = ReplicaSets::plan(&view);
    let text = plan.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "patch pods a/orphan: Pod orphan is selected and nobody's");
    assert_eq!(lines[1], "patch pods a/stranger: Pod stranger is not selected any more");
    assert_eq!(lines.len(), 3, "the adopted pod counts, so nothing is created:\n{text}");
    let Action::Patch { patch: windlass_client::Patch::Merge(patch), .. } = &plan.items[0].action else {
        panic!("an adoption is a merge patch")
    };
    assert_eq!(patch["metadata"]["resourceVersion"], "5", "only if nobody else was faster");
    assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "set");
}

#[test]
fn r3_missing_pods_are_created_from_the_template() {
    let failed = pod("p2", json!({"/status/phase": "Failed"}));
    let ending = pod("p3", json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"}));
    let view = view(set(json!({"/status/terminatingReplicas": 1})), &[pod("p1", json!({})), failed, ending]);
    let plan = ReplicaSets::plan(&view);
    check(
        &plan,
        "create pods a/web-: Created pod: {name}
         patch replicasets a/web status: status: 1 pods, 1 ready, 1 available of 2 desired",
    );
    let Action::Create { object, .. } = &plan.items[0].action else { panic!("a pod is created") };
    assert_eq!(object["metadata"]["ownerReferences"][0]["controller"], true);
    assert_eq!(object["metadata"]["labels"]["app"], "web");
    assert_eq!(object["spec"]["containers"][0]["name"], "c");
}

#[test]
fn r3_a_pass_creates_at_most_a_burst() {
    let plan = ReplicaSets::plan(&view(set(json!({"/spec/replicas": 1200})), &[]));
    let created = plan.items.iter().filter(|item| matches!(item.action, Action::Create { .. })).count();
    assert_eq!(created, 500);
}

#[test]
fn r4_surplus_pods_are_deleted_cheapest_first() {
    let unready = pod("p2", json!({"/status/conditions": []}));
    let view = view(set(json!({"/spec/replicas": 1})), &[pod("p1", json!({})), unready]);
    check(
        &ReplicaSets::plan(&view),
        "delete pods a/p2: Deleted pod: p2
         patch replicasets a/web status: status: 2 pods, 1 ready, 1 available of 1 desired",
    );
}

#[test]
fn r5_a_failure_is_said_in_a_condition_and_taken_back() {
    let mut view = view(set(json!({})), &[pod("p1", json!({})), pod("p2", json!({}))]);
    view.failure = Some("create pods a/web-: quota".to_owned());
    let plan = ReplicaSets::plan(&view);
    let Action::Patch { patch: windlass_client::Patch::Merge(patch), .. } = &plan.items[0].action else {
        panic!("the status is patched")
    };
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(condition["reason"], "FailedCreate");
    let mut said = set(json!({}));
    said["status"]["conditions"] = json!([condition]);
    view.failure = None;
    view.set = facts::<ReplicaSet>(&object(&said));
    let plan = ReplicaSets::plan(&view);
    assert_eq!(plan.items.len(), 1, "the condition is taken back:\n{plan}");
}

#[test]
fn r6_a_ready_pod_is_available_after_min_ready_seconds() {
    let set = set(json!({"/spec/minReadySeconds": 30, "/status/availableReplicas": 0}));
    let view = view(set, &[pod("p1", json!({})), pod("p2", json!({}))]);
    check(&ReplicaSets::plan(&view), "again after 20s: 2 ready pods will have been ready for minReadySeconds");
}
