//! `pods/binding`, and `bindings` which name their pod: the scheduler's decision, written once.
//!
//! Rules
//!   R1 once         a pod that has a node, or is ending, is bound no more: 409
//!   R2 condition    a bound pod is PodScheduled
//!   R3 notes        annotations of the binding go to the pod
//!   R4 arrived      where room was made for the pod is said no more
//!
//! Source: API reference, core/v1 Binding.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::field::{Errors, Path};
use windlass_api::{ApiError, Subresource};

use crate::admit;
use crate::answer::Answer;
use crate::change::{MODIFIED, Part, change_owned};
use crate::decode;
use crate::owners::Ownership;
use crate::request::Target;
use crate::server::Call;
use crate::write::{self, WriteOptions, text};

const MESSAGE: &str = "k8s.io.api.core.v1.Binding";

pub(crate) async fn create(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let message = decode::message_named(MESSAGE)?;
    let (binding, warnings) = decode::decode(call.headers, body, message, decode::validation(call.query)?)?;
    decide(call, binding, warnings).await
}

/// The same, where the binding itself says which pod of the namespace it is about.
pub(crate) async fn create_named(call: Call<'_>, mut binding: Value) -> Result<Answer, ApiError> {
    let kind = &call.target.resource.kind;
    write::check_kind(kind, &mut binding)?;
    write::check_place(kind, &call.target.namespace, "", &mut binding)?;
    let name = text(&binding["metadata"], "name").to_owned();
    if name.is_empty() {
        let mut errors = Errors::new();
        errors.required(&Path::new("metadata").child("name"), "name or generateName is required");
        return Err(ApiError::invalid(kind, "", &errors));
    }
    if name.contains('/') {
        let mut errors = Errors::new();
        errors.invalid(&Path::new("metadata").child("name"), json!(name), "may not contain '/'");
        return Err(ApiError::invalid(kind, &name, &errors));
    }
    let pods = call.server.config.registry.get("", "v1", "pods").expect("pods are a built-in kind");
    let target = Target { resource: pods.clone(), name, sub: Some(Subresource::Binding), ..call.target.clone() };
    decide(Call { target: &target, ..call }, binding, Vec::new()).await
}

async fn decide(call: Call<'_>, mut binding: Value, warnings: Vec<String>) -> Result<Answer, ApiError> {
    let began = call.server.world.now();
    let options = WriteOptions::parse(call.query)?;
    write::complete(call, &mut binding, ("v1", "Binding"));
    admit::part(call, "CREATE", &mut binding).await?;
    check(call, &binding)?;
    let now = call.server.world.now_rfc3339();
    let kept = (options.dry_run, Ownership::Kept);
    let mut uid = String::new();
    let changed = change_owned(call, Part::Binding, kept, |pod, _| {
        uid = text(&pod["metadata"], "uid").to_owned();
        bind(call, pod, &binding, &now)
    });
    changed.await?;
    if !options.dry_run {
        call.server.starts.bound(&uid, (began, call.server.world.now()));
    }
    Ok(Answer::tree(write::success(Value::Null)).code(StatusCode::CREATED).warn(warnings))
}

fn check(call: Call<'_>, binding: &Value) -> Result<(), ApiError> {
    let mut errors = Errors::new();
    let target = Path::new("target");
    match text(&binding["target"], "kind") {
        "" | "Node" => {}
        other => errors.not_supported(&target.child("kind"), other, &["Node", "<empty>"]),
    }
    if text(&binding["target"], "name").is_empty() {
        errors.required(&target.child("name"), "");
    }
    let name = text(&binding["metadata"], "name");
    if !name.is_empty() && name != call.target.name {
        errors.invalid(&Path::new("metadata").child("name"), name, "must be the name of the pod");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&call.target.resource.kind, &call.target.name, &errors))
    }
}

fn bind(call: Call<'_>, pod: &Value, binding: &Value, now: &str) -> Result<Value, ApiError> {
    let kind = &call.target.resource.kind;
    let name = &call.target.name;
    for field in ["uid", "resourceVersion"] {
        let wanted = text(&binding["metadata"], field);
        if !wanted.is_empty() && wanted != text(&pod["metadata"], field) {
            return Err(ApiError::conflict(kind, name, MODIFIED));
        }
    }
    if pod["metadata"].get("deletionTimestamp").is_some() {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(ApiError::conflict(kind, name, &why));
    }
    let bound_to = text(&pod["spec"], "nodeName");
    if !bound_to.is_empty() {
        let why = format!("pod {name} is already assigned to node {bound_to:?}");
        return Err(ApiError::conflict(kind, name, &why));
    }
    let mut bound = pod.clone();
    bound["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(annotations) = binding["metadata"]["annotations"].as_object().filter(|map| !map.is_empty()) {
        if !bound["metadata"]["annotations"].is_object() {
            bound["metadata"]["annotations"] = json!({});
        }
        for (key, value) in annotations {
            bound["metadata"]["annotations"][key] = value.clone();
        }
    }
    set_scheduled(&mut bound, now);
    Ok(bound)
}

/// R2.
fn set_scheduled(pod: &mut Value, now: &str) {
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    // R4.
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let list = conditions.as_array_mut().expect("made one just above");
    list.retain(|condition| condition["type"] != "PodScheduled");
    list.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now}));
}
