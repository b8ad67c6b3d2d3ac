//! PodDisruptionBudget: its life, collections and status.

use serde_json::json;

use crate::Test;
use crate::walk::{Walk, condition};

fn row(test: &Test) -> Walk {
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "none"}}});
    Walk::namespaced(test, "policy/v1", "poddisruptionbudgets", json!({"spec": spec}))
        .change(json!({"spec": {"minAvailable": "70%"}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn a_budget_lives(test: &Test) {
    row(test).lives(test).await;
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}
