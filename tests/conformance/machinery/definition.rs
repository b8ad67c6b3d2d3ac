//! Custom kinds: their definitions, and what becomes of their objects.

use serde_json::{Value, json};

use super::discovery::{aggregated, find};
use crate::Test;
use crate::api::{JSON_PATCH, MERGE, Reply};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of a kind that no other test has.
pub struct Definition {
    pub group: String,
    pub object: Value,
}

impl Definition {
    /// A kind `Foo` of objects in namespaces, in a group of its own, with these versions.
    pub fn new(test: &Test, versions: Value) -> Definition {
        Definition::named(&format!("{}.example.com", test.unique("g")), "Foo", versions)
    }

    /// The same in a group that is known.
    pub fn named(group: &str, kind: &str, versions: Value) -> Definition {
        let singular = kind.to_lowercase();
        let names = json!({"plural": format!("{singular}s"), "singular": singular, "kind": kind,
            "listKind": format!("{kind}List")});
        let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{singular}s.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions}});
        Definition { group: group.to_owned(), object }
    }

    /// Where the definition is.
    pub fn path(&self) -> String {
        format!("{DEFINITIONS}/{}", self.object["metadata"]["name"].as_str().expect("a name"))
    }

    /// Where its objects are, in the test's namespace.
    pub fn objects(&self, test: &Test) -> String {
        let version = self.object["spec"]["versions"][0]["name"].as_str().expect("a version");
        let plural = self.object["spec"]["names"]["plural"].as_str().expect("a plural");
        test.path(&format!("{}/{version}", self.group), plural)
    }

    /// An object of it with these fields.
    pub fn object(&self, name: &str, fields: Value) -> Value {
        let (version, kind) = (&self.object["spec"]["versions"][0]["name"], &self.object["spec"]["names"]["kind"]);
        let version = format!("{}/{}", self.group, version.as_str().expect("a version"));
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
        let fields = fields.as_object().expect("fields").clone();
        object.as_object_mut().expect("an object").extend(fields);
        object
    }

    /// Makes it and waits until it is served.
    pub async fn make(&self, test: &Test) {
        test.api.create(DEFINITIONS, &self.object).await.ok();
        test.api.until(&self.path(), "established", is_established).await;
        test.api.until(&self.objects(test), "served", |reply| reply.code.is_success()).await;
    }
}

fn is_established(reply: &Reply) -> bool {
    let conditions = reply.json()["status"]["conditions"].clone();
    let is_it = |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
    conditions.as_array().is_some_and(|conditions| conditions.iter().any(is_it))
}

/// The only version of a kind: `v1`, with this schema.
pub fn v1(schema: Value) -> Value {
    json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}])
}

/// A schema that takes everything.
pub fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

pub async fn a_definition_is_made_and_deleted(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    test.api.delete(&definition.path()).await.ok();
    test.api.until_gone(&definition.path()).await;
    test.api.until_gone(&definition.objects(test)).await;
}

pub async fn objects_of_custom_kinds_are_watched(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let path = definition.objects(test);
    let mut events = test.api.watch(&path, "").await;
    for name in ["a", "b"] {
        test.api.create(&path, &definition.object(name, json!({}))).await.ok();
        assert_eq!(events.expect("ADDED").await["metadata"]["name"], name);
        test.api.patch(&format!("{path}/{name}"), MERGE, &json!({"spec": {"changed": true}})).await.ok();
        assert_eq!(events.expect("MODIFIED").await["spec"]["changed"], true);
        test.api.delete(&format!("{path}/{name}")).await.ok();
        assert_eq!(events.expect("DELETED").await["metadata"]["name"], name);
    }
    test.api.delete(&definition.path()).await.ok();
}

pub async fn the_status_of_a_definition_is_read_patched_and_updated(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let status = format!("{}/status", definition.path());
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a test"});
    let of = |object: &Value, kind: &str| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == kind)
    };
    assert!(of(&test.api.get(&status).await.ok(), "Established"));
    let add = |object: &mut Value| {
        object["status"]["conditions"].as_array_mut().expect("conditions").push(condition("Updated"));
    };
    assert!(of(&test.api.replace(&status, add).await, "Updated"));
    assert!(of(&test.api.get(&status).await.ok(), "Updated"));
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": condition("Patched")}]);
    assert!(of(&test.api.patch(&status, JSON_PATCH, &patch).await.ok(), "Patched"));
    let found = test.api.get(&definition.path()).await.ok();
    assert!(of(&found, "Patched") && of(&found, "Updated") && of(&found, "Established"), "{}", found["status"]);
    test.api.delete(&definition.path()).await.ok();
}

pub async fn definitions_are_listed_and_deleted_by_label(test: &Test) {
    let group = format!("{}.example.com", test.unique("list"));
    let mut paths = Vec::new();
    for number in 0..10 {
        let mut definition = Definition::named(&group, &format!("Kind{number}"), v1(anything()));
        definition.object["metadata"]["labels"] = json!({"test": test.namespace});
        definition.make(test).await;
        paths.push(definition.path());
    }
    let other = Definition::named(&group, "Other", v1(anything()));
    other.make(test).await;
    let selected = format!("{DEFINITIONS}?labelSelector=test%3D{}", test.namespace);
    assert_eq!(test.api.get(&selected).await.ok()["items"].as_array().map(Vec::len), Some(10));
    test.api.delete(&selected).await.ok();
    for path in &paths {
        test.api.until_gone(path).await;
    }
    test.api.get(&other.path()).await.ok();
    test.api.delete(&other.path()).await.ok();
}

pub async fn objects_are_defaulted_when_written_and_when_read(test: &Test) {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let definition = Definition::new(test, v1(schema));
    definition.make(test).await;
    let path = definition.objects(test);
    test.api.create(&path, &definition.object("first", json!({}))).await.ok();
    let at = |field: &str| format!("/spec/versions/0/schema/openAPIV3Schema/properties/{field}/default");
    let add = |field: &str, value: &str| json!({"op": "add", "path": at(field), "value": value});
    test.api.patch(&definition.path(), JSON_PATCH, &json!([add("a", "A")])).await.ok();
    let first = format!("{path}/first");
    test.api.until(&first, "defaulted", |reply| reply.json()["a"] == "A").await;
    let second = test.api.create(&path, &definition.object("second", json!({}))).await.ok();
    assert_eq!(second["a"], "A");
    let patch = json!([{"op": "remove", "path": at("a")}, add("b", "B")]);
    test.api.patch(&definition.path(), JSON_PATCH, &patch).await.ok();
    let second = test.api.until(&format!("{path}/second"), "defaulted", |reply| reply.json()["b"] == "B").await;
    assert_eq!(second.json()["a"], "A", "what was written with the object stays");
    let first = test.api.get(&first).await.ok();
    assert_eq!((&first["a"], &first["b"]), (&Value::Null, &json!("B")), "what was only shown goes");
    test.api.delete(&definition.path()).await.ok();
}

pub async fn definitions_are_found_by_discovery(test: &Test) {
    let groups = test.api.get("/apis").await.ok();
    let group = groups["groups"].as_array().into_iter().flatten().find(|group| group["name"] == "apiextensions.k8s.io");
    let has_v1 = |group: &Value| group["versions"].to_string().contains(r#""apiextensions.k8s.io/v1""#);
    assert!(group.is_some_and(has_v1), "{groups}");
    assert!(has_v1(&test.api.get("/apis/apiextensions.k8s.io").await.ok()));
    let resources = test.api.get("/apis/apiextensions.k8s.io/v1").await.ok();
    let is_it = |resource: &Value| resource["name"] == "customresourcedefinitions";
    assert!(resources["resources"].as_array().is_some_and(|resources| resources.iter().any(is_it)), "{resources}");
}

/// A custom kind is in the aggregated documents, with its scope and verbs.
pub async fn one_document_names_custom_kinds(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let groups = aggregated(test).await;
    let resource = find(&groups, &definition.group, "v1", "foos").expect("the custom kind");
    let kind = json!({"group": definition.group, "version": "v1", "kind": "Foo"});
    assert_eq!((&resource["responseKind"], &resource["scope"]), (&kind, &json!("Namespaced")));
    assert!(resource["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("watch"))), "{resource}");
    test.api.delete(&definition.path()).await.ok();
}

/// The same document as a client reads it that only lists groups, versions and resources.
pub async fn a_custom_kind_is_in_every_document(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let groups = test.api.get("/apis").await.ok().to_string();
    assert!(groups.contains(&definition.group), "{groups}");
    let resources = test.api.get(&format!("/apis/{}/v1", definition.group)).await.ok();
    assert_eq!(resources["resources"][0]["name"], "foos");
    assert!(find(&aggregated(test).await, &definition.group, "v1", "foos").is_some());
    test.api.delete(&definition.path()).await.ok();
    let path = format!("/apis/{}/v1", definition.group);
    test.api.until_gone(&path).await;
    assert!(find(&aggregated(test).await, &definition.group, "v1", "foos").is_none());
}

pub async fn objects_are_selected_by_fields(test: &Test) {
    let schema = json!({"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "string"}}});
    let mut versions = v1(schema);
    versions[0]["selectableFields"] = json!([{"jsonPath": ".host"}, {"jsonPath": ".port"}]);
    let definition = Definition::new(test, versions);
    definition.make(test).await;
    let path = definition.objects(test);
    let mut of_host = test.api.watch(&path, "fieldSelector=host%3Dhost1").await;
    let mut of_both = test.api.watch(&path, "fieldSelector=host%3Dhost1,port%3D80").await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "80")] {
        let fields = json!({"host": host, "port": port});
        test.api.create(&path, &definition.object(name, fields)).await.ok();
    }
    let listed = async |selector: &str| {
        let list = test.api.get(&format!("{path}?fieldSelector={selector}")).await.ok();
        let items = list["items"].as_array().cloned().expect("items");
        items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("host%3Dhost1").await, ["a", "b"]);
    assert_eq!(listed("host%3Dhost1,port%3D80").await, ["a"]);
    assert_eq!(listed("host!%3Dhost1").await, ["c"]);
    for name in ["a", "b"] {
        assert_eq!(of_host.expect("ADDED").await["metadata"]["name"], name);
    }
    assert_eq!(of_both.expect("ADDED").await["metadata"]["name"], "a");
    test.api.patch(&format!("{path}/a"), MERGE, &json!({"host": "host2"})).await.ok();
    assert_eq!(of_host.expect("DELETED").await["metadata"]["name"], "a");
    assert_eq!(of_both.expect("DELETED").await["metadata"]["name"], "a");
    assert_eq!(listed("host%3Dhost1").await, ["b"]);
    test.api.delete(&format!("{path}?fieldSelector=host%3Dhost1")).await.ok();
    assert_eq!(of_host.expect("DELETED").await["metadata"]["name"], "b");
    assert_eq!(listed("host%3Dhost2").await, ["a", "c"]);
    test.api.get(&format!("{path}?fieldSelector=weight%3D1")).await.refused(400);
    test.api.delete(&definition.path()).await.ok();
}
