//! `create`: identity, names, namespaces, dry runs.

use http::Method;
use serde_json::json;

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, admin, config_map, deployment};

#[tokio::test]
async fn the_server_gives_identity_and_the_stored_bytes_are_what_is_served() {
    let api = Api::start().await;
    let mut wished = config_map("c");
    wished["metadata"]["uid"] = json!("mine");
    wished["metadata"]["managedFields"] = json!([{"manager": "me"}]);
    let made = api.make(CONFIG_MAPS, &wished).await;
    assert_eq!(made["metadata"]["uid"].as_str().map(str::len), Some(36));
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "unknown", "an entry that says nothing is not taken");
    assert_eq!(made["metadata"]["resourceVersion"], api.store.revision().to_string());
    assert!(made["metadata"]["creationTimestamp"].as_str().expect("a time").ends_with('Z'));
    let got = api.get(&format!("{CONFIG_MAPS}/c")).await;
    assert_eq!(got.json(), made);
    let stored = api.store.get("o/configmaps/default/c").expect("it is stored");
    assert_eq!(stored.value(), got.body);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let again = api.post(CONFIG_MAPS, &config_map("c")).await;
    assert_eq!(again.said(), "409 AlreadyExists: configmaps \"c\" already exists");
}

#[tokio::test]
async fn names_are_made_from_generate_name() {
    let api = Api::start().await;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "web-"});
    let first = api.make(CONFIG_MAPS, &object).await["metadata"]["name"].as_str().expect("a name").to_owned();
    let second = api.make(CONFIG_MAPS, &object).await["metadata"]["name"].as_str().expect("a name").to_owned();
    assert!(first.starts_with("web-") && first.len() == 9 && first != second, "{first} {second}");
    object["metadata"] = json!({});
    let reply = api.post(CONFIG_MAPS, &object).await;
    assert_eq!(reply.code, 422, "{}", reply.said());
    assert!(
        reply.said().contains("metadata.name: Required value: name or generateName is required"),
        "{}",
        reply.said()
    );
}

#[tokio::test]
async fn the_object_must_agree_with_the_url() {
    let api = Api::start().await;
    let mut object = config_map("c");
    object["metadata"]["namespace"] = json!("other");
    let reply = api.post(CONFIG_MAPS, &object).await;
    assert_eq!(reply.code, 400, "{}", reply.said());
    assert!(reply.said().contains("does not match the namespace sent on the request"), "{}", reply.said());
    let mut object = config_map("c");
    object["kind"] = json!("Secret");
    assert_eq!(api.post(CONFIG_MAPS, &object).await.code, 400);
    let mut object = config_map("c");
    object["metadata"]["resourceVersion"] = json!("5");
    assert_eq!(api.post(CONFIG_MAPS, &object).await.code, 400);
}

#[tokio::test]
async fn a_dry_run_does_everything_but_write() {
    let api = Api::start().await;
    let before = api.store.revision();
    let reply = api.post(&format!("{DEPLOYMENTS}?dryRun=All"), &deployment("web")).await;
    assert_eq!(reply.said(), "201");
    assert_eq!(reply.json()["spec"]["progressDeadlineSeconds"], 600, "defaults are applied");
    assert_eq!(api.store.revision(), before);
    assert_eq!(api.get(&format!("{DEPLOYMENTS}/web")).await.code, 404);
    assert_eq!(api.post(&format!("{DEPLOYMENTS}?dryRun=Some"), &deployment("web")).await.code, 422);
    let mut wrong = deployment("web");
    wrong["spec"]["replicas"] = json!(-1);
    assert_eq!(api.post(&format!("{DEPLOYMENTS}?dryRun=All"), &wrong).await.code, 422);
}

#[tokio::test]
async fn a_missing_namespace_takes_nothing() {
    let api = Api::start().await;
    let reply = api.post("/api/v1/namespaces/nowhere/configmaps", &config_map("c")).await;
    assert_eq!(reply.said(), "404 NotFound: namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn unknown_fields_are_warned_about_or_refused() {
    let api = Api::start().await;
    let mut object = deployment("web");
    object["spec"]["replicaz"] = json!(3);
    let reply = api.post(DEPLOYMENTS, &object).await;
    assert_eq!(reply.said(), "201");
    let warning = reply.headers.get("warning").expect("a warning").to_str().expect("text").to_owned();
    assert_eq!(warning, "299 - \"unknown field \\\"spec.replicaz\\\"\"");
    assert_eq!(reply.json()["spec"].get("replicaz"), None, "what is not known is not stored");
    let reply = api.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &object).await;
    assert_eq!(reply.code, 400);
    assert!(reply.said().contains("unknown field \"spec.replicaz\""), "{}", reply.said());
}

#[tokio::test]
async fn bodies_come_as_yaml_too() {
    let api = Api::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: |\n    text\n";
    let reply = api.call(Method::POST, CONFIG_MAPS, "application/yaml", yaml).await;
    assert_eq!(reply.said(), "201");
    assert_eq!(reply.json()["data"]["a"], "text\n");
    let reply = api.call(Method::POST, CONFIG_MAPS, "text/html", "<p>").await;
    assert_eq!(reply.code, 415);
}

#[tokio::test]
async fn bodies_come_as_protobuf_too() {
    let api = Api::start().await;
    // Unknown{typeMeta{"v1", "Namespace"}, raw: Namespace{metadata{name: "pb"}}} behind the magic number.
    let mut body = b"k8s\0".to_vec();
    body.extend_from_slice(b"\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x06\x0a\x04\x0a\x02pb");
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    let reply = api.call_as(admin(), Method::POST, "/api/v1/namespaces", &headers, body).await;
    assert_eq!(reply.said(), "201");
    assert_eq!(reply.json()["metadata"]["name"], "pb");
    assert_eq!(reply.json()["status"]["phase"], "Active");
}

#[tokio::test]
async fn a_broken_object_is_told_field_by_field() {
    let api = Api::start().await;
    let mut object = deployment("web");
    object["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let reply = api.post(DEPLOYMENTS, &object).await;
    assert_eq!(reply.code, 422);
    let status = reply.json();
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(status["details"]["causes"][0]["field"], "spec.template.metadata.labels");
}
