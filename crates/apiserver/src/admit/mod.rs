//! What a write must be allowed beyond its own rules: things that depend on other objects, or on who asks.
//!
//! Each file looks at one noun. What must still hold when the write happens comes back as operations, which go into the
//! same transaction: nothing checked here can change between the check and the write.

mod certificate;
mod definition;
mod device_taint;
mod event;
mod limit_range;
mod matching;
mod namespace;
mod node;
mod pod_security;
mod policy;
mod priority;
mod quota;
mod resource_claim;
mod runtime_class;
mod secret;
mod service;
pub(crate) mod service_account;
mod surroundings;
mod webhook;

pub(crate) use policy::Policies;

use std::sync::Arc;

use futures::FutureExt;
use serde_json::Value;
use windlass_api::field::Errors;
use windlass_api::{ApiError, Subresource, kinds, scale};
use windlass_store::{Entry, Op};

use crate::change::Part;
use crate::convert;
use crate::delete::DeleteOptions;
use crate::rbac;
use crate::server::Call;
use crate::write::{self, text};
use event::Event;
use policy::Now;

/// What goes into the transaction beside the object.
#[derive(Default)]
pub(crate) struct Admission {
    pub ops: Vec<Op>,
}

/// Admits a new object, completing it.
pub(crate) async fn create(call: Call<'_>, object: &mut Value) -> Result<Admission, ApiError> {
    node::create(call, object)?;
    let kind = &call.target.resource.kind;
    let mut admission = Admission::default();
    if kind.namespaced {
        let check = namespace::check(call, text(&object["metadata"], "name"))?;
        admission.ops.push(if *kind == kinds::RESOURCE_QUOTA { namespace::touch(call)? } else { check });
    }
    admission.ops.extend(definition::check(call, true)?);
    if *kind == kinds::CUSTOM_RESOURCE_DEFINITION {
        admission.ops.push(definition::create(call, object));
    } else if *kind == kinds::NAMESPACE {
        namespace::create(object);
    } else if *kind == kinds::SERVICE {
        admission.ops.extend(service::create(call, object)?);
    } else if *kind == kinds::POD {
        service_account::create(call, object)?;
        admission.ops.extend(priority::create(call, object)?);
        admission.ops.extend(runtime_class::create(call, object)?);
        limit_range::admit_pod(call, object)?;
    } else if *kind == kinds::PERSISTENT_VOLUME_CLAIM {
        limit_range::admit_claim(call, object)?;
    } else if *kind == kinds::PRIORITY_CLASS {
        priority::check_one_default(call, object)?;
    } else if *kind == kinds::SECRET {
        secret::fill(call, object);
    } else if *kind == kinds::DEVICE_TAINT_RULE {
        device_taint::complete_rule(call, &Value::Null, object);
    } else if *kind == kinds::RESOURCE_SLICE {
        device_taint::complete_slice(call, object);
    }
    mutate(call, Event::new("CREATE", &Value::Null, &Value::Null), object).await?;
    if *kind == kinds::CERTIFICATE_SIGNING_REQUEST {
        // Whatever a policy or webhook made of it.
        certificate::create(call, object)?;
    } else if *kind == kinds::POD_CERTIFICATE_REQUEST {
        certificate::check_pod_request(call, object)?;
    }
    rights(call, &Value::Null, object)?;
    if [&kinds::RESOURCE_CLAIM, &kinds::RESOURCE_CLAIM_TEMPLATE].contains(&kind) {
        resource_claim::create(call, object)?;
    }
    pod_security::check(call, Part::Main, &Value::Null, object)?;
    admission.ops.extend(quota::create(call, object)?);
    Ok(admission)
}

/// Decides what follows from a new object at once, once its rules have prepared it.
pub(crate) fn complete(call: Call<'_>, object: &mut Value) {
    let kind = &call.target.resource.kind;
    if *kind == kinds::CERTIFICATE_SIGNING_REQUEST {
        certificate::complete(call, object);
    } else if *kind == kinds::VALIDATING_ADMISSION_POLICY {
        policy::check_types(call, object);
    }
}

/// Decides what follows from a changed object at once, once its generation is known.
pub(crate) fn complete_changed(call: Call<'_>, part: Part, object: &mut Value) {
    if call.target.resource.kind == kinds::VALIDATING_ADMISSION_POLICY && part == Part::Main {
        policy::check_types(call, object);
    }
}

/// Admits a changed object, completing it.
pub(crate) async fn update(call: Call<'_>, part: Part, old: &Value, object: &mut Value) -> Result<Admission, ApiError> {
    node::update(call, part, old, object)?;
    let mut admission = Admission::default();
    admission.ops.extend(definition::check(call, false)?);
    let kind = &call.target.resource.kind;
    if *kind == kinds::CUSTOM_RESOURCE_DEFINITION && part == Part::Main {
        admission.ops.extend(definition::update(call, old, object));
    } else if *kind == kinds::SERVICE && part == Part::Main {
        admission.ops.extend(service::update(call, old, object)?);
    } else if *kind == kinds::PRIORITY_CLASS {
        priority::check_one_default(call, object)?;
    } else if *kind == kinds::CERTIFICATE_SIGNING_REQUEST {
        certificate::update(call, part, old, object)?;
    } else if *kind == kinds::POD_CERTIFICATE_REQUEST && part == Part::Status {
        certificate::decide_pod_request(call, old, object)?;
    } else if *kind == kinds::SECRET && part == Part::Main {
        secret::fill(call, object);
    } else if *kind == kinds::PERSISTENT_VOLUME_CLAIM && part == Part::Main {
        limit_range::admit_claim(call, object)?;
    } else if *kind == kinds::POD && part == Part::Resize {
        limit_range::admit_resize(call, object)?;
    } else if *kind == kinds::RESOURCE_CLAIM && part == Part::Status {
        resource_claim::update_status(call, old, object)?;
    } else if *kind == kinds::RESOURCE_QUOTA && part == Part::Status {
        quota::count(call, object)?;
    } else if *kind == kinds::DEVICE_TAINT_RULE && part == Part::Main {
        device_taint::complete_rule(call, old, object);
    } else if *kind == kinds::RESOURCE_SLICE {
        device_taint::complete_slice(call, object);
    }
    if part != Part::Binding {
        mutate(call, Event::new("UPDATE", old, &Value::Null), object).await?;
    }
    rights(call, old, object)?;
    pod_security::check(call, part, old, object)?;
    admission.ops.extend(quota::update(call, old, object)?);
    Ok(admission)
}

/// Admits what gives rights: only who has them gives them, whatever a policy made of the object.
fn rights(call: Call<'_>, old: &Value, object: &Value) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    if *kind == kinds::CLUSTER_TRUST_BUNDLE {
        certificate::check_bundle(call, old, object)
    } else if [&kinds::ROLE, &kinds::CLUSTER_ROLE].contains(&kind) {
        rbac::check_role(call, old, object)
    } else if [&kinds::ROLE_BINDING, &kinds::CLUSTER_ROLE_BINDING].contains(&kind) {
        rbac::check_binding(call, old, object)
    } else {
        Ok(())
    }
}

/// What decides about this request beside the server itself; `None` where nothing does.
fn deciding(call: Call<'_>) -> Option<Now> {
    let now = call.server.policies.look(&call.server.store, Policies::now);
    (!now.is_empty() && !event::is_exempt(call)).then_some(now)
}

/// What policies and webhooks make of an object.
async fn mutate(call: Call<'_>, event: Event<'_>, object: &mut Value) -> Result<(), ApiError> {
    let Some(now) = deciding(call) else { return Ok(()) };
    policy::mutate_all(call, &now, event.operation, event.old, object)?;
    if !now.hooks.mutate() {
        return Ok(());
    }
    if call.target.sub != Some(Subresource::Scale) {
        return webhook::mutate(call, &now.hooks, event, object).boxed().await;
    }
    let resource = &call.target.resource;
    let (old, before) = (scale::of(resource, event.old), scale::of(resource, object));
    let mut shown = before.clone();
    webhook::mutate(call, &now.hooks, Event { old: &old, ..event }, &mut shown).boxed().await?;
    if shown == before {
        return Ok(());
    }
    let mut errors = Errors::new();
    scale::apply(resource, object, &shown, &mut errors);
    write::refuse_if_any(resource, object, &errors)
}

/// Asks policies and webhooks about a new object as it will be, once its own rules hold.
pub(crate) async fn validate_new(call: Call<'_>, object: &Value) -> Result<(), ApiError> {
    validate(call, Event::new("CREATE", &Value::Null, object)).await
}

/// The same about a changed object.
pub(crate) async fn validate_changed(call: Call<'_>, part: Part, old: &Value, object: &Value) -> Result<(), ApiError> {
    if part == Part::Binding { Ok(()) } else { validate(call, Event::new("UPDATE", old, object)).await }
}

async fn validate(call: Call<'_>, event: Event<'_>) -> Result<(), ApiError> {
    let Some(now) = deciding(call) else { return Ok(()) };
    policy::validate(call, &now, event)?;
    if !now.hooks.validate() {
        return Ok(());
    }
    if call.target.sub != Some(Subresource::Scale) {
        return webhook::validate(call, &now.hooks, event).boxed().await;
    }
    let resource = &call.target.resource;
    let (old, object) = (scale::of(resource, event.old), scale::of(resource, event.object));
    webhook::validate(call, &now.hooks, Event { old: &old, object: &object, ..event }).boxed().await
}

/// Admits what is made or asked through a subresource and is not of the resource's own kind: a Binding, an Eviction, the
/// options of an exec.
pub(crate) async fn part(call: Call<'_>, operation: &str, object: &mut Value) -> Result<(), ApiError> {
    let Some(now) = deciding(call) else { return Ok(()) };
    if now.hooks.mutate() {
        let event = Event::new(operation, &Value::Null, &Value::Null);
        webhook::mutate(call, &now.hooks, event, object).boxed().await?;
    }
    let event = Event::new(operation, &Value::Null, object);
    policy::validate(call, &now, event)?;
    webhook::validate(call, &now.hooks, event).boxed().await
}

/// Admits the deletion of an object, with these options.
pub(crate) async fn delete(
    call: Call<'_>,
    name: &str,
    (entry, object): (&Arc<Entry>, &Value),
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    node::delete(call, name, object)?;
    if call.target.resource.kind == kinds::NAMESPACE {
        namespace::delete(name)?;
    }
    let Some(now) = deciding(call) else { return Ok(()) };
    // An eviction was admitted as such.
    if call.target.sub == Some(Subresource::Eviction) {
        return Ok(());
    }
    let served = write::tree(&*convert::entry(call.server, &call.target.resource, entry.clone()).await?);
    let options = options.to_value();
    let event = Event { options: &options, ..Event::new("DELETE", &served, &Value::Null) };
    if now.hooks.mutate() {
        webhook::mutate(call, &now.hooks, event, &mut Value::Null).boxed().await?;
    }
    policy::validate(call, &now, event)?;
    webhook::validate(call, &now.hooks, event).boxed().await
}

/// What an object gives back when it is removed.
pub(crate) fn release(call: Call<'_>, object: &Value) -> Admission {
    let mut admission = Admission::default();
    if call.target.resource.kind == kinds::SERVICE {
        admission.ops.extend(service::release(object));
    }
    admission
}
