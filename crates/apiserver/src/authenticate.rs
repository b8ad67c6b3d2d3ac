//! Who is at the other end: the subject of the client certificate that TLS has verified, or the account of a bearer token.
//!
//! Rules
//!   R1 certificate  common name is the user, organizations are the groups; without a name nobody is proven
//!   R2 none         no certificate is the anonymous user; a certificate that TLS cannot verify never gets here
//!   R3 bearer       one `Authorization: Bearer` header with a token of this cluster (`token`); every other proof that is
//!                   offered is refused with 401 rather than ignored: who sends one does not want to be anonymous
//!   R4 both         who proves two things is whom the certificate names
//!   R5 kept here    the token goes no further: it is taken out of the request

use std::borrow::Cow;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use windlass_api::{ApiError, Reason};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{ANONYMOUS, Identity};
use crate::server::Server;
use crate::token::{self, ISSUER, TokenError};

/// Groups taken from one certificate.
const GROUPS_MAX: usize = 64;

/// The identity that a verified certificate chain proves.
pub(crate) fn authenticate(chain: Option<&[CertificateDer<'_>]>) -> Identity {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Identity::anonymous() };
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Identity::anonymous() };
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let Some(name) = subject.iter_common_name().find_map(text).filter(|name| !name.is_empty()) else {
        return Identity::anonymous();
    };
    Identity::new(name, subject.iter_organization().filter_map(text).take(GROUPS_MAX))
}

/// Who asks, after what a request itself offers as proof. `who` is whom its connection proves.
pub(crate) fn request<'a>(
    server: &Server,
    who: &'a Identity,
    headers: &mut HeaderMap,
) -> Result<Cow<'a, Identity>, ApiError> {
    if !headers.contains_key(AUTHORIZATION) {
        return Ok(Cow::Borrowed(who));
    }
    let proven = {
        let mut offered = headers.get_all(AUTHORIZATION).iter();
        let text = offered.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = text.trim().split_once(' ').unwrap_or_default();
        if offered.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        by_token(server, token.trim(), &[ISSUER.to_owned()]).map_err(|error| {
            tracing::debug!(%error, "refused a bearer token");
            unauthorized()
        })?
    };
    headers.remove(AUTHORIZATION);
    Ok(if who.name == ANONYMOUS { Cow::Owned(proven) } else { Cow::Borrowed(who) })
}

/// Whom a token proves, if it is meant for one of these audiences.
pub(crate) fn by_token(server: &Server, text: &str, audiences: &[String]) -> Result<Identity, TokenError> {
    let claims = server.tokens.check(text, server.world.now().as_second(), audiences)?;
    token::identity(server, &claims)
}

fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}
