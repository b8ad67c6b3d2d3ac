//! The events of an object: what happened to it, and how often.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::kinds;
use windlass_api::resources::age;

use super::sheet::{Sheet, number, text};
use crate::cli::session::Session;

/// The events about an object, oldest first.
pub async fn of(session: &Session, object: &Value) -> Result<Vec<Value>> {
    let metadata = &object["metadata"];
    let mut fields =
        format!("involvedObject.name={},involvedObject.kind={}", text(metadata, "name"), text(object, "kind"));
    // A node's events name it before it has a uid, so they are found by name alone.
    if text(object, "kind") != "Node" {
        fields += &format!(",involvedObject.uid={}", text(metadata, "uid"));
    }
    let namespace = metadata["namespace"].as_str();
    let mut events = session.list(&kinds::EVENT, namespace, &[("fieldSelector", &fields)]).await?;
    events.sort_by(|one, other| last_seen(one).cmp(last_seen(other)));
    Ok(events)
}

/// When an event was last seen, in RFC 3339.
pub fn last_seen(event: &Value) -> &str {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    times.into_iter().find_map(Value::as_str).unwrap_or_default()
}

/// When an event was first seen.
fn first_seen(event: &Value) -> &str {
    let times = [&event["firstTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]];
    times.into_iter().find_map(Value::as_str).unwrap_or_default()
}

/// `5s`, or `5s (x3 over 2m)`.
pub fn interval(event: &Value, now: Timestamp) -> String {
    let count = number(event, "count").max(number(&event["series"], "count"));
    if count > 1 {
        return format!("{} (x{count} over {})", age::since(last_seen(event), now), age::since(first_seen(event), now));
    }
    age::since(first_seen(event), now)
}

/// Who tells.
pub fn source(event: &Value) -> &str {
    match text(&event["source"], "component") {
        "" => text(event, "reportingComponent"),
        component => component,
    }
}

/// What is told, on one line, with the part of the object that it is about.
pub fn message(event: &Value) -> String {
    let message = text(event, "message").trim();
    match text(&event["involvedObject"], "fieldPath") {
        "" => message.to_owned(),
        path => format!("{path}: {message}"),
    }
}

/// The last lines of a description.
pub fn describe(sheet: &mut Sheet, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        sheet.field(0, "Events", super::sheet::NONE);
        return;
    }
    sheet.line(0, "Events:\n  Type\tReason\tAge\tFrom\tMessage");
    sheet.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let (kind, reason) = (text(event, "type"), text(event, "reason"));
        let cells =
            [kind, reason, &interval(event, now), source(event), &message(event)].map(|cell| cell.replace('\t', " "));
        sheet.line(1, cells.join("\t"));
    }
}

#[cfg(test)]
mod tests {
    use super::{describe, interval};
    use crate::cli::describe::sheet::{Sheet, check};
    use serde_json::json;

    #[test]
    fn an_event_says_how_often() {
        let now = "2026-01-01T00:05:00Z".parse().expect("a time");
        let event = json!({"type": "Normal", "reason": "Pulled", "message": "m\n", "count": 3, "source": {"component": "kubelet"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:04:30Z",
            "involvedObject": {"fieldPath": "spec.containers{a}"}});
        assert_eq!(interval(&event, now), "30s (x3 over 5m)");
        let mut sheet = Sheet::default();
        describe(&mut sheet, &[event], now);
        let expected = "Events:\n  Type    Reason  Age               From     Message\n  ----    ------  ----              ----     -------\n  Normal  Pulled  30s (x3 over 5m)  kubelet  spec.containers{a}: m\n";
        check(&sheet.text, expected);
    }
}
