//! When the taint of a device was added: now, unless its writer says so.
//!
//! Rules
//!   R1 unsaid   a taint without a time is one of now, in rules and in slices
//!   R2 changed  a rule whose effect changed and whose time did not is one of now: its toleration begins anew
//! Source: API reference, resource.k8s.io/v1 DeviceTaint.

use serde_json::{Value, json};

use crate::server::Call;
use crate::write::text;

/// R1 and R2 for a rule. `old` is null for a new one.
pub(super) fn complete_rule(call: Call<'_>, old: &Value, object: &mut Value) {
    let before = &old["spec"]["taint"];
    let Some(taint) = object.pointer_mut("/spec/taint") else { return };
    let is_stale = !old.is_null()
        && text(taint, "effect") != text(before, "effect")
        && text(taint, "timeAdded") == text(before, "timeAdded");
    if is_stale || text(taint, "timeAdded").is_empty() {
        set(call, taint);
    }
}

/// R1 for the devices of a slice.
pub(super) fn complete_slice(call: Call<'_>, object: &mut Value) {
    for device in object.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten() {
        for taint in device.get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
            if text(taint, "timeAdded").is_empty() {
                set(call, taint);
            }
        }
    }
}

fn set(call: Call<'_>, taint: &mut Value) {
    if taint.is_object() {
        taint["timeAdded"] = json!(call.server.world.now_rfc3339());
    }
}
