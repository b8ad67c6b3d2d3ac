//! Endpoints: their life.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::walk::holds;

pub async fn endpoints_live(test: &Test) {
    let path = test.path("v1", "endpoints");
    let selected = "labelSelector=test%3Dlife";
    let mut events = test.api.watch(&path, selected).await;
    let object = json!({"metadata": {"name": "life", "labels": {"test": "life"}}, "subsets": [{
        "addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]});
    test.api.create(&path, &object).await.ok();
    events.expect("ADDED").await;
    let one = format!("{path}/life");
    test.api.replace(&one, |object| object["metadata"]["labels"]["updated"] = json!("yes")).await;
    events.until("MODIFIED", |object: &Value| object["metadata"]["labels"]["updated"] == "yes").await;
    let patch = json!({"subsets": [{
        "addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080, "protocol": "TCP"}]}]});
    test.api.patch(&one, MERGE, &patch).await.ok();
    events.until("MODIFIED", |object: &Value| object["subsets"][0]["addresses"][0]["ip"] == "10.0.0.25").await;
    holds(&test.api.get(&one).await.ok(), &patch);
    test.api.delete(&format!("{path}?{selected}")).await.ok();
    events.expect("DELETED").await;
    test.api.until_gone(&one).await;
}
