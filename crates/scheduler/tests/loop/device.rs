//! Pods with claims of devices are bound only where they get them, and no device is given twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::{Subresource, kinds};
use windlass_client::{Cached, DeleteOptions, Patch};

use crate::{Cluster, scheduled};

impl Cluster {
    async fn create_gpus(&self, node: &str, count: usize) {
        let devices: Vec<Value> = (0..count).map(|number| json!({"name": format!("gpu-{number}")})).collect();
        let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": node},
            "spec": {"driver": "gpu.example.com", "nodeName": node, "devices": devices,
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}});
        self.client.create(&kinds::RESOURCE_SLICE, "", &slice).await.unwrap_or_else(|error| panic!("{node}: {error}"));
    }

    async fn create_class(&self) {
        let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"},
            "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}});
        self.client.create(&kinds::DEVICE_CLASS, "", &class).await.expect("a new class");
    }

    async fn create_claim(&self, name: &str) {
        let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}});
        self.client
            .create(&kinds::RESOURCE_CLAIM, "default", &claim)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    async fn create_user(&self, pod: &str, claim: &str) {
        self.create_pod(pod, json!({"cpu": "1m", "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}))
            .await;
    }

    async fn patch_claim(&self, name: &str, status: Value) {
        let (patch, part) = (Patch::Merge(json!({"status": status})), Some(Subresource::Status));
        let patched = self.client.patch(&kinds::RESOURCE_CLAIM, "default", name, &patch, part).await;
        patched.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    async fn claim(&self, name: &str) -> Value {
        let found = self.client.get(&kinds::RESOURCE_CLAIM, "default", name).await;
        found.expect("an answer").expect("the claim").value()
    }

    /// A pod that is held, with its uid.
    async fn create_held_user(&self, pod: &str, claim: &str) -> String {
        let gates = json!([{"name": "example.com/wait"}]);
        let claims = json!([{"name": "gpu", "resourceClaimName": claim}]);
        self.create_pod(pod, json!({"cpu": "1m", "resourceClaims": claims, "schedulingGates": gates})).await;
        let found = self.client.get(&kinds::POD, "default", pod).await.expect("an answer").expect("the pod");
        found.header.uid().to_owned()
    }

    async fn let_go(&self, pod: &str) {
        let patch = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
        let done = self.client.patch(&kinds::POD, "default", pod, &patch, None).await;
        done.unwrap_or_else(|error| panic!("{pod}: {error}"));
    }

    async fn until_said(&self, pod: &'static str, message: &'static str) {
        let says = |pods: &[Arc<Cached>]| {
            pods.iter().any(|found| found.header.name() == pod && scheduled(found)["message"] == message)
        };
        self.until(&kinds::POD, message, says).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_d4_d5_a_pod_waits_for_its_claim_its_class_and_its_device() {
    let cluster = Cluster::start().await;
    cluster.create_node("n1", "4").await;
    cluster.create_user("p1", "c1").await;
    cluster.until_said("p1", "0/1 nodes are available: resourceclaim \"c1\" not found.").await;
    cluster.create_claim("c1").await;
    cluster.until_said("p1", "0/1 nodes are available: request gpu: device class gpu does not exist.").await;
    cluster.create_class().await;
    cluster.until_said("p1", "0/1 nodes are available: 1 cannot allocate all claims.").await;
    cluster.create_gpus("n1", 1).await;
    let pod = cluster.until_bound("p1", "n1").await;
    let claim = cluster.claim("c1").await;
    assert_eq!(claim["metadata"]["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    let device = json!({"request": "gpu", "driver": "gpu.example.com", "pool": "n1", "device": "gpu-0"});
    assert_eq!(claim["status"]["allocation"]["devices"]["results"], json!([device]));
    let here = json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
    assert_eq!(claim["status"]["allocation"]["nodeSelector"]["nodeSelectorTerms"], json!([{"matchFields": [here]}]));
    let user = json!({"resource": "pods", "name": "p1", "uid": pod.header.uid()});
    assert_eq!(claim["status"]["reservedFor"], json!([user]));
    // Another pod of the same claim goes where its device is.
    cluster.create_node("n2", "64").await;
    cluster.create_user("p2", "c1").await;
    cluster.until_bound("p2", "n1").await;
    assert_eq!(cluster.claim("c1").await["status"]["reservedFor"].as_array().map(Vec::len), Some(2));
    // One of another claim waits until the device is free.
    cluster.create_claim("c2").await;
    cluster.create_user("p3", "c2").await;
    cluster.until_said("p3", "0/2 nodes are available: 2 cannot allocate all claims.").await;
    cluster.patch_claim("c1", json!({"allocation": null, "reservedFor": null})).await;
    cluster.until_bound("p3", "n1").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_no_device_is_given_twice_however_many_ask_at_once() {
    let cluster = Cluster::start().await;
    cluster.create_class().await;
    for node in ["n1", "n2"] {
        cluster.create_node(node, "4").await;
        cluster.create_gpus(node, 10).await;
    }
    for number in 0..25 {
        cluster.create_claim(&format!("c{number}")).await;
        cluster.create_user(&format!("p{number}"), &format!("c{number}")).await;
    }
    let bound = |pods: &[Arc<Cached>]| pods.iter().filter(|pod| !pod.header.node_name().is_empty()).count() == 20;
    let pods = cluster.until(&kinds::POD, "as many bound as there are devices", bound).await;
    let waits = |pods: &[Arc<Cached>]| {
        let message = "0/2 nodes are available: 2 cannot allocate all claims.";
        pods.iter().filter(|pod| scheduled(pod)["message"] == message).count() == 5
    };
    cluster.until(&kinds::POD, "the others wait", waits).await;
    let mut given = BTreeSet::new();
    for pod in pods.iter().filter(|pod| !pod.header.node_name().is_empty()) {
        let claim = cluster.claim(&pod.header.name().replace('p', "c")).await;
        let device = &claim["status"]["allocation"]["devices"]["results"][0];
        assert_eq!(device["pool"], pod.header.node_name(), "the device is where its pod is");
        assert!(given.insert(device.to_string()), "{device} is given twice");
    }
    cluster.end().await;
}

/// What somebody else has given a claim: a device on this node.
fn given_on(node: &str) -> Value {
    let here = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    json!({"devices": {"results": [{"request": "gpu", "driver": "gpu.example.com", "pool": node, "device": "given"}]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [here]}]}})
}

fn user(pod: &str, uid: &str) -> Value {
    json!({"resource": "pods", "name": pod, "uid": uid})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_claim_that_keeps_its_pod_from_no_node_keeps_its_devices() {
    let cluster = Cluster::start().await;
    cluster.create_class().await;
    cluster.create_node("n1", "4").await;
    cluster.create_gpus("n1", 1).await;
    cluster.create_claim("c1").await;
    cluster.patch_claim("c1", json!({"allocation": given_on("n1")})).await;
    let claims = json!([{"name": "gpu", "resourceClaimName": "c1"}]);
    cluster.create_pod("p1", json!({"cpu": "8", "resourceClaims": claims})).await;
    cluster.until_said("p1", "0/1 nodes are available: 1 Insufficient cpu.").await;
    let larger = json!({"cpu": "16", "memory": "8Gi", "pods": "110"});
    let patch = Patch::Merge(json!({"status": {"allocatable": larger, "capacity": larger}}));
    let patched = cluster.client.patch(&kinds::NODE, "", "n1", &patch, Some(Subresource::Status)).await;
    patched.expect("the node grows");
    cluster.until_bound("p1", "n1").await;
    let claim = cluster.claim("c1").await;
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "given");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_pods_that_wait_do_not_hold_a_claim_that_goes_or_is_out_of_reach() {
    let cluster = Cluster::start().await;
    cluster.create_class().await;
    cluster.create_node("n1", "4").await;
    cluster.create_gpus("n1", 1).await;
    // A claim that was reserved for two pods before its node went.
    cluster.create_claim("shared").await;
    let users = [cluster.create_held_user("p1", "shared").await, cluster.create_held_user("p2", "shared").await];
    let reserved = json!([user("p1", &users[0]), user("p2", &users[1])]);
    cluster.patch_claim("shared", json!({"allocation": given_on("gone"), "reservedFor": reserved})).await;
    // One that goes when its pod is not bound yet.
    cluster.create_claim("goes").await;
    let uid = cluster.create_held_user("p3", "goes").await;
    let kept = Patch::Merge(json!({"metadata": {"finalizers": ["resource.kubernetes.io/delete-protection"]}}));
    cluster.client.patch(&kinds::RESOURCE_CLAIM, "default", "goes", &kept, None).await.expect("it is there");
    cluster.patch_claim("goes", json!({"allocation": given_on("n1"), "reservedFor": [user("p3", &uid)]})).await;
    cluster.client.delete(&kinds::RESOURCE_CLAIM, "default", "goes", &DeleteOptions::default()).await.expect("it ends");
    for pod in ["p1", "p2", "p3"] {
        cluster.let_go(pod).await;
    }
    for pod in ["p1", "p2"] {
        cluster.until_bound(pod, "n1").await;
    }
    let claim = cluster.claim("shared").await;
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "gpu-0");
    assert_eq!(claim["status"]["reservedFor"].as_array().map(Vec::len), Some(2));
    let is_free = |claims: &[Arc<Cached>]| {
        claims.iter().any(|claim| claim.header.name() == "goes" && claim.value()["status"]["reservedFor"].is_null())
    };
    cluster.until(&kinds::RESOURCE_CLAIM, "nobody has the claim that goes", is_free).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_claim_that_keeps_its_only_pod_from_every_node_loses_its_devices() {
    let cluster = Cluster::start().await;
    cluster.create_class().await;
    for node in ["n1", "n2"] {
        cluster.create_node(node, "4").await;
        cluster.create_gpus(node, 1).await;
    }
    cluster.create_claim("c1").await;
    let away = json!({"key": "metadata.name", "operator": "In", "values": ["gone"]});
    let given = json!({"devices": {"results": [{"request": "gpu", "driver": "gpu.example.com", "pool": "gone", "device": "x"}]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [away]}]}});
    cluster.patch_claim("c1", json!({"allocation": given})).await;
    cluster.create_user("p1", "c1").await;
    let is_bound = |pods: &[Arc<Cached>]| pods.iter().any(|pod| !pod.header.node_name().is_empty());
    cluster.until(&kinds::POD, "the pod elsewhere", is_bound).await;
    let claim = cluster.claim("c1").await;
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "gpu-0");
    // A claim that ends takes no new pod.
    cluster.client.delete(&kinds::RESOURCE_CLAIM, "default", "c1", &DeleteOptions::default()).await.expect("it ends");
    cluster.create_user("p2", "c1").await;
    cluster.until_said("p2", "0/2 nodes are available: resourceclaim \"c1\" is being deleted.").await;
    cluster.end().await;
}
