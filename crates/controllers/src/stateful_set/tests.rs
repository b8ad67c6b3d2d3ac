//! Each rule of the stateful set controller, by its number.

use serde_json::{Value, json};
use windlass_client::Patch;

use super::{Controller, StatefulSets, View, facts};
use crate::fixture::{change, now, object};
use crate::plan::{Action, Plan};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A set of three whose pods are of revision `db-one`.
fn set(changes: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "a", "uid": "s", "generation": 1, "resourceVersion": "50"},
        "spec": {"replicas": 3, "serviceName": "dbs", "selector": {"matchLabels": {"app": "db"}}, "template": template("db:1"),
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}}},
        "status": {"observedGeneration": 1, "currentRevision": "db-one", "updateRevision": "db-one"},
    });
    change(&mut set, changes);
    set
}

fn revision(hash: &str, image: &str, number: i64) -> Value {
    let mut patch = template(image);
    patch["$patch"] = json!("replace");
    json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": format!("db-{hash}"), "namespace": "a", "uid": hash,
            "labels": {"app": "db", "controller-revision-hash": hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true}]},
        "data": {"spec": {"template": patch}}, "revision": number})
}

/// A running, ready pod.
fn pod(ordinal: u32, revision: &str, changes: Value) -> Value {
    let name = format!("db-{ordinal}");
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "5",
            "labels": {"app": "db", "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": ordinal.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true}]},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:59:50Z"}]},
    });
    change(&mut pod, changes);
    pod
}

fn unready() -> Value {
    json!({"/status/conditions": []})
}

fn ready(count: u32) -> Vec<Value> {
    (0..count).map(|ordinal| pod(ordinal, "db-one", json!({}))).collect()
}

fn view(set: &Value, pods: &[Value]) -> View {
    let set = object(set);
    View {
        header: set.header.clone(),
        pods: pods.iter().map(object).collect(),
        claims: std::collections::BTreeMap::new(),
        revisions: vec![object(&revision("one", "db:1", 1))],
        namesake: None,
        set: facts(&set),
        now: now(),
    }
}

/// A set whose template is newer than its pods; its revision is `db-two`.
fn rolled(changes: Value, pods: &[Value]) -> View {
    let mut set = set(changes);
    set["spec"]["template"] = template("db:2");
    let mut view = view(&set, pods);
    view.revisions.push(object(&revision("two", "db:2", 2)));
    view
}

/// The plan's moves of pods and claims, without the status and in short.
fn moves(view: &View) -> Vec<String> {
    let text = StatefulSets::plan(view).to_string();
    let lines = text.lines().filter(|line| !line.contains(" status: ") && !line.starts_with("again"));
    lines.map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
}

fn created(plan: &Plan, kind: &str) -> Vec<Value> {
    let created = plan.items.iter().filter_map(|item| match &item.action {
        Action::Create { object, kind: found, .. } if found.kind == kind => Some(object.clone()),
        _ => None,
    });
    created.collect()
}

fn status(plan: &Plan) -> Value {
    let status = plan.items.iter().find_map(|item| match &item.action {
        Action::Patch { patch: Patch::Merge(patch), subresource: Some(_), .. } => Some(patch["status"].clone()),
        _ => None,
    });
    status.unwrap_or_default()
}

#[test]
fn in_order_nothing_is_done() {
    assert!(moves(&view(&set(json!({})), &ready(3))).is_empty());
}

#[test]
fn r1_a_set_being_deleted_only_keeps_its_status() {
    let ending = set(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"}));
    assert!(moves(&view(&ending, &ready(1))).is_empty());
}

#[test]
fn r2_an_orphan_with_a_name_of_the_set_is_adopted() {
    let mut pods = ready(2);
    pods.push(pod(2, "db-one", json!({"/metadata/ownerReferences": null})));
    assert_eq!(moves(&view(&set(json!({})), &pods)), ["patch pods a/db-2"]);
    let header =
        object(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}})).header.clone();
    let of = |name: &str| {
        let pod = object(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}));
        super::ordinal(&header, &pod.header)
    };
    assert_eq!(
        [of("db-0"), of("db-12"), of("db-01"), of("db-x"), of("db-"), of("dbs-1")],
        [Some(0), Some(12), None, None, None, None]
    );
}

#[test]
fn r3_below_the_partition_pods_are_of_the_current_revision() {
    let partition = json!({"/spec/updateStrategy/rollingUpdate/partition": 1, "/spec/podManagementPolicy": "Parallel"});
    let plan = StatefulSets::plan(&rolled(partition, &[]));
    let images: Vec<Value> =
        created(&plan, "Pod").iter().map(|pod| pod["spec"]["containers"][0]["image"].clone()).collect();
    assert_eq!(images, ["db:1", "db:2", "db:2"]);
    let revisions: Vec<Value> =
        created(&plan, "Pod").iter().map(|pod| pod["metadata"]["labels"]["controller-revision-hash"].clone()).collect();
    assert_eq!(revisions, ["db-one", "db-two", "db-two"]);
}

#[test]
fn r4_a_pod_knows_who_it_is() {
    let mut set = set(json!({"/spec/ordinals": {"start": 7}, "/spec/replicas": 1}));
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let pods = created(&StatefulSets::plan(&view(&set, &[])), "Pod");
    let (metadata, spec) = (&pods[0]["metadata"], &pods[0]["spec"]);
    assert_eq!(
        (&metadata["name"], &spec["hostname"], &spec["subdomain"]),
        (&json!("db-7"), &json!("db-7"), &json!("dbs"))
    );
    assert_eq!(metadata["labels"]["apps.kubernetes.io/pod-index"], "7");
    assert_eq!(spec["volumes"], json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-7"}}]));
}

#[test]
fn r5_claims_come_before_their_pod_and_are_owned_as_the_policy_says() {
    let with_claims = |when_deleted: &str, when_scaled: &str, replicas: u32| {
        let mut set = set(json!({"/spec/replicas": replicas}));
        set["spec"]["volumeClaimTemplates"] =
            json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
        set["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": when_deleted, "whenScaled": when_scaled});
        set
    };
    let plan = StatefulSets::plan(&view(&with_claims("Delete", "Retain", 1), &[]));
    assert!(plan.to_string().starts_with("create persistentvolumeclaims a/data-db-0"), "{plan}");
    assert_eq!(created(&plan, "PersistentVolumeClaim")[0]["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
    let claim = |changes: Value| {
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-db-1", "namespace": "a", "uid": "c", "resourceVersion": "3"}});
        change(&mut claim, changes);
        object(&claim)
    };
    let owner = |when_deleted: &str, when_scaled: &str, replicas: u32| {
        let mut view = view(&with_claims(when_deleted, when_scaled, replicas), &ready(2));
        view.claims.insert("data-db-1".to_owned(), claim(json!({})));
        let plan = StatefulSets::plan(&view);
        plan.items.iter().find_map(|item| match &item.action {
            Action::Patch { patch: Patch::Merge(patch), target, .. } if target.key.name() == "data-db-1" => {
                patch["metadata"]["ownerReferences"][0]["kind"].as_str().map(str::to_owned)
            }
            _ => None,
        })
    };
    assert_eq!(owner("Retain", "Retain", 1), None);
    assert_eq!(owner("Delete", "Retain", 1).as_deref(), Some("StatefulSet"));
    assert_eq!(owner("Retain", "Delete", 1).as_deref(), Some("Pod"));
    assert_eq!(owner("Retain", "Delete", 2), None);
    assert_eq!(owner("Delete", "Delete", 2).as_deref(), Some("StatefulSet"));
    // A claim of an earlier pod that is ending is waited for.
    let mut view = view(&with_claims("Retain", "Retain", 2), &ready(1));
    view.claims.insert("data-db-1".to_owned(), claim(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"})));
    assert!(created(&StatefulSets::plan(&view), "Pod").is_empty());
}

#[test]
fn r6_pods_come_in_order_or_all_at_once() {
    assert_eq!(moves(&view(&set(json!({})), &[])), ["create pods a/db-0"]);
    assert!(moves(&view(&set(json!({})), &[pod(0, "db-one", unready())])).is_empty());
    assert_eq!(moves(&view(&set(json!({})), &ready(1))), ["create pods a/db-1"]);
    let parallel = json!({"/spec/podManagementPolicy": "Parallel"});
    assert_eq!(
        moves(&view(&set(parallel), &[pod(1, "db-one", unready())])),
        ["create pods a/db-0", "create pods a/db-2"]
    );
    let slow = view(&set(json!({"/spec/minReadySeconds": 30})), &ready(1));
    assert!(moves(&slow).is_empty());
    assert!(StatefulSets::plan(&slow).to_string().contains("again after 20s"));
}

#[test]
fn r7_a_failed_pod_gives_way() {
    let mut pods = ready(3);
    pods[1]["status"]["phase"] = json!("Failed");
    assert_eq!(moves(&view(&set(json!({})), &pods)), ["delete pods a/db-1"]);
    pods[1]["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
    assert!(moves(&view(&set(json!({})), &pods)).is_empty());
}

#[test]
fn r8_surplus_pods_go_in_order_and_wait_for_unhealthy_ones() {
    let one = json!({"/spec/replicas": 1});
    assert_eq!(moves(&view(&set(one.clone()), &ready(3))), ["delete pods a/db-2"]);
    let mut ending = ready(3);
    ending[2]["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
    assert!(moves(&view(&set(one.clone()), &ending)).is_empty());
    let none = set(json!({"/spec/replicas": 0}));
    let sick: Vec<Value> = (0..3).map(|ordinal| pod(ordinal, "db-one", unready())).collect();
    assert!(moves(&view(&none, &sick)).is_empty());
    let mut one_sick = ready(3);
    one_sick[2] = pod(2, "db-one", unready());
    assert_eq!(moves(&view(&none, &one_sick)), ["delete pods a/db-2"]);
    let parallel = json!({"/spec/replicas": 1, "/spec/podManagementPolicy": "Parallel"});
    assert_eq!(moves(&view(&set(parallel), &sick)), ["delete pods a/db-2", "delete pods a/db-1"]);
}

#[test]
fn r9_old_pods_go_highest_first_down_to_the_partition() {
    assert_eq!(moves(&rolled(json!({}), &ready(3))), ["delete pods a/db-2"]);
    let mut pods = ready(3);
    pods[2] = pod(2, "db-two", json!({}));
    assert_eq!(moves(&rolled(json!({}), &pods)), ["delete pods a/db-1"]);
    assert!(moves(&rolled(json!({"/spec/updateStrategy/rollingUpdate/partition": 2}), &pods)).is_empty());
    let two = json!({"/spec/updateStrategy/rollingUpdate/maxUnavailable": 2});
    assert_eq!(moves(&rolled(two, &ready(3))), ["delete pods a/db-2", "delete pods a/db-1"]);
    assert!(moves(&rolled(json!({"/spec/updateStrategy": {"type": "OnDelete"}}), &ready(3))).is_empty());
    let parallel = json!({"/spec/podManagementPolicy": "Parallel"});
    pods[2] = pod(2, "db-two", unready());
    assert!(moves(&rolled(parallel.clone(), &pods)).is_empty(), "one is away already");
    pods.pop();
    assert_eq!(moves(&rolled(parallel, &pods)), ["create pods a/db-2"], "one is only being made");
}

#[test]
fn r10_revisions_that_are_not_used_go_beyond_the_limit() {
    let none = json!({"/spec/revisionHistoryLimit": 0});
    assert_eq!(moves(&rolled(none.clone(), &ready(3))), ["delete pods a/db-2"], "its pods need it");
    let new: Vec<Value> = (0..3).map(|ordinal| pod(ordinal, "db-two", json!({}))).collect();
    let mut view = rolled(none, &new);
    let mut told = set(json!({"/spec/revisionHistoryLimit": 0, "/status/currentRevision": "db-two"}));
    told["spec"]["template"] = template("db:2");
    view.set = facts(&object(&told));
    assert_eq!(moves(&view), ["delete controllerrevisions a/db-one"]);
}

#[test]
fn r11_the_update_revision_becomes_the_current_one_when_every_pod_is_of_it() {
    let mut pods: Vec<Value> = (0..3).map(|ordinal| pod(ordinal, "db-two", json!({}))).collect();
    let done = status(&StatefulSets::plan(&rolled(json!({}), &pods)));
    assert_eq!((&done["currentRevision"], &done["currentReplicas"]), (&json!("db-two"), &json!(3)));
    pods[0] = pod(0, "db-one", json!({}));
    let under_way = status(&StatefulSets::plan(&rolled(json!({}), &pods)));
    assert_eq!((&under_way["currentRevision"], &under_way["updateRevision"]), (&json!("db-one"), &json!("db-two")));
    assert_eq!((&under_way["currentReplicas"], &under_way["updatedReplicas"]), (&json!(1), &json!(2)));
    assert_eq!((&under_way["readyReplicas"], &under_way["availableReplicas"]), (&json!(3), &json!(3)));
}
