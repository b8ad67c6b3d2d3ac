//! The tokens that pods find in their files.

use serde_json::json;

use crate::Test;
use crate::running::{container, phase, script};

/// Where every pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub async fn every_pod_finds_its_account(test: &Test) {
    let mut pod = script("account", &format!("cat {ACCOUNT}/token"));
    let others = [("root-ca", "ca.crt"), ("namespace", "namespace")];
    for (name, file) in others {
        let more = container(name, &format!("cat {ACCOUNT}/{file}"));
        pod["spec"]["containers"].as_array_mut().expect("a list").push(more);
    }
    let ended = test.run_to_end(&pod).await;
    assert_eq!(phase(&ended), "Succeeded", "{:#}", ended["status"]);
    let token = test.log("account", "container=main").await;
    let review = json!({"spec": {"token": token}});
    let review = test.api.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok();
    let user = format!("system:serviceaccount:{}:default", test.namespace);
    assert_eq!(review["status"]["user"]["username"], json!(user), "{review}");
    let map = test.api.get(&format!("{}/kube-root-ca.crt", test.path("v1", "configmaps"))).await.ok();
    let root = test.log("account", "container=root-ca").await;
    assert_eq!(root.trim(), map["data"]["ca.crt"].as_str().expect("a certificate").trim());
    assert_eq!(test.log("account", "container=namespace").await, test.namespace);
}

pub async fn a_token_is_projected(test: &Test) {
    let token = json!({"path": "token", "expirationSeconds": 3600, "audience": "conformance"});
    // For root, for another user, and for the pod's group: who may read it follows from who the containers run as.
    let rows =
        [(json!({}), "644 0"), (json!({"runAsUser": 1000}), "600 1000"), (json!({"fsGroup": 10_000}), "640 10000")];
    for (at, (context, expected)) in rows.into_iter().enumerate() {
        let who = if context["fsGroup"].is_null() { "%u" } else { "%g" };
        let name = format!("token-{at}");
        let mut pod = script(&name, &format!("stat -L -c '%a {who}' /t/token; cat /t/token"));
        pod["spec"]["securityContext"] = context;
        pod["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": token}]}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "t", "mountPath": "/t"}]);
        let text = test.run(&pod).await;
        let (mode, token) = text.split_once('\n').expect("two lines");
        assert_eq!(mode, expected);
        let review = json!({"spec": {"token": token, "audiences": ["conformance"]}});
        let review = test.api.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok();
        assert_eq!(review["status"]["authenticated"], json!(true), "{review}");
        assert_eq!(review["status"]["audiences"], json!(["conformance"]));
    }
}
