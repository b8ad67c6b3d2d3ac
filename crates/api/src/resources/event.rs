//! Event: something that happened to an object, said once and counted when it happens again.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, column, name_column, row, wide};
use crate::kind::kinds;
use crate::resource::{Column, Resource, Rules};

/// The row of Event.
pub(super) fn resource() -> Resource {
    let columns = vec![
        column("Last Seen", "string", "time since it last happened"),
        column("Type", "string", "Normal or Warning"),
        column("Reason", "string", "why, as one word for machines"),
        column("Object", "string", "the object that it happened to"),
        wide("Subobject", "string", "the part of the object"),
        wide("Source", "string", "who says so"),
        column("Message", "string", "what happened, for people"),
        wide("First Seen", "string", "time since it first happened"),
        wide("Count", "string", "how often it happened"),
        Column { priority: 1, ..name_column() },
    ];
    row(&kinds::EVENT, columns, Event).short_names(&["ev"]).selectable(&[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ])
}

struct Event;

impl Rules for Event {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let first = first_text(&[object.text("firstTimestamp"), object.text("eventTime")]);
        let first_seen = age::since(first, now);
        let series = &object["series"];
        let (last_seen, count) = if series.is_object() {
            (age::since(series.text("lastObservedTime"), now), series.int("count").unwrap_or(0))
        } else {
            let last = first_text(&[object.text("lastTimestamp"), first]);
            (age::since(last, now), object.int("count").unwrap_or(0).max(1))
        };
        let involved = &object["involvedObject"];
        vec![
            json!(last_seen),
            json!(object.text("type")),
            json!(object.text("reason")),
            json!(target(involved)),
            json!(involved.text("fieldPath")),
            json!(source(object)),
            json!(object.text("message").trim()),
            json!(first_seen),
            json!(count),
            json!(object["metadata"].text("name")),
        ]
    }
}

fn first_text<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().find(|text| !text.is_empty()).copied().unwrap_or_default()
}

fn target(involved: &Value) -> String {
    let kind = involved.text("kind").to_lowercase();
    match involved.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let component = first_text(&[event["source"].text("component"), event.text("reportingComponent")]);
    match first_text(&[event["source"].text("host"), event.text("reportingInstance")]) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
