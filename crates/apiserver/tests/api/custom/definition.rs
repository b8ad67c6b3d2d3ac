//! Definitions as objects, and what they make of the server.

use serde_json::{Value, json};

use super::{DEFINITIONS, FOOS, condition, foo, foos, named, spec, with};
use crate::{Api, read};

fn any() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[tokio::test]
async fn a_kind_is_served_with_the_answer_to_its_definition() {
    let api = Api::start().await;
    assert_eq!(api.get(FOOS).await.code.as_u16(), 404);
    let made = api.make(DEFINITIONS, &foos(&any())).await;
    assert_eq!(condition(&made, "Established"), "True InitialNamesAccepted");
    assert_eq!(condition(&made, "NamesAccepted"), "True NoConflicts");
    assert_eq!(
        made["status"]["acceptedNames"],
        json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"})
    );
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let list = api.get(FOOS).await.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("FooList"), &json!("example.com/v1")));
    api.make(FOOS, &foo("a", &json!({"x": 1}))).await;
    assert_eq!(api.get(&format!("{FOOS}/a")).await.json()["spec"]["x"], 1);
}

#[tokio::test]
async fn discovery_and_openapi_follow_at_once() {
    let api = with(&foos(&spec(&json!({"a": {"type": "string", "description": "what it is"}})))).await;
    let groups = api.get("/apis").await.json();
    let names: Vec<&Value> = groups["groups"].as_array().expect("groups").iter().map(|group| &group["name"]).collect();
    assert!(names.contains(&&json!("example.com")) && names.contains(&&json!("apiextensions.k8s.io")), "{names:?}");
    let resources = api.get("/apis/example.com/v1").await.json();
    assert_eq!(
        (&resources["resources"][0]["name"], &resources["resources"][0]["kind"]),
        (&json!("foos"), &json!("Foo"))
    );
    let index = api.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("a document").to_owned();
    let document = api.get(&url).await.json();
    let schema = &document["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(schema["properties"]["spec"]["properties"]["a"]["description"], "what it is");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
    assert!(document["components"]["schemas"]["com.example.v1.FooList"]["properties"]["items"].is_object());
    assert!(document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());

    let mut changed = api.get(&format!("{DEFINITIONS}/foos.example.com")).await.json();
    let a = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/a/description";
    *changed.pointer_mut(a).expect("a description") = json!("something else");
    assert_eq!(api.put(&format!("{DEFINITIONS}/foos.example.com"), &changed).await.said(), "200");
    let index = api.get("/openapi/v3").await.json();
    let newer = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("a document").to_owned();
    assert_ne!(url, newer, "the URL names the content");
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along() {
    let api = with(&foos(&any())).await;
    for name in ["a", "b"] {
        api.make(FOOS, &foo(name, &json!({}))).await;
    }
    let mut held = foo("held", &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    api.make(FOOS, &held).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut lines = api.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name=foos.example.com")).await;
    assert_eq!(lines.said().await, "ADDED foos.example.com");
    let ending = api.delete(&path).await.json();
    assert_eq!(condition(&ending, "Terminating"), "True InstanceDeletionPending");
    assert_eq!(ending["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(lines.said().await, "MODIFIED foos.example.com");
    let refused = api.post(FOOS, &foo("late", &json!({}))).await;
    assert_eq!(
        refused.said(),
        "405 MethodNotAllowed: create not allowed while custom resource definition is terminating"
    );
    let freed = json!({"metadata": {"finalizers": null}});
    let freed = api.merge(&format!("{FOOS}/held"), &freed).await;
    assert!(matches!(freed.code.as_u16(), 200), "{}", freed.said());
    assert_eq!(lines.said().await, "DELETED foos.example.com");
    assert_eq!((api.get(FOOS).await.code.as_u16(), api.get(&path).await.code.as_u16()), (404, 404));
    assert_eq!(api.get("/apis/example.com/v1").await.code.as_u16(), 404);
}

#[tokio::test]
async fn a_name_that_is_taken_is_free_again_when_its_owner_goes() {
    let api = with(&foos(&any())).await;
    let second = api.make(DEFINITIONS, &named("bars", "Foo", &any())).await;
    assert_eq!(condition(&second, "NamesAccepted"), "False ListKindConflict");
    assert_eq!(condition(&second, "Established"), "False NotAccepted");
    assert_eq!(api.get("/apis/example.com/v1/bars").await.code.as_u16(), 404);
    let mut lines = api.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name=bars.example.com")).await;
    assert_eq!(lines.said().await, "ADDED bars.example.com");
    assert_eq!(api.delete(&format!("{DEFINITIONS}/foos.example.com")).await.said(), "200");
    let event = lines.next().await.expect("the watch goes on");
    assert_eq!(condition(&event["object"], "Established"), "True InitialNamesAccepted");
    assert_eq!(api.get("/apis/example.com/v1/bars").await.said(), "200");
}

#[tokio::test]
async fn the_status_of_a_definition_is_a_part_of_its_own() {
    let api = with(&foos(&any())).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut seen = api.get(&format!("{path}/status")).await.json();
    let list = seen["status"]["conditions"].as_array_mut().expect("conditions");
    list.push(json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
    let updated = api.put(&format!("{path}/status"), &seen).await;
    assert_eq!((updated.said(), condition(&updated.json(), "StatusUpdate")), ("200".to_owned(), "True E2E".to_owned()));
    let patched = api.merge(&format!("{path}/status"), &json!({"metadata": {"annotations": {"a": "b"}}})).await.json();
    assert_eq!(patched["metadata"]["annotations"]["a"], "b");
    let kept = api.merge(&path, &json!({"status": {"storedVersions": ["v7"]}})).await.json();
    assert_eq!(kept["status"]["storedVersions"], json!(["v1"]), "the main resource leaves the status as it is");
}

#[tokio::test]
async fn what_is_no_definition_is_refused_in_kubernetes_words() {
    let api = Api::start().await;
    let mut wrong = foos(&json!({"type": "object", "properties": {"a": {}}}));
    wrong["metadata"]["name"] = json!("foo");
    assert_eq!(
        api.post(DEFINITIONS, &wrong).await.said(),
        "422 Invalid: CustomResourceDefinition.apiextensions.k8s.io \"foo\" is invalid: [metadata.name: Invalid value: \
         \"foo\": must be spec.names.plural+\".\"+spec.group, \
         spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified \
         object fields]"
    );
    api.make(DEFINITIONS, &foos(&any())).await;
    let scope = api.merge(&format!("{DEFINITIONS}/foos.example.com"), &json!({"spec": {"scope": "Cluster"}})).await;
    assert!(scope.said().contains("spec.scope: Invalid value: \"Cluster\": field is immutable"), "{}", scope.said());
}

#[tokio::test]
async fn watches_of_a_kind_end_when_it_goes_and_see_its_objects_go_before() {
    let api = with(&foos(&any())).await;
    api.make(FOOS, &foo("a", &json!({}))).await;
    let mut lines = api.watch(&format!("{FOOS}?watch=1")).await;
    assert_eq!(lines.said().await, "ADDED a");
    api.delete(&format!("{DEFINITIONS}/foos.example.com")).await;
    assert_eq!(lines.said().await, "DELETED a");
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn definitions_are_served_again_after_a_restart() {
    let api = with(&foos(&any())).await;
    api.make(FOOS, &foo("a", &json!({}))).await;
    let config = windlass_apiserver::Config::new(windlass_api::resources::registry());
    let again = windlass_apiserver::Apiserver::new(config, api.store.clone(), windlass_stdx::World::real());
    let request = http::Request::builder().uri(format!("{FOOS}/a")).body(windlass_stdx::body_from(""));
    let answer = again.transport(crate::admin()).call(request.expect("a request")).await.expect("an answer");
    assert_eq!(read(answer).await.said(), "200");
}
