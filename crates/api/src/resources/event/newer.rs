//! Event of `events.k8s.io/v1`: the object of the core group under the names that followed.
//!
//! Rules
//!   N1 one object   it lies in the store as the core Event; names differ, and nothing is lost on the way
//!   N2 newly made   what is made in this form says when it happened, is Normal or Warning, and sets nothing deprecated
//!   N3 series       what goes on counts two at least, and says when it was last seen
//!   N4 history      once told, only its series and metadata change
//! Errors name the fields as the core group does: so does Kubernetes.
//! Source: API reference, events.k8s.io/v1 Event.

use jiff::Timestamp;
use serde_json::Value;

use super::super::same::same;
use super::super::tree::Tree;
use super::super::{Rules, row};
use super::{Event, columns};
use crate::convert::Convert;
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::Resource;

/// The row of the newer Event.
pub(in super::super) fn resource() -> Resource {
    row(&kinds::NEWER_EVENT, columns(), Newer)
        .created_by_update()
        .short_names(&["ev"])
        .stored_as(&kinds::EVENT, Newer)
        .selectable(&[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ])
}

/// N1: the core name of a field, and the newer one.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Core names of what this form replaced.
const DEPRECATED: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];

/// Core names of what happened (N4).
const HISTORY: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

const SERIES_COUNT_MIN: i64 = 2;

struct Newer;

impl Convert for Newer {
    fn to_served(&self, object: &mut Value) {
        NAMES.iter().for_each(|(core, newer)| rename(object, core, newer));
    }

    fn to_stored(&self, object: &mut Value) {
        NAMES.iter().for_each(|(core, newer)| rename(object, newer, core));
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

/// The event with its core names.
fn core(object: &Value) -> Value {
    let mut core = object.clone();
    Newer.to_stored(&mut core);
    core
}

impl Rules for Newer {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let event = core(object);
        Event.validate(&event, errors);
        validate_series(&event["series"], errors);
        if !event.is_set("eventTime") {
            errors.required(&Path::new("eventTime"), "");
        }
        let kind = event.text("type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", &format!("has invalid value: {kind}"));
        }
        // Typed clients send an empty source and a count of zero with every event.
        for field in DEPRECATED.into_iter().filter(|field| !same(&event[*field], &Value::Null)) {
            errors.invalid(&Path::new(field), "", "needs to be unset");
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (event, before) = (core(object), core(old));
        for field in HISTORY.into_iter().filter(|field| !same(&event[*field], &before[*field])) {
            errors.immutable(&Path::new(field), event[field].clone());
        }
    }

    /// An event that was made in the core group need not be one that could be made here.
    fn validate_changed(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let event = core(object);
        Event.validate(&event, errors);
        validate_series(&event["series"], errors);
        self.validate_update(object, old, errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        Event.cells(&core(object), now)
    }
}

/// N3.
fn validate_series(series: &Value, errors: &mut Errors) {
    if !series.is_object() {
        return;
    }
    if series.int("count").unwrap_or(0) < SERIES_COUNT_MIN {
        errors.invalid(&Path::new("series.count"), "", &format!("should be at least {SERIES_COUNT_MIN}"));
    }
    if !series.is_set("lastObservedTime") {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use super::Newer;
    use crate::convert::Convert;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    const WHEN: &str = "2026-01-01T00:00:00.000000Z";

    fn event() -> Value {
        json!({"metadata": {"name": "e", "namespace": "a"}, "eventTime": WHEN, "type": "Normal", "reason": "R", "action": "A",
            "note": "n", "regarding": {"namespace": "a"}, "reportingController": "c", "reportingInstance": "c-1"})
    }

    /// The good event with these fields in place of its own.
    fn with(fields: Value) -> Value {
        let mut event = event();
        crate::merge::merge(&mut event, fields);
        event
    }

    fn check(judge: impl Fn(&mut Errors), expected: &[&str]) {
        let mut errors = Errors::new();
        judge(&mut errors);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn n1_both_groups_have_one_object() {
        let full = with(json!({"deprecatedCount": 3, "deprecatedSource": {"component": "c"},
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:00Z"}));
        let mut object = full.clone();
        Newer.to_stored(&mut object);
        assert_eq!((&object["message"], &object["count"]), (&json!("n"), &json!(3)));
        assert_eq!((&object["involvedObject"], &object["note"]), (&json!({"namespace": "a"}), &Value::Null));
        Newer.to_served(&mut object);
        assert_eq!(object, full);
    }

    #[test]
    fn n2_a_new_event_is_of_the_new_form() {
        check(|errors| Newer.validate(&event(), errors), &[]);
        let typed = with(
            json!({"deprecatedCount": 0, "deprecatedSource": {"component": ""}, "deprecatedFirstTimestamp": null}),
        );
        check(|errors| Newer.validate(&typed, errors), &[]);
        let old = with(json!({"eventTime": null, "type": "Odd", "deprecatedCount": 1}));
        check(|errors| Newer.validate(&old, errors), &["eventTime", "type", "count"]);
        check(|errors| Newer.validate_changed(&old, &old, errors), &[]);
    }

    #[test]
    fn n3_a_series_counts_two_at_least() {
        let once = with(json!({"series": {"count": 1}}));
        check(|errors| Newer.validate(&once, errors), &["series.count", "series.lastObservedTime"]);
        let again = with(json!({"series": {"count": 2, "lastObservedTime": WHEN}}));
        check(|errors| Newer.validate_changed(&again, &event(), errors), &[]);
    }

    #[test]
    fn n4_what_happened_stays() {
        let another = with(json!({"note": "m", "reportingInstance": "c-2"}));
        check(|errors| Newer.validate_changed(&another, &event(), errors), &["message", "reportingInstance"]);
    }
}
