//! Namespaces: patched, updated, ended with all that is in them.

use http::StatusCode;
use serde_json::{Value, json};

use crate::Test;
use crate::api::{JSON_PATCH, MERGE, STRATEGIC};

/// A namespace of the test's own that is not the one it runs in.
async fn another(test: &Test, word: &str) -> (String, Value) {
    let name = test.unique(word);
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = test.api.create("/api/v1/namespaces", &object).await.ok();
    (format!("/api/v1/namespaces/{name}"), made)
}

pub async fn a_namespace_is_patched(test: &Test) {
    let (path, _) = another(test, "patched").await;
    test.api.patch(&path, STRATEGIC, &json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await.ok();
    assert_eq!(test.api.get(&path).await.ok()["metadata"]["labels"]["testLabel"], "testValue");
    test.api.delete(&path).await.ok();
}

pub async fn the_status_is_read_patched_and_updated(test: &Test) {
    let (path, made) = another(test, "status").await;
    let status = format!("{path}/status");
    assert_eq!(test.api.get(&status).await.ok()["status"]["phase"], "Active");
    let condition = json!({"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Set by a test"});
    let patched = test.api.patch(&status, MERGE, &json!({"status": {"conditions": [condition]}})).await.ok();
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatch");
    let mut wished = test.api.get(&status).await.ok();
    let more = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by a test"});
    wished["status"]["conditions"].as_array_mut().expect("the condition that was set").push(more);
    let updated = test.api.update(&status, &wished).await.ok();
    assert_eq!(updated["status"]["conditions"].as_array().map(Vec::len), Some(2));
    assert_eq!(updated["metadata"]["uid"], made["metadata"]["uid"]);
    test.api.delete(&path).await.ok();
}

pub async fn a_namespace_is_updated(test: &Test) {
    let (path, mut wished) = another(test, "updated").await;
    wished["metadata"]["labels"]["updated"] = json!("yes");
    wished["metadata"]["resourceVersion"] = json!("");
    test.api.update(&path, &wished).await.ok();
    assert_eq!(test.api.get(&path).await.ok()["metadata"]["labels"]["updated"], "yes");
    test.api.delete(&path).await.ok();
}

pub async fn a_finalizer_is_added_and_removed(test: &Test) {
    let (path, mut wished) = another(test, "finalized").await;
    let finalizer = "conformance.example.com/finalizer";
    let kept = json!(["kubernetes", finalizer]);
    wished["spec"]["finalizers"] = kept.clone();
    let finalize = format!("{path}/finalize");
    let with = test.api.update(&finalize, &wished).await.ok();
    assert_eq!(with["spec"]["finalizers"], kept);
    let mut wished = test.api.get(&path).await.ok();
    wished["spec"]["finalizers"] = json!(["kubernetes"]);
    let without = test.api.update(&finalize, &wished).await.ok();
    assert_eq!(without["spec"]["finalizers"], json!(["kubernetes"]));
    test.api.delete(&path).await.ok();
    test.api.until_gone(&path).await;
}

pub async fn its_services_end_with_a_namespace(test: &Test) {
    let (path, _) = another(test, "services").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    test.api.create(&format!("{path}/services"), &service).await.ok();
    test.api.delete(&path).await.ok();
    test.api.until_gone(&path).await;
    let name = test.unique("services");
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    test.api.create("/api/v1/namespaces", &object).await.ok();
    assert_eq!(test.api.get(&format!("{path}/services/web")).await.code, StatusCode::NOT_FOUND);
    let again =
        test.api.patch(&path, JSON_PATCH, &json!([{"op": "test", "path": "/metadata/name", "value": name}])).await;
    assert!(again.code.is_success(), "the namespace is a new one: {}", again.code);
    test.api.delete(&path).await.ok();
}

/// A pod that no node takes.
fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "none:1"}]}})
}

pub async fn its_pods_end_with_a_namespace(test: &Test) {
    let (path, _) = another(test, "pods").await;
    test.api.until(&format!("{path}/serviceaccounts/default"), "there", |reply| reply.code.is_success()).await;
    test.api.create(&format!("{path}/pods"), &pod("p")).await.ok();
    test.api.delete(&path).await.ok();
    test.api.until_gone(&path).await;
    let object = json!({"metadata": {"name": path.rsplit('/').next()}});
    test.api.create("/api/v1/namespaces", &object).await.ok();
    assert_eq!(test.api.get(&format!("{path}/pods")).await.ok()["items"], json!([]));
    test.api.delete(&path).await.ok();
}

pub async fn pods_end_before_the_rest_of_a_namespace(test: &Test) {
    let (path, _) = another(test, "ordered").await;
    test.api.until(&format!("{path}/serviceaccounts/default"), "there", |reply| reply.code.is_success()).await;
    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["conformance.example.com/held"]);
    test.api.create(&format!("{path}/pods"), &held).await.ok();
    let map = json!({"metadata": {"name": "kept"}});
    test.api.create(&format!("{path}/configmaps"), &map).await.ok();
    test.api.delete(&path).await.ok();
    let waits = |condition: &Value| {
        condition["type"] == "NamespaceContentRemaining"
            && condition["message"].as_str().is_some_and(|message| message.contains("pods"))
    };
    let told = |namespace: Value| namespace["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(waits));
    test.api.until(&path, "waiting for its pod", |reply| told(reply.json())).await;
    let one = format!("{path}/pods/held");
    test.api.until(&one, "ending", |reply| reply.json()["metadata"].get("deletionTimestamp").is_some()).await;
    let kept = test.api.get(&format!("{path}/configmaps/kept")).await.ok();
    assert!(kept["metadata"].get("deletionTimestamp").is_none(), "{}", kept["metadata"]);
    test.api.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}})).await.ok();
    test.api.until_gone(&path).await;
}
