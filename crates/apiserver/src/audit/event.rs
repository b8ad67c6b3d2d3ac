//! One event in the form of audit.k8s.io/v1.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::ApiError;

use super::policy::{Level, Stage};
use crate::identity::Identity;

/// Longest text of a client's that an event repeats.
const TEXT_CHARS_MAX: usize = 2048;

/// From where a request came; a request from inside the process has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

/// What is known of a request.
#[derive(Default)]
pub(super) struct Facts {
    pub id: String,
    pub received: Timestamp,
    pub uri: String,
    pub verb: String,
    pub user: Value,
    pub impersonated: Value,
    pub source: Option<IpAddr>,
    pub user_agent: String,
    pub object: Value,
    pub annotations: Map<String, Value>,
    pub request: Value,
    pub response: Value,
    pub status: Value,
}

impl Facts {
    /// The event as a line.
    pub fn line(&self, level: Level, stage: Stage, now: Timestamp) -> Vec<u8> {
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level.as_str(), "auditID": self.id,
            "stage": stage.as_str(), "requestURI": self.uri, "verb": self.verb, "user": self.user,
            "requestReceivedTimestamp": time(self.received), "stageTimestamp": time(now),
        });
        let mut set = |field: &str, value: Value| {
            if !value.is_null() {
                event[field] = value;
            }
        };
        set("impersonatedUser", self.impersonated.clone());
        set("objectRef", self.object.clone());
        if let Some(source) = self.source {
            set("sourceIPs", json!([source.to_string()]));
        }
        if !self.user_agent.is_empty() {
            set("userAgent", json!(self.user_agent));
        }
        if stage != Stage::RequestReceived {
            set("responseStatus", self.status.clone());
        }
        if level >= Level::Request {
            set("requestObject", self.request.clone());
        }
        if level >= Level::RequestResponse && stage != Stage::RequestReceived {
            set("responseObject", self.response.clone());
        }
        if !self.annotations.is_empty() {
            set("annotations", json!(self.annotations));
        }
        let mut line = serde_json::to_vec(&event).expect("a JSON tree always serialises");
        line.push(b'\n');
        line
    }
}

/// A time as events have it: in microseconds.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A text of a client's, cut where it is too long.
pub(super) fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// Who somebody is, as an event says it.
pub(super) fn user(who: &Identity) -> Value {
    let mut user = json!({"username": short(&who.name), "groups": who.groups});
    if !who.uid.is_empty() {
        user["uid"] = json!(who.uid);
    }
    if !who.extra.is_empty() {
        user["extra"] = json!(who.extra);
    }
    user
}

/// How an answer that is a refusal ended.
pub(super) fn failure(error: &ApiError) -> Value {
    json!({"metadata": {}, "status": "Failure", "message": error.message, "reason": error.to_status()["reason"],
        "code": error.code()})
}

/// Takes away who owns which field, of an object or of each item of a list.
pub(super) fn without_managed_fields(mut tree: Value) -> Value {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut tree);
    tree.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    tree
}
