//! The published schemas of custom kinds: what kubectl checks against and explains from.

use serde_json::{Value, json};

use super::definition::{Definition, anything, v1};
use crate::Test;
use crate::api::{JSON_PATCH, Reply};

/// Where the document of a version is.
fn document(group: &str, version: &str) -> String {
    format!("/openapi/v3/apis/{group}/{version}")
}

/// The schema of a kind in a document.
fn schema(document: &Value, kind: &str) -> Option<Value> {
    let schemas = document["components"]["schemas"].as_object()?;
    let is_of = |schema: &&Value| schema["x-kubernetes-group-version-kind"][0]["kind"] == kind;
    schemas.values().find(is_of).cloned()
}

/// Waits until a kind is published; gives its schema.
async fn published(test: &Test, group: &str, version: &str, kind: &str) -> Value {
    let has = |reply: &Reply| reply.code.is_success() && schema(&reply.json(), kind).is_some();
    let found = test.api.until(&document(group, version), "published", has).await;
    let index = test.api.get("/openapi/v3").await.ok();
    assert!(index["paths"][format!("apis/{group}/{version}")].is_object(), "{group}/{version} is in the index");
    let old = test.api.get("/openapi/v2").await.ok();
    let is_it = |schema: &Value| {
        let of = &schema["x-kubernetes-group-version-kind"][0];
        of["group"] == group && of["version"] == version && of["kind"] == kind
    };
    assert!(old["definitions"].as_object().is_some_and(|all| all.values().any(is_it)), "{kind} is in the old document");
    schema(&found.json(), kind).expect("it was found")
}

/// Waits until a version is published no more.
async fn unpublished(test: &Test, group: &str, version: &str) {
    let path = format!("apis/{group}/{version}");
    test.api.until("/openapi/v3", "without it", |reply| reply.json()["paths"].get(&path).is_none()).await;
    test.api.until_gone(&document(group, version)).await;
}

/// A strict write, as kubectl makes it.
async fn strict(test: &Test, definition: &Definition, name: &str, fields: Value) -> Reply {
    let path = format!("{}?fieldValidation=Strict", definition.objects(test));
    test.api.create(&path, &definition.object(name, fields)).await
}

pub async fn a_schema_is_published_and_kept(test: &Test) {
    let bar = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "description": "Name of Bar."}, "age": {"type": "string"},
        "bazs": {"type": "array", "items": {"type": "string"}, "description": "List of Bazs."}}});
    let spec = json!({"type": "object", "description": "Specification of Foo", "properties": {
        "bars": {"type": "array", "items": bar, "description": "List of Bars and their specs."}}});
    let root = json!({"type": "object", "description": "Foo CRD for Testing", "properties": {"spec": spec}});
    let definition = Definition::new(test, v1(root));
    definition.make(test).await;
    let found = published(test, &definition.group, "v1", "Foo").await;
    assert_eq!(found["description"], "Foo CRD for Testing");
    let bars = &found["properties"]["spec"]["properties"]["bars"];
    assert_eq!(bars["description"], "List of Bars and their specs.");
    assert_eq!(bars["items"]["properties"]["name"]["description"], "Name of Bar.");
    assert_eq!(bars["items"]["required"], json!(["name"]));
    assert!(found["properties"]["metadata"].to_string().contains("ObjectMeta"), "{}", found["properties"]);
    let good = json!({"spec": {"bars": [{"name": "test-bar", "age": "10", "bazs": ["a"]}]}});
    strict(test, &definition, "good", good).await.ok();
    let unknown = json!({"spec": {"bars": [{"name": "test-bar", "feeling": "great"}]}});
    let refused = strict(test, &definition, "unknown", unknown).await.refused(400);
    assert!(refused.contains(r#"unknown field "spec.bars[0].feeling""#), "{refused}");
    let missing = strict(test, &definition, "missing", json!({"spec": {"bars": [{"age": "10"}]}})).await.refused(422);
    assert!(missing.contains("spec.bars[0].name: Required value"), "{missing}");
    test.api.delete(&definition.path()).await.ok();
}

/// A kind with this schema takes these fields, and says where it takes any.
async fn takes_anything(test: &Test, schema: Value, fields: Value, where_any: &str) {
    let definition = Definition::new(test, v1(schema));
    definition.make(test).await;
    let found = published(test, &definition.group, "v1", "Foo").await;
    let part = found.pointer(where_any).expect("the part is published");
    assert_eq!(part["x-kubernetes-preserve-unknown-fields"], true, "{found}");
    let made = strict(test, &definition, "any", fields.clone()).await.ok();
    for (field, value) in fields.as_object().expect("fields") {
        assert_eq!(made[field], *value);
    }
    test.api.delete(&definition.path()).await.ok();
}

pub async fn a_kind_without_schema_takes_anything(test: &Test) {
    let fields = json!({"a": {"b": [{"c": "d"}]}, "spec": {"x": 1}});
    takes_anything(test, anything(), fields, "").await;
}

pub async fn a_kind_that_preserves_at_its_root_takes_anything(test: &Test) {
    let mut schema = anything();
    schema["description"] = json!("preserve-unknown-properties at root for Testing");
    schema["properties"] = json!({"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    takes_anything(test, schema, json!({"other": {"b": 1}, "spec": {"x": [1, 2]}}), "").await;
}

pub async fn a_kind_that_preserves_in_an_object_takes_anything_there(test: &Test) {
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": embedded}});
    let inside = json!({"apiVersion": "v1", "kind": "Sandbox", "metadata": {"name": "inside"}, "b": [{"c": "d"}]});
    takes_anything(test, schema, json!({"spec": inside}), "/properties/spec").await;
}

/// Versions that take anything; the first is stored.
fn versions(names: &[&str]) -> Value {
    let version = |(at, name): (usize, &&str)| {
        json!({"name": name, "served": true, "storage": at == 0,
            "schema": {"openAPIV3Schema": {"type": "object", "description": format!("as of {name}")}}})
    };
    names.iter().enumerate().map(version).collect()
}

async fn all_published(test: &Test, definitions: &[&Definition]) {
    for definition in definitions {
        definition.make(test).await;
    }
    for definition in definitions {
        let kind = definition.object["spec"]["names"]["kind"].as_str().expect("a kind");
        for version in definition.object["spec"]["versions"].as_array().expect("versions") {
            let version = version["name"].as_str().expect("a name");
            let found = published(test, &definition.group, version, kind).await;
            assert_eq!(found["description"], format!("as of {version}"));
        }
    }
}

async fn clean(test: &Test, definitions: &[&Definition]) {
    for definition in definitions {
        test.api.delete(&definition.path()).await.ok();
        test.api.until_gone(&definition.path()).await;
    }
}

pub async fn kinds_of_different_groups_are_published(test: &Test) {
    let group = |word: &str| format!("{}.example.com", test.unique(word));
    let one = Definition::named(&group("one"), "Foo", versions(&["v1"]));
    let other = Definition::named(&group("other"), "Waldo", versions(&["v1beta1"]));
    all_published(test, &[&one, &other]).await;
    clean(test, &[&one, &other]).await;
    unpublished(test, &one.group, "v1").await;
}

pub async fn kinds_of_one_version_are_published(test: &Test) {
    let one = Definition::new(test, versions(&["v6"]));
    let other = Definition::named(&one.group, "Waldo", versions(&["v6"]));
    all_published(test, &[&one, &other]).await;
    clean(test, &[&one, &other]).await;
}

pub async fn versions_of_kinds_are_published(test: &Test) {
    let one = Definition::new(test, versions(&["v2", "v3"]));
    let other = Definition::named(&one.group, "Waldo", versions(&["v4"]));
    let another = Definition::named(&one.group, "Plugh", versions(&["v5"]));
    all_published(test, &[&one, &other, &another]).await;
    clean(test, &[&one, &other, &another]).await;
}

pub async fn a_version_is_published_by_its_new_name(test: &Test) {
    let definition = Definition::new(test, versions(&["v2", "v3"]));
    all_published(test, &[&definition]).await;
    let rename = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    test.api.patch(&definition.path(), JSON_PATCH, &rename).await.ok();
    assert_eq!(published(test, &definition.group, "v4", "Foo").await["description"], "as of v3");
    unpublished(test, &definition.group, "v3").await;
    assert_eq!(published(test, &definition.group, "v2", "Foo").await["description"], "as of v2");
    clean(test, &[&definition]).await;
}

pub async fn a_version_that_is_not_served_is_not_published(test: &Test) {
    let definition = Definition::new(test, versions(&["v5", "v6alpha1"]));
    all_published(test, &[&definition]).await;
    let stop = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    test.api.patch(&definition.path(), JSON_PATCH, &stop).await.ok();
    unpublished(test, &definition.group, "v6alpha1").await;
    published(test, &definition.group, "v5", "Foo").await;
    clean(test, &[&definition]).await;
}
