//! Garbage collection: what an owner's end means for what it owns.

use serde_json::{Value, json};

use crate::Test;
use crate::api::{MERGE, Reply};

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "none:1"}]}}}})
}

/// A Deployment and the path of the ReplicaSet that it has made.
async fn deployed(test: &Test, name: &str) -> (String, String) {
    let path = test.path("apps/v1", "deployments");
    test.api.create(&path, &deployment(name)).await.ok();
    let sets = test.path("apps/v1", "replicasets");
    let listed = test.api.until(&sets, "made", |reply| reply.json()["items"][0].is_object()).await.json();
    let set = listed["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    (format!("{path}/{name}"), format!("{sets}/{set}"))
}

pub async fn background_takes_the_owned_after_the_owner(test: &Test) {
    let (path, set) = deployed(test, "background").await;
    test.api.delete_with(&path, &json!({"propagationPolicy": "Background"})).await.ok();
    test.api.until_gone(&path).await;
    test.api.until_gone(&set).await;
    let pods = test.path("v1", "pods");
    test.api.until(&pods, "empty", |reply| reply.json()["items"] == json!([])).await;
}

pub async fn orphan_leaves_the_owned_without_owner(test: &Test) {
    let (path, set) = deployed(test, "orphan").await;
    test.api.delete_with(&path, &json!({"propagationPolicy": "Orphan"})).await.ok();
    test.api.until_gone(&path).await;
    let left = test.api.get(&set).await.ok();
    let owners = left["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
    assert_eq!(owners, 0, "{}", left["metadata"]);
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "none:1"}]}})
}

pub async fn a_circle_of_owners_is_no_obstacle(test: &Test) {
    let pods = test.path("v1", "pods");
    let mut made = Vec::new();
    for name in ["one", "two", "three"] {
        made.push(test.api.create(&pods, &pod(name)).await.ok());
    }
    for (at, owned) in made.iter().enumerate() {
        let owner = &made[(at + 2) % 3]["metadata"];
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": owner["name"], "uid": owner["uid"],
            "controller": true, "blockOwnerDeletion": true});
        let path = format!("{pods}/{}", owned["metadata"]["name"].as_str().expect("a name"));
        let patch = json!({"metadata": {"ownerReferences": [reference]}});
        test.api.patch(&path, MERGE, &patch).await.ok();
    }
    test.api.delete_with(&format!("{pods}/one"), &json!({"propagationPolicy": "Foreground"})).await.ok();
    for name in ["one", "two", "three"] {
        test.api.until_gone(&format!("{pods}/{name}")).await;
    }
}

/// A ReplicationController that has made its pods, and its path.
async fn controlled(test: &Test, name: &str, replicas: usize) -> (String, Value) {
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"nodeSelector": {"no": "node"},
        "containers": [{"name": "c", "image": "none:1"}]}});
    let spec = json!({"replicas": replicas, "selector": {"app": name}, "template": template});
    let path = test.path("v1", "replicationcontrollers");
    let made = test.api.create(&path, &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
    let one = format!("{path}/{name}");
    test.api.until(&one, "complete", |reply| reply.json()["status"]["replicas"] == replicas).await;
    (one, made)
}

async fn pods(test: &Test) -> Vec<Value> {
    test.api.get(&test.path("v1", "pods")).await.ok()["items"].as_array().cloned().expect("a list")
}

pub async fn background_takes_the_pods_of_a_controller(test: &Test) {
    let (one, _) = controlled(test, "background", 2).await;
    test.api.delete_with(&one, &json!({"propagationPolicy": "Background"})).await.ok();
    let path = test.path("v1", "pods");
    test.api.until(&path, "empty", |reply| reply.json()["items"] == json!([])).await;
    test.api.until_gone(&one).await;
}

pub async fn orphan_leaves_the_pods_of_a_controller(test: &Test) {
    let (one, _) = controlled(test, "orphan", 10).await;
    test.api.delete_with(&one, &json!({"propagationPolicy": "Orphan"})).await.ok();
    test.api.until_gone(&one).await;
    let left = pods(test).await;
    assert_eq!(left.len(), 10);
    for pod in left {
        assert_eq!(pod["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len), 0, "{}", pod["metadata"]);
        assert!(pod["metadata"].get("deletionTimestamp").is_none(), "{}", pod["metadata"]);
    }
}

pub async fn foreground_takes_a_controller_after_its_pods(test: &Test) {
    let (one, _) = controlled(test, "foreground", 10).await;
    let held = pods(test).await[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let held = format!("{}/{held}", test.path("v1", "pods"));
    let hold = |with: Value| json!({"metadata": {"finalizers": with}});
    test.api.patch(&held, MERGE, &hold(json!(["conformance.example.com/held"]))).await.ok();
    test.api.delete_with(&one, &json!({"propagationPolicy": "Foreground"})).await.ok();
    let path = test.path("v1", "pods");
    let all_but_one = |reply: &Reply| reply.json()["items"].as_array().map(Vec::len) == Some(1);
    test.api.until(&path, "all but the held pod gone", all_but_one).await;
    let ending = test.api.get(&one).await.ok();
    assert_eq!(ending["metadata"]["finalizers"], json!(["foregroundDeletion"]), "it waits for its last pod");
    test.api.patch(&held, MERGE, &hold(json!(null))).await.ok();
    test.api.until_gone(&one).await;
    assert_eq!(pods(test).await, Vec::<Value>::new());
}

pub async fn what_another_owns_too_stays(test: &Test) {
    let (going, _) = controlled(test, "going", 10).await;
    let (_, staying) = controlled(test, "staying", 0).await;
    let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "staying",
        "uid": staying["metadata"]["uid"]});
    let path = test.path("v1", "pods");
    for mut pod in pods(test).await.into_iter().take(5) {
        let owners = pod["metadata"]["ownerReferences"].as_array_mut().expect("an owner");
        owners.push(owner.clone());
        let patch = json!({"metadata": {"ownerReferences": owners, "labels": {"shared": "yes"}}});
        let one = format!("{path}/{}", pod["metadata"]["name"].as_str().expect("a name"));
        test.api.patch(&one, MERGE, &patch).await.ok();
    }
    test.api.delete_with(&going, &json!({"propagationPolicy": "Foreground"})).await.ok();
    test.api.until_gone(&going).await;
    let left = pods(test).await;
    assert_eq!(left.len(), 5);
    for pod in left {
        assert_eq!(pod["metadata"]["ownerReferences"], json!([owner]));
        assert!(pod["metadata"].get("deletionTimestamp").is_none(), "{}", pod["metadata"]);
    }
}
