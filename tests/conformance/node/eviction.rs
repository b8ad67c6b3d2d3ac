//! Taints that pods do not bear, or not for long.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};

use crate::Test;
use crate::running::waiting;

const KEY: &str = "conformance.example.com/evict";

/// A pod that bears the taint for so many seconds.
fn bearing(name: &str, seconds: u64) -> Value {
    let mut pod = waiting(name);
    pod["spec"]["tolerations"] = json!([{"key": KEY, "operator": "Equal", "value": "yes", "effect": "NoExecute",
        "tolerationSeconds": seconds}]);
    pod
}

/// Puts the taint on the pod's node, or takes it away.
async fn taint(test: &Test, pod: &Value, is_there: bool) {
    let node = pod["spec"]["nodeName"].as_str().expect("a pod that runs has a node");
    let change = |node: &mut Value| {
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let mut taints: Vec<Value> = taints.into_iter().filter(|taint| taint["key"] != KEY).collect();
        if is_there {
            taints.push(json!({"key": KEY, "value": "yes", "effect": "NoExecute"}));
        }
        node["spec"]["taints"] = json!(taints);
    };
    test.api.replace(&format!("/api/v1/nodes/{node}"), change).await;
}

/// Does something while the pod's node is tainted, and takes the taint away however that ends.
async fn tainted(test: &Test, pod: &Value, body: impl Future<Output = ()>) {
    taint(test, pod, true).await;
    let ended = AssertUnwindSafe(body).catch_unwind().await;
    taint(test, pod, false).await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

pub async fn a_taint_that_goes_in_time_evicts_nobody(test: &Test) {
    let pod = test.start_ready(&bearing("bearing", 4)).await;
    tainted(test, &pod, tokio::time::sleep(Duration::from_secs(1))).await;
    // There is nothing to watch where nothing may happen.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let now = test.api.get(&test.pod("bearing")).await.ok();
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "{now:#}");
}
