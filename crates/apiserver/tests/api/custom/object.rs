//! Objects of a custom kind.

use http::Method;
use serde_json::{Value, json};

use super::{DEFINITIONS, FOOS, foo, foos, spec, with};

fn errors(reply: &crate::Reply) -> String {
    let said = reply.said();
    said.split_once("is invalid: ").map_or(said.clone(), |(_, errors)| errors.to_owned())
}

#[tokio::test]
async fn values_are_checked_in_kubernetes_words() {
    let api = with(&foos(&spec(&json!({
        "replicas": {"type": "integer", "minimum": 1}, "name": {"type": "string", "pattern": "^a"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    }))))
    .await;
    for (spec, expected) in [
        (
            json!({"replicas": "many"}),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (
            json!({"replicas": 0}),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
        ),
        (json!({"name": "b"}), "spec.name: Invalid value: \"b\": spec.name in body should match '^a'"),
        (json!({"tags": ["a", "a"]}), "spec.tags[1]: Duplicate value: \"a\""),
    ] {
        assert_eq!(errors(&api.post(FOOS, &foo("x", &spec)).await), expected);
    }
}

#[tokio::test]
async fn unknown_fields_are_pruned_and_reported_as_asked() {
    let api = with(&foos(&spec(&json!({"a": {"type": "string"}})))).await;
    let odd = foo("x", &json!({"a": "b", "odd": {"c": 1}}));
    let strict = api.post(&format!("{FOOS}?fieldValidation=Strict"), &odd).await;
    assert!(strict.said().contains("strict decoding error: unknown field \"spec.odd\""), "{}", strict.said());
    let warned = api.post(&format!("{FOOS}?fieldValidation=Warn"), &odd).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.odd\\\"\"");
    assert_eq!(warned.json()["spec"], json!({"a": "b"}));
    let twice = r#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"y"},"spec":{"a":"b","a":"c"}}"#;
    let refused = api.call(Method::POST, &format!("{FOOS}?fieldValidation=Strict"), "application/json", twice).await;
    assert!(refused.said().contains("duplicate field \"spec.a\""), "{}", refused.said());
    let ignored = api.post(&format!("{FOOS}?fieldValidation=Ignore"), &foo("z", &json!({"odd": 1}))).await;
    assert!(!ignored.headers.contains_key("warning") && ignored.json()["spec"] == json!({}));
}

#[tokio::test]
async fn defaults_come_with_writes_and_with_reads_of_older_objects() {
    let api = with(&foos(&spec(&json!({"a": {"type": "string", "default": "x"}})))).await;
    assert_eq!(api.make(FOOS, &foo("old", &json!({}))).await["spec"], json!({"a": "x"}));
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut definition = api.get(&path).await.json();
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    *definition.pointer_mut(schema).expect("properties") = json!({"b": {"type": "string", "default": "y"}});
    assert_eq!(api.put(&path, &definition).await.said(), "200");
    let expected = json!({"b": "y"});
    assert_eq!(api.get(&format!("{FOOS}/old")).await.json()["spec"], expected, "a is pruned, b is filled in");
    assert_eq!(api.get(FOOS).await.json()["items"][0]["spec"], expected);
    let mut lines = api.watch(&format!("{FOOS}?watch=1")).await;
    assert_eq!(lines.next().await.expect("an event")["object"]["spec"], expected);
    let nulls = api.make(FOOS, &foo("new", &json!({"b": null}))).await;
    assert_eq!(nulls["spec"], expected, "a null gives way to the default");
}

#[tokio::test]
async fn what_an_update_leaves_as_it_was_stays_accepted() {
    let api = with(&foos(&spec(&json!({"a": {"type": "string"}, "b": {"type": "string"}})))).await;
    api.make(FOOS, &foo("x", &json!({"a": "long"}))).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut definition = api.get(&path).await.json();
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    *definition.pointer_mut(schema).expect("properties") =
        json!({"a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1}});
    assert_eq!(api.put(&path, &definition).await.said(), "200");
    let object = format!("{FOOS}/x");
    assert_eq!(api.merge(&object, &json!({"spec": {"b": "y"}})).await.said(), "200");
    let refused = api.merge(&object, &json!({"spec": {"a": "other"}})).await;
    assert_eq!(errors(&refused), "spec.a: Too long: may not be more than 1 bytes");
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let mut definition = foos(&spec(&json!({"n": {"type": "integer"}})));
    definition["spec"]["versions"][0]["subresources"] =
        json!({"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}});
    let api = with(&definition).await;
    let mut object = foo("x", &json!({"n": 2}));
    object["status"] = json!({"n": 7});
    let made = api.make(FOOS, &object).await;
    assert_eq!((&made["metadata"]["generation"], made.get("status")), (&json!(1), None));
    let path = format!("{FOOS}/x");
    let status = api.merge(&format!("{path}/status"), &json!({"status": {"n": 2}, "spec": {"n": 9}})).await.json();
    assert_eq!(
        (&status["spec"]["n"], &status["status"]["n"], &status["metadata"]["generation"]),
        (&json!(2), &json!(2), &json!(1))
    );
    let scale = api.get(&format!("{path}/scale")).await.json();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(2), &json!(2)));
    let scaled = api.merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.said(), "200");
    let now = api.get(&path).await.json();
    assert_eq!((&now["spec"]["n"], &now["metadata"]["generation"]), (&json!(5), &json!(2)));
}

#[tokio::test]
async fn tables_have_the_columns_of_the_definition() {
    let mut definition = foos(&spec(&json!({"n": {"type": "integer"}, "s": {"type": "string"}})));
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
        {"name": "S", "type": "string", "jsonPath": ".spec.s", "priority": 1, "description": "the text"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let api = with(&definition).await;
    api.make(FOOS, &foo("x", &json!({"n": 3}))).await;
    let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = api.call_as(crate::admin(), Method::GET, FOOS, &accept, "").await.json();
    let columns: Vec<&Value> =
        table["columnDefinitions"].as_array().expect("columns").iter().map(|column| &column["name"]).collect();
    assert_eq!(columns, ["Name", "N", "S", "Age"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[1], &cells[2]), (&json!("x"), &json!(3), &Value::Null));
}

#[tokio::test]
async fn selectors_reach_the_fields_that_the_definition_names() {
    let mut definition = foos(&spec(&json!({"color": {"type": "string"}, "n": {"type": "integer"}})));
    definition["spec"]["versions"][0]["selectableFields"] =
        json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.n"}]);
    let api = with(&definition).await;
    api.make(FOOS, &foo("a", &json!({"color": "blue", "n": 1}))).await;
    api.make(FOOS, &foo("b", &json!({"color": "green", "n": 2}))).await;
    let found = api.get(&format!("{FOOS}?fieldSelector=spec.color=blue,spec.n=1")).await.json();
    assert_eq!(
        (found["items"].as_array().map(Vec::len), &found["items"][0]["metadata"]["name"]),
        (Some(1), &json!("a"))
    );
    let mut lines = api.watch(&format!("{FOOS}?watch=1&fieldSelector=spec.color=green")).await;
    assert_eq!(lines.said().await, "ADDED b");
    api.merge(&format!("{FOOS}/b"), &json!({"spec": {"color": "blue"}})).await;
    assert_eq!(lines.said().await, "DELETED b");
    assert_eq!(api.get(&format!("{FOOS}?fieldSelector=spec.size=1")).await.code.as_u16(), 400);
}

#[tokio::test]
async fn server_side_apply_knows_the_lists_of_the_schema() {
    let api = with(&foos(&spec(&json!({
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        "plain": {"type": "array", "items": {"type": "string"}},
    }))))
    .await;
    for (manager, body) in [
        ("a", foo("x", &json!({"ports": [{"name": "p", "port": 1}], "plain": ["a"]}))),
        ("b", foo("x", &json!({"ports": [{"name": "q", "port": 2}]}))),
    ] {
        let path = format!("{FOOS}/x?fieldManager={manager}");
        let reply = api.call(Method::PATCH, &path, "application/apply-patch+yaml", body.to_string()).await;
        assert!(reply.code.is_success(), "{}", reply.said());
    }
    let object = api.get(&format!("{FOOS}/x")).await.json();
    assert_eq!(object["spec"]["ports"], json!([{"name": "p", "port": 1}, {"name": "q", "port": 2}]));
    assert_eq!(object["spec"]["plain"], json!(["a"]));
    let strategic = api.call(Method::PATCH, &format!("{FOOS}/x"), "application/strategic-merge-patch+json", "{}").await;
    assert_eq!(strategic.code.as_u16(), 415, "no custom kind has a strategic merge");
}
