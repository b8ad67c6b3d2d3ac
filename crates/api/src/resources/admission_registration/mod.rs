//! admissionregistration.k8s.io: what else a write must be admitted by.
//!
//! The files:
//!   webhook   Validating- and MutatingWebhookConfiguration
//!   policy    Validating- and MutatingAdmissionPolicy
//!   binding   the bindings of both
//!   expression  what the expressions of policies may name, and that they compile
//!   type_check  what they would get wrong about the kinds that a policy is for
//!   matching  which requests one of them looks at: rules, selectors, conditions
//!
//! Every CEL expression of these kinds passes [`validate_expression`].

pub(super) mod binding;
pub(super) mod expression;
mod matching;
pub(super) mod policy;
pub(super) mod type_check;
pub(super) mod webhook;

use serde_json::Value;

use super::tree::Tree;
use super::{Resource, column, name_column};
use crate::field::{Errors, Path};
use crate::resource::Column;

/// A name, another column or two, and the age.
fn columns(own: impl IntoIterator<Item = Column>) -> Vec<Column> {
    let own = own.into_iter();
    [name_column()]
        .into_iter()
        .chain(own)
        .chain([column("Age", "string", "time since the object was created")])
        .collect()
}

/// Lists these kinds among those that extend the API.
fn extends_api(mut resource: Resource) -> Resource {
    resource.categories.push("api-extensions".to_owned());
    resource.needs_revision()
}

/// A CEL expression that must be there. What it may say is checked by whoever compiles it.
fn validate_expression(owner: &Value, field: &str, missing: &str, at: &Path, errors: &mut Errors) {
    if owner.text(field).trim().is_empty() {
        errors.required(&at.child(field), missing);
    }
}
