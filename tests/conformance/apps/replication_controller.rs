//! ReplicationController: its life and scale, and which pods are its own.

use serde_json::{Value, json};

use super::scale;
use crate::api::{MERGE, Reply};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

/// Its selector is that of its template where it says none.
fn object(app: &str) -> Value {
    json!({"spec": {"replicas": 0, "template": pod::template(app)}})
}

pub async fn a_controller_lives(test: &Test) {
    let row = Walk::namespaced(test, "v1", "replicationcontrollers", object("walk"));
    row.change(json!({"spec": {"minReadySeconds": 7}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
        .whole(test)
        .await;
}

pub async fn the_scale_is_the_replicas(test: &Test) {
    scale::is_the_replicas(test, "v1", "replicationcontrollers", object("scaled")).await;
}

pub async fn a_controller_runs_its_image(test: &Test) {
    super::replicas_run(test, "v1", "replicationcontrollers").await;
}

/// A controller of one pod; gives its path and uid.
async fn made(test: &Test, app: &str) -> (String, Value) {
    let mut object = object(app);
    object["metadata"]["name"] = json!(app);
    object["spec"]["replicas"] = json!(1);
    let path = test.path("v1", "replicationcontrollers");
    let made = test.api.create(&path, &object).await.ok();
    (format!("{path}/{app}"), made["metadata"]["uid"].clone())
}

fn is_owned(pod: &Value, uid: &Value) -> bool {
    pod["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["uid"] == *uid)
}

pub async fn matching_pods_are_adopted(test: &Test) {
    let pods = test.path("v1", "pods");
    test.api.create(&pods, &pod::named("orphan", "adopted")).await.ok();
    let (_, uid) = made(test, "adopted").await;
    test.api.until(&format!("{pods}/orphan"), "adopted", |reply| is_owned(&reply.json(), &uid)).await;
}

pub async fn pods_that_match_no_more_are_released(test: &Test) {
    let (_, uid) = made(test, "released").await;
    let pods = test.path("v1", "pods");
    let listed = test.api.until(&pods, "made", |reply| reply.json()["items"][0].is_object()).await.json();
    let one = format!("{pods}/{}", listed["items"][0]["metadata"]["name"].as_str().expect("a name"));
    test.api.patch(&one, MERGE, &json!({"metadata": {"labels": {"app": "another"}}})).await.ok();
    test.api.until(&one, "released", |reply| !is_owned(&reply.json(), &uid)).await;
}

pub async fn a_quota_that_is_exceeded_is_a_condition(test: &Test) {
    let quotas = test.path("v1", "resourcequotas");
    let quota = json!({"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}});
    test.api.create(&quotas, &quota).await.ok();
    let counted = |reply: &Reply| reply.json()["status"]["hard"]["pods"] == "2";
    test.api.until(&format!("{quotas}/two"), "counted", counted).await;
    let (one, _) = made(test, "limited").await;
    test.api.patch(&one, MERGE, &json!({"spec": {"replicas": 3}})).await.ok();
    let fails = |reply: &Reply| {
        let conditions = reply.json()["status"]["conditions"].clone();
        conditions.as_array().into_iter().flatten().any(|found| {
            found["type"] == "ReplicaFailure" && found["status"] == "True" && found["reason"] == "FailedCreate"
        })
    };
    test.api.until(&one, "failing", fails).await;
    test.api.patch(&one, MERGE, &json!({"spec": {"replicas": 2}})).await.ok();
    test.api.until(&one, "well again", |reply| !fails(reply)).await;
}
