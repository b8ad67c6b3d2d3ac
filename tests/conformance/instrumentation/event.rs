//! Event: one object, read and written as `v1` and as `events.k8s.io/v1`.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::walk::{Walk, holds};

/// Since when the series of a test goes on.
const SEEN: &str = "2026-01-01T00:00:00.000000Z";

fn row(test: &Test) -> Walk {
    let object = json!({"involvedObject": {"namespace": test.namespace}, "message": "a test", "reason": "Test",
        "type": "Normal", "reportingComponent": "conformance"});
    Walk::namespaced(test, "v1", "events", object).change(json!({"message": "patched"}))
}

fn new_row(test: &Test) -> Walk {
    let object = json!({"eventTime": SEEN, "regarding": {"namespace": test.namespace}, "note": "a test", "reason": "Test",
        "action": "Testing", "type": "Normal", "reportingController": "conformance.example.com/test",
        "reportingInstance": "test-1"});
    Walk::namespaced(test, "events.k8s.io/v1", "events", object)
        .change(json!({"series": {"count": 2, "lastObservedTime": SEEN}}))
}

/// An event becomes a series.
async fn is_repeated(test: &Test, version: &str, event: Value) {
    let path = test.path(version, "events");
    test.api.create(&path, &event).await.ok();
    let one = format!("{path}/repeated");
    let series = json!({"count": 100, "lastObservedTime": SEEN});
    test.api.replace(&one, |event| event["series"] = series.clone()).await;
    holds(&test.api.get(&one).await.ok(), &json!({"series": series}));
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn an_event_lives(test: &Test) {
    row(test).lives(test).await;
    let event = json!({"metadata": {"name": "repeated"}, "involvedObject": {"namespace": test.namespace},
        "message": "again", "reason": "Test", "type": "Normal"});
    is_repeated(test, "v1", event).await;
}

pub async fn many_new_are_listed_and_deleted(test: &Test) {
    new_row(test).collection(test).await;
}

pub async fn a_new_event_lives(test: &Test) {
    new_row(test).announced(test).await;
    new_row(test).lives(test).await;
    let event = json!({"metadata": {"name": "repeated"}, "eventTime": SEEN, "regarding": {"namespace": test.namespace},
        "note": "again", "reason": "Test", "action": "Testing", "type": "Normal", "reportingController": "conformance.example.com/test",
        "reportingInstance": "test-1"});
    is_repeated(test, "events.k8s.io/v1", event).await;
    let one = format!("{}/repeated", test.path("v1", "events"));
    test.api.patch(&one, MERGE, &json!({"message": "as v1"})).await.ok();
    let new = test.api.get(&format!("{}/repeated", test.path("events.k8s.io/v1", "events"))).await.ok();
    assert_eq!(new["note"], "as v1", "one object is served in both groups");
}
