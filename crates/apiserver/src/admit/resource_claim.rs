//! Claims that ask for an admin's access to devices, which others may be using at the same time.
//!
//! Rules
//!   R1 admin       such a claim, or a template of it, is made only in a namespace that says that it is for admins
//!   R2 given       nor is such an access given elsewhere, by whoever writes what a claim was given
//!
//! Source: Kubernetes documentation, "Dynamic Resource Allocation", Admin access.
//! Not here       changes of what a claim asks for: there are none

use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::{ApiError, kinds};

use crate::key;
use crate::server::{Call, header};
use crate::write;

/// The label of such a namespace.
const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) fn create(call: Call<'_>, object: &Value) -> Result<(), ApiError> {
    let (spec, at) = match call.target.resource.kind == kinds::RESOURCE_CLAIM_TEMPLATE {
        true => (&object["spec"]["spec"], Path::new("spec").child("spec")),
        false => (&object["spec"], Path::new("spec")),
    };
    let mut errors = Errors::new();
    let requests = spec["devices"]["requests"].as_array().into_iter().flatten();
    for (index, _) in requests.enumerate().filter(|(_, request)| request["exactly"]["adminAccess"] == true) {
        let at = at.child("devices").child("requests").index(index).child("exactly").child("adminAccess");
        errors.forbidden(&at, &needs_label());
    }
    refuse_unless_for_admins(call, object, &errors)
}

/// R2.
pub(super) fn update_status(call: Call<'_>, old: &Value, object: &Value) -> Result<(), ApiError> {
    let given = &object["status"]["allocation"]["devices"]["results"];
    if *given == old["status"]["allocation"]["devices"]["results"] {
        return Ok(());
    }
    let mut errors = Errors::new();
    let at = Path::new("status").child("allocation").child("devices").child("results");
    let all = given.as_array().into_iter().flatten().enumerate();
    for (index, _) in all.filter(|(_, result)| result["adminAccess"] == true) {
        errors.forbidden(&at.index(index).child("adminAccess"), &needs_label());
    }
    refuse_unless_for_admins(call, object, &errors)
}

fn refuse_unless_for_admins(call: Call<'_>, object: &Value, errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() || is_for_admins(call) {
        return Ok(());
    }
    write::refuse_if_any(&call.target.resource, object, errors)
}

fn needs_label() -> String {
    format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace")
}

fn is_for_admins(call: Call<'_>) -> bool {
    let namespace = call.server.store.get(&key::object(&kinds::NAMESPACE, "", &call.target.namespace));
    namespace.is_some_and(|entry| header(&entry).labels().get(LABEL) == Some("true"))
}
