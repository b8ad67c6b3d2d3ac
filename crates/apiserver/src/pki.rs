//! The cluster's own certificate authority: made at first start, it vouches for the server, its users and its nodes.
//!
//! Goal        every hop is mutual TLS, and nothing but this directory can issue an identity
//! Writes      `<dir>/ca.key`, `<dir>/front-proxy-ca.key`, `<dir>/join.secret`, `<dir>/sa.key` (mode 0600), `<dir>/ca.crt`,
//!             `<dir>/front-proxy-ca.crt`; each by a temporary file and rename
//! Relies on   rcgen and ring for keys (from the operating system's randomness), World for time and serials
//!
//! Client certificates are good for clients only and the server's for servers only, so that neither can stand in for
//! the other. A node's is good for both, since its agent is asked for logs and exec; it names the node and nothing else.
//! The keys for tokens are several: the first signs, and what the others have signed still counts. A new first one may
//! be put there while the server runs.
//! Not here    revocation, rotation of the CA

mod files;
mod subject;

pub use files::KeyFiles;

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Span, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey as _, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use windlass_stdx::World;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::NodeLink;
use crate::identity::{GROUP_NODES, NODE_NAME_PREFIX};
use crate::token::SigningKey;

/// How long the CA is valid.
const CA_YEARS: i64 = 10;
/// How long a certificate that it issues is valid.
const LEAF_DAYS: i64 = 365;
/// Random bytes in a join secret.
const JOIN_SECRET_BYTES: usize = 24;
/// Keys for tokens that count at one time. A token lives shorter than it takes to rotate so often.
const TOKEN_KEYS_MAX: usize = 4;
/// How far in the past a certificate begins, so that a clock that is a little behind does not refuse it.
const BACKDATED: Duration = Duration::from_secs(300);
/// As whom this server proves itself to aggregated APIs.
pub const FRONT_PROXY_NAME: &str = "front-proxy-client";
/// Names and addresses in one certificate.
pub const SUBJECT_NAMES_MAX: usize = 64;

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The certificate is there but its key is not: the CA cannot issue anything.
    #[error("{} exists but {} does not; restore the key from a backup, or remove both to start a new cluster CA",
        certificate.display(), key.display())]
    KeyMissing {
        /// The certificate.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
    /// A certificate or key could not be read or made.
    #[error("cannot {what}")]
    Certificate {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold {expected}; restore it from a backup", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// TLS could not be set up from the certificates.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A name may not stand in a certificate.
    #[error("expected {expected}, found {found:?}")]
    Name {
        /// What would do.
        expected: &'static str,
        /// What was given.
        found: String,
    },
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Credential {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// The cluster's certificate authority.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    /// Who signs for this server where it speaks for its users, and for nobody else.
    front_proxy: Issuer<'static, KeyPair>,
    front_proxy_pem: String,
    join_secret: String,
    token_keys: Vec<Vec<u8>>,
    token_keys_path: PathBuf,
    world: World,
}

/// Whom a certificate is for.
pub(crate) struct Subject<'a> {
    /// The name (DER).
    pub name: &'a [u8],
    /// The public key with its kind (DER).
    pub key: &'a [u8],
    /// Other names.
    pub names: &'a [SanType],
    pub usage: Usage,
    pub enciphers_keys: bool,
}

/// What a certificate is good for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Usage {
    Client,
    Server,
    Node,
}

impl Pki {
    /// Loads the CA of this directory, or makes a new one there.
    pub fn open(dir: &Path, world: &World) -> Result<Pki, PkiError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
        let (ca_pem, ca_der, issuer) = open_ca(dir, "ca", world)?;
        let (front_proxy_pem, _, front_proxy) = open_ca(dir, "front-proxy-ca", world)?;
        let join_secret = load_or_make_secret(&dir.join("join.secret"), world)?;
        let token_keys_path = dir.join("sa.key");
        if !token_keys_path.exists() {
            add_token_key(&token_keys_path)?;
        }
        let token_keys = load_token_keys(&token_keys_path)?;
        let world = world.clone();
        Ok(Pki {
            issuer,
            ca_pem,
            ca_der,
            front_proxy,
            front_proxy_pem,
            join_secret,
            token_keys,
            token_keys_path,
            world,
        })
    }

    /// Makes a new key for tokens in this directory. From now on it signs; tokens of the keys before it count until
    /// these are pushed out by others. A server that runs takes it in within seconds.
    pub fn rotate_token_key(dir: &Path) -> Result<(), PkiError> {
        add_token_key(&dir.join("sa.key"))
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The certificate of the authority that vouches for this server where it speaks for its users.
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy_pem
    }

    /// What this server proves to aggregated APIs with that it may say who asks.
    pub(crate) fn front_proxy(&self) -> Result<Credential, PkiError> {
        let key = KeyPair::generate().map_err(certificate_error("make a key"))?;
        let params = self.params(FRONT_PROXY_NAME, None, &[], Usage::Client)?;
        let certificate = params.signed_by(&key, &self.front_proxy).map_err(certificate_error("sign a certificate"))?;
        Ok(Credential { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// SHA-256 of the CA's certificate (DER) in lower-case hex: what a join token pins.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.ca_der))
    }

    /// What a machine needs to join: `WL1.<fingerprint of the CA>.<secret>`. To be kept secret.
    pub fn join_token(&self) -> String {
        format!("WL1.{}.{}", self.fingerprint(), self.join_secret)
    }

    /// Whether this is [`Pki::join_token`], compared in a time that does not depend on where they differ.
    pub fn is_join_token(&self, token: &str) -> bool {
        let expected = Sha256::digest(self.join_token());
        let found = Sha256::digest(token);
        expected.iter().zip(found.iter()).fold(0, |differing, (left, right)| differing | (left ^ right)) == 0
    }

    /// A certificate for a user called `name` in `group`.
    pub fn issue_client(&self, name: &str, group: &str) -> Result<Credential, PkiError> {
        self.issue(name, Some(group), &[], Usage::Client)
    }

    /// A certificate for a server reached under these names and addresses.
    pub fn issue_serving(&self, name: &str, subject_names: &[String]) -> Result<Credential, PkiError> {
        self.issue(name, None, subject_names, Usage::Server)
    }

    /// A certificate for the agent of node `node`, which is reached under that name and these addresses.
    pub fn issue_node(&self, node: &str, addresses: &[IpAddr]) -> Result<Credential, PkiError> {
        let (name, names) = node_names(node, addresses)?;
        self.issue(&name, Some(GROUP_NODES), &names, Usage::Node)
    }

    /// A certificate for the agent of node `node` for the key of this signing request (PEM). Whatever else the
    /// request asks for is not given.
    pub fn sign_node(&self, request_pem: &str, node: &str, addresses: &[IpAddr]) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(certificate_error("read the signing request"))?;
        let (name, names) = node_names(node, addresses)?;
        let params = self.params(&name, Some(GROUP_NODES), &names, Usage::Node)?;
        self.sign(&params, &request.public_key)
    }

    /// TLS for the API's listener: serves under the names every cluster expects and `extra`, and takes client
    /// certificates of this CA. A client without one is anonymous; one with a foreign one is refused.
    pub fn server_tls(&self, service_address: IpAddr, extra: &[String]) -> Result<Arc<ServerConfig>, PkiError> {
        let mut names: Vec<String> = [
            "localhost",
            "127.0.0.1",
            "::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .to_vec();
        names.push(service_address.to_string());
        names.extend(extra.iter().filter(|name| !name.is_empty()).cloned());
        names.dedup();
        let (mut chain, key) = self.issue_serving("windlass-apiserver", &names)?.to_tls()?;
        // A joining node knows only the CA's fingerprint: it finds the CA itself here.
        chain.push(self.ca_der.clone());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// How the API server reaches node agents: with a client certificate of its own, trusting this CA only.
    pub fn node_link(&self) -> Result<NodeLink, PkiError> {
        let (chain, key) = self.issue_client("system:windlass:apiserver", crate::identity::GROUP_MASTERS)?.to_tls()?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(NodeLink { tls: Arc::new(tls) })
    }

    /// A key of this cluster for one purpose, the same after every restart.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update("windlass key ");
        hash.update(purpose);
        hash.update(self.issuer.key().serialized_der());
        hash.finalize().into()
    }

    /// The keys for service account tokens as they were when this was opened: the first signs.
    pub(crate) fn opened_token_keys(&self) -> Vec<SigningKey> {
        let keys = self.token_keys.iter();
        keys.map(|der| SigningKey::from_pkcs8(der).expect("the keys were checked when they were opened")).collect()
    }

    /// The keys for tokens as they are now.
    pub(crate) fn token_keys(&self) -> Result<Vec<SigningKey>, PkiError> {
        let malformed = || PkiError::Malformed { path: self.token_keys_path.clone(), expected: TOKEN_KEYS };
        let keys = load_token_keys(&self.token_keys_path)?;
        keys.iter().map(|der| SigningKey::from_pkcs8(der).map_err(|_| malformed())).collect()
    }

    /// A certificate for this subject, this long but no longer than the authority itself (PEM).
    pub(crate) fn sign_subject(&self, subject: &Subject<'_>, life: Duration) -> Result<String, PkiError> {
        let key = SubjectPublicKeyInfo::from_der(subject.key).map_err(certificate_error("read the key"))?;
        if subject.names.len() > SUBJECT_NAMES_MAX {
            let expected = "at most 64 names in a certificate";
            return Err(PkiError::Name { expected, found: subject.names.len().to_string() });
        }
        let mut params = self.params("", None, &[], subject.usage)?;
        params.subject_alt_names = subject.names.to_vec();
        if subject.enciphers_keys {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        let now = self.world.now();
        let moment = |at: jiff::Timestamp| {
            let at = at.to_zoned(TimeZone::UTC);
            let seconds = u64::from(at.hour() as u8) * 3600 + u64::from(at.minute() as u8) * 60;
            let date = at.date();
            rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
                + Duration::from_secs(seconds + u64::from(at.second() as u8))
        };
        params.not_before = moment(now.saturating_sub(BACKDATED).unwrap_or(now));
        let ends = now.saturating_add(life).unwrap_or(now);
        params.not_after = moment(self.ends().map_or(ends, |ca| ends.min(ca)));
        let certificate = params.signed_by(&key, &self.issuer).map_err(certificate_error("sign a certificate"))?;
        let signed = subject::with_subject(certificate.der(), subject.name, |bytes| self.issuer.key().sign(bytes));
        let signed = signed.unwrap_or(Err(rcgen::Error::CouldNotParseCertificate));
        Ok(subject::pem(&signed.map_err(certificate_error("sign a certificate"))?))
    }

    /// When the authority itself ends.
    fn ends(&self) -> Option<jiff::Timestamp> {
        let (_, ca) = X509Certificate::from_der(&self.ca_der).ok()?;
        jiff::Timestamp::from_second(ca.validity().not_after.timestamp()).ok()
    }

    fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der.clone()).map_err(|error| PkiError::Tls(error.to_string()))?;
        Ok(roots)
    }

    fn issue(&self, name: &str, group: Option<&str>, names: &[String], usage: Usage) -> Result<Credential, PkiError> {
        let key = KeyPair::generate().map_err(certificate_error("make a key"))?;
        let params = self.params(name, group, names, usage)?;
        let cert_pem = self.sign(&params, &key)?;
        Ok(Credential { cert_pem, key_pem: key.serialize_pem() })
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<String, PkiError> {
        let certificate = params.signed_by(key, &self.issuer).map_err(certificate_error("sign a certificate"))?;
        Ok(certificate.pem())
    }

    fn params(
        &self,
        name: &str,
        group: Option<&str>,
        names: &[String],
        usage: Usage,
    ) -> Result<CertificateParams, PkiError> {
        if names.len() > SUBJECT_NAMES_MAX {
            return Err(PkiError::Name {
                expected: "at most 64 names in a certificate",
                found: names.len().to_string(),
            });
        }
        let mut params =
            CertificateParams::new(names).map_err(certificate_error("name the subject of a certificate"))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Node => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        set_validity(&mut params, Span::new().days(LEAF_DAYS), &self.world);
        Ok(params)
    }
}

impl Credential {
    /// The certificate and key as rustls takes them.
    pub fn to_tls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let wrong = |what: &str, error| PkiError::Tls(format!("{what} is not PEM: {error}"));
        let certificate = CertificateDer::from_pem_slice(self.cert_pem.as_bytes())
            .map_err(|error| wrong("the certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|error| wrong("the key", error))?;
        Ok((vec![certificate], key))
    }
}

fn node_names(node: &str, addresses: &[IpAddr]) -> Result<(String, Vec<String>), PkiError> {
    let is_name = !node.is_empty()
        && node.len() <= 253
        && node.split('.').all(|label| {
            let edge =
                |character: Option<char>| character.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            edge(label.chars().next())
                && edge(label.chars().last())
                && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        });
    if !is_name || matches!(node, "localhost" | "kubernetes") || node.starts_with("kubernetes.default") {
        let expected = "a node name: a lower-case DNS name of its own";
        return Err(PkiError::Name { expected, found: node.to_owned() });
    }
    let mut names = vec![node.to_owned()];
    names.extend(addresses.iter().map(IpAddr::to_string));
    Ok((format!("{NODE_NAME_PREFIX}{node}"), names))
}

/// Loads an authority, or makes a new one.
fn open_ca(
    dir: &Path,
    name: &str,
    world: &World,
) -> Result<(String, CertificateDer<'static>, Issuer<'static, KeyPair>), PkiError> {
    let (key_path, cert_path) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.crt")));
    let key = load_key(&key_path, &cert_path)?;
    let pem = match load(&cert_path)? {
        Some(pem) => pem,
        None => make_ca(&key, &cert_path, world)?,
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| PkiError::Malformed { path: cert_path, expected: "a PEM certificate" })?;
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(certificate_error("use the CA certificate"))?;
    Ok((pem, der, issuer))
}

fn make_ca(key: &KeyPair, path: &Path, world: &World) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // The name carries a part of the serial, so that two clusters' authorities are told apart.
    params.distinguished_name.push(DnType::CommonName, format!("windlass-ca-{}", world.name_suffix(8)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, Span::new().years(CA_YEARS), world);
    let pem = params.self_signed(key).map_err(certificate_error("make the CA certificate"))?.pem();
    save(path, &pem, 0o644)?;
    Ok(pem)
}

/// Valid from yesterday, so that a clock that is a little behind does not refuse a fresh certificate.
fn set_validity(params: &mut CertificateParams, length: Span, world: &World) {
    let today = world.now().to_zoned(TimeZone::UTC).date();
    let day = |date: Date| rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8);
    params.not_before = day(today.saturating_sub(Span::new().days(1)));
    params.not_after = day(today.saturating_add(length));
    let mut serial = [0u8; 16];
    world.fill_random(&mut serial);
    serial[0] &= 0x7f; // a serial number is positive (RFC 5280)
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

fn load_key(key_path: &Path, cert_path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = load(key_path)? {
        return KeyPair::from_pem(&pem).map_err(certificate_error("read the CA key"));
    }
    if cert_path.exists() {
        return Err(PkiError::KeyMissing { certificate: cert_path.to_owned(), key: key_path.to_owned() });
    }
    let key = KeyPair::generate().map_err(certificate_error("make the CA key"))?;
    save(key_path, &key.serialize_pem(), 0o600)?;
    Ok(key)
}

fn load_or_make_secret(path: &Path, world: &World) -> Result<String, PkiError> {
    if let Some(secret) = load(path)? {
        let read = join_secret(&secret);
        return read.ok_or_else(|| PkiError::Malformed { path: path.to_owned(), expected: JOIN_SECRET });
    }
    let mut bytes = [0u8; JOIN_SECRET_BYTES];
    world.fill_random(&mut bytes);
    let secret = hex(&bytes);
    save(path, &secret, 0o600)?;
    Ok(secret)
}

const JOIN_SECRET: &str = "a join secret of 48 hex digits";

/// What stands in a file of that name.
fn join_secret(text: &str) -> Option<String> {
    let secret = text.trim();
    let is_one = secret.len() == 2 * JOIN_SECRET_BYTES && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| secret.to_owned())
}

const TOKEN_KEYS: &str = "P-256 keys";

/// The keys of a file, the first of which signs.
fn load_token_keys(path: &Path) -> Result<Vec<Vec<u8>>, PkiError> {
    let malformed = || PkiError::Malformed { path: path.to_owned(), expected: TOKEN_KEYS };
    let text = load(path)?.ok_or_else(malformed)?;
    token_keys(&text).ok_or_else(malformed)
}

/// The keys that stand in a file of that name.
fn token_keys(text: &str) -> Option<Vec<Vec<u8>>> {
    let read: Result<Vec<_>, _> = PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()).collect();
    let keys: Vec<Vec<u8>> = read.ok()?.iter().map(|key| key.secret_pkcs8_der().to_vec()).collect();
    if keys.is_empty() || keys.iter().any(|der| SigningKey::from_pkcs8(der).is_err()) {
        return None;
    }
    Some(keys.into_iter().take(TOKEN_KEYS_MAX).collect())
}

/// Puts a new key before those that are there, the oldest of which may have to go.
fn add_token_key(path: &Path) -> Result<(), PkiError> {
    let key = KeyPair::generate().map_err(certificate_error("make a key for tokens"))?;
    let mut text = key.serialize_pem();
    if path.exists() {
        for der in load_token_keys(path)?.iter().take(TOKEN_KEYS_MAX - 1) {
            let der = PrivatePkcs8KeyDer::from(der.as_slice());
            let key = KeyPair::try_from(&der).map_err(certificate_error("read a key for tokens"))?;
            text.push_str(&key.serialize_pem());
        }
    }
    save(path, &text, 0o600)
}

fn load(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Writes a file so that a crash leaves the old one, none or the whole new one.
fn save(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension("tmp");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename to", path))?;
    let dir = path.parent().expect("a file of the CA lies in its directory");
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { verb, path, source }
}

fn certificate_error(what: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    let what = what.to_owned();
    move |source| PkiError::Certificate { what, source }
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hex digit"));
        }
        out
    })
}
