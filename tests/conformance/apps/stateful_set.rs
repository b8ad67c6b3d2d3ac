//! StatefulSet: its collections, status and scale.

use serde_json::{Value, json};

use super::scale;
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn object(app: &str) -> Value {
    json!({"spec": {"replicas": 0, "serviceName": "none", "selector": {"matchLabels": {"app": app}},
        "template": pod::template(app)}})
}

fn row(test: &Test) -> Walk {
    Walk::namespaced(test, "apps/v1", "statefulsets", object("walk"))
        .change(json!({"spec": {"minReadySeconds": 7}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn many_live_and_end(test: &Test) {
    row(test).lives(test).await;
    row(test).collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

pub async fn the_scale_is_the_replicas(test: &Test) {
    scale::is_the_replicas(test, "apps/v1", "statefulsets", object("scaled")).await;
}
