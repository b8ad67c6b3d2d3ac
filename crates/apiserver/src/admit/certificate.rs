//! Certificate signing requests: who asks is what the server knows, not what the request says.
//!
//! Rules
//!   R1 requester   user, groups and the rest are those that were proven
//!   R2 decisions   are made through `/approval`; `/status` leaves them as they are
//!   R3 times       a condition says when it came about and when it was last changed
//!
//! Source: API reference, certificates.k8s.io/v1; "Certificates and Certificate Signing Requests".
//! Not here    signing: a request is approved here, and signed by whoever its signer is

use serde_json::{Value, json};

use crate::change::Part;
use crate::server::Call;
use crate::write::text;

/// Conditions that only `/approval` makes.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// R1.
pub(super) fn create(call: Call<'_>, request: &mut Value) {
    let spec = &mut request["spec"];
    if let Some(spec) = spec.as_object_mut() {
        let who = call.who;
        spec.insert("username".to_owned(), json!(who.name));
        spec.insert("groups".to_owned(), json!(who.groups));
        spec.remove("uid");
        if !who.uid.is_empty() {
            spec.insert("uid".to_owned(), json!(who.uid));
        }
        spec.remove("extra");
        if !who.extra.is_empty() {
            spec.insert("extra".to_owned(), json!(who.extra));
        }
    }
}

/// R2 and R3.
pub(super) fn update(call: Call<'_>, part: Part, old: &Value, request: &mut Value) {
    let before = conditions(old).to_vec();
    let Some(now) = request.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    if part == Part::Status {
        let is_decision = |condition: &Value| DECISIONS.contains(&text(condition, "type"));
        now.retain(|condition| !is_decision(condition));
        now.splice(0..0, before.iter().filter(|condition| is_decision(condition)).cloned());
    }
    let time = call.server.world.now_rfc3339();
    for condition in now.iter_mut().filter(|condition| condition.is_object() && !before.contains(condition)) {
        let same = before.iter().find(|other| text(other, "type") == text(condition, "type"));
        let kept = same.filter(|other| text(other, "status") == text(condition, "status"));
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(time);
        }
        if condition["lastTransitionTime"].is_null() {
            let since = kept.map(|other| other["lastTransitionTime"].clone()).filter(|since| !since.is_null());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| json!(time));
        }
    }
}

fn conditions(request: &Value) -> &[Value] {
    request["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}
