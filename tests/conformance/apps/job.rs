//! Job: its life while suspended, and its status.

use serde_json::json;

use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn row(test: &Test) -> Walk {
    let mut template = pod::template("job");
    template["spec"]["restartPolicy"] = json!("Never");
    Walk::namespaced(test, "batch/v1", "jobs", json!({"spec": {"suspend": true, "template": template}}))
        .change(json!({"spec": {"parallelism": 2}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn a_suspended_job_lives(test: &Test) {
    let row = row(test);
    row.lives(test).await;
    row.collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}
