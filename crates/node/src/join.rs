//! Joining a cluster: a token in, this node's certificate out.
//!
//! Flow        make a key → connect → the server's CA must be the one the token names → only then send the token → keep the
//!             certificate
//! Guarantees  the token is sent to nobody whose CA differs from the pinned one (a man in the middle gets nothing)
//! Relies on   the server sends its CA behind its certificate in the TLS handshake

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use windlass_api::ApiError;
use windlass_stdx::BoxError;

use crate::server::ServerIdentity;

/// How long all of it may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer: two certificates.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Hex digits of a SHA-256.
const FINGERPRINT_DIGITS: usize = 64;

/// What joining needs.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The API server: `host:port`, or `https://host:port`.
    pub server: String,
    /// `WL1.<fingerprint of the CA>.<secret>`.
    pub token: String,
    /// The name this node wants.
    pub node: String,
    /// The addresses the certificate shall be good for.
    pub addresses: Vec<IpAddr>,
    /// Where key, certificate and CA are kept.
    pub directory: PathBuf,
}

/// Why this machine has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token is malformed.
    #[error(
        "join token: expected WL1.<64 hex digits>.<secret>, found something else; ask the server for it with `windlass token`"
    )]
    Token,
    /// The server's address is malformed.
    #[error("server {0:?}: expected host:port")]
    Server(String),
    /// The server cannot be reached, or is not the one the token is for.
    #[error("could not join by {server}")]
    Reach {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The server refused.
    #[error("{server} refused: {refusal}")]
    Refused {
        /// The server.
        server: String,
        /// What it said.
        refusal: String,
    },
    /// It took too long.
    #[error("{server} did not answer within {JOIN_TIMEOUT:?}")]
    TimedOut {
        /// The server.
        server: String,
    },
    /// The key or request could not be made.
    #[error("could not make a key and a signing request")]
    Key(#[source] rcgen::Error),
    /// A file could not be kept or read.
    #[error("could not {doing} {}", path.display())]
    File {
        /// Read, write, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// The identity an earlier join has left in this directory; `None` when there is none.
pub fn load(directory: &Path) -> Result<Option<ServerIdentity>, JoinError> {
    let read = |name: &str| {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(JoinError::File { doing: "read", path, source }),
        }
    };
    let (cert, key, ca) = (read("node.crt")?, read("node.key")?, read("ca.crt")?);
    Ok(cert.zip(key).zip(ca).map(|((cert_pem, key_pem), ca_pem)| ServerIdentity { cert_pem, key_pem, ca_pem }))
}

/// Joins, and keeps what it got. A machine that has joined before keeps what it has.
pub async fn join(config: &JoinConfig) -> Result<ServerIdentity, JoinError> {
    if let Some(identity) = load(&config.directory)? {
        return Ok(identity);
    }
    let fingerprint = fingerprint_of(&config.token)?;
    let key = KeyPair::generate().map_err(JoinError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", config.node));
    let csr = params.serialize_request(&key).and_then(|request| request.pem()).map_err(JoinError::Key)?;
    let body = json!({"token": config.token, "nodeName": config.node, "csr": csr, "addresses": config.addresses});
    let server = || config.server.clone();
    let answer = match tokio::time::timeout(JOIN_TIMEOUT, ask(&config.server, fingerprint.clone(), &body)).await {
        Err(_) => return Err(JoinError::TimedOut { server: server() }),
        Ok(answer) => answer?,
    };
    let (certificate, ca) = match (answer["certificate"].as_str(), answer["ca"].as_str()) {
        (Some(certificate), Some(ca)) => (certificate.to_owned(), ca.to_owned()),
        _ => {
            return Err(JoinError::Refused { server: server(), refusal: "the answer holds no certificate".to_owned() });
        }
    };
    let found = CertificateDer::from_pem_slice(ca.as_bytes()).ok().map(|ca| fingerprint_of_certificate(&ca));
    if found.as_deref() != Some(fingerprint.as_str()) {
        let refusal = "the answer's CA is not the one the token names".to_owned();
        return Err(JoinError::Refused { server: server(), refusal });
    }
    let identity = ServerIdentity { cert_pem: certificate, key_pem: key.serialize_pem(), ca_pem: ca };
    save(&config.directory, &identity)?;
    Ok(identity)
}

fn fingerprint_of(token: &str) -> Result<String, JoinError> {
    let mut parts = token.trim().splitn(3, '.');
    let (form, fingerprint, secret) =
        (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_hex = fingerprint.len() == FINGERPRINT_DIGITS && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
    if form == Some("WL1") && is_hex && !secret.is_empty() {
        return Ok(fingerprint.to_ascii_lowercase());
    }
    Err(JoinError::Token)
}

fn fingerprint_of_certificate(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn ask(server: &str, fingerprint: String, body: &Value) -> Result<Value, JoinError> {
    let authority = server.trim_start_matches("https://").trim_end_matches('/');
    let wrong = || JoinError::Server(server.to_owned());
    let (host, _) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| wrong())?;
    let reach = |source: BoxError| JoinError::Reach { server: server.to_owned(), source };
    let stream = TcpStream::connect(authority).await.map_err(|error| reach(error.into()))?;
    let tls = pinned(fingerprint).map_err(|error| reach(error.into()))?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| reach(error.into()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| reach(error.into()))?;
    let request = http::Request::post("/windlass/v1/join")
        .header(http::header::HOST, authority)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| reach(error.into()))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let is_success = response.status().is_success();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok::<_, BoxError>((is_success, serde_json::from_slice::<Value>(&bytes)?))
    };
    let connection = async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection for joining ended");
        }
        std::future::pending::<()>().await;
    };
    let (is_success, answer) = tokio::select! {
        biased;
        exchanged = exchange => exchanged.map_err(reach)?,
        () = connection => unreachable!("the connection's future never ends"),
    };
    if is_success {
        return Ok(answer);
    }
    let refusal = ApiError::from_status(&answer).map_or_else(|| answer.to_string(), |error| error.message);
    Err(JoinError::Refused { server: server.to_owned(), refusal })
}

fn save(directory: &Path, identity: &ServerIdentity) -> Result<(), JoinError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| JoinError::File { doing, path, source }
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(failed("make", directory))?;
    // The certificate last: only with it is the join complete, and `load` wants all three.
    for (name, text) in
        [("node.key", &identity.key_pem), ("ca.crt", &identity.ca_pem), ("node.crt", &identity.cert_pem)]
    {
        let path = directory.join(name);
        let temporary = path.with_extension("tmp");
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = written.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
        written.map_err(failed("write", &path))?;
    }
    Ok(())
}

/// TLS that trusts one CA, known by its fingerprint only.
fn pinned(fingerprint: String) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { fingerprint, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    /// The chain must hold the pinned CA, and the server's certificate must be good by it.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let other = |why: &str| rustls::Error::General(why.to_owned());
        let ca = chain.iter().find(|certificate| fingerprint_of_certificate(certificate) == self.fingerprint);
        let ca = ca.ok_or_else(|| {
            other("the server's CA is not the one the token names: this is another cluster, or somebody is in between")
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|error| other(&error.to_string()))?;
        verifier.verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Pinned, fingerprint_of, fingerprint_of_certificate};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_token_names_its_ca() {
        let pin = "AB".repeat(32);
        assert_eq!(fingerprint_of(&format!("WL1.{pin}.s.e.c")).expect("a token"), pin.to_lowercase());
        for token in
            ["", "WL1", "WL1.ab.secret", "WL2.x.y", &format!("WL1.{pin}."), &format!("WL1.{}.s", "z".repeat(64))]
        {
            assert!(fingerprint_of(token).is_err(), "{token}");
        }
    }

    fn authority() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a CA").der().clone();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).expect("a CA");
        (certificate, issuer)
    }

    #[test]
    fn only_a_server_of_the_pinned_ca_gets_the_token() {
        let ((ca, issuer), (other_ca, other_issuer)) = (authority(), authority());
        let leaf = |issuer: &Issuer<'static, KeyPair>| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
            params.signed_by(&key, issuer).expect("a certificate").der().clone()
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Pinned { fingerprint: fingerprint_of_certificate(&ca), provider };
        let name = ServerName::try_from("localhost").expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let check = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>]| {
            pinned.verify_server_cert(leaf, chain, &name, &[], now).is_ok()
        };
        assert!(check(&leaf(&issuer), std::slice::from_ref(&ca)));
        assert!(!check(&leaf(&other_issuer), std::slice::from_ref(&other_ca)), "another CA");
        assert!(!check(&leaf(&other_issuer), std::slice::from_ref(&ca)), "the right CA, but it has not signed");
        assert!(!check(&leaf(&issuer), &[]), "without its CA a server proves nothing");
    }
}
