//! Deployment: the pods of an application, and how they are replaced when it changes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, label_selector, name_column, pod, row, wide};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of Deployment.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Ready", "string", "ready pods of those wanted"),
        column("Up-to-date", "integer", "pods made from the present template"),
        column("Available", "integer", "pods that have been ready long enough"),
        age_column(),
        wide("Containers", "string", "the names of the template's containers"),
        wide("Images", "string", "the images of the template's containers"),
        wide("Selector", "string", "which pods belong to it"),
    ];
    row(&kinds::DEPLOYMENT, columns, Deployment)
        .short_names(&["deploy"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Scale])
        .counts_generations()
}

struct Deployment;

impl Rules for Deployment {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ready = format!("{}/{}", status.int("readyReplicas").unwrap_or(0), spec.int("replicas").unwrap_or(0));
        let (names, images) = pod::template_columns(&spec["template"]);
        vec![
            json!(object["metadata"].text("name")),
            json!(ready),
            json!(status.int("updatedReplicas").unwrap_or(0)),
            json!(status.int("availableReplicas").unwrap_or(0)),
            age::of(object, now),
            json!(names),
            json!(images),
            json!(label_selector::shown(&spec["selector"])),
        ]
    }
}
