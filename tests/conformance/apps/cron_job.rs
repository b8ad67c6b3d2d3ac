//! CronJob: the walk.

use serde_json::json;

use crate::walk::Walk;
use crate::{Test, pod};

/// A suspended one, whose status nobody else writes.
pub fn row(test: &Test) -> Walk {
    let mut template = pod::template("cron");
    template["spec"]["restartPolicy"] = json!("OnFailure");
    let spec = json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": template}}});
    let at = |time: &str| json!({"metadata": {"annotations": {"at": time}}, "status": {"lastScheduleTime": time}});
    Walk::namespaced(test, "batch/v1", "cronjobs", json!({"spec": spec}))
        .change(json!({"spec": {"successfulJobsHistoryLimit": 7}}))
        .status(at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"))
}
