//! A pod that no node takes, for tests of what happens to its object; and a stand-in for the nodes that would run it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Test;
use crate::api::STRATEGIC;

/// How often the stand-in looks for pods that are new.
const PERIOD: Duration = Duration::from_millis(20);

/// A specification whose selector no node matches.
pub fn spec() -> Value {
    json!({"nodeSelector": {"conformance.example.com/no": "node"},
        "containers": [{"name": "main", "image": "example.com/none:1"}]})
}

/// A template with the label `app`.
pub fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": spec()})
}

/// A pod with the label `app`.
pub fn named(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec()})
}

/// Says of a pod what its node would say once it is ready, at this address.
pub async fn make_ready(test: &Test, name: &str, address: &str) {
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let reply = test.api.patch(&format!("{}/{name}/status", test.path("v1", "pods")), STRATEGIC, &status).await;
    // A pod may be gone by the time it would have been ready.
    assert!(reply.code.is_success() || reply.code == 404, "{}: {}", reply.code, String::from_utf8_lossy(&reply.body));
}

/// While `work` goes on every pod of the test's namespace becomes ready that `starts`.
pub async fn while_pods_run<T>(test: &Test, starts: impl Fn(&Value) -> bool, work: impl Future<Output = T>) -> T {
    let running = async {
        let mut address = 0_u32;
        loop {
            let pods = test.api.get(&test.path("v1", "pods")).await.ok();
            let waiting = pods["items"].as_array().into_iter().flatten();
            for pod in waiting.filter(|pod| pod["status"]["phase"] != "Running" && starts(pod)) {
                address += 1;
                let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
                make_ready(test, name, &format!("192.0.2.{}", address % 250 + 1)).await;
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = running => unreachable!("it goes on for ever"),
    }
}
