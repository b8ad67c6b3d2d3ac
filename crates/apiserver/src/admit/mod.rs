//! What a write must be allowed beyond its own rules: things that depend on other objects, or on who asks.
//!
//! Each file looks at one noun. What must still hold when the write happens comes back as operations, which go into the
//! same transaction: nothing checked here can change between the check and the write.

mod certificate;
mod definition;
mod limit_range;
mod namespace;
mod node;
mod policy;
mod priority;
mod quota;
mod runtime_class;
mod secret;
mod service;
pub(crate) mod service_account;

pub(crate) use policy::Policies;

use serde_json::Value;
use windlass_api::{ApiError, kinds};
use windlass_store::Op;

use crate::change::Part;
use crate::rbac;
use crate::server::Call;
use crate::write::text;

/// What goes into the transaction beside the object.
#[derive(Default)]
pub(crate) struct Admission {
    pub ops: Vec<Op>,
}

/// Admits a new object, completing it.
pub(crate) fn create(call: Call<'_>, object: &mut Value) -> Result<Admission, ApiError> {
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
    } else if *kind == kinds::CERTIFICATE_SIGNING_REQUEST {
        certificate::create(call, object);
    } else if *kind == kinds::SECRET {
        secret::fill(call, object);
    }
    policy::admit(call, "CREATE", &Value::Null, object)?;
    rights(call, &Value::Null, object)?;
    admission.ops.extend(quota::create(call, object)?);
    Ok(admission)
}

/// Admits a changed object, completing it.
pub(crate) fn update(call: Call<'_>, part: Part, old: &Value, object: &mut Value) -> Result<Admission, ApiError> {
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
        certificate::update(call, part, old, object);
    } else if *kind == kinds::SECRET && part == Part::Main {
        secret::fill(call, object);
    } else if *kind == kinds::PERSISTENT_VOLUME_CLAIM && part == Part::Main {
        limit_range::admit_claim(call, object)?;
    } else if *kind == kinds::RESOURCE_QUOTA && part == Part::Status {
        quota::count(call, object)?;
    }
    if part != Part::Binding {
        policy::admit(call, "UPDATE", old, object)?;
    }
    rights(call, old, object)?;
    admission.ops.extend(quota::update(call, old, object)?);
    Ok(admission)
}

/// Admits what gives rights: only who has them gives them, whatever a policy made of the object.
fn rights(call: Call<'_>, old: &Value, object: &Value) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    if [&kinds::ROLE, &kinds::CLUSTER_ROLE].contains(&kind) {
        rbac::check_role(call, old, object)
    } else if [&kinds::ROLE_BINDING, &kinds::CLUSTER_ROLE_BINDING].contains(&kind) {
        rbac::check_binding(call, old, object)
    } else {
        Ok(())
    }
}

/// Admits the deletion of an object.
pub(crate) fn delete(call: Call<'_>, name: &str, object: &Value) -> Result<(), ApiError> {
    node::delete(call, name, object)?;
    if call.target.resource.kind == kinds::NAMESPACE {
        namespace::delete(name)?;
    }
    policy::admit_delete(call, object)
}

/// What an object gives back when it is removed.
pub(crate) fn release(call: Call<'_>, object: &Value) -> Admission {
    let mut admission = Admission::default();
    if call.target.resource.kind == kinds::SERVICE {
        admission.ops.extend(service::release(object));
    }
    admission
}
