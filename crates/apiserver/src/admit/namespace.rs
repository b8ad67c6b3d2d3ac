//! Namespaces: nothing is created in one that does not exist or is ending, and some are never deleted.
//!
//! Source: admission controllers reference, NamespaceLifecycle; API concepts on namespace finalizers.

use serde_json::{Value, json};
use windlass_api::error::Cause;
use windlass_api::{ApiError, kinds};
use windlass_store::{Expect, Op};

use crate::key;
use crate::server::{Call, header};
use crate::write;

/// Namespaces that the cluster itself lives in.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Held by the namespace controller until a namespace is empty.
const CONTENT_FINALIZER: &str = "kubernetes";
/// The label that lets selectors name a namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespace of the target exists and is not ending, and that must hold when the object `name` is written.
pub(super) fn check(call: Call<'_>, name: &str) -> Result<Op, ApiError> {
    let target = call.target;
    let key = key::object(&kinds::NAMESPACE, "", &target.namespace);
    let Some(entry) = call.server.store.get(&key) else {
        return Err(ApiError::not_found(&kinds::NAMESPACE, &target.namespace));
    };
    if header(&entry).is_ending() {
        let namespace = &target.namespace;
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(&target.resource.kind, name, &why);
        error.details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
        return Err(error);
    }
    Ok(Op::check(key, Expect::Revision(entry.revision)))
}

/// Writes the namespace of the target anew, as it is: whatever began before this and expects the namespace as it was has
/// to look again.
pub(super) fn touch(call: Call<'_>) -> Result<Op, ApiError> {
    let target = call.target;
    let key = key::object(&kinds::NAMESPACE, "", &target.namespace);
    let entry = call.server.store.get(&key);
    let entry = entry.ok_or_else(|| ApiError::not_found(&kinds::NAMESPACE, &target.namespace))?;
    Ok(Op::put(key, write::template(&write::tree(&entry))?, Expect::Revision(entry.revision)))
}

/// A new namespace is held until it is empty, and can be selected by its name.
pub(super) fn create(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let finalizers = &mut object["spec"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|finalizer| finalizer == CONTENT_FINALIZER) => {}
        Some(list) => list.push(json!(CONTENT_FINALIZER)),
        None => *finalizers = json!([CONTENT_FINALIZER]),
    }
    let labels = &mut object["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(NAME_LABEL.to_owned(), name);
    }
}

/// The cluster's own namespaces stay.
pub(super) fn delete(name: &str) -> Result<(), ApiError> {
    if IMMORTAL.contains(&name) {
        return Err(ApiError::forbidden(&kinds::NAMESPACE, name, "this namespace may not be deleted"));
    }
    Ok(())
}
