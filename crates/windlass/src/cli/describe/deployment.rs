//! Deployment: its replicas, how it rolls, and its replica sets.

use anyhow::Result;
use serde_json::Value;
use windlass_api::kinds;

use super::pod::is_owned;
use super::sheet::{NONE, Sheet, date, number, plain, selector, text};
use super::template::template;
use crate::cli::session::Session;

pub(super) async fn describe(sheet: &mut Sheet, session: &Session, object: &Value) -> Result<bool> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    sheet.field(0, "Name", text(metadata, "name"));
    sheet.field(0, "Namespace", text(metadata, "namespace"));
    sheet.field(0, "CreationTimestamp", date(text(metadata, "creationTimestamp")));
    sheet.labels(0, "Labels", &metadata["labels"]);
    sheet.annotations(0, &metadata["annotations"]);
    sheet.field(0, "Selector", selector(&spec["selector"]));
    sheet.field(
        0,
        "Replicas",
        format_args!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(spec, "replicas"),
            number(status, "updatedReplicas"),
            number(status, "replicas"),
            number(status, "availableReplicas"),
            number(status, "unavailableReplicas")
        ),
    );
    sheet.field(0, "StrategyType", text(&spec["strategy"], "type"));
    sheet.field(0, "MinReadySeconds", number(spec, "minReadySeconds"));
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (plain(&rolling["maxUnavailable"]), plain(&rolling["maxSurge"]));
        sheet.field(0, "RollingUpdateStrategy", format_args!("{unavailable} max unavailable, {surge} max surge"));
    }
    template(sheet, &spec["template"]);
    sheet.conditions(object);
    let sets = replica_sets(session, object).await?;
    let (new, old): (Vec<&Value>, Vec<&Value>) = sets.iter().partition(|set| same_template(set, object));
    sheet.field(0, "OldReplicaSets", summary(&old));
    sheet.field(0, "NewReplicaSet", summary(&new));
    Ok(true)
}

/// The replica sets of a Deployment, oldest first.
pub async fn replica_sets(session: &Session, deployment: &Value) -> Result<Vec<Value>> {
    let metadata = &deployment["metadata"];
    let chosen = selector(&deployment["spec"]["selector"]);
    let sets = session.list(&kinds::REPLICA_SET, metadata["namespace"].as_str(), &[("labelSelector", &chosen)]).await?;
    let mut sets: Vec<Value> = sets.into_iter().filter(|set| is_owned(set, text(metadata, "uid"))).collect();
    sets.sort_by(|one, other| {
        let key = |set: &Value| {
            (text(&set["metadata"], "creationTimestamp").to_owned(), text(&set["metadata"], "name").to_owned())
        };
        key(one).cmp(&key(other))
    });
    Ok(sets)
}

/// Whether a replica set holds the Deployment's own template: the label with the template's hash does not count.
fn same_template(set: &Value, deployment: &Value) -> bool {
    let wish = |object: &Value| without_hash(&object["spec"]["template"]);
    wish(set) == wish(deployment)
}

/// A pod template without the label that tells a Deployment's replica sets apart.
pub fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    template
}

fn summary(sets: &[&Value]) -> String {
    let shown: Vec<String> = sets
        .iter()
        .map(|set| {
            let (made, wanted) = (number(&set["status"], "replicas"), number(&set["spec"], "replicas"));
            format!("{} ({made}/{wanted} replicas created)", text(&set["metadata"], "name"))
        })
        .collect();
    if shown.is_empty() { NONE.to_owned() } else { shown.join(", ") }
}
