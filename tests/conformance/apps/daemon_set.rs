//! DaemonSet: its status and collections, and its pods on the nodes.

use serde_json::{Value, json};

use crate::api::{MERGE, Reply, STRATEGIC};
use crate::running::{UNTIL_TOLD, container, is_ready};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn row(test: &Test) -> Walk {
    let spec = json!({"selector": {"matchLabels": {"app": "daemon"}}, "template": pod::template("daemon")});
    Walk::namespaced(test, "apps/v1", "daemonsets", json!({"spec": spec}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

/// A set whose pods run on nodes.
fn running(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [container("main", UNTIL_TOLD)]}}}})
}

fn sets(test: &Test) -> String {
    test.path("apps/v1", "daemonsets")
}

async fn start(test: &Test, set: &Value) {
    test.api.create(&sets(test), set).await.ok();
}

/// The pods of a set that are not on their way out.
fn pods(reply: &Reply) -> Vec<Value> {
    let listed = reply.json()["items"].as_array().cloned().unwrap_or_default();
    listed.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
}

fn selected(test: &Test, name: &str) -> String {
    format!("{}?labelSelector=app%3D{name}", test.path("v1", "pods"))
}

async fn nodes(test: &Test) -> Vec<String> {
    let nodes = test.api.get("/api/v1/nodes").await.ok();
    let names = nodes["items"].as_array().into_iter().flatten().map(|node| node["metadata"]["name"].as_str());
    names.map(|name| name.expect("a node has a name").to_owned()).collect()
}

/// Waits until every node has one ready pod of the set that satisfies a condition.
async fn until_everywhere(test: &Test, name: &str, condition: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut nodes = nodes(test).await;
    nodes.sort();
    let is_everywhere = |reply: &Reply| {
        let pods = pods(reply);
        let on = pods.iter().filter(|pod| is_ready(pod) && condition(pod)).map(|pod| pod["spec"]["nodeName"].as_str());
        let mut on: Vec<String> = on.flatten().map(str::to_owned).collect();
        on.sort();
        on == nodes && pods.len() == nodes.len()
    };
    let reply = test.api.until(&selected(test, name), "on every node", is_everywhere).await;
    let status = |set: &Value| {
        let (status, count) = (&set["status"], json!(nodes.len()));
        status["numberReady"] == count && status["updatedNumberScheduled"] == count
    };
    test.api.seen(&sets(test), name, "ready everywhere", status).await;
    pods(&reply)
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

pub async fn every_node_has_a_pod(test: &Test) {
    start(test, &running("simple")).await;
    let first = until_everywhere(test, "simple", |_| true).await.swap_remove(0);
    test.api.delete(&test.pod(first["metadata"]["name"].as_str().expect("a name"))).await.ok();
    until_everywhere(test, "simple", |pod| uid(pod) != uid(&first)).await;
    test.api.delete(&format!("{}/simple", sets(test))).await.ok();
    test.api.until(&selected(test, "simple"), "gone", |reply| reply.json()["items"] == json!([])).await;
}

pub async fn a_failed_pod_is_made_again(test: &Test) {
    start(test, &running("failing")).await;
    let first = until_everywhere(test, "failing", |_| true).await.swap_remove(0);
    let status = format!("{}/status", test.pod(first["metadata"]["name"].as_str().expect("a name")));
    test.api.patch(&status, MERGE, &json!({"status": {"phase": "Failed"}})).await.ok();
    until_everywhere(test, "failing", |pod| uid(pod) != uid(&first)).await;
    let is_gone = |reply: &Reply| !reply.code.is_success() || uid(&reply.json()) != uid(&first);
    let failed = test.pod(first["metadata"]["name"].as_str().expect("a name"));
    test.api.until(&failed, "gone, and not left as it failed", is_gone).await;
}

pub async fn labels_choose_the_nodes(test: &Test) {
    let key = "conformance.example.com/daemon";
    let node = format!("/api/v1/nodes/{}", nodes(test).await[0]);
    let label = |value: Value| json!({"metadata": {"labels": {key: value}}});
    let mut set = running("complex");
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({key: "blue"});
    start(test, &set).await;
    let seen = |set: &Value| set["status"]["observedGeneration"] == 1 && set["status"]["desiredNumberScheduled"] == 0;
    test.api.seen(&sets(test), "complex", "without a node", seen).await;
    let count = |wanted: usize| move |reply: &Reply| pods(reply).len() == wanted;
    test.api.patch(&node, MERGE, &label(json!("blue"))).await.ok();
    test.api.until(&selected(test, "complex"), "there", count(1)).await;
    test.api.patch(&node, MERGE, &label(json!("green"))).await.ok();
    test.api.until(&selected(test, "complex"), "gone", count(0)).await;
    let green = json!({"spec": {"template": {"spec": {"nodeSelector": {key: "green"}}}}});
    test.api.patch(&format!("{}/complex", sets(test)), MERGE, &green).await.ok();
    test.api.until(&selected(test, "complex"), "there again", count(1)).await;
    test.api.patch(&node, MERGE, &label(Value::Null)).await.ok();
    test.api.until(&selected(test, "complex"), "gone again", count(0)).await;
}

/// A change of the template's container.
fn changed(change: Value) -> Value {
    let mut container = json!({"name": "main"});
    for (field, value) in change.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    json!({"spec": {"template": {"spec": {"containers": [container]}}}})
}

/// The set's revisions, lowest first.
async fn history(test: &Test, name: &str) -> Vec<Value> {
    let path = format!("{}?labelSelector=app%3D{name}", test.path("apps/v1", "controllerrevisions"));
    let listed = test.api.get(&path).await.ok();
    let mut revisions = listed["items"].as_array().cloned().unwrap_or_default();
    revisions.sort_by_key(|revision| revision["revision"].as_i64());
    revisions
}

async fn revisions(test: &Test, name: &str) -> Vec<i64> {
    history(test, name).await.iter().filter_map(|found| found["revision"].as_i64()).collect()
}

pub async fn a_rolling_update_replaces_the_pods(test: &Test) {
    start(test, &running("rolling")).await;
    until_everywhere(test, "rolling", |_| true).await;
    assert_eq!(revisions(test, "rolling").await, [1]);
    let change = changed(json!({"env": [{"name": "VERSION", "value": "2"}]}));
    test.api.patch(&format!("{}/rolling", sets(test)), STRATEGIC, &change).await.ok();
    until_everywhere(test, "rolling", |pod| pod["spec"]["containers"][0]["env"][0]["value"] == "2").await;
    assert_eq!(revisions(test, "rolling").await, [1, 2]);
}

pub async fn a_rollback_raises_the_earlier_revision(test: &Test) {
    let set = running("back");
    start(test, &set).await;
    until_everywhere(test, "back", |_| true).await;
    let path = format!("{}/back", sets(test));
    let image = set["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    test.api.patch(&path, STRATEGIC, &changed(json!({"image": "windlass.local/none:1"}))).await.ok();
    let stuck =
        |reply: &Reply| pods(reply).iter().any(|pod| pod["spec"]["containers"][0]["image"] == "windlass.local/none:1");
    test.api.until(&selected(test, "back"), "updated", stuck).await;
    // As `kubectl rollout undo` goes back.
    let first = history(test, "back").await.swap_remove(0);
    test.api.patch(&path, STRATEGIC, &first["data"]).await.ok();
    let pods = until_everywhere(test, "back", |pod| pod["spec"]["containers"][0]["image"] == image).await;
    assert!(pods.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0), "{pods:#?}");
    assert_eq!(revisions(test, "back").await, [2, 3], "the first revision is the newest again");
}
