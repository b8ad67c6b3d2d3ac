//! Values of the libraries, which only their own functions look into.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::authorizer::{Authorizer, Decision, Question};
use super::library::format::NamedFormat;
use super::library::net::Cidr;
use super::library::semver::Semver;
use super::library::url::Url;
use crate::quantity::Quantity;

/// A value of a library.
#[derive(Debug, Clone)]
pub enum Opaque<'a> {
    /// An amount.
    Quantity(Quantity),
    /// An address.
    Ip(IpAddr),
    /// A range of addresses.
    Cidr(Cidr),
    /// A URL.
    Url(Arc<Url>),
    /// A named format.
    Format(&'static NamedFormat),
    /// A version.
    Semver(Arc<Semver>),
    /// Who answers what a user may do.
    Authorizer(&'a dyn Authorizer),
    /// The same, about a service account.
    Subject(Check<'a>),
    /// A question about a path, yet without a verb.
    PathCheck(Check<'a>),
    /// A question about a group, yet without a resource.
    GroupCheck(Check<'a>),
    /// A question about a resource, yet without a verb.
    ResourceCheck(Check<'a>),
    /// An answer.
    Decision(Arc<Decision>),
}

/// A question that is being put together.
#[derive(Clone)]
pub struct Check<'a> {
    pub(super) authorizer: &'a dyn Authorizer,
    pub(super) question: Arc<Question>,
}

impl<'a> Check<'a> {
    /// A question that is asked of `authorizer`, as far as it is known.
    pub fn new(authorizer: &'a dyn Authorizer, question: Question) -> Check<'a> {
        Check { authorizer, question: Arc::new(question) }
    }
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.question.fmt(out)
    }
}

impl Opaque<'_> {
    /// The name of its type.
    pub fn name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Authorizer(_) | Opaque::Subject(_) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl PartialEq for Opaque<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            (Opaque::Semver(a), Opaque::Semver(b)) => a == b,
            (Opaque::Decision(a), Opaque::Decision(b)) => a == b,
            (Opaque::Subject(a), Opaque::Subject(b))
            | (Opaque::PathCheck(a), Opaque::PathCheck(b))
            | (Opaque::GroupCheck(a), Opaque::GroupCheck(b))
            | (Opaque::ResourceCheck(a), Opaque::ResourceCheck(b)) => a.question == b.question,
            _ => false,
        }
    }
}
