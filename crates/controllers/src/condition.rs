//! Conditions in a status: read, compare, set.

use jiff::Timestamp;
use serde_json::{Value, json};

/// One condition to be set.
pub(crate) struct Wanted<'a> {
    pub(crate) kind: &'a str,
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: String,
}

/// The condition of this type.
pub(crate) fn find<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// Sets a condition, unless it says the same already. `lastTransitionTime` moves only when the status does.
pub(crate) fn set(conditions: &mut Vec<Value>, wanted: &Wanted, now: Timestamp, with_update_time: bool) {
    let now = text(now);
    let found = conditions.iter_mut().find(|condition| condition["type"] == wanted.kind);
    let transition = match &found {
        Some(found) if found["status"] == wanted.status => found["lastTransitionTime"].clone(),
        _ => json!(now),
    };
    if let Some(found) = &found
        && found["status"] == wanted.status
        && found["reason"] == wanted.reason
        && found["message"] == json!(wanted.message)
    {
        return;
    }
    let mut condition = json!({
        "type": wanted.kind, "status": wanted.status, "reason": wanted.reason, "message": wanted.message,
        "lastTransitionTime": transition,
    });
    if with_update_time {
        condition["lastUpdateTime"] = json!(now);
    }
    match found {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}

/// A time as the API writes it.
pub(crate) fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time in a condition.
pub(crate) fn time(condition: &Value, field: &str) -> Option<Timestamp> {
    condition[field].as_str()?.parse().ok()
}
