//! Node: the life of its object. The node is nobody's: it has no agent.

use serde_json::json;

use crate::Test;
use crate::walk::{Walk, condition};

pub async fn a_node_lives(test: &Test) {
    let row = Walk::cluster(test, "v1", "nodes", json!({"spec": {"unschedulable": true}}));
    let row = row.status(condition("StatusPatched"), condition("StatusReplaced"));
    row.announced(test).await;
    row.lives(test).await;
    row.collection(test).await;
}
