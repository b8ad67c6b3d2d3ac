//! What happens to an object, as policies and webhooks are told of it.
//!
//! Rules
//!   V1 kind      is what the object says of itself: a Scale, an Eviction or PodExecOptions is not of the resource's kind
//!   V2 settled   what a policy or webhook made of an object is still that object, holds its schema and has its defaults
//!   V3 exempt    what decides about admission is never looked at, so that nothing can lock itself in; neither is what this
//!                server does of its own accord

use serde_json::{Value, json};
use windlass_api::codec::{Validation, check_fields};
use windlass_api::{ApiError, Reason, Resource, kinds};

use crate::server::Call;
use crate::write::text;

/// What happens to an object: both are null where there is none.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub operation: &'a str,
    pub object: &'a Value,
    pub old: &'a Value,
    /// The options of a deletion that came in its body; null where the query says all.
    pub options: &'a Value,
}

impl<'a> Event<'a> {
    /// Something that becomes of an object, with nothing said about how.
    pub fn new(operation: &'a str, old: &'a Value, object: &'a Value) -> Event<'a> {
        Event { operation, object, old, options: &Value::Null }
    }

    /// The object that is there in any case.
    pub fn any(&self) -> &'a Value {
        if self.object.is_null() { self.old } else { self.object }
    }

    /// The name of what it happens to.
    pub fn name(&self, call: Call<'a>) -> &'a str {
        if call.target.name.is_empty() { text(&self.any()["metadata"], "name") } else { &call.target.name }
    }

    /// Whether it is only tried.
    fn is_dry(&self, call: Call<'_>) -> bool {
        call.query.all("dryRun").any(|value| value == "All")
            || self.options["dryRun"].as_array().is_some_and(|all| !all.is_empty())
    }
}

/// V3.
pub(super) fn is_exempt(call: Call<'_>) -> bool {
    call.target.resource.kind.group == kinds::VALIDATING_ADMISSION_POLICY.group || call.who.is_server()
}

fn resource_of(resource: &Resource) -> Value {
    let kind = &resource.kind;
    json!({"group": kind.group, "version": kind.version, "resource": kind.plural})
}

/// V1.
fn kind_of(object: &Value) -> Value {
    let version = text(object, "apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    json!({"group": group, "version": version, "kind": text(object, "kind")})
}

/// What the request says of itself. `seen` is the event as it is looked at, through the row of another version maybe.
pub(super) fn request(call: Call<'_>, event: Event, seen: (&Resource, Event)) -> Value {
    let target = call.target;
    let sub = target.sub.map(|sub| sub.as_str()).unwrap_or_default();
    let who = call.who;
    let mut request = json!({
        "kind": kind_of(seen.1.any()), "requestKind": kind_of(event.any()),
        "resource": resource_of(seen.0), "requestResource": resource_of(&target.resource),
        "name": event.name(call), "namespace": target.namespace,
        "operation": event.operation, "dryRun": event.is_dry(call),
        "userInfo": {"username": who.name, "uid": who.uid, "groups": who.groups, "extra": who.extra},
        "options": options(call, event),
    });
    if !sub.is_empty() {
        request["subResource"] = json!(sub);
        request["requestSubResource"] = json!(sub);
    }
    request
}

/// How it is to be done.
fn options(call: Call<'_>, event: Event) -> Value {
    let kind = match event.operation {
        "CREATE" => "CreateOptions",
        "UPDATE" => "UpdateOptions",
        "DELETE" => "DeleteOptions",
        _ => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if event.is_dry(call) {
        options["dryRun"] = json!(["All"]);
    }
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.query.get(field).filter(|_| event.operation != "DELETE") {
            options[field] = json!(value);
        }
    }
    for (field, value) in event.options.as_object().into_iter().flatten() {
        options[field] = value.clone();
    }
    options
}

/// V2. `by` is who changed it.
pub(super) fn settle(
    call: Call<'_>,
    resource: &Resource,
    (before, changed): (&Value, &mut Value),
    (by, validation): (&str, Validation),
) -> Result<(), ApiError> {
    if !changed.is_object() || !changed["metadata"].is_object() {
        return Err(ApiError::internal(format!("{by} must leave an object with metadata")));
    }
    check_fields(changed, resource.message.get(), &[], validation)?;
    for field in ["apiVersion", "kind"] {
        changed[field] = before[field].clone();
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        if before["metadata"].get(field) != changed["metadata"].get(field) {
            let why = format!("{by} must not change metadata.{field}");
            let mut error = ApiError::forbidden(&resource.kind, text(&before["metadata"], "name"), &why);
            error.reason = Reason::Invalid;
            return Err(error);
        }
    }
    if resource.kind == call.target.resource.kind {
        resource.rules.default(changed);
    }
    Ok(())
}
