//! Several versions of one custom kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{DEFINITIONS, FOOS, foo, foos, spec, with};
use crate::hook::Hook;

const NEWER: &str = "/apis/example.com/v2/namespaces/default/foos";

/// `foos.example.com` in v1 (stored) and v2, which has one field more and another default.
fn two() -> Value {
    let mut definition = foos(&spec(&json!({"a": {"type": "string"}})));
    let newer = spec(&json!({"a": {"type": "string"}, "b": {"type": "string", "default": "y"}}));
    let versions = definition["spec"]["versions"].as_array_mut().expect("versions");
    versions.push(json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": newer}}));
    definition
}

#[tokio::test]
async fn every_version_shows_every_object() {
    let api = with(&two()).await;
    api.make(FOOS, &foo("x", &json!({"a": "1"}))).await;
    let newer = api.get(&format!("{NEWER}/x")).await.json();
    assert_eq!((&newer["apiVersion"], &newer["spec"]), (&json!("example.com/v2"), &json!({"a": "1", "b": "y"})));
    let list = api.get(NEWER).await.json();
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["apiVersion"]),
        (&json!("example.com/v2"), &json!("example.com/v2"))
    );
    let older = api.get(&format!("{FOOS}/x")).await.json();
    assert_eq!((&older["apiVersion"], &older["spec"]), (&json!("example.com/v1"), &json!({"a": "1"})));
}

#[tokio::test]
async fn a_stored_version_may_change_and_objects_follow_when_they_are_written() {
    let api = with(&two()).await;
    api.make(FOOS, &foo("x", &json!({"a": "1"}))).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut definition = api.get(&path).await.json();
    definition["spec"]["versions"][0]["storage"] = json!(false);
    definition["spec"]["versions"][1]["storage"] = json!(true);
    let changed = api.put(&path, &definition).await.json();
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let before = api.get(&format!("{FOOS}/x")).await.json();
    let again = api.put(&format!("{FOOS}/x"), &before).await.json();
    assert_ne!(
        before["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"],
        "it moved to the stored version"
    );
    let third = api.put(&format!("{FOOS}/x"), &again).await.json();
    assert_eq!(again["metadata"]["resourceVersion"], third["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_version_that_is_not_served_is_gone() {
    let api = with(&two()).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    let patched = api.call(http::Method::PATCH, &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(patched.said(), "200");
    assert_eq!((api.get(NEWER).await.code.as_u16(), api.get(FOOS).await.code.as_u16()), (404, 200));
    let index = api.get("/openapi/v3").await.json();
    assert!(index["paths"].get("apis/example.com/v2").is_none());
}

#[tokio::test]
async fn a_watch_of_each_version_sees_the_same_changes() {
    let api = with(&two()).await;
    let mut lines = [api.watch(&format!("{FOOS}?watch=1")).await, api.watch(&format!("{NEWER}?watch=1")).await];
    api.make(FOOS, &foo("x", &json!({"a": "1"}))).await;
    for (lines, version) in lines.iter_mut().zip(["example.com/v1", "example.com/v2"]) {
        let event = lines.next().await.expect("the watch goes on");
        assert_eq!((&event["type"], &event["object"]["apiVersion"]), (&json!("ADDED"), &json!(version)));
    }
}

/// A delete converts to check and to show the object. If the webhook fails in between the object is still there.
#[tokio::test]
async fn a_delete_that_cannot_be_shown_deletes_nothing() {
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let answers = Arc::clone(&left);
    let hook = Hook::start(move |_, request: Value| {
        let answers = Arc::clone(&answers);
        async move {
            let works = answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if !works {
                return json!({"result": {"status": "Failure", "message": "it broke"}});
            }
            let objects = request["objects"].as_array().expect("objects").iter();
            let converted: Vec<Value> = objects
                .map(|object| {
                    let mut object = object.clone();
                    object["apiVersion"] = request["desiredAPIVersion"].clone();
                    object
                })
                .collect();
            json!({"convertedObjects": converted, "result": {"status": "Success"}})
        }
    })
    .await;
    let mut definition = two();
    definition["spec"]["conversion"] = json!({"strategy": "Webhook",
        "webhook": {"clientConfig": hook.client("/convert"), "conversionReviewVersions": ["v1"]}});
    let api = with(&definition).await;
    for finalizers in [json!(null), json!(["example.com/keep"])] {
        let mut object = foo("x", &json!({"a": "1"}));
        object["metadata"]["finalizers"] = finalizers;
        api.make(FOOS, &object).await;
        left.store(0, Ordering::Relaxed);
        let refused = api.delete(&format!("{NEWER}/x")).await;
        assert!(refused.said().contains("it broke"), "{}", refused.said());
        let kept = api.get(&format!("{FOOS}/x")).await;
        assert_eq!(kept.said(), "200", "an error says that nothing happened");
        assert!(kept.json()["metadata"].get("deletionTimestamp").is_none(), "{}", kept.text());
        left.store(usize::MAX, Ordering::Relaxed);
        assert_eq!(api.delete(&format!("{NEWER}/x")).await.said(), "200");
    }
}
