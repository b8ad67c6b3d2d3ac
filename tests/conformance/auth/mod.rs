//! sig-auth: identities, their tokens and certificates, and what reviews say.

mod certificate_signing_request;
mod issuer;
mod service_account;
mod token_file;

use crate::{Case, case, on_node};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("CertificateSigningRequest API", certificate_signing_request::a_request_lives_and_is_decided),
        case!("OIDC Discovery (ServiceAccountIssuerDiscovery)", issuer::the_issuer_says_how_its_tokens_are_checked),
        case!("RootCA ConfigMap test", service_account::every_namespace_keeps_the_root_certificate),
        case!(
            "Service account tokens auto mount optionally",
            service_account::tokens_are_mounted_unless_somebody_declines
        ),
        on_node!("Service Account Tokens Must AutoMount", token_file::every_pod_finds_its_account),
        on_node!(
            "TokenRequestProjection should mount a projected volume with token using TokenRequest API.",
            token_file::a_token_is_projected
        ),
        case!("ServiceAccount lifecycle test", service_account::an_account_lives),
        case!("ServiceAccount, create and review token", service_account::a_token_is_reviewed),
        case!("ServiceAccount, update a ServiceAccount", service_account::an_account_is_updated),
        case!("SubjectReview, API Operations", service_account::reviews_say_what_requests_meet),
    ]
}
