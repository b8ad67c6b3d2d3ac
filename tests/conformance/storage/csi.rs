//! CSIDriver, CSINode, CSIStorageCapacity: the walk; and pods whose volume a driver makes.

use serde_json::json;

use crate::walk::Walk;
use crate::{Test, pod};

pub fn driver_row(test: &Test) -> Walk {
    let spec = json!({"attachRequired": true, "volumeLifecycleModes": ["Ephemeral"]});
    Walk::cluster(test, "storage.k8s.io/v1", "csidrivers", json!({"spec": spec}))
}

pub fn node_row(test: &Test) -> Walk {
    Walk::cluster(test, "storage.k8s.io/v1", "csinodes", json!({"spec": {"drivers": []}}))
}

pub fn storage_capacity_row(test: &Test) -> Walk {
    let object = json!({"storageClassName": "none", "capacity": "1Gi"});
    Walk::namespaced(test, "storage.k8s.io/v1", "csistoragecapacities", object).change(json!({"capacity": "2Gi"}))
}

pub async fn a_pod_with_a_volume_inline_lives(test: &Test) {
    let mut spec = pod::spec();
    let csi = json!({"driver": "conformance.example.com", "fsType": "ext4", "volumeAttributes": {"a": "b"}});
    spec["volumes"] = json!([{"name": "inline", "csi": csi}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "inline", "mountPath": "/inline"}]);
    let row = Walk::namespaced(test, "v1", "pods", json!({"spec": spec}));
    row.lives(test).await;
    row.collection(test).await;
}
