//! Whom to take another server for: what its certificate must be proven by.
//!
//! Rules
//!   T1 bundle     certificates that are given are the only ones trusted
//!   T2 pinned     a server that shows a certificate of the bundle itself is trusted even if that one is an authority's:
//!                 many webhooks sign for themselves; its name and time are checked as ever
//!   T3 system     without a bundle the machine's own roots are trusted
//!   T4 anyone     who asked not to look at certificates gets that: the handshake's signatures are still checked

use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::pki::Credential;

/// Certificates in one bundle.
const BUNDLE_MAX: usize = 1_000;
/// Where systems keep the certificates that they trust, the first that is there.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Whom these certificates (PEM) vouch for.
    Bundle(Vec<u8>),
    /// Whom the machine trusts.
    System,
    /// Anyone.
    Anyone,
}

impl Trust {
    /// The trust that a `caBundle` means, in base64; one that cannot be read vouches for nobody.
    pub fn of_bundle(bundle: &str) -> Trust {
        match bundle {
            "" => Trust::System,
            bundle => Trust::Bundle(BASE64.decode(bundle).unwrap_or_default()),
        }
    }

    /// TLS by this trust; with a credential we prove who we are.
    pub fn client_config(&self, credential: Option<&Credential>) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Trust::Bundle(pem) => pinned(certificates(pem)?, &provider)?,
            Trust::System => by_system(&provider)?,
            Trust::Anyone => Arc::new(Unverified(provider.clone())),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut tls = match credential {
            None => builder.with_no_client_auth(),
            Some(credential) => {
                let (chain, key) = credential.to_tls().map_err(|error| error.to_string())?;
                builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
            }
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(tls)
    }
}

/// The certificates of a bundle.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(BUNDLE_MAX).collect();
    let read = read.map_err(|error| format!("unable to load root certificates: {error}"))?;
    if read.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    Ok(read)
}

/// T3, read once.
fn by_system(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let pem = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        Arc::new(roots)
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    let verifier =
        verifier.map_err(|error| format!("this machine trusts no certificates; give a caBundle: {error}"))?;
    Ok(verifier)
}

/// T1 and T2.
fn pinned(
    bundle: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in &bundle {
        roots.add(certificate.clone()).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let inner = inner.map_err(|error| format!("unable to load root certificates: {error}"))?;
    Ok(Arc::new(Pinned { bundle, inner }))
}

#[derive(Debug)]
struct Pinned {
    bundle: Vec<CertificateDer<'static>>,
    inner: Arc<WebPkiServerVerifier>,
}

impl Pinned {
    /// T2.
    fn shown_itself(
        &self,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        let (_, parsed) = X509Certificate::from_der(shown).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
        match now {
            Some(now) if now < parsed.validity.not_before => Err(CertificateError::NotValidYet.into()),
            Some(now) if now <= parsed.validity.not_after => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::Expired.into()),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.bundle.iter().any(|own| own == shown) {
            return self.shown_itself(shown, name, now);
        }
        self.inner.verify_server_cert(shown, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// T4.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Trust, certificates, pinned};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::pki_types::{ServerName, UnixTime};
    use std::sync::Arc;
    use std::time::Duration;

    /// Seconds of a day in 2026.
    const NOW: u64 = 1_780_000_000;

    fn own_authority(name: &str) -> String {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").pem()
    }

    #[test]
    fn t1_a_bundle_without_certificates_is_none() {
        let refused = Trust::Bundle(b"hello".to_vec()).client_config(None).expect_err("no PEM");
        assert_eq!(refused, "unable to load root certificates: unable to parse bytes as PEM block");
    }

    #[test]
    fn t1_and_t2_a_server_may_show_what_it_is_trusted_by() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pem = own_authority("hook.ns.svc");
        let shown = certificates(pem.as_bytes()).expect("PEM");
        let verifier = pinned(shown.clone(), &provider).expect("a bundle");
        let check = |certificate: &str, name: &'static str, seconds: u64| {
            let certificate = certificates(certificate.as_bytes()).expect("PEM");
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let name = ServerName::try_from(name).expect("a DNS name");
            verifier.verify_server_cert(&certificate[0], &[], &name, &[], now).is_ok()
        };
        assert!(check(&pem, "hook.ns.svc", NOW));
        assert!(!check(&pem, "other.ns.svc", NOW), "another name");
        assert!(!check(&pem, "hook.ns.svc", 2 * NOW), "too late");
        assert!(!check(&own_authority("hook.ns.svc"), "hook.ns.svc", NOW), "another authority");
    }
}
