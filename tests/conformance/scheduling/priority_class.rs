//! PriorityClass: what of it may change.

use serde_json::json;

use crate::Test;
use crate::api::MERGE;
use crate::walk::{Walk, holds};

pub async fn a_value_stays_and_the_rest_may_change(test: &Test) {
    let path = test.everywhere("scheduling.k8s.io/v1", "priorityclasses");
    let name = test.unique("priority");
    let one = format!("{path}/{name}");
    let made = test.api.create(&path, &json!({"metadata": {"name": name}, "value": 7})).await.ok();
    let description = json!({"description": "patched"});
    holds(&test.api.patch(&one, MERGE, &description).await.ok(), &description);
    let replaced = test.api.replace(&one, |class| class["description"] = json!("replaced")).await;
    assert_eq!(replaced["description"], "replaced");
    for change in [json!({"value": 8}), json!({"preemptionPolicy": "Never"})] {
        test.api.patch(&one, MERGE, &change).await.refused(422);
        let mut class = test.api.get(&one).await.ok();
        windlass_api::merge::merge(&mut class, change);
        test.api.update(&one, &class).await.refused(422);
    }
    let found = test.api.get(&one).await.ok();
    assert_eq!((&found["value"], &found["metadata"]["uid"]), (&json!(7), &made["metadata"]["uid"]));
    test.api.delete(&one).await.ok();
    Walk::cluster(test, "scheduling.k8s.io/v1", "priorityclasses", json!({"value": 7})).whole(test).await;
}
