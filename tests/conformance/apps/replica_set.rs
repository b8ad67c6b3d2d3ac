//! ReplicaSet: its life, status and scale.

use serde_json::{Value, json};

use super::scale;
use crate::api::{MERGE, Reply};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn object(app: &str) -> Value {
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": app}}, "template": pod::template(app)}})
}

fn row(test: &Test) -> Walk {
    Walk::namespaced(test, "apps/v1", "replicasets", object("walk"))
        .change(json!({"spec": {"minReadySeconds": 7}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

pub async fn the_scale_is_the_replicas(test: &Test) {
    scale::is_the_replicas(test, "apps/v1", "replicasets", object("scaled")).await;
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn a_set_is_replaced_and_patched(test: &Test) {
    row(test).lives(test).await;
}

pub async fn matching_pods_are_adopted_and_others_released(test: &Test) {
    let pods = test.path("v1", "pods");
    test.api.create(&pods, &pod::named("orphan", "adopted")).await.ok();
    let mut set = object("adopted");
    set["metadata"]["name"] = json!("adopting");
    set["spec"]["replicas"] = json!(1);
    let set = test.api.create(&test.path("apps/v1", "replicasets"), &set).await.ok();
    let is_owned = |reply: &Reply| {
        let owners = reply.json()["metadata"]["ownerReferences"].clone();
        owners.as_array().into_iter().flatten().any(|owner| owner["uid"] == set["metadata"]["uid"])
    };
    let orphan = format!("{pods}/orphan");
    test.api.until(&orphan, "adopted", is_owned).await;
    test.api.patch(&orphan, MERGE, &json!({"metadata": {"labels": {"app": "another"}}})).await.ok();
    test.api.until(&orphan, "released", |reply| !is_owned(reply)).await;
    let selected = format!("{pods}?labelSelector=app%3Dadopted");
    let has_one = |reply: &Reply| reply.json()["items"].as_array().map(Vec::len) == Some(1);
    test.api.until(&selected, "made good", has_one).await;
}

pub async fn a_set_runs_its_image(test: &Test) {
    super::replicas_run(test, "apps/v1", "replicasets").await;
}
