//! From a StatefulSet to its pods, from one template to the next, and back to the first revision.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Cached;

use super::{Cluster, alive};

fn set(replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "db:1"}]}}}})
}

/// Whether all pods are of the template with this image, as the status says; the revision.
fn rolled_out(set: &Cached, image: &str, replicas: u64) -> Option<String> {
    let set = set.value();
    let (status, found) = (&set["status"], &set["spec"]["template"]["spec"]["containers"][0]["image"]);
    let observed = status["observedGeneration"] == set["metadata"]["generation"];
    let counts = ["replicas", "readyReplicas", "updatedReplicas"].map(|field| status[field].as_u64().unwrap_or(0));
    let done = observed && counts == [replicas; 3] && status["currentRevision"] == status["updateRevision"];
    (done && found == image).then(|| status["currentRevision"].as_str().unwrap_or_default().to_owned())
}

async fn until_rolled_out(cluster: &Cluster, image: &str, replicas: u64) -> String {
    let done = |sets: &[Arc<Cached>]| sets.iter().any(|set| rolled_out(set, image, replicas).is_some());
    let sets = cluster.until(&kinds::STATEFUL_SET, "a set that is rolled out", done).await;
    rolled_out(&sets[0], image, replicas).expect("it was a moment ago")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_rolls_from_template_to_template_and_back() {
    let mut cluster = Cluster::start().await;
    cluster.run_agent();
    cluster.create(&kinds::STATEFUL_SET, set(3)).await;
    let first = until_rolled_out(&cluster, "db:1", 3).await;
    let mut names: Vec<String> = cluster
        .until(&kinds::POD, "3 pods", |pods| alive(pods, "default") == 3)
        .await
        .iter()
        .map(|pod| pod.header.name().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    let template =
        |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.merge(&kinds::STATEFUL_SET, "default", "db", template("db:2")).await;
    let second = until_rolled_out(&cluster, "db:2", 3).await;
    assert_ne!(first, second);
    cluster.merge(&kinds::STATEFUL_SET, "default", "db", template("db:1")).await;
    assert_eq!(until_rolled_out(&cluster, "db:1", 3).await, first, "no new revision");
    cluster.merge(&kinds::STATEFUL_SET, "default", "db", json!({"spec": {"replicas": 1}})).await;
    cluster.until(&kinds::POD, "1 pod", |pods| alive(pods, "default") == 1).await;
    cluster.end().await;
}
