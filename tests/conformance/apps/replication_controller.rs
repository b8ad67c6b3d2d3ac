//! ReplicationController: its life and scale.

use serde_json::{Value, json};

use super::scale;
use crate::walk::{Walk, condition};
use crate::{Test, pod};

/// Its selector is that of its template where it says none.
fn object(app: &str) -> Value {
    json!({"spec": {"replicas": 0, "template": pod::template(app)}})
}

pub async fn a_controller_lives(test: &Test) {
    let row = Walk::namespaced(test, "v1", "replicationcontrollers", object("walk"));
    row.change(json!({"spec": {"minReadySeconds": 7}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
        .whole(test)
        .await;
}

pub async fn the_scale_is_the_replicas(test: &Test) {
    scale::is_the_replicas(test, "v1", "replicationcontrollers", object("scaled")).await;
}
