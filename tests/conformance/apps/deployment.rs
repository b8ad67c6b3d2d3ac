//! Deployment: its life, status and scale, and how its ReplicaSets follow its template.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::scale;
use crate::api::{MERGE, Reply, STRATEGIC};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

/// An image that no pod of these tests can run.
const BROKEN: &str = "example.com/broken:404";

fn object(app: &str) -> Value {
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": app}}, "template": pod::template(app)}})
}

fn row(test: &Test) -> Walk {
    Walk::namespaced(test, "apps/v1", "deployments", object("walk"))
        .change(json!({"spec": {"minReadySeconds": 7}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

pub async fn the_scale_is_the_replicas(test: &Test) {
    scale::is_the_replicas(test, "apps/v1", "deployments", object("scaled")).await;
}

pub async fn a_deployment_lives(test: &Test) {
    row(test).whole(test).await;
}

/// A Deployment of this many pods; gives its path.
async fn deployed(test: &Test, replicas: u32, change: Value) -> String {
    let mut object = object("rolled");
    object["metadata"]["name"] = json!("rolled");
    object["spec"]["replicas"] = json!(replicas);
    windlass_api::merge::merge(&mut object, change);
    let path = test.path("apps/v1", "deployments");
    test.api.create(&path, &object).await.ok();
    format!("{path}/rolled")
}

/// A ReplicaSet from before the Deployment, of another image.
async fn older_set(test: &Test) -> String {
    let mut set = object("rolled");
    set["metadata"] = json!({"name": "older", "labels": {"app": "rolled"}});
    set["spec"]["replicas"] = json!(1);
    set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.com/older:1");
    let sets = test.path("apps/v1", "replicasets");
    test.api.create(&sets, &set).await.ok();
    let is_ready = |reply: &Reply| reply.json()["status"]["readyReplicas"] == 1;
    test.api.until(&format!("{sets}/older"), "ready", is_ready).await;
    format!("{sets}/older")
}

async fn set_image(test: &Test, deployment: &str, image: &str) {
    let containers = json!([{"name": "main", "image": image}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    test.api.patch(deployment, STRATEGIC, &patch).await.ok();
}

/// Waits until a Deployment says that all its pods are new and available.
async fn complete(test: &Test, deployment: &str) {
    let is_complete = |reply: &Reply| {
        let found = reply.json();
        let (wanted, status) = (&found["spec"]["replicas"], &found["status"]);
        let counts = ["replicas", "updatedReplicas", "availableReplicas"];
        status["observedGeneration"] == found["metadata"]["generation"]
            && counts.iter().all(|count| status[*count] == *wanted)
    };
    test.api.until(deployment, "complete", is_complete).await;
}

/// The replicas of each of the Deployment's ReplicaSets, by image.
fn sizes(sets: &Value) -> Vec<(String, i64)> {
    let sets = sets["items"].as_array().into_iter().flatten();
    let mut sizes: Vec<(String, i64)> = sets
        .map(|set| {
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("an image");
            (image.to_owned(), set["spec"]["replicas"].as_i64().expect("replicas"))
        })
        .collect();
    sizes.sort();
    sizes
}

/// Waits until the ReplicaSets have these sizes.
async fn until_sizes(test: &Test, expected: &[(&str, i64)]) {
    let mut expected: Vec<(String, i64)> = expected.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect();
    expected.sort();
    let sets = test.path("apps/v1", "replicasets");
    test.api.until(&sets, &format!("{expected:?}"), |reply| sizes(&reply.json()) == expected).await;
}

fn all(_pod: &Value) -> bool {
    true
}

fn is_whole(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["image"] != BROKEN
}

pub async fn a_rolling_update_replaces_the_older_set(test: &Test) {
    pod::while_pods_run(test, all, async {
        let older = older_set(test).await;
        let deployment = deployed(test, 1, json!({})).await;
        complete(test, &deployment).await;
        until_sizes(test, &[("example.com/older:1", 0), ("example.com/none:1", 1)]).await;
        let owner = test.api.get(&older).await.ok()["metadata"]["ownerReferences"][0].clone();
        assert_eq!((&owner["kind"], &owner["name"]), (&json!("Deployment"), &json!("rolled")));
    })
    .await;
}

pub async fn recreate_never_runs_old_beside_new(test: &Test) {
    pod::while_pods_run(test, all, async {
        let strategy = json!({"spec": {"strategy": {"type": "Recreate"}}});
        let deployment = deployed(test, 2, strategy).await;
        complete(test, &deployment).await;
        let mut events = test.api.watch(&test.path("v1", "pods"), "labelSelector=app%3Drolled").await;
        set_image(test, &deployment, "example.com/newer:1").await;
        let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
        while new.len() < 2 {
            let (kind, found) = events.next().await.expect("the watch goes on");
            let name = found["metadata"]["name"].as_str().expect("a name").to_owned();
            let is_new = found["spec"]["containers"][0]["image"] == "example.com/newer:1";
            match (is_new, kind.as_str()) {
                (false, "DELETED") => assert!(old.remove(&name), "{name} was there"),
                (false, _) => assert!(old.insert(name) || kind == "MODIFIED", "an old pod is made again"),
                (true, _) => {
                    assert!(old.is_empty(), "{name} is made beside {old:?}");
                    new.insert(name);
                }
            }
        }
        complete(test, &deployment).await;
    })
    .await;
}

pub async fn old_sets_go_beyond_the_history_limit(test: &Test) {
    pod::while_pods_run(test, all, async {
        let older = older_set(test).await;
        let deployment = deployed(test, 1, json!({"spec": {"revisionHistoryLimit": 0}})).await;
        complete(test, &deployment).await;
        test.api.until_gone(&older).await;
        until_sizes(test, &[("example.com/none:1", 1)]).await;
    })
    .await;
}

pub async fn a_rollout_under_way_gives_way_to_the_next(test: &Test) {
    pod::while_pods_run(test, is_whole, async {
        let deployment = deployed(test, 2, json!({})).await;
        complete(test, &deployment).await;
        set_image(test, &deployment, BROKEN).await;
        // One more pod than wished may be made, and none may be missing before it is available.
        until_sizes(test, &[("example.com/none:1", 2), (BROKEN, 1)]).await;
        set_image(test, &deployment, "example.com/newer:1").await;
        complete(test, &deployment).await;
        until_sizes(test, &[("example.com/none:1", 0), (BROKEN, 0), ("example.com/newer:1", 2)]).await;
    })
    .await;
}

pub async fn scaling_keeps_the_share_of_each_set(test: &Test) {
    pod::while_pods_run(test, is_whole, async {
        let rolling = json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}});
        let deployment = deployed(test, 10, rolling).await;
        complete(test, &deployment).await;
        set_image(test, &deployment, BROKEN).await;
        until_sizes(test, &[("example.com/none:1", 8), (BROKEN, 5)]).await;
        test.api.patch(&deployment, MERGE, &json!({"spec": {"replicas": 30}})).await.ok();
        until_sizes(test, &[("example.com/none:1", 20), (BROKEN, 13)]).await;
    })
    .await;
}
