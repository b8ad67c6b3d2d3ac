//! Certificate signing requests: who may decide, and what the cluster signs of its own accord.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use windlass_apiserver::{Config, Identity, Pki};
use windlass_stdx::World;

use crate::{Api, admin};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn start() -> Api {
    Api::start_with(|config: &mut Config, dir: &Path| {
        config.pki = Some(Arc::new(Pki::open(&dir.join("pki"), &World::real()).expect("a new CA")));
    })
    .await
}

fn request(name: &str, signer: &str, (user, group): (&str, &str)) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let key = KeyPair::generate().expect("randomness");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({"metadata": {"name": name}, "spec": {"request": STANDARD.encode(pem), "signerName": signer,
        "usages": ["digital signature", "client auth"]}})
}

async fn said(api: &Api, who: &Identity, method: Method, path: &str, body: &Value) -> (String, Value) {
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let reply = api.call_as(who.clone(), method, path, &[("content-type", media)], body.to_string()).await;
    (reply.said(), reply.json())
}

fn conditions(request: &Value) -> Vec<&str> {
    let conditions = request["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter_map(|found| found["type"].as_str()).collect()
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";

fn decision(kind: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "Test", "message": ""}]}})
}

/// Lets jane do this to signers.
async fn allow(api: &Api, name: &str, verb: &str, signer: &str) {
    let rules = json!([
        {"verbs": ["update", "patch", "get"], "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]},
        {"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [signer]},
    ]);
    api.make(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": name}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": "jane"}]});
    api.make(&format!("{RBAC}/clusterrolebindings"), &binding).await;
}

fn jane() -> Identity {
    Identity::new("jane", [])
}

#[tokio::test]
async fn r4_and_r8_who_may_approve_for_a_signer_gets_a_certificate_signed() {
    let api = start().await;
    api.make(REQUESTS, &request("dev", CLIENT, ("dev", "team"))).await;
    let approval = format!("{REQUESTS}/dev/approval");
    allow(&api, "decides-elsewhere", "approve", "example.com/*").await;
    let (refused, _) = said(&api, &jane(), Method::PATCH, &approval, &decision("Approved")).await;
    let why = format!("user not permitted to approve requests with signerName \"{CLIENT}\"");
    assert!(refused.starts_with("403") && refused.ends_with(&why), "{refused}");
    allow(&api, "decides", "approve", "kubernetes.io/*").await;
    let dry = format!("{approval}?dryRun=All");
    let (_, tried) = said(&api, &jane(), Method::PATCH, &dry, &decision("Approved")).await;
    assert!(tried["status"]["certificate"].is_null(), "nothing is signed for a try");
    let (code, approved) = said(&api, &jane(), Method::PATCH, &approval, &decision("Approved")).await;
    assert_eq!(code, "200");
    let pem = STANDARD.decode(approved["status"]["certificate"].as_str().expect("a certificate")).expect("base64");
    assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn r5_only_who_may_sign_gives_a_certificate() {
    let api = start().await;
    api.make(REQUESTS, &request("other", "example.com/signer", ("dev", "team"))).await;
    let status = format!("{REQUESTS}/other/status");
    allow(&api, "signs-elsewhere", "sign", "example.com/another").await;
    let failed = decision("Broken");
    let (refused, _) = said(&api, &jane(), Method::PATCH, &status, &failed).await;
    assert!(refused.starts_with("403") && refused.contains("not permitted to sign requests"), "{refused}");
    allow(&api, "signs", "sign", "example.com/signer").await;
    assert_eq!(said(&api, &jane(), Method::PATCH, &status, &failed).await.0, "200");
}

#[tokio::test]
async fn r6_nobody_asks_for_all_rights() {
    let api = start().await;
    let (refused, _) =
        said(&api, &admin(), Method::POST, REQUESTS, &request("evil", CLIENT, ("eve", "system:masters"))).await;
    assert!(refused.starts_with("403") && refused.contains("system:masters group is not allowed"), "{refused}");
}

#[tokio::test]
async fn r7_r9_a_node_renews_its_own_certificate_and_no_other() {
    let api = start().await;
    let node = Identity::node("n1");
    let own = request("own", KUBELET, ("system:node:n1", "system:nodes"));
    let (code, made) = said(&api, &node, Method::POST, REQUESTS, &own).await;
    assert_eq!((code.as_str(), conditions(&made)), ("201", vec!["Approved"]));
    assert!(made["status"]["certificate"].is_string(), "{made}");
    let other = request("other", KUBELET, ("system:node:n2", "system:nodes"));
    let (refused, _) = said(&api, &node, Method::POST, REQUESTS, &other).await;
    let why = "can only create a node CSR with CN=system:node:n1";
    assert!(refused.starts_with("403") && refused.ends_with(why), "R9: {refused}");
    let (code, made) = said(&api, &admin(), Method::POST, REQUESTS, &other).await;
    assert_eq!((code.as_str(), conditions(&made)), ("201", vec!["Approved"]), "who may create nodeclient may for any");
    let (refused, _) =
        said(&api, &node, Method::PATCH, &format!("{REQUESTS}/other/approval"), &decision("Approved")).await;
    assert!(refused.starts_with("403"), "{refused}");
}

#[tokio::test]
async fn r8_what_a_signer_does_not_sign_fails_and_says_why() {
    let api = start().await;
    api.make(REQUESTS, &request("wrong", KUBELET, ("jane", "system:nodes"))).await;
    let approval = format!("{REQUESTS}/wrong/approval");
    let (_, approved) = said(&api, &admin(), Method::PATCH, &approval, &decision("Approved")).await;
    assert_eq!(conditions(&approved), ["Approved", "Failed"]);
    assert!(approved["status"]["certificate"].is_null());
    let message = approved["status"]["conditions"][1]["message"].as_str().expect("a message");
    assert_eq!(message, "expected a subject system:node:NAME of the organization system:nodes");
}

/// Made by `openssl req`: a key of another kind, and names of more than one form.
#[tokio::test]
async fn r8_an_rsa_key_is_signed_as_it_is() {
    let api = start().await;
    let mut rsa = request("rsa", CLIENT, ("rsa", "team"));
    rsa["spec"]["request"] = json!(STANDARD.encode(include_str!("rsa.csr.pem")));
    api.make(REQUESTS, &rsa).await;
    let approval = format!("{REQUESTS}/rsa/approval");
    let (_, approved) = said(&api, &admin(), Method::PATCH, &approval, &decision("Approved")).await;
    assert_eq!(conditions(&approved), ["Approved"], "{}", approved["status"]);
    let pem = STANDARD.decode(approved["status"]["certificate"].as_str().expect("a certificate")).expect("base64");
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let certificate = block.parse_x509().expect("a certificate");
    assert_eq!(certificate.subject().to_string(), "O=team, CN=rsa-user");
}
