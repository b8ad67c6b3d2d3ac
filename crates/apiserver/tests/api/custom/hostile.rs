//! Definitions that mean harm: the server refuses them, or serves them within its bounds.

use serde_json::{Map, Value, json};

use super::{DEFINITIONS, FOOS, foo, foos, spec, with};
use crate::Api;

#[tokio::test]
async fn a_schema_of_ten_thousand_fields_is_served() {
    let fields: Map<String, Value> = (0..10_000).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
    let api = with(&foos(&spec(&Value::Object(fields)))).await;
    let made = api.make(FOOS, &foo("x", &json!({"f9999": "last", "f10000": "unknown"}))).await;
    assert_eq!(made["spec"], json!({"f9999": "last"}));
}

#[tokio::test]
async fn schemas_without_end_are_refused() {
    let api = Api::start().await;
    let many: Map<String, Value> = (0..40_000).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
    let refused = api.post(DEFINITIONS, &foos(&spec(&Value::Object(many)))).await;
    assert!(matches!(refused.code.as_u16(), 413 | 422), "{}", refused.code);
    let deep =
        (0..200).fold(json!({"type": "object"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}));
    assert_eq!(api.post(DEFINITIONS, &foos(&deep)).await.code.as_u16(), 400, "nested deeper than any body may");
}

#[tokio::test]
async fn patterns_that_explode_are_refused_and_slow_ones_are_not_slow() {
    let api = Api::start().await;
    let refused =
        api.post(DEFINITIONS, &foos(&spec(&json!({"a": {"type": "string", "pattern": "((a{100}){100}){100}"}})))).await;
    assert!(refused.said().contains("must be a valid regular expression, but isn't"), "{}", refused.said());
    api.make(DEFINITIONS, &foos(&spec(&json!({"a": {"type": "string", "pattern": "^(a+)+$"}})))).await;
    let long = format!("{}b", "a".repeat(200_000));
    assert_eq!(api.post(FOOS, &foo("x", &json!({"a": long}))).await.code.as_u16(), 422);
}

#[tokio::test]
async fn no_definition_takes_the_place_of_a_built_in_kind() {
    let api = Api::start().await;
    let mut definition = foos(&json!({"type": "object"}));
    definition["metadata"] = json!({
        "name": "leases.coordination.k8s.io", "annotations": {"api-approved.kubernetes.io": "https://example.com/1"},
    });
    definition["spec"]["group"] = json!("coordination.k8s.io");
    definition["spec"]["names"] = json!({"plural": "leases", "kind": "Lease"});
    let made = api.make(DEFINITIONS, &definition).await;
    assert_eq!(super::condition(&made, "Established"), "False NotAccepted");
    let lease = json!({"metadata": {"name": "x"}, "spec": {"leaseDurationSeconds": -1}});
    let refused = api.post("/apis/coordination.k8s.io/v1/namespaces/default/leases", &lease).await;
    assert_eq!(refused.code.as_u16(), 422, "the built-in rules hold");
}
