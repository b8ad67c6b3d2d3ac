//! Claims of devices are made for pods, and lose what they have with their last pod.

use serde_json::{Value, json};
use windlass_api::{Subresource, kinds};
use windlass_client::{DeleteOptions, Patch};

use crate::Cluster;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

fn devices() -> Value {
    json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}})
}

fn pod(name: &str, claim: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"resourceClaims": [claim], "containers": [{"name": "c", "image": "app:1",
            "resources": {"claims": [{"name": "gpu"}]}}]}})
}

/// What the scheduler does: the claim gets a device, for this pod.
async fn allocate(cluster: &Cluster, claim: &str, pod: &str) {
    cluster.merge(&kinds::RESOURCE_CLAIM, "default", claim, json!({"metadata": {"finalizers": [FINALIZER]}})).await;
    let found = cluster.client.get(&kinds::POD, "default", pod).await.expect("an answer").expect("the pod");
    let results = json!([{"request": "gpu", "driver": "gpu.example.com", "pool": "n1", "device": "gpu-0"}]);
    let user = json!({"resource": "pods", "name": pod, "uid": found.header.uid()});
    let status = json!({"status": {"allocation": {"devices": {"results": results}}, "reservedFor": [user]}});
    let (client, part) = (&cluster.client, Some(Subresource::Status));
    let done = client.patch(&kinds::RESOURCE_CLAIM, "default", claim, &Patch::Merge(status), part).await;
    done.unwrap_or_else(|error| panic!("{claim}: {error}"));
}

async fn succeed(cluster: &Cluster, pod: &str) {
    let status = Patch::Strategic(json!({"status": {"phase": "Succeeded"}}));
    let done = cluster.client.patch(&kinds::POD, "default", pod, &status, Some(Subresource::Status)).await;
    done.unwrap_or_else(|error| panic!("{pod}: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_made_for_its_pod_and_goes_when_the_pod_is_over() {
    let cluster = Cluster::start().await;
    let asked = json!({"name": "gpu", "resourceClaimTemplateName": "one-gpu"});
    cluster.create(&kinds::POD, pod("p", asked)).await;
    let template = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one-gpu", "namespace": "default"},
        "spec": {"metadata": {"labels": {"made": "here"}}, "spec": devices()}});
    cluster.create(&kinds::RESOURCE_CLAIM_TEMPLATE, template).await;
    let named = cluster
        .until(&kinds::POD, "a pod whose status names its claim", |pods| {
            pods.iter().any(|pod| pod.value()["status"]["resourceClaimStatuses"][0]["resourceClaimName"].is_string())
        })
        .await;
    let status = named[0].value()["status"]["resourceClaimStatuses"].take();
    assert_eq!(status[0]["name"], "gpu");
    let name = status[0]["resourceClaimName"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("p-gpu-"), "{name}");
    let claim = cluster.client.get(&kinds::RESOURCE_CLAIM, "default", &name).await.expect("an answer").expect("it");
    let claim = claim.value();
    assert_eq!(claim["metadata"]["labels"]["made"], "here");
    assert_eq!(claim["metadata"]["annotations"]["resource.kubernetes.io/pod-claim-name"], "gpu");
    assert_eq!(claim["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    allocate(&cluster, &name, "p").await;
    succeed(&cluster, "p").await;
    cluster.until(&kinds::RESOURCE_CLAIM, "no claim of a pod that is over", |claims| claims.is_empty()).await;
    assert_eq!(cluster.until(&kinds::POD, "the pod", |pods| pods.len() == 1).await.len(), 1);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_pods_share_loses_its_devices_with_the_last_of_them() {
    let cluster = Cluster::start().await;
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "shared", "namespace": "default"}, "spec": devices()});
    cluster.create(&kinds::RESOURCE_CLAIM, claim).await;
    let asked = json!({"name": "gpu", "resourceClaimName": "shared"});
    cluster.create(&kinds::POD, pod("first", asked.clone())).await;
    allocate(&cluster, "shared", "first").await;
    // One that somebody else has bound gets its share.
    let mut second = pod("second", asked);
    second["spec"]["nodeName"] = json!("n1");
    cluster.create(&kinds::POD, second).await;
    let users = |claims: &[std::sync::Arc<windlass_client::Cached>]| {
        claims[0].value()["status"]["reservedFor"].as_array().map_or(0, Vec::len)
    };
    let is_free =
        |claims: &[std::sync::Arc<windlass_client::Cached>]| claims[0].value()["status"]["allocation"].is_null();
    cluster.until(&kinds::RESOURCE_CLAIM, "both pods use it", |claims| users(claims) == 2).await;
    succeed(&cluster, "first").await;
    let one = cluster.until(&kinds::RESOURCE_CLAIM, "one of them uses it", |claims| users(claims) == 1).await;
    assert!(!is_free(&one), "the other one has it still");
    // A claim that ends waits for its last pod.
    let options = DeleteOptions::default();
    cluster.client.delete(&kinds::RESOURCE_CLAIM, "default", "shared", &options).await.expect("it ends");
    let ending = cluster.until(&kinds::RESOURCE_CLAIM, "it is ending", |claims| claims[0].header.is_ending()).await;
    assert_eq!(users(&ending), 1);
    cluster.client.delete(&kinds::POD, "default", "second", &options.at_once()).await.expect("it goes");
    cluster.until(&kinds::RESOURCE_CLAIM, "it is gone", |claims| claims.is_empty()).await;
    cluster.end().await;
}
