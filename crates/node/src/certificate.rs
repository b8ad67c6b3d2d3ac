//! Certificates that pods have projected into their volumes: the node makes the key, asks for a certificate, waits for its
//! signer, and renews.
//!
//! Rules
//!   C1 own key    each certificate has a key of its own, made here; it is in the pod's volume and nowhere else
//!   C2 waits      a pod comes up when its certificates are issued; one that is denied or failed is not asked for again,
//!                 but for a pod that is up, after [`REFUSED_FOR`]
//!   C3 renewed    from `beginRefreshAt` on, with another key; until the new one is issued the old one stays; what was
//!                 renewed is left alone for [`RENEWED_FOR_MIN`] at least
//!   C4 believed   only a chain of certificates, the first of which is for our key
//! Source: KEP-4317; API reference, PodCertificateProjection, PodCertificateRequest.
//! Not here       keys of RSA and P-521, which the library cannot make: they are refused

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::types::core;
use windlass_api::{Kind, Reason, kinds};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::steps::PodContext;

/// How long a pod that comes up waits for its signer at a time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a signer is looked after at first, and later on.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same for a certificate that is to replace one that is still good.
const RENEWAL_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a certificate that was refused to a pod that is up is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// How soon a certificate that was renewed may be renewed again, whatever its signer says.
const RENEWED_FOR_MIN: Duration = Duration::from_secs(60);
/// How long a certificate lasts when the volume does not say.
const SECONDS_DEFAULT: i32 = 86_400;
/// Of what a signer says, characters that are passed on.
const MESSAGE_CHARS_MAX: usize = 300;

/// What certificate is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    signer: String,
    key_type: String,
    seconds: i32,
    annotations: BTreeMap<String, String>,
}

impl Wanted {
    /// What a volume asks for.
    pub fn of(projection: &core::PodCertificateProjection) -> Wanted {
        Wanted {
            signer: projection.signer_name.clone(),
            key_type: projection.key_type.clone(),
            seconds: projection.max_expiration_seconds.unwrap_or(SECONDS_DEFAULT),
            annotations: projection.user_annotations.clone().unwrap_or_default(),
        }
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Credential {
    /// PKCS#8.
    pub key: String,
    /// The pod's certificate, and those between it and the signer's root.
    pub chain: String,
}

/// A request that was made.
#[derive(Clone)]
struct Asked {
    name: String,
    key: String,
    public_key: Vec<u8>,
}

/// What is known of one certificate.
#[derive(Clone, Default)]
struct Known {
    held: Option<Credential>,
    asked: Option<Asked>,
    refused: Option<String>,
    /// When there is something to do for it.
    look_at: Option<Instant>,
}

impl Known {
    /// What is known without asking anybody; `None` when it is time to ask.
    fn settled(&self, now: Instant) -> Option<Result<Credential, String>> {
        let is_early = self.look_at.is_some_and(|at| at > now);
        match (&self.held, &self.refused) {
            (Some(held), _) if is_early => Some(Ok(held.clone())),
            (None, Some(why)) if is_early || self.look_at.is_none() => Some(Err(why.clone())),
            _ => None,
        }
    }

    /// C3: for how long a certificate that comes now is left alone.
    fn rest(&self, good_for: Duration) -> Duration {
        good_for.max(if self.held.is_some() { RENEWED_FOR_MIN } else { LOOK_EVERY })
    }
}

/// Why there is no certificate.
enum Trouble {
    /// Nothing will change that.
    Refused(String),
    /// It is tried again.
    Passing(String),
}

/// The certificates of one pod. Cheap to clone.
#[derive(Clone, Default)]
pub struct Certificates(Arc<Mutex<BTreeMap<Wanted, Known>>>);

impl Certificates {
    /// The certificates asked for. One that cannot be renewed is used on.
    pub async fn fetch(&self, pod: &PodContext, all: Vec<Wanted>) -> Result<BTreeMap<Wanted, Credential>, String> {
        let mut out = BTreeMap::new();
        for wanted in all {
            let credential = self.fetch_one(pod, &wanted).await?;
            out.insert(wanted, credential);
        }
        Ok(out)
    }

    /// When there is something to do for one of them.
    pub fn renew_at(&self) -> Option<Instant> {
        self.lock().values().filter_map(|known| known.look_at).min()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Wanted, Known>> {
        self.0.lock().expect("nothing panics while holding it")
    }

    async fn fetch_one(&self, pod: &PodContext, wanted: &Wanted) -> Result<Credential, String> {
        let mut known = self.lock().get(wanted).cloned().unwrap_or_default();
        if let Some(settled) = known.settled(Instant::now()) {
            return settled;
        }
        known.refused = None;
        let patience = if known.held.is_some() { Duration::ZERO } else { PATIENCE };
        let obtained = obtain(pod, wanted, &mut known.asked, patience).await;
        let look_in = |wait: Duration| Some(Instant::now() + wait);
        let mut why = None;
        match obtained {
            Ok(Some((credential, good_for))) => {
                let look_at = look_in(known.rest(good_for));
                known = Known { held: Some(credential), look_at, ..Known::default() };
            }
            Ok(None) => known.look_at = look_in(RENEWAL_LOOK_EVERY),
            Err(Trouble::Passing(passing)) => {
                known.look_at = look_in(RENEWAL_LOOK_EVERY);
                why = Some(passing);
            }
            // C2: a pod that is up is tried for again some time, since it would be left without.
            Err(Trouble::Refused(refused)) => {
                let is_up = known.held.is_some() || pod.is_known;
                known.look_at = if is_up { look_in(REFUSED_FOR) } else { None };
                known.asked = None;
                known.refused = Some(refused.clone());
                why = Some(refused);
            }
        }
        self.lock().insert(wanted.clone(), known.clone());
        match (known.held, why) {
            (Some(held), None) => Ok(held),
            (Some(held), Some(why)) => {
                tracing::warn!(pod = pod.name(), why, "a certificate was not renewed; it is used on");
                Ok(held)
            }
            (None, Some(why)) => Err(why),
            (None, None) => {
                let name = known.asked.map(|asked| asked.name).unwrap_or_default();
                Err(format!("PodCertificateRequest {}/{name} has not been issued yet", pod.namespace()))
            }
        }
    }
}

/// Asks, if nothing is asked yet, and looks for the answer; for how long the certificate need not be renewed.
async fn obtain(
    pod: &PodContext,
    wanted: &Wanted,
    asked: &mut Option<Asked>,
    patience: Duration,
) -> Result<Option<(Credential, Duration)>, Trouble> {
    let own = match asked {
        Some(own) => own.clone(),
        None => asked.insert(ask(pod, wanted).await?).clone(),
    };
    let (begun, mut wait) = (Instant::now(), LOOK_FIRST);
    loop {
        let found = pod.shared.client.get(&kinds::POD_CERTIFICATE_REQUEST, pod.namespace(), &own.name).await;
        let status = match found {
            Ok(Some(request)) => request.value()["status"].take(),
            // An agent may only read what is its own, and what is not there is nobody's: it was removed for its age.
            Ok(None) => return forget(asked),
            Err(error) if error.reason() == Some(Reason::Forbidden) => return forget(asked),
            Err(error) => return Err(Trouble::Passing(format!("PodCertificateRequest {:?}: {error}", own.name))),
        };
        if let Some(issued) = decided(&status, &own, pod.shared.world.now()).map_err(Trouble::Refused)? {
            return Ok(Some(issued));
        }
        if begun.elapsed() + wait > patience {
            return Ok(None);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_EVERY);
    }
}

fn forget(asked: &mut Option<Asked>) -> Result<Option<(Credential, Duration)>, Trouble> {
    *asked = None;
    Ok(None)
}

/// C1.
async fn ask(pod: &PodContext, wanted: &Wanted) -> Result<Asked, Trouble> {
    let key = make_key(&wanted.key_type).map_err(Trouble::Refused)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let stub = params.serialize_request(&key).map_err(|error| Trouble::Refused(error.to_string()))?;
    let account = pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let node = &pod.shared.config.name;
    let account_uid = uid_of(pod, &kinds::SERVICE_ACCOUNT, pod.namespace(), account).await?;
    let node_uid = uid_of(pod, &kinds::NODE, "", node).await?;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": &*pod.uid});
    let body = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
        "metadata": {"generateName": format!("req-{}-", pod.name()), "namespace": pod.namespace(),
            "ownerReferences": [owner]},
        "spec": {
            "signerName": wanted.signer, "maxExpirationSeconds": wanted.seconds,
            "podName": pod.name(), "podUID": &*pod.uid,
            "serviceAccountName": account, "serviceAccountUID": account_uid,
            "nodeName": node, "nodeUID": node_uid,
            "unverifiedUserAnnotations": wanted.annotations,
            "stubPKCS10Request": base64::engine::general_purpose::STANDARD.encode(stub.der()),
        },
    });
    let made = pod.shared.client.create(&kinds::POD_CERTIFICATE_REQUEST, pod.namespace(), &body).await;
    let made = made.map_err(|error| Trouble::Passing(format!("failed to ask {} to sign: {error}", wanted.signer)))?;
    let name = made.header.name().to_owned();
    Ok(Asked { name, key: key.serialize_pem(), public_key: key.subject_public_key_info() })
}

async fn uid_of(pod: &PodContext, kind: &Kind, namespace: &str, name: &str) -> Result<String, Trouble> {
    let passing = |why: String| Trouble::Passing(format!("{} {name:?}: {why}", kind.plural));
    let found = pod.shared.client.get(kind, namespace, name).await.map_err(|error| passing(error.to_string()))?;
    Ok(found.ok_or_else(|| passing("not found".to_owned()))?.header.uid().to_owned())
}

fn make_key(key_type: &str) -> Result<KeyPair, String> {
    let algorithm = match key_type {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        other => return Err(format!("this node makes keys of ECDSAP256, ECDSAP384 and ED25519, not of {other}")),
    };
    KeyPair::generate_for(algorithm).map_err(|error| format!("no key could be made: {error}"))
}

/// What became of a request: nothing yet, a certificate and for how long it need not be renewed, or why there is none.
fn decided(status: &Value, asked: &Asked, now: Timestamp) -> Result<Option<(Credential, Duration)>, String> {
    let name = &asked.name;
    let conditions = status["conditions"].as_array().into_iter().flatten();
    for condition in conditions.filter(|condition| condition["status"] == "True") {
        let text = |field: &str| -> String {
            condition[field].as_str().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect()
        };
        match condition["type"].as_str().unwrap_or_default() {
            "Issued" => {
                let chain = status["certificateChain"].as_str().unwrap_or_default();
                check_chain(chain, asked).map_err(|why| format!("PodCertificateRequest {name:?}: {why}"))?;
                let refresh_at: Option<Timestamp> = status["beginRefreshAt"].as_str().and_then(|at| at.parse().ok());
                let refresh_at = refresh_at.ok_or_else(|| format!("PodCertificateRequest {name:?} says no time"))?;
                let good_for = Duration::try_from(refresh_at.duration_since(now)).unwrap_or(Duration::ZERO);
                let credential = Credential { key: asked.key.clone(), chain: chain.to_owned() };
                return Ok(Some((credential, good_for)));
            }
            kind @ ("Denied" | "Failed") => {
                let (reason, message) = (text("reason"), text("message"));
                return Err(format!("PodCertificateRequest {name:?} is {}: {reason}: {message}", kind.to_lowercase()));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// C4.
fn check_chain(chain: &str, asked: &Asked) -> Result<(), String> {
    let mut certificates = CertificateDer::pem_slice_iter(chain.as_bytes());
    let first = certificates.next().ok_or("its chain is empty")?.map_err(|error| format!("its chain: {error}"))?;
    let (_, leaf) = X509Certificate::from_der(&first).map_err(|error| format!("its certificate: {error}"))?;
    if leaf.public_key().raw != asked.public_key {
        return Err("its certificate is for another key".to_owned());
    }
    certificates.try_for_each(|found| found.map(drop).map_err(|error| format!("its chain: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{Asked, Credential, Known, LOOK_EVERY, RENEWED_FOR_MIN, decided, make_key};
    use rcgen::{CertificateParams, PublicKeyData};
    use serde_json::{Value, json};
    use std::time::Duration;
    use tokio::time::Instant;

    fn asked() -> (Asked, String) {
        let key = make_key("ED25519").expect("a key");
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate").pem();
        let public_key = key.subject_public_key_info();
        (Asked { name: "r".to_owned(), key: key.serialize_pem(), public_key }, certificate)
    }

    fn status(kind: &str, chain: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": "True", "reason": "Because", "message": "of this"}],
            "certificateChain": chain, "beginRefreshAt": "2026-01-01T01:00:00Z"})
    }

    #[test]
    fn c2_c3_c4_what_is_decided_is_a_certificate_for_our_key_or_a_reason() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let ((own, certificate), (_, other)) = (asked(), asked());
        assert!(matches!(decided(&json!({}), &own, now), Ok(None)));
        let (credential, good_for) =
            decided(&status("Issued", &certificate), &own, now).expect("good").expect("issued");
        assert_eq!((credential.chain, good_for), (certificate.clone(), Duration::from_secs(3600)));
        assert!(credential.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        let denied = decided(&status("Denied", ""), &own, now).err().expect("a reason");
        assert_eq!(denied, "PodCertificateRequest \"r\" is denied: Because: of this");
        let broken = format!("{certificate}-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n");
        for (chain, why) in [("", "is empty"), (other.as_str(), "for another key"), (broken.as_str(), "its chain")] {
            let found = decided(&status("Issued", chain), &own, now).err().expect("a reason");
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn c2_a_refusal_lapses_only_where_there_is_a_time_to_look_again() {
        let now = Instant::now();
        let (before, later) = (now.checked_sub(Duration::from_secs(1)), now.checked_add(Duration::from_secs(1)));
        let refused = |look_at| Known { refused: Some("no".to_owned()), look_at, ..Known::default() };
        for (look_at, is_settled) in [(None, true), (later, true), (before, false)] {
            let settled = refused(look_at).settled(now);
            assert_eq!(settled.is_some_and(|found| found.is_err()), is_settled, "{look_at:?}");
        }
        assert!(Known::default().settled(now).is_none(), "nobody has been asked");
    }

    #[test]
    fn c3_a_time_to_renew_that_is_past_makes_no_flood_of_requests() {
        let (first, held) = (Known::default(), Credential { key: String::new(), chain: String::new() });
        let renewed = Known { held: Some(held), ..Known::default() };
        assert_eq!((first.rest(Duration::ZERO), renewed.rest(Duration::ZERO)), (LOOK_EVERY, RENEWED_FOR_MIN));
        assert_eq!(renewed.rest(Duration::from_secs(3600)), Duration::from_secs(3600));
    }

    #[test]
    fn c1_keys_that_cannot_be_made_are_refused_by_name() {
        for known in ["ECDSAP256", "ECDSAP384", "ED25519"] {
            assert!(make_key(known).is_ok(), "{known}");
        }
        assert!(make_key("RSA4096").expect_err("a reason").contains("not of RSA4096"));
    }
}
