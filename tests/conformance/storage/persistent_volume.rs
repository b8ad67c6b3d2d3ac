//! PersistentVolume and PersistentVolumeClaim: their life and status. No claim is of a class that a volume has, so that
//! nobody binds them.

use serde_json::json;

use crate::Test;
use crate::walk::{Walk, condition};

fn volumes(test: &Test) -> Walk {
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": test.unique("volumes"),
        "hostPath": {"path": "/tmp/conformance"}});
    let status = |word: &str| json!({"status": {"reason": word, "message": word}});
    Walk::cluster(test, "v1", "persistentvolumes", json!({"spec": spec})).status(status("Patched"), status("Replaced"))
}

fn claims(test: &Test) -> Walk {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": test.unique("claims"),
        "resources": {"requests": {"storage": "1Gi"}}});
    Walk::namespaced(test, "v1", "persistentvolumeclaims", json!({"spec": spec}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn volumes_and_claims_live(test: &Test) {
    for row in [volumes(test), claims(test)] {
        row.announced(test).await;
        row.lives(test).await;
        row.collection(test).await;
    }
}

pub async fn their_status_is_read_patched_and_replaced(test: &Test) {
    volumes(test).has_status(test).await;
    claims(test).has_status(test).await;
}
