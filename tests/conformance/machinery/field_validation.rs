//! Field validation: what a strict request is refused for, what others are warned of.

use http::Method;
use serde_json::{Value, json};

use super::definition::{Definition, anything, v1};
use crate::Test;
use crate::api::{JSON, MERGE, Reply, STRATEGIC};

pub const APPLY: &str = "application/apply-patch+yaml";

/// Sends a body that may be no well-made JSON.
async fn send(test: &Test, method: Method, path: &str, form: &str, body: &str) -> Reply {
    test.api.call(method, path, &[("content-type", form)], body.to_owned()).await
}

/// The texts of the warnings of an answer.
fn warnings(reply: &Reply) -> Vec<String> {
    let all = reply.headers.get_all("warning").iter();
    all.map(|warning| warning.to_str().expect("a warning is text").to_owned()).collect()
}

/// A Deployment of a name with a field that it does not have, and one twice.
fn deployment(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{name}"}},
        "spec":{{"unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,"paused":false,
        "replicas":0,"selector":{{"matchLabels":{{"app":"x"}}}},
        "template":{{"metadata":{{"labels":{{"app":"x"}}}},"spec":{{"containers":[{{"name":"c","image":"none:1",
        "unknownNested":"val1","imagePullPolicy":"Always","imagePullPolicy":"Never"}}]}}}}}}}}"#
    )
}

pub async fn unknown_and_duplicate_fields_are_found(test: &Test) {
    let path = test.path("apps/v1", "deployments");
    let strict = format!("{path}?fieldValidation=Strict");
    let refused = send(test, Method::POST, &strict, JSON, &deployment("strict")).await.refused(400);
    let notes = [
        r#"unknown field "spec.unknown1""#,
        r#"unknown field "spec.unknownDupe""#,
        r#"duplicate field "spec.paused""#,
        r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
        r#"duplicate field "spec.template.spec.containers[0].imagePullPolicy""#,
    ];
    assert!(refused.contains("strict decoding error"), "{refused}");
    for note in notes {
        assert!(refused.contains(note), "{note}: {refused}");
    }
    // Who does not say is warned.
    let warned = send(test, Method::POST, &path, JSON, &deployment("warned")).await;
    assert!(warned.code.is_success(), "{warned:?}");
    let said = warnings(&warned).join("\n").replace('\\', "");
    for note in notes {
        assert!(said.contains(note), "{note}: {said}");
    }
    let lax = format!("{path}?fieldValidation=Ignore");
    let ignored = send(test, Method::POST, &lax, JSON, &deployment("ignored")).await;
    assert!(ignored.code.is_success() && warnings(&ignored).is_empty(), "{ignored:?}");

    let one = format!("{path}/warned?fieldValidation=Strict");
    let refused = send(test, Method::PUT, &one, JSON, &deployment("warned")).await.refused(400);
    assert!(refused.contains(notes[0]), "{refused}");
    let patch = r#"{"spec":{"foo":"bar","paused":true,"paused":false}}"#;
    for form in [MERGE, STRATEGIC] {
        let refused = send(test, Method::PATCH, &one, form, patch).await;
        assert!(matches!(refused.code.as_u16(), 400 | 422), "{refused:?}");
        let text = String::from_utf8_lossy(&refused.body).replace('\\', "");
        assert!(text.contains(r#"unknown field "spec.foo""#), "{form}: {text}");
        assert!(text.contains(r#"duplicate field "spec.paused""#), "{form}: {text}");
    }
    let apply = format!("{path}/applied?fieldManager=test&fieldValidation=Strict");
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: applied}\nspec:\n  paused: true\n  paused: \
        false\n  selector: {matchLabels: {app: x}}\n";
    let refused = send(test, Method::PATCH, &apply, APPLY, yaml).await;
    assert!(matches!(refused.code.as_u16(), 400 | 422), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("paused"), "{refused:?}");
}

pub async fn unknown_metadata_is_found(test: &Test) {
    let path = test.path("v1", "configmaps");
    let map = |name: &str| json!({"metadata": {"name": name, "unknownMeta": "here"}, "data": {"a": "b"}}).to_string();
    let strict = format!("{path}?fieldValidation=Strict");
    let refused = send(test, Method::POST, &strict, JSON, &map("strict")).await.refused(400);
    assert!(refused.contains(r#"unknown field "metadata.unknownMeta""#), "{refused}");
    let of_template =
        deployment("strict").replace(r#""labels":{"app":"x"}},"spec""#, r#""labels":{"app":"x"},"no":1},"spec""#);
    let deployments = format!("{}?fieldValidation=Strict", test.path("apps/v1", "deployments"));
    let refused = send(test, Method::POST, &deployments, JSON, &of_template).await.refused(400);
    assert!(refused.contains(r#"unknown field "spec.template.metadata.no""#), "{refused}");
    let apply = format!("{path}/applied?fieldManager=test&fieldValidation=Strict");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\n  unknownMeta: here\n";
    let refused = send(test, Method::PATCH, &apply, APPLY, yaml).await;
    assert!(!refused.code.is_success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("unknownMeta"), "{refused:?}");
}

/// A schema with one known field, and an object with its own metadata inside.
fn schema() -> Value {
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "foo": {"type": "string"}, "template": embedded}}}})
}

/// Applies an object strictly.
async fn apply(test: &Test, definition: &Definition, object: &str) -> Reply {
    let path = format!("{}/applied?fieldManager=test&fieldValidation=Strict", definition.objects(test));
    send(test, Method::PATCH, &path, APPLY, object).await
}

async fn post(test: &Test, definition: &Definition, object: &str) -> Reply {
    send(test, Method::POST, &format!("{}?fieldValidation=Strict", definition.objects(test)), JSON, object).await
}

pub async fn a_kind_without_schema_takes_unknown_fields(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let object = definition.object("applied", json!({"spec": {"unknown": {"a": [1]}}})).to_string();
    assert_eq!(apply(test, &definition, &object).await.ok()["spec"]["unknown"]["a"][0], 1);
    test.api.delete(&definition.path()).await.ok();
}

pub async fn a_valid_custom_object_is_taken(test: &Test) {
    let definition = Definition::new(test, v1(schema()));
    definition.make(test).await;
    let object = |name: &str| definition.object(name, json!({"spec": {"foo": "a"}})).to_string();
    post(test, &definition, &object("created")).await.ok();
    assert_eq!(apply(test, &definition, &object("applied")).await.ok()["spec"]["foo"], "a");
    test.api.delete(&definition.path()).await.ok();
}

pub async fn unknown_fields_of_a_custom_object_are_found(test: &Test) {
    let definition = Definition::new(test, v1(schema()));
    definition.make(test).await;
    let object = definition.object("applied", json!({"spec": {"foo": "a", "extra": 1}})).to_string();
    let refused = post(test, &definition, &object).await.refused(400);
    assert!(refused.contains(r#"unknown field "spec.extra""#), "{refused}");
    let refused = apply(test, &definition, &object).await;
    assert!(!refused.code.is_success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("spec.extra"), "{refused:?}");
    test.api.delete(&definition.path()).await.ok();
}

pub async fn duplicate_fields_are_found_where_all_are_preserved(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let object = definition.object("twice", json!({"spec": {"foo": "a", "unknown": 1}})).to_string();
    let twice = object.replace(r#""unknown":1"#, r#""unknown":1,"unknown":2"#);
    let refused = post(test, &definition, &twice).await.refused(400);
    assert!(refused.contains(r#"duplicate field "spec.unknown""#), "{refused}");
    let yaml = "apiVersion: GROUP/v1\nkind: Foo\nmetadata: {name: applied}\nspec:\n  unknown: 1\n  unknown: 2\n";
    let refused = apply(test, &definition, &yaml.replace("GROUP", &definition.group)).await;
    assert!(!refused.code.is_success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("unknown"), "{refused:?}");
    test.api.delete(&definition.path()).await.ok();
}

pub async fn unknown_metadata_of_a_custom_object_is_found(test: &Test) {
    let definition = Definition::new(test, v1(schema()));
    definition.make(test).await;
    let inside = json!({"apiVersion": "v1", "kind": "Inside", "metadata": {"name": "i", "unknownSub": "x"}});
    let mut object = definition.object("odd", json!({"spec": {"foo": "a", "template": inside}}));
    object["metadata"]["unknownMeta"] = json!("x");
    let refused = post(test, &definition, &object.to_string()).await.refused(400);
    for field in ["metadata.unknownMeta", "spec.template.metadata.unknownSub"] {
        assert!(refused.contains(&format!("unknown field \"{field}\"")), "{field}: {refused}");
    }
    test.api.delete(&definition.path()).await.ok();
}
