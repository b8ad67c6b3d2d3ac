//! A node without an agent, which only the pods of one test may use.

use serde_json::{Value, json};

use crate::Test;
use crate::api::{MERGE, Reply, STRATEGIC};

/// A made-up resource, so that what a real node has is no matter.
pub const RESOURCE: &str = "conformance.example.com/units";

/// The node.
pub struct Machine<'a> {
    test: &'a Test,
    pub name: String,
}

impl<'a> Machine<'a> {
    /// A node with this many units.
    pub async fn new(test: &'a Test, units: u32) -> Machine<'a> {
        let name = test.unique("machine");
        // Its lease lasts for the whole test: nobody renews it.
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 3600}});
        test.api.create("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", &lease).await.ok();
        let taints = json!([{"key": "conformance.example.com/for", "value": test.namespace, "effect": "NoSchedule"}]);
        let labels = json!({"conformance.example.com/for": test.namespace, "kubernetes.io/hostname": name});
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        test.api.create("/api/v1/nodes", &node).await.ok();
        let amounts = json!({"cpu": "4", "memory": "8Gi", "pods": "110", RESOURCE: units.to_string()});
        let status = json!({"status": {"allocatable": amounts, "capacity": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Conformance", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        test.api.patch(&format!("/api/v1/nodes/{name}/status"), STRATEGIC, &status).await.ok();
        Machine { test, name }
    }

    /// A specification that only this node suits, and that asks for units.
    pub fn spec(&self, units: u32) -> Value {
        let amounts = json!({RESOURCE: units.to_string()});
        json!({
            "nodeSelector": {"conformance.example.com/for": self.test.namespace}, "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "conformance.example.com/for", "operator": "Exists"}],
            "containers": [{"name": "main", "image": "example.com/none:1",
                "resources": {"requests": amounts, "limits": amounts}}],
        })
    }

    /// Creates a pod.
    pub async fn run(&self, name: &str, spec: Value) -> Value {
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.test.api.create(&self.test.path("v1", "pods"), &pod).await.ok()
    }

    fn pod(&self, name: &str) -> String {
        format!("{}/{name}", self.test.path("v1", "pods"))
    }

    /// Waits until a pod is on this node.
    pub async fn has(&self, pod: &str) {
        let is_here = |reply: &Reply| reply.json()["spec"]["nodeName"] == self.name.as_str();
        self.test.api.until(&self.pod(pod), "on its node", is_here).await;
    }

    /// Waits until it is said that no node suits a pod.
    pub async fn refuses(&self, pod: &str) {
        let is_refused = |reply: &Reply| {
            let found = reply.json();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            found["spec"]["nodeName"].is_null()
                && conditions.iter().any(|one| one["type"] == "PodScheduled" && one["reason"] == "Unschedulable")
        };
        self.test.api.until(&self.pod(pod), "refused", is_refused).await;
    }

    /// A class of this priority; gives its name.
    pub async fn priority(&self, value: i64) -> String {
        let name = self.test.unique(&format!("priority-{value}"));
        let class = json!({"metadata": {"name": name}, "value": value});
        self.test.api.create("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.ok();
        name
    }

    /// Takes the node away, and all that is on it.
    pub async fn end(self) {
        let api = &self.test.api;
        let pods = self.test.path("v1", "pods");
        for pod in api.get(&pods).await.ok()["items"].as_array().into_iter().flatten() {
            let one = self.pod(pod["metadata"]["name"].as_str().expect("a name"));
            // Both may be gone by now, with what owned them.
            api.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}})).await;
            api.delete(&format!("{one}?gracePeriodSeconds=0")).await;
        }
        api.delete(&format!("/api/v1/nodes/{}", self.name)).await.ok();
        api.delete(&format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", self.name)).await;
        for class in ["1", "2", "3", "4", "1000"] {
            let name = self.test.unique(&format!("priority-{class}"));
            api.delete(&format!("/apis/scheduling.k8s.io/v1/priorityclasses/{name}")).await;
        }
    }
}
