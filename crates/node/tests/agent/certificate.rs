//! Certificates that pods have projected: a signer in the test decides what the node asks for.

use std::collections::BTreeSet;

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::ListOptions;

use crate::stage::{Cluster, shell, status, until_so};

const SIGNER: &str = "example.com/signer";

/// Who signs, and what was decided already.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    decided: BTreeSet<String>,
}

impl Signer {
    fn new() -> Signer {
        let key = KeyPair::generate().expect("randomness");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Signer { issuer: Issuer::new(params, key), decided: BTreeSet::new() }
    }

    /// Decides the next request of a pod: signs it, good for so long, or denies it. Gives its spec.
    async fn decide(&mut self, cluster: &Cluster, pod: &str, good_for_seconds: Option<i64>) -> Value {
        let request = loop {
            let all = cluster.client.list(&kinds::POD_CERTIFICATE_REQUEST, None, &ListOptions::default()).await;
            let mut all = all.expect("a list").items.into_iter().map(|request| request.value());
            let is_next = |request: &Value| {
                let name = request["metadata"]["name"].as_str().expect("a name");
                request["spec"]["podName"] == pod && !self.decided.contains(name)
            };
            match all.find(is_next) {
                Some(request) => break request,
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        let name = request["metadata"]["name"].as_str().expect("a name");
        self.decided.insert(name.to_owned());
        let now = cluster.client.world().now();
        let at =
            |seconds: i64| (now + jiff::SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let decided = match good_for_seconds {
            None => json!({"conditions": [{"type": "Denied", "status": "True", "reason": "Stranger",
                "message": "nobody knows it", "lastTransitionTime": at(0)}]}),
            Some(seconds) => json!({
                "conditions": [{"type": "Issued", "status": "True", "reason": "Signed", "lastTransitionTime": at(0)}],
                "certificateChain": self.sign(&request["spec"]),
                "notBefore": at(-3600), "beginRefreshAt": at(seconds), "notAfter": at(seconds + 3600),
            }),
        };
        let mut changed = request.clone();
        changed["status"] = decided;
        let written = cluster.client.update_status(&kinds::POD_CERTIFICATE_REQUEST, "default", name, &changed).await;
        written.unwrap_or_else(|error| panic!("{changed}: {error}"));
        request["spec"].clone()
    }

    fn sign(&self, spec: &Value) -> String {
        let der = spec["stubPKCS10Request"].as_str().expect("a request");
        let der = base64::engine::general_purpose::STANDARD.decode(der).expect("base64");
        let request = CertificateSigningRequestParams::from_der(&der.into()).expect("signed by its own key");
        request.signed_by(&self.issuer).expect("a certificate").pem()
    }
}

fn spec(line: &str) -> Value {
    let source = json!({"signerName": SIGNER, "keyType": "ECDSAP256", "credentialBundlePath": "bundle.pem",
        "keyPath": "key.pem", "certificateChainPath": "chain.pem", "userAnnotations": {"example.com/team": "red"}});
    let mut web = shell("web", line);
    web["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    json!({"restartPolicy": "Never", "containers": [web], "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": source}]}}]})
}

#[test]
fn c2_c3_a_pod_has_its_certificate_when_it_starts_and_another_when_that_is_to_be_renewed() {
    crate::stage::on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut signer = Signer::new();
        let line = "ls /v; cat /v/key.pem /v/chain.pem > /tmp/both; \
            cmp /tmp/both /v/bundle.pem && echo whole; head -n 1 /v/bundle.pem; cat /v/chain.pem > /tmp/first; \
            while cmp -s /tmp/first /v/chain.pem; do sleep 0.1; done; echo renewed; grep -c BEGIN /v/bundle.pem";
        cluster.pod("web", spec(line)).await;
        let asked = signer.decide(&cluster, "web", Some(4)).await;
        let account = cluster.client.get(&kinds::SERVICE_ACCOUNT, "default", "default").await;
        let account = account.expect("readable").expect("it is there");
        assert_eq!(asked["serviceAccountUID"], account.header.uid());
        assert_eq!(asked["maxExpirationSeconds"], 86_400);
        assert_eq!(asked["unverifiedUserAnnotations"], json!({"example.com/team": "red"}));
        let pod = cluster.until("web", |pod| !status(pod)["state"]["running"].is_null()).await;
        let log = || async { cluster.log(&pod, "web", 0) };
        until_so("it has read its files", || async { log().await.contains("PRIVATE KEY") }).await;
        let said = log().await;
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            ["bundle.pem", "chain.pem", "key.pem", "whole", "-----BEGIN PRIVATE KEY-----"]
        );
        let again = signer.decide(&cluster, "web", Some(3600)).await;
        assert_ne!(again["stubPKCS10Request"], asked["stubPKCS10Request"], "a certificate has a key of its own");
        cluster.until("web", |pod| pod["status"]["phase"] == "Succeeded").await;
        assert!(log().await.ends_with("renewed\n2"), "{}", log().await);
        cluster.delete("web").await;
    });
}

#[test]
fn c2_a_pod_whose_certificate_is_denied_does_not_start_and_says_why() {
    crate::stage::on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut signer = Signer::new();
        cluster.pod("stranger", spec("echo started")).await;
        signer.decide(&cluster, "stranger", None).await;
        let told = || async {
            let list = cluster.client.list(&kinds::EVENT, Some("default"), &ListOptions::default()).await;
            let events: Vec<Value> = list.expect("a list").items.iter().map(|event| event.value()).collect();
            events.iter().any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["reason"] == "FailedMount" && message.contains("is denied: Stranger: nobody knows it")
            })
        };
        until_so("the pod says why", told).await;
        let requests = cluster.client.list(&kinds::POD_CERTIFICATE_REQUEST, None, &ListOptions::default()).await;
        assert_eq!(requests.expect("a list").items.len(), 1, "it is not asked for again");
        let pod = cluster.until("stranger", |pod| !pod.is_null()).await;
        assert!(status(&pod)["state"]["running"].is_null());
        cluster.delete("stranger").await;
    });
}
