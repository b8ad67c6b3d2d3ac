//! Secret: its patches, and what it may not hold.

use serde_json::json;

use crate::Test;
use crate::api::STRATEGIC;
use crate::walk::holds;

pub async fn a_secret_is_patched(test: &Test) {
    let path = test.path("v1", "secrets");
    let label = json!({"test": test.namespace});
    let object =
        json!({"metadata": {"name": "patched", "labels": label}, "type": "Opaque", "data": {"key": "dmFsdWU="}});
    test.api.create(&path, &object).await.ok();
    let everywhere = format!("{}?labelSelector=test%3D{}", test.everywhere("v1", "secrets"), test.namespace);
    let list = test.api.get(&everywhere).await.ok();
    assert_eq!(list["items"][0]["metadata"]["name"], "patched");
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}, "data": {"key": "bmV3"}});
    test.api.patch(&format!("{path}/patched"), STRATEGIC, &patch).await.ok();
    let found = test.api.get(&format!("{path}/patched")).await.ok();
    holds(&found, &patch);
    holds(&found, &json!({"metadata": {"labels": label}, "type": "Opaque"}));
    test.api.delete(&format!("{path}?labelSelector=test%3D{}", test.namespace)).await.ok();
    let list = test.api.get(&everywhere).await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(0));
}

pub async fn no_key_is_empty(test: &Test) {
    let object = json!({"metadata": {"name": "empty-key"}, "data": {"": "dmFsdWU="}});
    let message = test.api.create(&test.path("v1", "secrets"), &object).await.refused(422);
    assert!(message.contains("data"), "{message}");
}
