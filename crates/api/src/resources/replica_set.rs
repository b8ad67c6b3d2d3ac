//! ReplicaSet: a number of equal pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, label_selector, name_column, pod, row, wide};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of ReplicaSet.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Desired", "integer", "pods wanted"),
        column("Current", "integer", "pods that exist"),
        column("Ready", "integer", "pods that are ready"),
        age_column(),
        wide("Containers", "string", "the names of the template's containers"),
        wide("Images", "string", "the images of the template's containers"),
        wide("Selector", "string", "which pods belong to it"),
    ];
    row(&kinds::REPLICA_SET, columns, ReplicaSet)
        .short_names(&["rs"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Scale])
        .counts_generations()
}

struct ReplicaSet;

impl Rules for ReplicaSet {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = pod::template_columns(&spec["template"]);
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.int("replicas").unwrap_or(0)),
            json!(status.int("replicas").unwrap_or(0)),
            json!(status.int("readyReplicas").unwrap_or(0)),
            age::of(object, now),
            json!(names),
            json!(images),
            json!(label_selector::shown(&spec["selector"])),
        ]
    }
}
