//! The cluster's own signers: what each of them signs, and for whom.
//!
//! Rules
//!   S1 request    well-formed and signed by its own key; one common name, any number of organizations
//!   S2 client     `kubernetes.io/kube-apiserver-client` signs any subject for clients, but never for `system:masters`
//!   S3 kubelet    `kubernetes.io/kube-apiserver-client-kubelet` signs a node's name for clients, and no other names
//!   S4 serving    `kubernetes.io/kubelet-serving` signs a node's names and addresses for servers
//!   S5 usages     those of the signer; a kubelet's certificates have all of them, but may leave out key encipherment
//!   S6 time       as long as is asked for, but at least ten minutes, at most a year, and no longer than the authority
//!   S7 kept       the subject is signed as it was sent, and so are its other names; no other extension is
//!
//! Source: certificates and certificate signing requests reference, "Kubernetes signers".
//! Not here       who approves (`admit`)

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::SanType;
use serde_json::Value;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, ParsedExtension, X509CertificationRequest};

use crate::identity::{GROUP_MASTERS, GROUP_NODES, NODE_NAME_PREFIX};
use crate::pki::{Pki, Subject, Usage};
use crate::write::text;

/// Longest life of a certificate.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Shortest life of a certificate.
const LIFE_MIN: Duration = Duration::from_secs(600);

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    /// For clients of the API.
    Client,
    /// For node agents as clients of the API.
    KubeletClient,
    /// For what node agents serve.
    KubeletServing,
}

/// What a request says of its subject.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    name: String,
    organizations: Vec<String>,
    /// The whole subject, as it was sent (DER).
    subject: Vec<u8>,
    /// The key with its kind (DER).
    key: Vec<u8>,
    /// Its other names.
    names: Vec<SanType>,
}

impl Signer {
    /// The signer of this name, if it is the cluster's own.
    pub fn named(name: &str) -> Option<Signer> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Signer::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Signer::KubeletClient),
            "kubernetes.io/kubelet-serving" => Some(Signer::KubeletServing),
            _ => None,
        }
    }

    /// S2 to S5: what keeps this signer from signing.
    fn check(self, wish: &Wish, spec: &Value) -> Result<(), String> {
        let purpose = match self {
            Signer::Client | Signer::KubeletClient => "client auth",
            Signer::KubeletServing => "server auth",
        };
        check_usages(spec, purpose, self != Signer::Client)?;
        if self == Signer::Client {
            let is_master = wish.organizations.iter().any(|group| group == GROUP_MASTERS);
            return if is_master { Err(format!("expected no organization {GROUP_MASTERS}")) } else { Ok(()) };
        }
        let is_node = wish.organizations == [GROUP_NODES]
            && wish.name.strip_prefix(NODE_NAME_PREFIX).is_some_and(|node| !node.is_empty());
        if !is_node {
            return Err(format!("expected a subject {NODE_NAME_PREFIX}NAME of the organization {GROUP_NODES}"));
        }
        let is_host = |name: &SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
        match self {
            Signer::KubeletServing if wish.names.is_empty() => {
                Err("expected at least one DNS name or IP address".to_owned())
            }
            Signer::KubeletServing if !wish.names.iter().all(is_host) => {
                Err("expected no e-mail addresses and no URIs".to_owned())
            }
            Signer::KubeletClient if !wish.names.is_empty() => {
                Err("expected no DNS names, IP addresses, e-mail addresses or URIs".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// S5.
fn check_usages(spec: &Value, purpose: &str, is_kubelet: bool) -> Result<(), String> {
    let usages: Vec<&str> = spec["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known = ["digital signature", "key encipherment", purpose];
    if let Some(other) = usages.iter().find(|usage| !known.contains(usage)) {
        return Err(format!("expected no usage beside {}, found {other:?}", known.join(", ")));
    }
    let needed = if is_kubelet { &[purpose, "digital signature"][..] } else { &[purpose] };
    match needed.iter().find(|usage| !usages.contains(usage)) {
        Some(missing) => Err(format!("expected the usage {missing:?}")),
        None => Ok(()),
    }
}

/// Whether this is a request for a certificate of a group that has all rights, which nobody gets this way.
pub(crate) fn asks_for_masters(spec: &Value) -> bool {
    Signer::named(text(spec, "signerName")) == Some(Signer::Client)
        && read(spec).is_ok_and(|wish| wish.organizations.iter().any(|group| group == GROUP_MASTERS))
}

/// Whether the agent of a node asks for its own client certificate, or somebody for that of a node: what may be approved
/// without a person. Gives whether it is the node itself.
pub(crate) fn node_client(spec: &Value) -> Option<bool> {
    if Signer::named(text(spec, "signerName")) != Some(Signer::KubeletClient) {
        return None;
    }
    let wish = read(spec).ok()?;
    Signer::KubeletClient.check(&wish, spec).ok()?;
    Some(text(spec, "username") == wish.name)
}

/// The common name of a request for one of a kubelet's certificates, or why it has none; nothing for other requests.
pub(crate) fn kubelet_name(spec: &Value) -> Option<Result<String, String>> {
    match Signer::named(text(spec, "signerName"))? {
        Signer::Client => None,
        Signer::KubeletClient | Signer::KubeletServing => Some(read(spec).map(|wish| wish.name)),
    }
}

/// Signs a request: the certificate in PEM, or why there is none.
pub(crate) fn sign(pki: &Pki, signer: Signer, spec: &Value) -> Result<String, String> {
    let wish = read(spec)?;
    signer.check(&wish, spec)?;
    let asked = spec["expirationSeconds"].as_u64().map(Duration::from_secs);
    let life = asked.unwrap_or(LIFE_MAX).clamp(LIFE_MIN, LIFE_MAX);
    let usages = spec["usages"].as_array().into_iter().flatten();
    let subject = Subject {
        name: &wish.subject,
        key: &wish.key,
        names: &wish.names,
        usage: if signer == Signer::KubeletServing { Usage::Server } else { Usage::Client },
        enciphers_keys: usages.into_iter().any(|usage| usage == "key encipherment"),
    };
    pki.sign_subject(&subject, life).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// S1.
fn read(spec: &Value) -> Result<Wish, String> {
    let pem = STANDARD.decode(text(spec, "request")).map_err(|_| "expected base64".to_owned())?;
    let pem = String::from_utf8(pem).map_err(|_| "expected PEM".to_owned())?;
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| "expected PEM".to_owned())?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|_| "expected a certificate signing request".to_owned())?;
    request.verify_signature().map_err(|_| "expected a request signed by the key in it".to_owned())?;
    let info = &request.certification_request_info;
    let (key, subject) = (info.subject_pki.raw.to_vec(), info.subject.as_raw().to_vec());
    let mut wish = Wish { key, subject, ..Wish::default() };
    for attribute in info.subject.iter_attributes() {
        let value = attribute.as_str().map_err(|_| "expected a subject in plain text".to_owned())?.to_owned();
        let oid = attribute.attr_type();
        if *oid == x509_parser::oid_registry::OID_X509_COMMON_NAME {
            if !wish.name.is_empty() {
                return Err("expected one common name, found several".to_owned());
            }
            wish.name = value;
        } else if *oid == x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME {
            wish.organizations.push(value);
        }
    }
    if wish.name.is_empty() {
        return Err("expected a common name, which becomes the user's".to_owned());
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            wish.names.push(other_name(name)?);
        }
    }
    Ok(wish)
}

fn other_name(name: &GeneralName<'_>) -> Result<SanType, String> {
    let plain = |text: &str| text.try_into().map_err(|_| format!("expected a name in ASCII, found {text:?}"));
    match name {
        GeneralName::DNSName(name) => Ok(SanType::DnsName(plain(name)?)),
        GeneralName::RFC822Name(name) => Ok(SanType::Rfc822Name(plain(name)?)),
        GeneralName::URI(name) => Ok(SanType::URI(plain(name)?)),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => Ok(SanType::IpAddress(address)),
            None => Err("expected IP addresses of 4 or 16 bytes".to_owned()),
        },
        _ => Err("expected DNS names, IP addresses, e-mail addresses and URIs, found another name".to_owned()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::{Value, json};
    use windlass_stdx::World;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::{Signer, asks_for_masters, node_client, sign};
    use crate::pki::Pki;

    /// A CA in a directory that goes with it.
    struct Room(std::path::PathBuf, Pki);

    impl Drop for Room {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    fn room() -> Room {
        let dir = std::env::temp_dir().join(format!("windlass-sign-{}", World::real().uuid()));
        let pki = Pki::open(&dir, &World::real()).expect("a new CA");
        Room(dir, pki)
    }

    fn spec(signer: &str, name: &str, organization: Option<&str>, names: &[&str]) -> Value {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        let key = KeyPair::generate().expect("randomness");
        let request = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let usage = if signer == "kubelet-serving" { "server auth" } else { "client auth" };
        json!({"request": STANDARD.encode(request), "signerName": format!("kubernetes.io/{signer}"),
            "usages": ["digital signature", usage], "username": name})
    }

    #[track_caller]
    fn check(spec: &Value, expected: &str) {
        let room = room();
        let signer = Signer::named(spec["signerName"].as_str().expect("a name")).expect("one of ours");
        let found = sign(&room.1, signer, spec).err().unwrap_or_default();
        assert_eq!(found, expected);
    }

    #[test]
    fn s1_and_s2_a_client_gets_the_name_it_asks_for() {
        let room = room();
        let mut spec = spec("kube-apiserver-client", "jane", Some("dev"), &[]);
        spec["expirationSeconds"] = json!(3600);
        let pem = sign(&room.1, Signer::Client, &spec).expect("a certificate");
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&block.contents).expect("a certificate");
        assert_eq!(certificate.subject().to_string(), "CN=jane, O=dev");
        let validity = certificate.validity();
        let life = validity.not_after.timestamp() - World::real().now().as_second();
        assert!((3500..=3600).contains(&life), "S6: an hour from now, found {life} s");
        assert!(!asks_for_masters(&spec));
        let evil = self::spec("kube-apiserver-client", "eve", Some("system:masters"), &[]);
        assert!(asks_for_masters(&evil));
        check(&evil, "expected no organization system:masters");
        check(&json!({"request": "x", "signerName": "kubernetes.io/kube-apiserver-client"}), "expected base64");
    }

    #[test]
    fn s3_a_kubelet_client_is_a_node_and_nothing_else() {
        let kubelet =
            |name: &str, organization, names: &[&str]| spec("kube-apiserver-client-kubelet", name, organization, names);
        let node = kubelet("system:node:n1", Some("system:nodes"), &[]);
        check(&node, "");
        assert_eq!(node_client(&node), Some(true));
        let mut by_other = node.clone();
        by_other["username"] = json!("system:bootstrap:abc");
        assert_eq!(node_client(&by_other), Some(false));
        let refused = "expected a subject system:node:NAME of the organization system:nodes";
        check(&kubelet("jane", Some("system:nodes"), &[]), refused);
        check(&kubelet("system:node:n1", Some("system:masters"), &[]), refused);
        check(&kubelet("system:node:", Some("system:nodes"), &[]), refused);
        check(
            &kubelet("system:node:n1", Some("system:nodes"), &["n1"]),
            "expected no DNS names, IP addresses, e-mail addresses or URIs",
        );
        assert_eq!(node_client(&kubelet("jane", Some("system:nodes"), &[])), None);
    }

    #[test]
    fn s4_a_kubelet_serves_under_its_names() {
        let serving = |names: &[&str]| spec("kubelet-serving", "system:node:n1", Some("system:nodes"), names);
        check(&serving(&["n1", "10.0.0.1"]), "");
        check(&serving(&[]), "expected at least one DNS name or IP address");
        let refused = "expected a subject system:node:NAME of the organization system:nodes";
        check(&spec("kubelet-serving", "n1", Some("system:nodes"), &["n1"]), refused);
    }

    #[test]
    fn s5_a_signer_gives_no_other_usages() {
        let mut client = spec("kube-apiserver-client", "jane", None, &[]);
        client["usages"] = json!(["key encipherment", "client auth"]);
        check(&client, "");
        client["usages"] = json!(["client auth", "server auth"]);
        let refused =
            "expected no usage beside digital signature, key encipherment, client auth, found \"server auth\"";
        check(&client, refused);
        client["usages"] = json!(["digital signature"]);
        check(&client, "expected the usage \"client auth\"");
        let mut kubelet = spec("kube-apiserver-client-kubelet", "system:node:n1", Some("system:nodes"), &[]);
        kubelet["usages"] = json!(["key encipherment", "client auth"]);
        check(&kubelet, "expected the usage \"digital signature\"");
        kubelet["usages"] = json!(["client auth", "key encipherment", "digital signature"]);
        check(&kubelet, "");
    }

    /// Made by `openssl req`: three organizations and a unit, a key whose size is not its hash's, names of every form, and
    /// extensions that nobody may have.
    #[test]
    fn s7_the_subject_and_its_names_are_signed_as_they_were_sent() {
        let room = room();
        let csr = include_str!("../tests/api/several.csr.pem");
        let mut spec = json!({"request": STANDARD.encode(csr), "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"], "username": "jane"});
        let pem = sign(&room.1, Signer::Client, &spec).expect("a certificate");
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&block.contents).expect("a certificate");
        assert_eq!(certificate.subject().to_string(), "O=dev, O=ops, O=on call, OU=cluster, CN=jane");
        let names = certificate.subject_alternative_name().expect("well-formed").expect("names").value;
        assert_eq!(names.general_names.len(), 4, "{names:?}");
        assert!(!certificate.is_ca() && certificate.name_constraints().expect("well-formed").is_none());
        let ca = CertificateDer::from_pem_slice(room.1.ca_pem().as_bytes()).expect("PEM");
        let (_, ca) = X509Certificate::from_der(&ca).expect("the authority");
        certificate.verify_signature(Some(ca.public_key())).expect("signed by the authority");
        let proven = crate::authenticate::authenticate(Some(&[block.contents.into()]));
        assert_eq!(proven.name, "jane");
        for group in ["dev", "ops", "on call"] {
            assert!(proven.is_in(group), "{group}");
        }
        // A byte of the signature.
        let mut bytes = x509_parser::pem::parse_x509_pem(csr.as_bytes()).expect("PEM").1.contents;
        *bytes.last_mut().expect("a request") ^= 1;
        let lines = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(bytes)
        );
        spec["request"] = json!(STANDARD.encode(lines));
        check(&spec, "expected a request signed by the key in it");
    }
}
