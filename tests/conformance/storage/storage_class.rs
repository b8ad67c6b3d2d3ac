//! StorageClass and VolumeAttributesClass: the walk.

use serde_json::json;

use crate::Test;
use crate::walk::Walk;

pub fn row(test: &Test) -> Walk {
    Walk::cluster(test, "storage.k8s.io/v1", "storageclasses", json!({"provisioner": "conformance.example.com"}))
        .change(json!({"allowVolumeExpansion": true}))
}

pub fn attributes_row(test: &Test) -> Walk {
    let object = json!({"driverName": "conformance.example.com", "parameters": {"iops": "100"}});
    Walk::cluster(test, "storage.k8s.io/v1", "volumeattributesclasses", object)
}
