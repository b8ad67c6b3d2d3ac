//! ConfigMap: its life, and what it may not hold.

use serde_json::json;

use crate::Test;
use crate::walk::{Walk, holds};

fn row(test: &Test) -> Walk {
    Walk::namespaced(test, "v1", "configmaps", json!({"data": {"a": "1"}})).change(json!({"data": {"a": "2"}}))
}

pub async fn a_config_map_lives(test: &Test) {
    row(test).whole(test).await;
}

pub async fn a_config_map_is_updated(test: &Test) {
    let path = test.path("v1", "configmaps");
    test.api.create(&path, &json!({"metadata": {"name": "updated"}, "data": {"a": "1"}})).await.ok();
    let one = format!("{path}/updated");
    test.api.replace(&one, |object| object["data"] = json!({"b": "2"})).await;
    let found = test.api.get(&one).await.ok();
    assert_eq!(found["data"], json!({"b": "2"}));
    holds(&found, &json!({"metadata": {"name": "updated"}}));
}

pub async fn no_key_is_empty(test: &Test) {
    let object = json!({"metadata": {"name": "empty-key"}, "data": {"": "1"}});
    let message = test.api.create(&test.path("v1", "configmaps"), &object).await.refused(422);
    assert!(message.contains("data"), "{message}");
}
