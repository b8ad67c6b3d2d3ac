//! The scale of a workload, whatever its kind.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;

/// The scale is read, replaced and patched, and the replicas of the specification follow.
pub async fn is_the_replicas(test: &Test, version: &str, plural: &str, mut object: Value) {
    object["metadata"]["name"] = json!("scaled");
    object["spec"]["replicas"] = json!(1);
    let path = test.path(version, plural);
    let made = test.api.create(&path, &object).await.ok();
    let one = format!("{path}/scaled");
    let scale = format!("{one}/scale");
    let found = test.api.get(&scale).await.ok();
    assert_eq!((&found["kind"], &found["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&found["spec"]["replicas"], &found["metadata"]["uid"]), (&json!(1), &made["metadata"]["uid"]));
    assert_eq!(found["status"]["selector"], "app=scaled");

    let replaced = test.api.replace(&scale, |scale| scale["spec"]["replicas"] = json!(2)).await;
    assert_eq!(replaced["spec"]["replicas"], 2);
    assert_eq!(test.api.get(&one).await.ok()["spec"]["replicas"], 2);
    let patched = test.api.patch(&scale, MERGE, &json!({"spec": {"replicas": 4}})).await.ok();
    assert_eq!(patched["spec"]["replicas"], 4);
    assert_eq!(test.api.get(&one).await.ok()["spec"]["replicas"], 4);
    assert_eq!(test.api.get(&scale).await.ok()["spec"]["replicas"], 4);
}
