//! VolumeAttachment: its life and status.

use serde_json::json;

use crate::Test;
use crate::walk::Walk;

fn row(test: &Test) -> Walk {
    let spec = json!({"attacher": "conformance.example.com", "nodeName": test.unique("none"),
        "source": {"persistentVolumeName": test.unique("none")}});
    let attached = |word: bool| json!({"status": {"attached": word}});
    Walk::cluster(test, "storage.k8s.io/v1", "volumeattachments", json!({"spec": spec}))
        .status(attached(true), attached(false))
}

pub async fn an_attachment_lives(test: &Test) {
    let row = row(test);
    row.announced(test).await;
    row.lives(test).await;
    row.collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}
