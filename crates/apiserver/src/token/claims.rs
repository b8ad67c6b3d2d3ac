//! What a token says: the registered claims, and Kubernetes' own about the account and what the token is bound to.

use serde::{Deserialize, Serialize};

/// The claims of a service account token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Vec<String>,
    pub iat: i64,
    pub nbf: i64,
    /// Absent in the token of a Secret, which lasts as long as the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub private: Private,
}

/// Whose token it is, and what it is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Private {
    pub namespace: String,
    #[serde(rename = "serviceaccount")]
    pub account: Ref,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
}

/// An object, and which of all that ever had its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ref {
    pub name: String,
    pub uid: String,
}
