//! Event: something that happened to an object, said once and counted when it happens again.
//!
//! Rules
//!   E1 place     beside its object; in `default` for objects that are in no namespace
//!   E2 new form  one that has an eventTime says who reports it, what was done and why, briefly
//! Source: API reference, core/v1 Event. [`newer`] is the same object in `events.k8s.io`.

pub(super) mod newer;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::named;
use super::tree::Tree;
use super::{age, column, name_column, row, wide};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Column, Resource, Rules};

/// The row of Event.
pub(super) fn resource() -> Resource {
    row(&kinds::EVENT, columns(), Event).created_by_update().short_names(&["ev"]).selectable(&[
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

/// The columns of both forms.
fn columns() -> Vec<Column> {
    vec![
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
    ]
}

const WORD_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 1024;

struct Event;

impl Rules for Event {
    fn selected(&self, object: &Value, path: &str) -> Option<String> {
        let source = match object["source"].text("component") {
            "" => object.text("reportingComponent"),
            component => component,
        };
        (path == "source").then(|| source.to_owned())
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_place(object, errors);
        if !object.is_set("eventTime") {
            return;
        }
        match object.text("reportingComponent") {
            "" => errors.required(&Path::new("reportingComponent"), ""),
            reporter => named(name::label_key, reporter, &Path::new("reportingComponent"), errors),
        }
        for field in ["reportingInstance", "action", "reason"] {
            match object.text(field) {
                "" => errors.required(&Path::new(field), ""),
                text if text.len() > WORD_BYTES_MAX => {
                    errors.invalid(&Path::new(field), "", &format!("can have at most {WORD_BYTES_MAX} characters"));
                }
                _ => {}
            }
        }
        if object.text("message").len() > MESSAGE_BYTES_MAX {
            let detail = format!("can have at most {MESSAGE_BYTES_MAX} characters");
            errors.invalid(&Path::new("message"), "", &detail);
        }
    }

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

/// E1.
fn validate_place(event: &Value, errors: &mut Errors) {
    let namespace = event["metadata"].text("namespace");
    let of_object = event["involvedObject"].text("namespace");
    let fits = match of_object {
        "" if event.is_set("eventTime") => matches!(namespace, "default" | "kube-system"),
        "" => matches!(namespace, "" | "default"),
        _ => of_object == namespace,
    };
    if !fits {
        let path = Path::new("involvedObject").child("namespace");
        errors.invalid(&path, of_object, "does not match event.namespace");
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

#[cfg(test)]
mod tests {
    use super::Event;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn check(event: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        Event.validate(&event, &mut errors);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, expected, "{event}");
    }

    #[test]
    fn e1_an_event_is_beside_its_object() {
        let at = |namespace: &str, of: &str| json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": of}});
        check(at("a", "a"), &[]);
        check(at("default", ""), &[]);
        check(at("a", "b"), &["involvedObject.namespace"]);
        check(at("a", ""), &["involvedObject.namespace"]);
    }

    #[test]
    fn e2_the_new_form_is_whole_and_brief() {
        check(
            json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
                "reason": "r".repeat(129), "message": "m".repeat(1025), "reportingComponent": "a b"}),
            &["reportingComponent", "reportingInstance", "action", "reason", "message"],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let old_form = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": "done ",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"}, "count": 3,
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"});
        assert_eq!(
            Event.cells(&old_form, now),
            [
                json!("60s"),
                json!("Normal"),
                json!("Pulled"),
                json!("pod/p"),
                json!("spec.containers{c}"),
                json!("kubelet, n"),
                json!("done"),
                json!("10m"),
                json!(3),
                json!("e")
            ]
        );
        let new_form = json!({"eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "s",
            "series": {"count": 7, "lastObservedTime": "2026-01-01T00:09:30.000000Z"}, "involvedObject": {"kind": "Node"}});
        let cells = Event.cells(&new_form, now);
        assert_eq!(
            (&cells[0], &cells[3], &cells[5], &cells[8]),
            (&json!("30s"), &json!("node"), &json!("s"), &json!(7))
        );
        assert_eq!(Event.cells(&json!({}), now)[8], 1);
    }
}
