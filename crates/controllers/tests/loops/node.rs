//! A node gets its addresses, and is noticed when it falls silent.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::{Subresource, kinds};
use windlass_client::{Cached, Patch};

use super::Cluster;

fn taints(nodes: &[Arc<Cached>]) -> Vec<Value> {
    nodes[0].value()["spec"]["taints"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_tainted_its_pods_go_and_it_comes_back() {
    let cluster = Cluster::start().await;
    cluster.create(&kinds::NODE, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).await;
    let has_addresses =
        |nodes: &[Arc<Cached>]| nodes.len() == 1 && nodes[0].value()["spec"]["podCIDR"] == "10.42.0.0/24";
    cluster.until(&kinds::NODE, "a podCIDR", has_addresses).await;
    let say_ready = || async {
        let now = cluster.client.world().now().to_string();
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now});
        let patch = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
        cluster
            .client
            .patch(&kinds::NODE, "", "n1", &patch, Some(Subresource::Status))
            .await
            .expect("the node is there");
    };
    say_ready().await;
    cluster.until(&kinds::NODE, "no taints", |nodes| taints(nodes).is_empty()).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
            "tolerations": [
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]}});
    cluster.create(&kinds::POD, pod).await;
    let unreachable = |nodes: &[Arc<Cached>]| {
        let taints = taints(nodes);
        taints.len() == 2 && taints.iter().all(|taint| taint["key"] == "node.kubernetes.io/unreachable")
    };
    cluster.until(&kinds::NODE, "the taint unreachable", unreachable).await;
    let ending = |pods: &[Arc<Cached>]| pods.iter().all(|pod| pod.header.is_ending());
    cluster.until(&kinds::POD, "its pod evicted", ending).await;
    say_ready().await;
    cluster.until(&kinds::NODE, "no taints again", |nodes| taints(nodes).is_empty()).await;
    cluster.client.delete(&kinds::NODE, "", "n1", &Default::default()).await.expect("the node is there");
    cluster.until(&kinds::POD, "no pod of a node that is gone", <[_]>::is_empty).await;
    cluster.end().await;
}
