//! The cluster's own signers: what each of them signs, and for whom.
//!
//! Rules
//!   S1 request    well-formed and signed by its own key; a name, and at most one organization
//!   S2 client     `kubernetes.io/kube-apiserver-client` signs any name for clients, but never for `system:masters`
//!   S3 kubelet    `kubernetes.io/kube-apiserver-client-kubelet` signs a node's name for clients, and no other names
//!   S4 serving    `kubernetes.io/kubelet-serving` signs a node's names and addresses for servers, if the node itself asks
//!   S5 usages     exactly those of the signer; key encipherment may be left out
//!   S6 time       as long as is asked for, but at least ten minutes and at most a year
//!
//! Source: certificates and certificate signing requests reference, "Kubernetes signers".
//! Not here       who approves (`admit`) · several organizations in one certificate (rcgen writes one)

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509CertificationRequest};

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
    pem: String,
    name: String,
    organizations: Vec<String>,
    /// DNS names and addresses.
    names: Vec<String>,
    /// Whether it asks for names of other forms.
    asks_other_names: bool,
    /// The key, as it will stand in the certificate.
    key: Vec<u8>,
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
        check_usages(spec, purpose)?;
        if self == Signer::Client {
            let is_master = wish.organizations.iter().any(|group| group == GROUP_MASTERS);
            return if is_master { Err(format!("expected no organization {GROUP_MASTERS}")) } else { Ok(()) };
        }
        let is_node = wish.organizations == [GROUP_NODES]
            && wish.name.strip_prefix(NODE_NAME_PREFIX).is_some_and(|node| !node.is_empty());
        if !is_node {
            return Err(format!("expected a subject {NODE_NAME_PREFIX}NAME of the organization {GROUP_NODES}"));
        }
        if wish.asks_other_names {
            return Err("expected no e-mail addresses, URIs or other names".to_owned());
        }
        match self {
            Signer::KubeletServing if wish.names.is_empty() => {
                Err("expected at least one DNS name or IP address".to_owned())
            }
            Signer::KubeletServing if text(spec, "username") != wish.name => {
                Err(format!("expected the node itself to ask, found {:?}", text(spec, "username")))
            }
            Signer::KubeletClient if !wish.names.is_empty() => {
                Err("expected no DNS names and no IP addresses".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// S5.
fn check_usages(spec: &Value, purpose: &str) -> Result<(), String> {
    let usages: Vec<&str> = spec["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known = ["digital signature", "key encipherment", purpose];
    match usages.iter().find(|usage| !known.contains(usage)) {
        Some(other) => Err(format!("expected no usage beside {}, found {other:?}", known.join(", "))),
        None if !usages.contains(&purpose) => Err(format!("expected the usage {purpose:?}")),
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

/// Signs a request: the certificate in PEM, or why there is none.
pub(crate) fn sign(pki: &Pki, signer: Signer, spec: &Value) -> Result<String, String> {
    let wish = read(spec)?;
    signer.check(&wish, spec)?;
    let asked = spec["expirationSeconds"].as_u64().map(Duration::from_secs);
    let life = asked.unwrap_or(LIFE_MAX).clamp(LIFE_MIN, LIFE_MAX);
    let usages = spec["usages"].as_array().into_iter().flatten();
    let subject = Subject {
        name: &wish.name,
        organization: wish.organizations.first().map(String::as_str),
        names: &wish.names,
        usage: if signer == Signer::KubeletServing { Usage::Server } else { Usage::Client },
        enciphers_keys: usages.into_iter().any(|usage| usage == "key encipherment"),
    };
    let pem = pki.sign_request(&wish.pem, &subject, life).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })?;
    // What was signed is the key that was asked for, whatever its kind.
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|error| error.to_string())?;
    if certificate.public_key().raw != wish.key {
        return Err("expected an RSA key, or an elliptic curve key with the hash of its size".to_owned());
    }
    Ok(pem)
}

/// S1.
fn read(spec: &Value) -> Result<Wish, String> {
    let pem = STANDARD.decode(text(spec, "request")).map_err(|_| "expected base64".to_owned())?;
    let pem = String::from_utf8(pem).map_err(|_| "expected PEM".to_owned())?;
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| "expected PEM".to_owned())?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|_| "expected a certificate signing request".to_owned())?;
    let info = &request.certification_request_info;
    let mut wish = Wish { key: info.subject_pki.raw.to_vec(), ..Wish::default() };
    for attribute in info.subject.iter_attributes() {
        let value = attribute.as_str().map_err(|_| "expected a subject in plain text".to_owned())?.to_owned();
        let oid = attribute.attr_type();
        if *oid == x509_parser::oid_registry::OID_X509_COMMON_NAME {
            wish.name = value;
        } else if *oid == x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME {
            wish.organizations.push(value);
        }
    }
    if wish.name.is_empty() {
        return Err("expected a common name, which becomes the user's".to_owned());
    }
    if wish.organizations.len() > 1 {
        return Err(format!("expected at most one organization, found {}", wish.organizations.len()));
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => wish.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => wish.names.push(address),
                    None => return Err("expected IP addresses of 4 or 16 bytes".to_owned()),
                },
                _ => wish.asks_other_names = true,
            }
        }
    }
    wish.pem = pem;
    Ok(wish)
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string())).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
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
        check(&kubelet("system:node:n1", Some("system:nodes"), &["n1"]), "expected no DNS names and no IP addresses");
        assert_eq!(node_client(&kubelet("jane", Some("system:nodes"), &[])), None);
    }

    #[test]
    fn s4_a_kubelet_serves_under_its_names_if_it_asks_itself() {
        let serving = |names: &[&str]| spec("kubelet-serving", "system:node:n1", Some("system:nodes"), names);
        check(&serving(&["n1", "10.0.0.1"]), "");
        check(&serving(&[]), "expected at least one DNS name or IP address");
        let mut by_other = serving(&["n1"]);
        by_other["username"] = json!("jane");
        check(&by_other, "expected the node itself to ask, found \"jane\"");
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
    }
}
