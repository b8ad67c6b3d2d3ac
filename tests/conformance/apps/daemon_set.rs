//! DaemonSet: its status and collections.

use serde_json::json;

use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn row(test: &Test) -> Walk {
    let spec = json!({"selector": {"matchLabels": {"app": "daemon"}}, "template": pod::template("daemon")});
    Walk::namespaced(test, "apps/v1", "daemonsets", json!({"spec": spec}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}
