//! What a node's agent may write: its own Node, lease, CSINode and ResourceSlices, the pods bound to it, and nothing in
//! them that would give it more than it has.
//!
//! Rules
//!   R1 own          a Node, a lease and a CSINode are created and changed only under the agent's own name, a ResourceSlice
//!                   only for the devices of its node
//!   R2 pods         only those bound to the node are changed or deleted; which claims were made for them, and may be read
//!                   therefore, the node does not say
//!   R3 privileges   an agent changes neither its taints, nor its owners, nor labels reserved for the cluster's admin
//!   R4 volumes      of a PersistentVolume only the finalizer of the node's own driver is put on and taken off
//!   R5 claims       of a claim only how large its volume has become is said
//!   R6 certificates are asked for only for pods that are bound to the node, with their account, each by its uid
//!
//! Source: admission controllers reference, NodeRestriction; CVE-2025-5187.

use serde_json::Value;
use windlass_api::binding::{self, LOCAL_DRIVER, LOCAL_FINALIZER};
use windlass_api::{ApiError, Kind, kinds};

use crate::change::Part;
use crate::key;
use crate::server::Call;
use crate::write::{text, tree};

/// Labels that only the cluster's admin gives to nodes.
const RESERVED_LABEL_SUFFIX: &str = "node-restriction.kubernetes.io";

pub(super) fn create(call: Call<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(node) = call.who.node_name() else { return Ok(()) };
    let kind = &call.target.resource.kind;
    let name = text(&object["metadata"], "name");
    if [&kinds::NODE, &kinds::LEASE, &kinds::CSI_NODE].contains(&kind) && name != node {
        return Err(refuse(call, name, &format!("node {node:?} is not allowed to create one for {name:?}")));
    }
    if *kind == kinds::NODE {
        check_privileges(call, node, &Value::Null, object)?;
    }
    if *kind == kinds::RESOURCE_SLICE {
        check_slice(call, node, name, object)?;
    }
    if *kind == kinds::POD_CERTIFICATE_REQUEST {
        check_certificate(call, node, object).map_err(|why| refuse(call, name, &why))?;
    }
    Ok(())
}

pub(super) fn update(call: Call<'_>, part: Part, old: &Value, object: &Value) -> Result<(), ApiError> {
    let Some(node) = call.who.node_name() else { return Ok(()) };
    let kind = &call.target.resource.kind;
    if *kind == kinds::POD {
        check_bound(call, node, &call.target.name, old)?;
        let field = "resourceClaimStatuses";
        if part == Part::Status && old["status"][field] != object["status"][field] {
            let name = &call.target.name;
            let why = format!("node {node:?} cannot update resourceClaimStatuses of pod {name:?}");
            return Err(refuse(call, name, &why));
        }
        return Ok(());
    }
    if *kind == kinds::NODE {
        if part == Part::Main && old["spec"]["taints"] != object["spec"]["taints"] {
            return Err(refuse(call, node, &format!("node {node:?} is not allowed to modify taints")));
        }
        return check_privileges(call, node, old, object);
    }
    if *kind == kinds::RESOURCE_SLICE {
        check_slice(call, node, &call.target.name, old)?;
    }
    if *kind == kinds::PERSISTENT_VOLUME {
        check_volume(call, node, old, object)?;
    }
    if *kind == kinds::PERSISTENT_VOLUME_CLAIM {
        check_claim(call, node, old, object)?;
    }
    Ok(())
}

pub(super) fn delete(call: Call<'_>, name: &str, object: &Value) -> Result<(), ApiError> {
    match call.who.node_name() {
        Some(node) if call.target.resource.kind == kinds::POD => check_bound(call, node, name, object),
        Some(node) if call.target.resource.kind == kinds::RESOURCE_SLICE => check_slice(call, node, name, object),
        _ => Ok(()),
    }
}

/// R6.
fn check_certificate(call: Call<'_>, node: &str, request: &Value) -> Result<(), String> {
    let spec = &request["spec"];
    let named = text(spec, "nodeName");
    if named != node {
        return Err(format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"
        ));
    }
    let find = |kind: &Kind, namespace: &str, name: &str| {
        let entry = call.server.store.get(&key::object(kind, namespace, name));
        entry.map_or(Value::Null, |entry| tree(&entry))
    };
    let (namespace, name) = (&call.target.namespace, text(spec, "podName"));
    let pod = find(&kinds::POD, namespace, name);
    let account = text(&pod["spec"], "serviceAccountName");
    if text(&pod["spec"], "nodeName") != node {
        return Err(format!("pod {name:?} is not running on node {node:?}"));
    }
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return Err(format!("pod {name:?} is a mirror pod"));
    }
    let account_object = find(&kinds::SERVICE_ACCOUNT, namespace, account);
    let node_object = find(&kinds::NODE, "", node);
    for (what, found, is) in [
        ("pod UID", text(spec, "podUID"), text(&pod["metadata"], "uid")),
        ("serviceAccountName", text(spec, "serviceAccountName"), account),
        ("serviceAccountUID", text(spec, "serviceAccountUID"), text(&account_object["metadata"], "uid")),
        ("nodeUID", text(spec, "nodeUID"), text(&node_object["metadata"], "uid")),
    ] {
        if is.is_empty() || found != is {
            return Err(format!(
                "PodCertificateRequest for pod {name:?} contains {what} ({found:?}) which differs from that of the running pod ({is:?})"
            ));
        }
    }
    Ok(())
}

/// R4.
fn check_volume(call: Call<'_>, node: &str, old: &Value, object: &Value) -> Result<(), ApiError> {
    let finalizers = |object: &Value| -> Vec<Value> {
        let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        list.filter(|found| **found != LOCAL_FINALIZER).cloned().collect()
    };
    let rest = |object: &Value| {
        let mut rest = object.clone();
        for field in ["finalizers", "resourceVersion", "managedFields", "generation"] {
            if let Some(metadata) = rest["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
        rest
    };
    if binding::is_local_on(old, node) && finalizers(old) == finalizers(object) && rest(old) == rest(object) {
        return Ok(());
    }
    let why = format!("node {node:?} can only change its own finalizer on volumes of {LOCAL_DRIVER} that lie on it");
    Err(refuse(call, &call.target.name, &why))
}

/// R5.
fn check_claim(call: Call<'_>, node: &str, old: &Value, object: &Value) -> Result<(), ApiError> {
    const SAID: [&str; 4] = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];
    let rest = |object: &Value| {
        let mut rest = object.clone();
        for field in ["resourceVersion", "managedFields", "generation"] {
            rest["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
        }
        for field in SAID {
            rest["status"].as_object_mut().map(|status| status.remove(field));
        }
        rest
    };
    if rest(old) == rest(object) {
        return Ok(());
    }
    let why = format!("node {node:?} can only say of claims how large their volumes have become");
    Err(refuse(call, &call.target.name, &why))
}

fn check_bound(call: Call<'_>, node: &str, name: &str, pod: &Value) -> Result<(), ApiError> {
    if text(&pod["spec"], "nodeName") == node {
        return Ok(());
    }
    Err(refuse(call, name, &format!("node {node:?} can only change pods with spec.nodeName set to itself")))
}

fn check_slice(call: Call<'_>, node: &str, name: &str, slice: &Value) -> Result<(), ApiError> {
    if text(&slice["spec"], "nodeName") == node {
        return Ok(());
    }
    Err(refuse(call, name, "can only write ResourceSlices with spec.nodeName set to its own name"))
}

fn check_privileges(call: Call<'_>, node: &str, old: &Value, object: &Value) -> Result<(), ApiError> {
    let (before, after) = (&old["metadata"], &object["metadata"]);
    if before["ownerReferences"] != after["ownerReferences"] {
        return Err(refuse(call, node, &format!("node {node:?} is not allowed to set ownerReferences")));
    }
    let reserved = |metadata: &Value| -> Vec<(String, Value)> {
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let reserved = labels.filter(|(key, _)| {
            let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
            prefix == RESERVED_LABEL_SUFFIX || prefix.ends_with(&format!(".{RESERVED_LABEL_SUFFIX}"))
        });
        reserved.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    if reserved(before) != reserved(after) {
        let why = format!("node {node:?} is not allowed to set labels of {RESERVED_LABEL_SUFFIX}");
        return Err(refuse(call, node, &why));
    }
    Ok(())
}

fn refuse(call: Call<'_>, name: &str, why: &str) -> ApiError {
    ApiError::forbidden(&call.target.resource.kind, name, why)
}
