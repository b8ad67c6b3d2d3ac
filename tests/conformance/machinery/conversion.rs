//! Conversion of custom kinds by a webhook: `hostPort` of v1 is `host` and `port` in v2.

use serde_json::{Value, json};

use super::definition::Definition;
use super::hook::Hook;
use crate::Test;
use crate::api::JSON_PATCH;

async fn convert(_: String, request: Value) -> Value {
    let wanted = request["desiredAPIVersion"].as_str().expect("a version").to_owned();
    let objects = request["objects"].as_array().expect("objects").iter();
    let converted: Vec<Value> = objects.map(|object| converted(object, &wanted)).collect();
    json!({"convertedObjects": converted, "result": {"status": "Success"}})
}

fn converted(object: &Value, wanted: &str) -> Value {
    let mut converted = object.clone();
    converted["apiVersion"] = json!(wanted);
    let fields = converted.as_object_mut().expect("an object");
    if wanted.ends_with("/v2") {
        let whole = fields.remove("hostPort").expect("v1 has hostPort");
        let (host, port) = whole.as_str().and_then(|text| text.split_once(':')).expect("a host and a port");
        fields.insert("host".to_owned(), json!(host));
        fields.insert("port".to_owned(), json!(port));
    } else {
        let (host, port) = (fields.remove("host"), fields.remove("port"));
        let text = |part: Option<Value>| part.and_then(|part| part.as_str().map(str::to_owned)).expect("v2 has both");
        fields.insert("hostPort".to_owned(), json!(format!("{}:{}", text(host), text(port))));
    }
    converted
}

/// A kind stored in v1, converted by this server.
async fn definition(test: &Test, hook: &Hook) -> Definition {
    let schema = |fields: Value| json!({"openAPIV3Schema": {"type": "object", "properties": fields}});
    let text = json!({"type": "string"});
    let mut definition = Definition::new(
        test,
        json!([
            {"name": "v1", "served": true, "storage": true, "schema": schema(json!({"hostPort": text}))},
            {"name": "v2", "served": true, "storage": false, "schema": schema(json!({"host": text, "port": text}))},
        ]),
    );
    definition.object["spec"]["conversion"] = json!({
        "strategy": "Webhook",
        "webhook": {"clientConfig": hook.client("/convert"), "conversionReviewVersions": ["v1", "v1beta1"]},
    });
    definition.make(test).await;
    definition
}

fn newer(definition: &Definition, test: &Test) -> String {
    test.path(&format!("{}/v2", definition.group), "foos")
}

pub async fn an_object_is_read_in_another_version(test: &Test) {
    let hook = Hook::start(convert).await;
    let definition = definition(test, &hook).await;
    let object = definition.object("a", json!({"hostPort": "localhost:8080"}));
    test.api.create(&definition.objects(test), &object).await.ok();
    let path = newer(&definition, test);
    let read = test.api.get(&format!("{path}/a")).await.ok();
    assert_eq!((&read["host"], &read["port"], read.get("hostPort")), (&json!("localhost"), &json!("8080"), None));
    assert!(read["apiVersion"].as_str().is_some_and(|version| version.ends_with("/v2")), "{read}");
    let mut events = test.api.watch(&path, "resourceVersion=0").await;
    assert_eq!(events.expect("ADDED").await["host"], "localhost");
    let object =
        json!({"apiVersion": read["apiVersion"], "kind": "Foo", "metadata": {"name": "b"}, "host": "h", "port": "1"});
    test.api.create(&path, &object).await.ok();
    assert_eq!(events.expect("ADDED").await["port"], "1");
    assert_eq!(test.api.get(&format!("{}/b", definition.objects(test))).await.ok()["hostPort"], "h:1");
    test.api.delete(&definition.path()).await.ok();
}

pub async fn a_list_of_mixed_versions_is_converted(test: &Test) {
    let hook = Hook::start(convert).await;
    let definition = definition(test, &hook).await;
    let path = definition.objects(test);
    test.api.create(&path, &definition.object("a", json!({"hostPort": "a:1"}))).await.ok();
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    test.api.patch(&definition.path(), JSON_PATCH, &patch).await.ok();
    test.api.create(&path, &definition.object("b", json!({"hostPort": "b:2"}))).await.ok();
    for (path, fields) in [(path, ["hostPort", "hostPort"]), (newer(&definition, test), ["host", "port"])] {
        let list = test.api.get(&path).await.ok();
        let items = list["items"].as_array().expect("items");
        assert_eq!(items.len(), 2, "{list}");
        for item in items {
            assert!(fields.iter().all(|field| item[field].is_string()), "{item}");
            assert_eq!(item["apiVersion"], list["apiVersion"]);
        }
    }
    test.api.delete(&definition.path()).await.ok();
}
