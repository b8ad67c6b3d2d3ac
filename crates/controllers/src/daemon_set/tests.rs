//! Each rule of the daemon set controller, by its number.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_client::Patch;

use super::{Controller, DaemonSets, View, facts, owner};
use crate::controller_revision;
use crate::fixture::{change, check, now, object};
use crate::plan::{Action, Plan};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(changes: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "log", "namespace": "a", "uid": "d", "generation": 1, "resourceVersion": "50"},
        "spec": {"selector": {"matchLabels": {"app": "log"}}, "template": template("log:1"), "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}},
        "status": {"observedGeneration": 1},
    });
    change(&mut set, changes);
    set
}

fn revision(hash: &str, image: &str, number: i64) -> Value {
    let mut patch = template(image);
    patch["$patch"] = json!("replace");
    json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": format!("log-{hash}"), "namespace": "a", "uid": hash,
            "labels": {"app": "log", "controller-revision-hash": hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "log", "uid": "d", "controller": true}]},
        "data": {"spec": {"template": patch}}, "revision": number})
}

fn node(name: &str, changes: Value) -> Value {
    let mut node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name, "labels": {}}, "spec": {}});
    change(&mut node, changes);
    node
}

/// A pod on this node, ready since an hour, of the revision with this hash.
fn pod(node: &str, hash: &str, changes: Value) -> Value {
    let name = format!("log-{node}-{hash}");
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "5",
            "labels": {"app": "log", "controller-revision-hash": hash}, "creationTimestamp": "2026-01-01T11:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "log", "uid": "d", "controller": true}]},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:00:10Z"}]},
    });
    change(&mut pod, changes);
    pod
}

fn unready() -> Value {
    json!({"/status/conditions": []})
}

fn view(set: &Value, nodes: &[Value], pods: &[Value]) -> View {
    let set = object(set);
    View {
        header: set.header.clone(),
        nodes: nodes.iter().map(object).collect(),
        pods: pods.iter().map(object).collect(),
        revisions: [revision("one", "log:1", 1)].iter().map(object).collect(),
        namesake: None,
        waits: BTreeMap::new(),
        set: facts(&set),
        now: now(),
    }
}

/// The plan without its status.
fn moves(plan: &Plan) -> Vec<String> {
    let text = plan.to_string();
    text.lines().filter(|line| !line.contains(" status: ") && !line.starts_with("again")).map(str::to_owned).collect()
}

fn check_moves(view: &View, expected: &[&str]) {
    assert_eq!(moves(&DaemonSets::plan(view)), expected);
}

/// A set whose template is newer than that of revision `one`; its own revision is `two`.
fn rolled(set: &Value, nodes: &[Value], pods: &[Value]) -> View {
    let mut set = set.clone();
    set["spec"]["template"] = template("log:2");
    let mut view = view(&set, nodes, pods);
    view.revisions.push(object(&revision("two", "log:2", 2)));
    view
}

fn nodes(count: usize) -> Vec<Value> {
    (1..=count).map(|number| node(&format!("n{number}"), json!({}))).collect()
}

#[test]
fn r1_a_set_being_deleted_only_keeps_its_status() {
    check_moves(&view(&set(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"})), &nodes(1), &[]), &[]);
}

#[test]
fn r2_orphans_are_adopted_and_strangers_released() {
    let orphan = pod("n1", "one", json!({"/metadata/ownerReferences": null}));
    let stranger = pod("n2", "one", json!({"/metadata/labels": {"app": "other"}}));
    check_moves(
        &view(&set(json!({})), &nodes(1), &[orphan, stranger]),
        &[
            "patch pods a/log-n1-one: Pod log-n1-one is selected and nobody's",
            "patch pods a/log-n2-one: Pod log-n2-one is not selected any more",
        ],
    );
}

#[test]
fn r3_the_templates_revision_is_the_newest_and_its_pods_carry_the_hash() {
    let mut first = view(&set(json!({})), &nodes(1), &[]);
    first.revisions.clear();
    let plan = DaemonSets::plan(&first);
    let created: Vec<&Value> = plan
        .items
        .iter()
        .filter_map(|item| match &item.action {
            Action::Create { object, .. } => Some(object),
            _ => None,
        })
        .collect();
    let set = object(&set(json!({})));
    assert_eq!(created[0]["metadata"]["name"], json!(controller_revision::name(&owner(&set.header, &facts(&set)))));
    let hash = "controller-revision-hash";
    assert_eq!(created[1]["metadata"]["labels"][hash], created[0]["metadata"]["labels"][hash]);
    // A taken name: no pods before another one is found, and the status counts it.
    first.namesake = Some(object(&revision("one", "other", 1)));
    let plan = DaemonSets::plan(&first);
    let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[0].action else { panic!("only the status") };
    assert_eq!(patch["status"]["collisionCount"], 1);
}

#[test]
fn r4_a_node_is_suited_by_name_labels_affinity_and_taints() {
    let labelled = node("n1", json!({"/metadata/labels": {"disk": "ssd"}}));
    let tainted = |effect: &str| node("n1", json!({"/spec/taints": [{"key": "k", "effect": effect}]}));
    let selects = |wants: Value| {
        let mut set = set(json!({}));
        for (field, value) in wants.as_object().expect("a map") {
            set["spec"]["template"]["spec"][field] = value.clone();
        }
        set
    };
    let affinity = |expression: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}})
    };
    let runs = |set: &Value, node: &Value| {
        let mut view = view(set, std::slice::from_ref(node), &[]);
        view.revisions.clear();
        DaemonSets::plan(&view).to_string().contains("create pods")
    };
    assert!(runs(&set(json!({})), &labelled));
    assert!(runs(&selects(json!({"nodeSelector": {"disk": "ssd"}})), &labelled));
    assert!(!runs(&selects(json!({"nodeSelector": {"disk": "hdd"}})), &labelled));
    assert!(!runs(&selects(json!({"nodeName": "n2"})), &labelled));
    assert!(runs(&selects(affinity(json!({"key": "disk", "operator": "In", "values": ["ssd"]}))), &labelled));
    assert!(!runs(&selects(affinity(json!({"key": "disk", "operator": "DoesNotExist"}))), &labelled));
    assert!(!runs(&set(json!({})), &tainted("NoSchedule")));
    assert!(runs(&selects(json!({"tolerations": [{"key": "k", "operator": "Exists"}]})), &tainted("NoSchedule")));
    // A pod that is there stays under a NoSchedule taint and goes under a NoExecute one.
    let here = [pod("n1", "one", json!({}))];
    check_moves(&view(&set(json!({})), &[tainted("NoSchedule")], &here), &[]);
    check_moves(
        &view(&set(json!({})), &[tainted("NoExecute")], &here),
        &["delete pods a/log-n1-one: Deleted pod: log-n1-one"],
    );
}

#[test]
fn r5_daemons_tolerate_what_a_node_daemon_must() {
    let plan = DaemonSets::plan(&view(&set(json!({})), &nodes(1), &[]));
    let Action::Create { object, .. } = &plan.items[0].action else { panic!("a pod is created:\n{plan}") };
    let tolerations = object["spec"]["tolerations"].as_array().expect("tolerations");
    assert_eq!(tolerations.len(), 6);
    let cordoned =
        node("n1", json!({"/spec/taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}));
    assert!(DaemonSets::plan(&view(&set(json!({})), &[cordoned], &[])).to_string().contains("create pods"));
}

#[test]
fn r6_each_node_has_one_pod_that_names_it() {
    let plan = DaemonSets::plan(&view(&set(json!({})), &nodes(2), &[pod("n1", "one", json!({}))]));
    assert_eq!(moves(&plan), ["create pods a/log-: Created pod: {name}"]);
    let Action::Create { object: created, .. } = &plan.items[0].action else { panic!("a pod is created") };
    let terms = &created["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let field = &terms["nodeSelectorTerms"][0]["matchFields"][0];
    assert_eq!((&field["key"], &field["values"]), (&json!("metadata.name"), &json!(["n2"])));
    // A pod that is not bound yet counts for the node that it names.
    let mut waiting = created.clone();
    waiting["metadata"]["name"] = json!("log-waits");
    waiting["metadata"]["uid"] = json!("log-waits");
    check_moves(&view(&set(json!({})), &nodes(2), &[pod("n1", "one", json!({})), waiting.clone()]), &[]);
    let twice = [pod("n2", "one", json!({})), waiting];
    check_moves(&view(&set(json!({})), &nodes(2)[1..], &twice), &["delete pods a/log-waits: Deleted pod: log-waits"]);
}

#[test]
fn r7_a_failed_pod_is_replaced_after_its_back_off() {
    let failed = pod("n1", "one", json!({"/status/phase": "Failed"}));
    let mut view = view(&set(json!({})), &nodes(1), std::slice::from_ref(&failed));
    check_moves(
        &view,
        &[
            "tell a/log FailedDaemonPod: Found failed daemon pod a/log-n1-one on node n1, will try to kill it",
            "delete pods a/log-n1-one: Deleted pod: log-n1-one",
        ],
    );
    view.waits.insert("log-n1-one".to_owned(), Duration::from_secs(4));
    check_moves(&view, &[]);
    assert!(DaemonSets::plan(&view).to_string().contains("again after 4s: the back-off of node n1 will be over"));
}

#[test]
fn r8_old_pods_are_replaced_as_far_as_max_unavailable_lets() {
    let old = |node: &str| pod(node, "one", json!({}));
    let all_old = [old("n1"), old("n2"), old("n3")];
    let first = "delete pods a/log-n1-one: Deleted pod: log-n1-one";
    check_moves(&rolled(&set(json!({})), &nodes(3), &all_old), &[first]);
    let two = set(json!({"/spec/updateStrategy/rollingUpdate/maxUnavailable": "50%"}));
    check_moves(&rolled(&two, &nodes(3), &all_old), &[first, "delete pods a/log-n2-one: Deleted pod: log-n2-one"]);
    // While one is away no other goes, but one that is not available anyway does.
    let away = [pod("n1", "two", unready()), old("n2"), old("n3")];
    check_moves(&rolled(&set(json!({})), &nodes(3), &away), &[]);
    let sick = [pod("n1", "two", unready()), pod("n2", "one", unready()), old("n3")];
    check_moves(&rolled(&set(json!({})), &nodes(3), &sick), &["delete pods a/log-n2-one: Deleted pod: log-n2-one"]);
    let on_delete = set(json!({"/spec/updateStrategy": {"type": "OnDelete"}}));
    check_moves(&rolled(&on_delete, &nodes(3), &all_old), &[]);
}

#[test]
fn r8_with_surge_new_pods_come_first() {
    let surge = set(json!({"/spec/updateStrategy/rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}));
    let old = |node: &str| pod(node, "one", json!({}));
    check_moves(&rolled(&surge, &nodes(2), &[old("n1"), old("n2")]), &["create pods a/log-: Created pod: {name}"]);
    let both = [old("n1"), pod("n1", "two", unready()), old("n2")];
    check_moves(&rolled(&surge, &nodes(2), &both), &[]);
    let ready = [old("n1"), pod("n1", "two", json!({})), old("n2")];
    check_moves(
        &rolled(&surge, &nodes(2), &ready),
        &["create pods a/log-: Created pod: {name}", "delete pods a/log-n1-one: Deleted pod: log-n1-one"],
    );
}

#[test]
fn r9_revisions_that_no_pod_is_of_go_beyond_the_limit() {
    let none = set(json!({"/spec/revisionHistoryLimit": 0}));
    let gone = "delete controllerrevisions a/log-one: revision log-one is beyond revisionHistoryLimit 0";
    check_moves(&rolled(&none, &nodes(1), &[pod("n1", "two", json!({}))]), &[gone]);
    let on_delete = set(json!({"/spec/revisionHistoryLimit": 0, "/spec/updateStrategy": {"type": "OnDelete"}}));
    check_moves(&rolled(&on_delete, &nodes(1), &[pod("n1", "one", json!({}))]), &[]);
}

#[test]
fn r10_the_status_counts_nodes() {
    let plan = DaemonSets::plan(&rolled(
        &set(json!({})),
        &nodes(3),
        &[pod("n1", "two", json!({})), pod("n2", "one", unready())],
    ));
    let status = plan.items.iter().find_map(|item| match &item.action {
        Action::Patch { patch: Patch::Merge(patch), subresource: Some(_), .. } => Some(&patch["status"]),
        _ => None,
    });
    let status = status.expect("a status");
    let numbers = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "numberUnavailable",
        "updatedNumberScheduled",
    ];
    assert_eq!(numbers.map(|field| status[field].as_i64()), [Some(3), Some(2), Some(1), Some(2), Some(1)]);
    let told =
        set(json!({"/status": {"observedGeneration": 1, "desiredNumberScheduled": 1, "currentNumberScheduled": 1,
        "numberReady": 1, "numberAvailable": 1, "updatedNumberScheduled": 1, "numberMisscheduled": 0}}));
    check(&DaemonSets::plan(&view(&told, &nodes(1), &[pod("n1", "one", json!({}))])), "");
}
