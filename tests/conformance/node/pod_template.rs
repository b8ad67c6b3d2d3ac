//! PodTemplate: the walk.

use serde_json::json;

use crate::walk::Walk;
use crate::{Test, pod};

pub fn row(test: &Test) -> Walk {
    let change = json!({"template": {"metadata": {"labels": {"app": "changed"}}}});
    Walk::namespaced(test, "v1", "podtemplates", json!({"template": pod::template("walk")})).change(change)
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn a_template_is_replaced(test: &Test) {
    row(test).lives(test).await;
}
