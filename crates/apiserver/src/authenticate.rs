//! Who is at the other end of a TLS connection: the subject of the client certificate that TLS has verified.
//!
//! Rules
//!   R1 certificate  common name is the user, organizations are the groups; without a name nobody is proven
//!   R2 none         no certificate is the anonymous user; a certificate that TLS cannot verify never gets here

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::Identity;

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
