//! ReplicaSet: its pods, by phase.

use anyhow::Result;
use serde_json::Value;
use windlass_api::kinds;

use super::pod::{is_owned, phases};
use super::sheet::{Sheet, number, selector, text};
use super::template::template;
use crate::cli::session::Session;

pub(super) async fn describe(sheet: &mut Sheet, session: &Session, object: &Value) -> Result<bool> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let chosen = selector(&spec["selector"]);
    let pods = session.list(&kinds::POD, metadata["namespace"].as_str(), &[("labelSelector", &chosen)]).await?;
    let pods: Vec<Value> = pods.into_iter().filter(|pod| is_owned(pod, text(metadata, "uid"))).collect();
    sheet.field(0, "Name", text(metadata, "name"));
    sheet.field(0, "Namespace", text(metadata, "namespace"));
    sheet.field(0, "Selector", chosen);
    sheet.labels(0, "Labels", &metadata["labels"]);
    sheet.annotations(0, &metadata["annotations"]);
    sheet.controller(object);
    let replicas = (number(&object["status"], "replicas"), number(spec, "replicas"));
    sheet.field(0, "Replicas", format_args!("{} current / {} desired", replicas.0, replicas.1));
    sheet.field(0, "Pods Status", phases(&pods));
    template(sheet, &spec["template"]);
    sheet.conditions(object);
    Ok(true)
}
