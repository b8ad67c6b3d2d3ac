//! networking.k8s.io: who reaches what, and by which addresses.

pub(super) mod ingress;
pub(super) mod ingress_class;
pub(super) mod ip_address;
pub(super) mod network_policy;
pub(super) mod service_cidr;

use serde_json::Value;

use super::check::{named, required_name};
use super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

/// A reference to an object of any kind: its group if it has one, its kind, its name.
fn validate_reference(reference: &Value, at: &Path, errors: &mut Errors) {
    if let Some(group) = reference.get("apiGroup").and_then(Value::as_str).filter(|group| !group.is_empty()) {
        named(name::subdomain, group, &at.child("apiGroup"), errors);
    }
    required_name(reference, "kind", name::path_segment, at, errors);
    required_name(reference, "name", name::path_segment, at, errors);
}

/// A host of a rule: a DNS name, whose first part may be `*`.
fn validate_host(host: &str, path: &Path, errors: &mut Errors) {
    let rule = if host.contains('*') { name::wildcard_subdomain } else { name::subdomain };
    named(rule, host, path, errors);
}

/// A reference as columns show it: `Kind.group/name`.
fn shown_reference(reference: &Value) -> String {
    let group = reference.text("apiGroup");
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", reference.text("kind"), reference.text("name"))
}
