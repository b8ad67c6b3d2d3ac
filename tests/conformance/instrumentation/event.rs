//! Event: its life and collections.

use serde_json::{Value, json};

use crate::Test;
use crate::walk::{Walk, holds};

/// Since when the series of a test goes on.
const SEEN: &str = "2026-01-01T00:00:00.000000Z";

fn row(test: &Test) -> Walk {
    let object = json!({"involvedObject": {"namespace": test.namespace}, "message": "a test", "reason": "Test",
        "type": "Normal", "reportingComponent": "conformance"});
    Walk::namespaced(test, "v1", "events", object).change(json!({"message": "patched"}))
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
