//! Role-based access: what roles and bindings in the store let a user do.
//!
//! `rule` says what one rule allows, `policy` whose rules are whose, `escalation` who may write roles and bindings,
//! `defaults` and `restore` which of them every cluster has.
//!
//! Guarantees  a role or binding counts for the first request after the answer to its write
//! Source: Kubernetes' authorization reference, "Using RBAC Authorization".

mod defaults;
mod escalation;
mod policy;
mod restore;
mod rule;

pub(crate) use escalation::{check_binding, check_role};
pub(crate) use policy::{Grant, Policy, Verdict};
pub(crate) use restore::restore;
pub(crate) use rule::Rule;
