//! StatefulSet: its collections, status and scale, and how its pods come, change and go.

use serde_json::{Value, json};

use super::scale as scales;
use crate::api::{Events, MERGE, Reply, STRATEGIC};
use crate::running::{UNTIL_TOLD, container, is_ready};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn object(app: &str) -> Value {
    json!({"spec": {"replicas": 0, "serviceName": "none", "selector": {"matchLabels": {"app": app}},
        "template": pod::template(app)}})
}

fn row(test: &Test) -> Walk {
    Walk::namespaced(test, "apps/v1", "statefulsets", object("walk"))
        .change(json!({"spec": {"minReadySeconds": 7}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn many_live_and_end(test: &Test) {
    row(test).lives(test).await;
    row(test).collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

pub async fn the_scale_is_the_replicas(test: &Test) {
    scales::is_the_replicas(test, "apps/v1", "statefulsets", object("scaled")).await;
}

/// A set whose pods are ready as long as they have a file.
fn running(name: &str, replicas: u32) -> Value {
    let mut main = container("main", &format!("touch /tmp/ready; {UNTIL_TOLD}"));
    main["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "serviceName": name,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [main]}}}})
}

fn sets(test: &Test) -> String {
    test.path("apps/v1", "statefulsets")
}

async fn start(test: &Test, set: &Value) {
    test.api.create(&sets(test), set).await.ok();
}

async fn change(test: &Test, name: &str, change: Value) {
    test.api.patch(&format!("{}/{name}", sets(test)), STRATEGIC, &change).await.ok();
}

async fn scale(test: &Test, name: &str, replicas: u32) {
    change(test, name, json!({"spec": {"replicas": replicas}})).await;
}

/// Waits until the controller has seen the set as it is and its status satisfies a condition.
async fn until_status(test: &Test, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let is_seen =
        |set: &Value| set["status"]["observedGeneration"] == set["metadata"]["generation"] && condition(&set["status"]);
    test.api.seen(&sets(test), name, what, is_seen).await
}

async fn until_ready(test: &Test, name: &str, count: u64) -> Value {
    let ready = |status: &Value| {
        status["replicas"].as_u64().unwrap_or(0) == count && status["readyReplicas"].as_u64().unwrap_or(0) == count
    };
    until_status(test, name, "ready", ready).await
}

/// Takes the pod's file away, or gives it back, and waits until its node has seen it.
async fn set_ready(test: &Test, pod: &str, ready: bool) {
    test.shell(pod, if ready { "touch /tmp/ready" } else { "rm /tmp/ready" }).await;
    test.until_pod(pod, "as its file says", |pod| is_ready(pod) == ready).await;
}

fn selected(name: &str) -> String {
    format!("labelSelector=app%3D{name}")
}

async fn pods(test: &Test, name: &str) -> Vec<Value> {
    let listed = test.api.get(&format!("{}?{}", test.path("v1", "pods"), selected(name))).await.ok();
    listed["items"].as_array().cloned().unwrap_or_default()
}

/// The names of the next pods that come or go.
async fn next(events: &mut Events, kind: &str, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        let (found, pod) = events.next().await.expect("the watch goes on");
        if found == kind {
            names.push(pod["metadata"]["name"].as_str().expect("a name").to_owned());
        }
    }
    names
}

pub async fn pods_come_and_go_in_order(test: &Test) {
    start(test, &running("ordered", 1)).await;
    until_ready(test, "ordered", 1).await;
    set_ready(test, "ordered-0", false).await;
    scale(test, "ordered", 3).await;
    until_status(test, "ordered", "halted", |status| status["replicas"] == 1).await;
    assert_eq!(pods(test, "ordered").await.len(), 1, "it halts while a pod is not ready");
    let mut events = test.api.watch(&test.path("v1", "pods"), &selected("ordered")).await;
    set_ready(test, "ordered-0", true).await;
    assert_eq!(next(&mut events, "ADDED", 3).await, ["ordered-0", "ordered-1", "ordered-2"]);
    until_ready(test, "ordered", 3).await;
    for pod in ["ordered-0", "ordered-1", "ordered-2"] {
        set_ready(test, pod, false).await;
    }
    scale(test, "ordered", 0).await;
    until_status(test, "ordered", "halted", |status| status["replicas"] == 3).await;
    assert_eq!(pods(test, "ordered").await.len(), 3, "it halts while pods are not ready");
    for pod in ["ordered-0", "ordered-1", "ordered-2"] {
        // The first that is ready again may be gone by now.
        let told = test.exec(pod, "main", &["touch", "/tmp/ready"]).await;
        assert_eq!(told.code, 0, "{}", told.stderr);
    }
    assert_eq!(next(&mut events, "DELETED", 3).await, ["ordered-2", "ordered-1", "ordered-0"]);
    until_ready(test, "ordered", 0).await;
}

pub async fn a_burst_waits_for_nobody(test: &Test) {
    let mut set = running("burst", 1);
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    start(test, &set).await;
    until_ready(test, "burst", 1).await;
    set_ready(test, "burst-0", false).await;
    scale(test, "burst", 3).await;
    until_status(test, "burst", "three", |status| status["replicas"] == 3 && status["readyReplicas"] == 2).await;
    set_ready(test, "burst-1", false).await;
    set_ready(test, "burst-2", false).await;
    scale(test, "burst", 0).await;
    until_ready(test, "burst", 0).await;
}

/// The values of the pods' variable, by ordinal.
async fn versions(test: &Test, name: &str) -> Vec<String> {
    let mut pods = pods(test, name).await;
    pods.sort_by_key(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    let version = |pod: &Value| pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap_or_default().to_owned();
    pods.iter().map(version).collect()
}

fn version(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers":
        [{"name": "main", "env": [{"name": "VERSION", "value": version}]}]}}}})
}

/// A set whose pods have the version `1`.
fn versioned(name: &str, replicas: u32) -> Value {
    let mut set = running(name, replicas);
    set["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": "1"}]);
    set
}

fn is_rolled_out(status: &Value) -> bool {
    status["currentRevision"] == status["updateRevision"]
        && status["updatedReplicas"] == status["readyReplicas"]
        && status["updatedReplicas"] == status["replicas"]
}

pub async fn a_rolling_update_goes_and_comes_back(test: &Test) {
    start(test, &versioned("rolling", 2)).await;
    let first = until_ready(test, "rolling", 2).await;
    assert!(is_rolled_out(&first["status"]));
    let mut events = test.api.watch(&test.path("v1", "pods"), &selected("rolling")).await;
    change(test, "rolling", version("2")).await;
    let under_way = |status: &Value| status["currentRevision"] != status["updateRevision"];
    until_status(test, "rolling", "under way", under_way).await;
    assert_eq!(next(&mut events, "DELETED", 2).await, ["rolling-1", "rolling-0"]);
    let second = until_status(test, "rolling", "rolled out", is_rolled_out).await;
    assert_eq!(versions(test, "rolling").await, ["2", "2"]);
    assert_ne!(second["status"]["currentRevision"], first["status"]["currentRevision"]);
    change(test, "rolling", version("1")).await;
    let back = until_status(test, "rolling", "rolled back", is_rolled_out).await;
    assert_eq!(back["status"]["currentRevision"], first["status"]["currentRevision"], "no new revision");
    assert_eq!(versions(test, "rolling").await, ["1", "1"]);
}

pub async fn a_partition_holds_the_update_back(test: &Test) {
    let partition = |from: u32| json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": from}}}});
    let mut set = versioned("phased", 3);
    set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 3}});
    start(test, &set).await;
    until_ready(test, "phased", 3).await;
    change(test, "phased", version("2")).await;
    until_status(test, "phased", "seen", |status| status["updateRevision"] != status["currentRevision"]).await;
    assert_eq!(versions(test, "phased").await, ["1", "1", "1"]);
    change(test, "phased", partition(2)).await;
    let canary = |status: &Value| status["updatedReplicas"] == 1 && status["readyReplicas"] == 3;
    until_status(test, "phased", "one canary", canary).await;
    assert_eq!(versions(test, "phased").await, ["1", "1", "2"]);
    // A pod that goes in between comes back as the partition says.
    for name in ["phased-0", "phased-2"] {
        let before = test.api.get(&test.pod(name)).await.ok();
        test.api.delete(&test.pod(name)).await.ok();
        let is_back = |reply: &Reply| {
            let pod = reply.json();
            reply.code.is_success() && pod["metadata"]["uid"] != before["metadata"]["uid"] && is_ready(&pod)
        };
        test.api.until(&test.pod(name), "back", is_back).await;
    }
    assert_eq!(versions(test, "phased").await, ["1", "1", "2"]);
    change(test, "phased", partition(0)).await;
    until_status(test, "phased", "rolled out", is_rolled_out).await;
    assert_eq!(versions(test, "phased").await, ["2", "2", "2"]);
}

pub async fn a_failed_pod_is_made_again(test: &Test) {
    start(test, &running("failing", 1)).await;
    until_ready(test, "failing", 1).await;
    let path = test.pod("failing-0");
    let before = test.api.get(&path).await.ok();
    test.api.patch(&format!("{path}/status"), MERGE, &json!({"status": {"phase": "Failed"}})).await.ok();
    let is_new = |reply: &Reply| {
        let pod = reply.json();
        reply.code.is_success() && pod["metadata"]["uid"] != before["metadata"]["uid"] && is_ready(&pod)
    };
    test.api.until(&path, "made again", is_new).await;
    a_rejected_pod_is_made_again(test, before["spec"]["nodeName"].as_str().expect("it ran on a node")).await;
}

/// A node rejects a pod that it has no room for, again and again, until it has.
async fn a_rejected_pod_is_made_again(test: &Test, node: &str) {
    let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}, "limits": {"cpu": amount}}});
    let mut set = running("rejected", 1);
    let template = &mut set["spec"]["template"]["spec"];
    // Nobody but the node looks whether it has room.
    template["nodeName"] = json!(node);
    template["containers"][0]["resources"] = cpu("100000")["resources"].clone();
    let mut events = test.api.watch(&test.path("v1", "pods"), &selected("rejected")).await;
    start(test, &set).await;
    let mut rejected = Vec::new();
    while rejected.len() < 2 {
        let (_, pod) = events.next().await.expect("the watch goes on");
        let uid = pod["metadata"]["uid"].clone();
        if pod["status"]["phase"] == "Failed" && !rejected.contains(&uid) {
            assert_eq!(pod["status"]["reason"], "OutOfcpu", "{:#}", pod["status"]);
            rejected.push(uid);
        }
    }
    let mut main = cpu("10m");
    main["name"] = json!("main");
    change(test, "rejected", json!({"spec": {"template": {"spec": {"containers": [main]}}}})).await;
    until_ready(test, "rejected", 1).await;
}
