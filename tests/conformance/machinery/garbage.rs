//! Garbage collection: what an owner's end means for what it owns.

use serde_json::{Value, json};

use crate::Test;

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
        test.api.patch(&path, crate::api::MERGE, &patch).await.ok();
    }
    test.api.delete_with(&format!("{pods}/one"), &json!({"propagationPolicy": "Foreground"})).await.ok();
    for name in ["one", "two", "three"] {
        test.api.until_gone(&format!("{pods}/{name}")).await;
    }
}
