//! From a Service to the addresses of its pods.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Cached;

use super::{Cluster, deployment};

fn ready_addresses(slices: &[Arc<Cached>]) -> usize {
    let slices = slices
        .iter()
        .filter(|slice| slice.header.labels().get("kubernetes.io/service-name").is_some_and(|name| name == "web"));
    let endpoints = slices.flat_map(|slice| slice.value()["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|endpoint: &Value| endpoint["conditions"]["ready"] == true).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_follows_its_pods() {
    let mut cluster = Cluster::start().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    cluster.create(&kinds::SERVICE, service).await;
    let of_web = |slices: &[Arc<Cached>]| {
        slices
            .iter()
            .filter(|slice| slice.header.labels().get("kubernetes.io/service-name").is_some_and(|name| name == "web"))
            .count()
    };
    cluster.until(&kinds::ENDPOINT_SLICE, "one empty slice", move |slices| of_web(slices) == 1).await;
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 3)).await;
    cluster.run_agent();
    cluster.until(&kinds::ENDPOINT_SLICE, "3 ready addresses", |slices| ready_addresses(slices) == 3).await;
    cluster.merge(&kinds::DEPLOYMENT, "default", "web", json!({"spec": {"replicas": 1}})).await;
    cluster.until(&kinds::ENDPOINT_SLICE, "1 ready address", |slices| ready_addresses(slices) == 1).await;
    let options = Default::default();
    cluster.client.delete(&kinds::SERVICE, "default", "web", &options).await.expect("the service is there");
    cluster
        .until(&kinds::ENDPOINT_SLICE, "no slice of a service that is gone", move |slices| of_web(slices) == 0)
        .await;
    cluster.end().await;
}
