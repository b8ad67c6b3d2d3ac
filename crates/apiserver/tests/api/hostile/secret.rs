//! What must not be told: secrets in refusals, warnings and the log (A53).

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::{Api, CONFIG_MAPS, Reply, admin};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// A text that is nowhere but in what the tests keep secret.
const CANARY: &str = "canary7f3a9";
const CANARY_NUMBER: u64 = 731_946_285;

/// Everything that the server logs on this thread, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("memory takes text");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Line(&mut self.0.lock().expect("no test panics while it logs")));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().expect("no test panics while it logs")));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().expect("no test panics while it logs")));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Every spelling of the canaries in `text`.
fn leaks(text: &str) -> Vec<String> {
    // Base64 of the canary at each of the three places where it may begin, without the ends that its neighbours change.
    let encoded = (0..3).map(|at| {
        let padded = STANDARD.encode(format!("{}{CANARY}", "x".repeat(at)));
        padded.trim_end_matches('=')[4..padded.trim_end_matches('=').len() - 1].to_owned()
    });
    let all = encoded.chain([CANARY.to_owned(), CANARY_NUMBER.to_string()]);
    all.filter(|spelling| text.contains(spelling.as_str())).collect()
}

fn headers(reply: &Reply) -> String {
    format!("{:?}", reply.headers)
}

/// Notes it when a refusal, or any header, tells a canary.
fn listen(told: &mut Vec<String>, reply: &Reply, what: &str) {
    let mut heard = headers(reply);
    if !reply.code.is_success() {
        heard.push_str(&reply.text());
    }
    if !leaks(&heard).is_empty() {
        told.push(format!("{what}: {heard}"));
    }
}

/// Secrets that are wrong in some way, in each form of a body.
fn broken() -> Vec<(&'static str, String)> {
    let encoded = STANDARD.encode(CANARY);
    let json = |fields: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broken"}});
        object.as_object_mut().expect("a map").extend(fields.as_object().expect("a map").clone());
        ("application/json", object.to_string())
    };
    let typed = |kind: &str, key: &str| json(json!({"type": format!("kubernetes.io/{kind}"), "data": {key: encoded}}));
    let yaml = |text: String| {
        ("application/yaml", format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: broken}}\n{text}\n"))
    };
    vec![
        json(json!({"stringData": CANARY})),
        json(json!({"stringData": [CANARY]})),
        json(json!({"stringData": {"k": [CANARY]}})),
        json(json!({"stringData": {"k": CANARY_NUMBER}})),
        json(json!({"data": {"k": CANARY_NUMBER}})),
        json(json!({"data": {"k": format!("{CANARY}!")}})),
        json(json!({"data": {"k": format!("{encoded}=")}})),
        json(json!({"data": encoded})),
        json(json!({"data": {"no key": encoded}})),
        json(json!({"stringData": {"no key": CANARY}})),
        json(json!({"stringData": {"k": CANARY}, "immutable": CANARY})),
        json(json!({"stringdata": {"k": CANARY}})),
        json(json!({"data": {"k": encoded}, "password": CANARY})),
        json(json!({"data": {"k": STANDARD.encode(CANARY.repeat(100_000))}})),
        typed("dockerconfigjson", ".dockerconfigjson"),
        typed("dockercfg", ".dockercfg"),
        typed("tls", "tls.key"),
        typed("basic-auth", "passwort"),
        typed("ssh-auth", "key"),
        typed("service-account-token", "token"),
        ("application/json", format!("{{\"stringData\": {{\"k\": \"{CANARY}\"")),
        ("application/json", format!("{{\"stringData\": {{\"k\": {CANARY}}}}}")),
        ("application/json", format!("{{\"stringData\": {{\"k\": \"{CANARY}\", \"k\": \"{CANARY}\"}}}}")),
        ("application/json", format!("{{\"stringData\": {{\"k\": \"{CANARY}\\u12\"}}}}")),
        yaml(format!("stringData: {{k: {CANARY}, k: {CANARY}}}")),
        yaml(format!("stringData: {{k: \"{CANARY}}}")),
        yaml(format!("stringData: {{k: '{CANARY}}}")),
        yaml(format!("stringData:\n  k: {CANARY}: x")),
        yaml(format!("stringData:\n  k: %{CANARY}")),
        yaml(format!("stringData:\n  k: @{CANARY}")),
        yaml(format!("stringData:\n  k: `{CANARY}")),
        yaml(format!("stringData:\n  k: *{CANARY}")),
        yaml(format!("stringData:\n  k: &{CANARY}")),
        yaml(format!("stringData:\n  k: !{CANARY} x")),
        yaml(format!("stringData:\n  k: !!binary {CANARY}")),
        yaml(format!("stringData:\n  k: \"\\{CANARY}\"")),
        yaml(format!("stringData:\n  k: {CANARY_NUMBER}")),
        yaml(format!("stringData:\n\tk: {CANARY}")),
        yaml(format!("stringData: {CANARY}")),
        ("application/vnd.kubernetes.protobuf", format!("k8s\0{CANARY}")),
        ("text/plain", CANARY.to_owned()),
    ]
}

#[tokio::test]
async fn a53_no_refusal_warning_or_log_line_tells_a_secret() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let api = Api::start().await;
    let mut told = Vec::new();
    for (media, body) in broken() {
        for query in ["", "?fieldValidation=Strict", "?fieldValidation=Ignore", "?dryRun=All"] {
            let reply = api.call(Method::POST, &format!("{SECRETS}{query}"), media, body.clone()).await;
            listen(&mut told, &reply, &body.chars().take(200).collect::<String>());
            if reply.code == 201 {
                api.delete(&format!("{SECRETS}/broken")).await;
            }
        }
    }
    a_kept_secret_stays_untold(&api, &mut told).await;
    proofs_stay_untold(&api, &mut told).await;
    assert!(told.is_empty(), "{}", told.join("\n"));
    let logged = log.0.lock().expect("nothing panicked").clone();
    assert!(!logged.is_empty(), "the server's words were caught");
    assert!(leaks(&logged).is_empty(), "the log tells {:?}", leaks(&logged));
}

/// Changes of a secret that is there, all of them refused.
async fn a_kept_secret_stays_untold(api: &Api, told: &mut Vec<String>) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "immutable": true,
        "stringData": {"k": CANARY}});
    let made = api.make(SECRETS, &secret).await;
    let path = format!("{SECRETS}/kept");
    listen(told, &api.post(SECRETS, &secret).await, "a name that is taken");
    let mut other = made.clone();
    other["data"]["k"] = json!(STANDARD.encode(format!("{CANARY} again")));
    listen(told, &api.put(&path, &other).await, "an immutable secret");
    other["metadata"]["resourceVersion"] = json!("1");
    listen(told, &api.put(&path, &other).await, "an old revision");
    other["metadata"]["uid"] = json!("another");
    listen(told, &api.put(&path, &other).await, "another uid");
    let encoded = STANDARD.encode(CANARY);
    for (media, patch) in [
        ("json", json!([{"op": "test", "path": "/data/k", "value": CANARY}])),
        ("json", json!([{"op": "replace", "path": "/data/none", "value": CANARY}])),
        ("json", json!([{"op": "copy", "from": "/data/k", "path": "/data/none/deeper"}])),
        ("json", json!([{"op": "add", "path": "/data/k/x", "value": CANARY}])),
        ("json", json!({"data": {"k": encoded}})),
        ("merge", json!({"data": {"k": CANARY}})),
        ("merge", json!({"data": CANARY})),
        ("merge", json!({"type": "Other", "stringData": {"k": CANARY}})),
        ("strategic-merge", json!({"data": {"k": [CANARY]}})),
        ("strategic-merge", json!({"data": {"$patch": "none", "k": CANARY}})),
        ("strategic-merge", json!({"stringData": {"k": CANARY_NUMBER}})),
    ] {
        let reply = api.call(Method::PATCH, &path, &format!("application/{media}-patch+json"), patch.to_string()).await;
        assert!(!reply.code.is_success(), "{patch} was taken");
        listen(told, &reply, &patch.to_string());
    }
    for (manager, fields) in [("a", json!({"k": encoded})), ("b", json!({"k": STANDARD.encode(format!("{CANARY}2"))}))]
    {
        let apply = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "applied"}, "data": fields});
        let path = format!("{SECRETS}/applied?fieldManager={manager}");
        listen(told, &api.call(Method::PATCH, &path, "application/apply-patch+yaml", apply.to_string()).await, "apply");
    }
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let rows = api.call_as(admin(), Method::GET, &format!("{SECRETS}?includeObject=None"), &table, "").await;
    assert!(leaks(&rows.text()).is_empty(), "a table shows {}", rows.text());
    let metadata = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let header = api.call_as(admin(), Method::GET, &path, &metadata, "").await;
    assert!(leaks(&header.text()).is_empty(), "the metadata shows {}", header.text());
}

/// Proofs that are not taken.
async fn proofs_stay_untold(api: &Api, told: &mut Vec<String>) {
    let account = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let made = api.post(account, &json!({"spec": {}})).await.json();
    let token = made["status"]["token"].as_str().expect("a token").to_owned();
    let forged = format!("{}{CANARY}", &token[..token.len() - CANARY.len()]);
    for proof in [format!("Bearer {CANARY}"), format!("Bearer {forged}"), format!("Basic {CANARY}"), CANARY.to_owned()]
    {
        let reply = api.call_as(admin(), Method::GET, CONFIG_MAPS, &[("authorization", &proof)], "").await;
        assert_eq!(reply.code, 401);
        listen(told, &reply, "a forged token");
    }
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = api.post(reviews, &json!({"spec": {"token": forged}})).await.json();
    assert!(leaks(&review["status"].to_string()).is_empty(), "a review says {}", review["status"]);
    let wrong = api.post(reviews, &json!({"spec": {"token": [CANARY]}})).await;
    listen(told, &wrong, "a review of no token");
    let join = json!({"token": CANARY, "nodeName": "n1", "csr": CANARY, "addresses": [CANARY]});
    listen(told, &api.post("/windlass/v1/join", &join).await, "a join");
}
