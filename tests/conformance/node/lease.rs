//! Lease: its life.

use serde_json::json;

use crate::Test;
use crate::walk::Walk;

pub async fn a_lease_lives(test: &Test) {
    let spec = |holder: &str, seconds: u32| {
        json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 1,
            "acquireTime": "2026-01-01T00:00:00.000001Z", "renewTime": "2026-01-01T00:00:05.000000Z"}})
    };
    let row = Walk::namespaced(test, "coordination.k8s.io/v1", "leases", spec("first", 30));
    row.change(spec("second", 40)).whole(test).await;
}
