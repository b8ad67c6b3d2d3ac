//! IPAddress: the walk.

use serde_json::json;

use crate::Test;
use crate::walk::Walk;

/// The addresses are of a range for documentation, which no cluster gives out.
pub fn row(test: &Test) -> Walk {
    let parent = json!({"group": "", "resource": "services", "namespace": test.namespace, "name": "none"});
    Walk::cluster(test, "networking.k8s.io/v1", "ipaddresses", json!({"spec": {"parentRef": parent}})).names([
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ])
}
