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
    // An applied scale sets the same field, owns it, and is checked like one that was put.
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"}, "spec": {"replicas": replicas}});
    let apply = "application/apply-patch+yaml";
    let to = format!("{path}/scale?fieldManager=scaler&force=true");
    let applied = api.call(Method::PATCH, &to, apply, scale(7).to_string()).await;
    assert_eq!((applied.said().as_str(), &applied.json()["spec"]["replicas"]), ("200", &json!(7)));
    let now = api.get(&path).await.json();
    assert_eq!(now["spec"], json!({"n": 7}));
    let owns = |entry: &Value| entry["manager"] == "scaler" && entry["fieldsV1"]["f:spec"]["f:n"].is_object();
    assert!(now["metadata"]["managedFields"].as_array().expect("owners").iter().any(owns), "{now}");
    let refused = api.call(Method::PATCH, &to, apply, scale(-1).to_string()).await;
    assert_eq!(errors(&refused), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
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

/// A definition whose schema has these properties of spec and of status, with a status of its own.
fn with_status(properties: &Value, status: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties}, "status": {"type": "object", "properties": status}}});
    let mut definition = foos(&schema);
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    definition
}

/// KEP-4008: what stands where it stood is not looked at again, and an item of a map stands by its key.
#[tokio::test]
async fn an_item_that_moves_stays_accepted_and_one_that_changes_does_not() {
    let list = |max: u64| {
        json!({"map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties":
                {"name": {"type": "string"}, "v": {"type": "string", "maxLength": max}}}},
            "atomic": {"type": "array", "items": {"type": "string", "maxLength": max}}})
    };
    let none = json!({});
    let api = with(&with_status(&list(9), &none)).await;
    let (long, short) = (json!({"name": "a", "v": "too-long"}), json!({"name": "b", "v": "x"}));
    api.make(FOOS, &foo("x", &json!({"map": [long, short], "atomic": ["too-long", "x"]}))).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let tightened = with_status(&list(3), &none)["spec"].take();
    assert_eq!(api.merge(&path, &json!({"spec": tightened})).await.said(), "200");
    let object = format!("{FOOS}/x");
    let moved = json!([{"name": "c", "v": "new"}, {"name": "b", "v": "y"}, long]);
    assert_eq!(api.merge(&object, &json!({"spec": {"map": moved}})).await.said(), "200", "the long one only moved");
    let other = json!([{"name": "a", "v": "other-long"}]);
    let refused = api.merge(&object, &json!({"spec": {"map": other}})).await;
    assert_eq!(errors(&refused), "spec.map[0].v: Too long: may not be more than 3 bytes");
    let renamed = json!([{"name": "d", "v": "too-long"}]);
    let refused = api.merge(&object, &json!({"spec": {"map": renamed}})).await;
    assert_eq!(errors(&refused), "spec.map[0].v: Too long: may not be more than 3 bytes", "it is another item");
    // Items of other lists have no keys: what is in a changed list is new.
    let refused = api.merge(&object, &json!({"spec": {"atomic": ["x", "too-long"]}})).await;
    assert_eq!(errors(&refused), "spec.atomic[1]: Too long: may not be more than 3 bytes");
}

#[tokio::test]
async fn a_status_that_stays_as_it_was_stays_accepted() {
    let status = |max: u64| json!({"a": {"type": "string", "maxLength": max}, "b": {"type": "string"}});
    let api = with(&with_status(&json!({}), &status(9))).await;
    api.make(FOOS, &foo("x", &json!({}))).await;
    let part = format!("{FOOS}/x/status");
    assert_eq!(api.merge(&part, &json!({"status": {"a": "too-long"}})).await.said(), "200");
    let tightened = with_status(&json!({}), &status(3))["spec"].take();
    let path = format!("{DEFINITIONS}/foos.example.com");
    assert_eq!(api.merge(&path, &json!({"spec": tightened})).await.said(), "200");
    assert_eq!(api.merge(&part, &json!({"status": {"b": "y"}})).await.said(), "200");
    let refused = api.merge(&part, &json!({"status": {"a": "other"}})).await;
    assert_eq!(errors(&refused), "status.a: Too long: may not be more than 3 bytes");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(api.merge(&format!("{FOOS}/x"), &labelled).await.said(), "200", "nor does it hold up the rest");
}

#[tokio::test]
async fn fields_written_twice_are_told_in_embedded_objects_too_and_by_every_form_of_patch() {
    let embedded = json!({"e": {"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true}, "n": {"type": "integer"}});
    let api = with(&foos(&spec(&embedded))).await;
    let body = |name: &str| {
        format!(
            r#"{{"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {{"name": "{name}"}}, "spec":
                {{"e": {{"apiVersion": "v1", "kind": "ConfigMap", "data": {{"a": "1", "a": "2"}}}}}}}}"#
        )
    };
    let strict = format!("{FOOS}?fieldValidation=Strict");
    let refused = api.call(Method::POST, &strict, "application/json", body("x")).await;
    assert!(refused.said().contains(r#"duplicate field "spec.e.data.a""#), "{}", refused.said());
    let warned = api.call(Method::POST, FOOS, "application/json", body("x")).await;
    let warning = warned.headers.get("warning").and_then(|warning| warning.to_str().ok()).unwrap_or_default();
    assert!(warned.code == 201 && warning.contains("spec.e.data.a"), "{} {warning}", warned.said());
    assert_eq!(warned.json()["spec"]["e"]["data"]["a"], "2", "the last one counts");
    let path = format!("{FOOS}/x?fieldValidation=Strict&fieldManager=me");
    for (media, patch) in [
        ("merge-patch+json", r#"{"spec": {"n": 1, "n": 2}}"#),
        (
            "json-patch+json",
            r#"[{"op": "add", "path": "/spec/e", "value": {"apiVersion": "v1", "kind": "A", "x": 1, "x": 2}}]"#,
        ),
        (
            "apply-patch+yaml",
            r#"{"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}, "spec": {"n": 1, "n": 2}}"#,
        ),
    ] {
        let refused = api.call(Method::PATCH, &path, &format!("application/{media}"), patch).await;
        assert_eq!(refused.code, 400, "{media}: {}", refused.said());
        assert!(refused.said().contains("duplicate field") || refused.said().contains("already"), "{}", refused.said());
    }
    assert!(api.get(&format!("{FOOS}/x")).await.json()["spec"].get("n").is_none(), "nothing of it was kept");
}
