//! ControllerRevision: the life of revisions that a test makes. Those of a DaemonSet are its controller's.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;

fn revision(name: &str, number: i64) -> Value {
    json!({"metadata": {"name": name, "labels": {"of": "daemon"}}, "revision": number,
        "data": {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": format!("none:{number}")}]}}}}})
}

pub async fn revisions_live(test: &Test) {
    let path = test.path("apps/v1", "controllerrevisions");
    let selected = format!("{path}?labelSelector=of%3Ddaemon");
    let count = async || test.api.get(&selected).await.ok()["items"].as_array().map_or(0, Vec::len);
    test.api.create(&path, &revision("first", 1)).await.ok();
    assert_eq!(count().await, 1);
    let first = format!("{path}/first");
    test.api.patch(&first, MERGE, &json!({"metadata": {"labels": {"first": "patched"}}})).await.ok();
    assert_eq!(test.api.get(&first).await.ok()["metadata"]["labels"]["first"], "patched");
    test.api.create(&path, &revision("second", 2)).await.ok();
    assert_eq!(count().await, 2);
    test.api.delete(&first).await.ok();
    test.api.until_gone(&first).await;
    assert_eq!(count().await, 1);
    let second = format!("{path}/second");
    let updated = test.api.replace(&second, |found| found["metadata"]["labels"]["second"] = json!("updated")).await;
    assert_eq!(updated["metadata"]["labels"]["second"], "updated");
    let changed = test.api.patch(&second, MERGE, &json!({"data": {"spec": null}})).await;
    assert_eq!(changed.code, 422, "what a revision holds stays");
    test.api.create(&path, &revision("third", 3)).await.ok();
    test.api.delete(&format!("{path}?labelSelector=second%3Dupdated")).await.ok();
    test.api.until_gone(&second).await;
    let left = test.api.get(&selected).await.ok();
    assert_eq!((left["items"].as_array().map(Vec::len), &left["items"][0]["revision"]), (Some(1), &json!(3)));
}
