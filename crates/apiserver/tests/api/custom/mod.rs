//! Custom kinds: from a definition to objects, through the whole server.

mod definition;
mod hostile;
mod object;
mod rule;
mod version;

use serde_json::{Value, json};

use crate::Api;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

/// A definition of `foos.example.com` with this schema.
fn foos(schema: &Value) -> Value {
    named("foos", "Foo", schema)
}

fn named(plural: &str, kind: &str, schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn foo(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": spec})
}

/// A schema whose spec has these properties.
fn spec(properties: &Value) -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties}, "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }})
}

/// A server with `foos.example.com`.
async fn with(definition: &Value) -> Api {
    let api = Api::start().await;
    api.make(DEFINITIONS, definition).await;
    api
}

/// `True Reason` of a condition.
fn condition(definition: &Value, kind: &str) -> String {
    let conditions = definition["status"]["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| {
        let text = |field: &str| found[field].as_str().expect("a text").to_owned();
        format!("{} {}", text("status"), text("reason"))
    })
}
