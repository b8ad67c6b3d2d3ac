//! From a Deployment to its pods, and from one template to the next.

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Cached;

use super::{Cluster, alive, deployment};

fn status(deployment: &Cached) -> Value {
    deployment.value()["status"].take()
}

fn progress(status: &Value) -> &str {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "Progressing");
    found.and_then(|condition| condition["reason"].as_str()).unwrap_or_default()
}

fn revision(object: &Cached) -> String {
    object.value()["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What `kubectl rollout status` waits for.
fn is_rolled_out(deployment: &Cached, replicas: u64) -> bool {
    let status = status(deployment);
    let observed = status["observedGeneration"].as_i64() == Some(deployment.header.generation);
    let all = ["replicas", "updatedReplicas", "availableReplicas"].map(|field| status[field].as_u64().unwrap_or(0));
    observed && all == [replicas; 3] && progress(&status) == "NewReplicaSetAvailable"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_pods_and_rolls_from_template_to_template() {
    let mut cluster = Cluster::start().await;
    cluster.run_agent();
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 3)).await;
    let rolled_out = |found: &[std::sync::Arc<Cached>]| found.iter().any(|found| is_rolled_out(found, 3));
    cluster.until(&kinds::DEPLOYMENT, "3 replicas rolled out", rolled_out).await;
    let pods = cluster.until(&kinds::POD, "3 pods", |pods| alive(pods, "default") == 3).await;
    assert!(pods.iter().all(|pod| pod.header.labels().contains_key("pod-template-hash")));

    let template =
        |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    for (image, number) in [("web:2", "2"), ("web:1", "3")] {
        cluster.merge(&kinds::DEPLOYMENT, "default", "web", template(image)).await;
        let on_revision = |found: &[std::sync::Arc<Cached>]| {
            found.iter().any(|found| is_rolled_out(found, 3) && revision(found) == number)
        };
        cluster.until(&kinds::DEPLOYMENT, "the next revision rolled out", on_revision).await;
    }
    let sets = cluster.until(&kinds::REPLICA_SET, "both sets", |sets| sets.len() == 2).await;
    let mut revisions: Vec<String> = sets.iter().map(|set| revision(set)).collect();
    revisions.sort();
    assert_eq!(revisions, ["2", "3"], "the first set was raised again, as kubectl rollout undo wants it");

    cluster.merge(&kinds::DEPLOYMENT, "default", "web", json!({"spec": {"replicas": 1}})).await;
    cluster.until(&kinds::DEPLOYMENT, "1 replica", |found| found.iter().any(|found| is_rolled_out(found, 1))).await;
    cluster.until(&kinds::POD, "1 pod", |pods| alive(pods, "default") == 1).await;
    let told =
        |events: &[std::sync::Arc<Cached>]| events.iter().any(|event| event.value()["reason"] == "ScalingReplicaSet");
    cluster.until(&kinds::EVENT, "an event that says what was scaled", told).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_replaced_once() {
    let cluster = Cluster::start().await;
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 3)).await;
    let pods = cluster.until(&kinds::POD, "3 pods", |pods| alive(pods, "default") == 3).await;
    let first = &pods[0].header;
    let options = windlass_client::DeleteOptions::of_uid(first.uid());
    cluster.client.delete(&kinds::POD, "default", first.name(), &options).await.expect("the pod is there");
    let uid = first.uid().to_owned();
    let replaced =
        |pods: &[std::sync::Arc<Cached>]| alive(pods, "default") == 3 && pods.iter().all(|pod| pod.header.uid() != uid);
    cluster.until(&kinds::POD, "another pod in its place", replaced).await;
    let settled = |sets: &[std::sync::Arc<Cached>]| sets.iter().all(|set| set.value()["status"]["replicas"] == 3);
    cluster.until(&kinds::REPLICA_SET, "a set that counts 3", settled).await;
    let created = cluster.client.list(&kinds::POD, Some("default"), &Default::default()).await.expect("a list");
    assert_eq!(created.items.len(), 3, "never more than was asked for");
    cluster.end().await;
}
