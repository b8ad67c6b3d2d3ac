//! What expressions may ask about permissions. Who answers is given by the caller: this crate does not know.
//!
//! Source: Kubernetes "CEL in Kubernetes", authorizer library.

use std::fmt;

/// Whom permission is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Subject {
    /// The user of the request.
    #[default]
    Requester,
    /// A service account: namespace and name.
    ServiceAccount(String, String),
}

/// A question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Whom it is about.
    pub subject: Subject,
    /// What is to be done.
    pub verb: String,
    /// A path that is no resource; the fields below are empty then.
    pub path: Option<String>,
    /// The resource's group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Its subresource.
    pub subresource: String,
    /// The namespace; empty for all.
    pub namespace: String,
    /// The object's name; empty for all.
    pub name: String,
    /// As a field selector of a list.
    pub field_selector: Option<String>,
    /// As a label selector of a list.
    pub label_selector: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// It is allowed.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: String,
    /// What went wrong while it was decided; empty if nothing.
    pub error: String,
}

/// Answers what users may do.
pub trait Authorizer: fmt::Debug + Send + Sync {
    /// Whether it is allowed.
    fn decide(&self, question: &Question) -> Decision;
}
