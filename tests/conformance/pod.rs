//! A pod that no node takes, for tests of what happens to its object.

use serde_json::{Value, json};

/// A specification whose selector no node matches.
pub fn spec() -> Value {
    json!({"nodeSelector": {"conformance.example.com/no": "node"},
        "containers": [{"name": "main", "image": "example.com/none:1"}]})
}

/// A template with the label `app`.
pub fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": spec()})
}

/// A pod with the label `app`.
pub fn named(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec()})
}
