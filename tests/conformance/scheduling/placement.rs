//! A pod that no node suits.

use serde_json::json;

use crate::{Test, pod};

pub async fn a_pod_that_no_node_suits_waits_and_says_why(test: &Test) {
    let path = test.path("v1", "pods");
    test.api.create(&path, &pod::named("waiting", "waiting")).await.ok();
    let condition = |reply: &crate::api::Reply| {
        let conditions = reply.json()["status"]["conditions"].clone();
        conditions
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["type"] == "PodScheduled")
            .cloned()
            .unwrap_or_default()
    };
    let one = format!("{path}/waiting");
    let found = test.api.until(&one, "judged", |reply| condition(reply)["status"] == "False").await;
    assert_eq!(condition(&found)["reason"], "Unschedulable");
    assert_eq!(found.json()["spec"]["nodeName"], json!(null));
}
