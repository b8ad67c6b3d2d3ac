//! Aggregated APIs: when they are there, who may use them, and what they are told.

use http::{Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::hook::Hook;
use crate::tls::serve;
use crate::{Api, SERVICES, service};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1/namespaces/default/flunders";

async fn registered(api: &Api, service: Value, bundle: &Value) {
    let spec = json!({
        "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
        "service": service, "caBundle": bundle,
    });
    api.make(API_SERVICES, &json!({"metadata": {"name": "v1.wardle.example.com"}, "spec": spec})).await;
}

/// Waits for a reason of the condition `Available`.
async fn until(api: &Api, reason: &str) -> Value {
    let selected = "fieldSelector=metadata.name%3Dv1.wardle.example.com";
    let mut lines = api.watch(&format!("{API_SERVICES}?watch=1&{selected}")).await;
    loop {
        let event = lines.next().await.expect("the watch goes on");
        let condition = &event["object"]["status"]["conditions"][0];
        if condition["reason"] == reason {
            return condition.clone();
        }
    }
}

#[tokio::test]
async fn v2_the_condition_says_why_an_api_is_away() {
    let api = Api::start().await;
    let mut object = service("away");
    object["spec"]["ports"] = json!([{"port": 443}]);
    registered(&api, json!({"namespace": "default", "name": "away"}), &Value::Null).await;
    let condition = until(&api, "ServiceNotFound").await;
    assert_eq!((&condition["status"], &condition["type"]), (&json!("False"), &json!("Available")));
    assert_eq!(condition["message"], "service/away in \"default\" is not present");
    assert_eq!(api.get(FLUNDERS).await.said(), "503 ServiceUnavailable: service unavailable");
    api.make(SERVICES, &object).await;
    until(&api, "MissingEndpoints").await;
    api.delete(&format!("{API_SERVICES}/v1.wardle.example.com")).await;
    assert_eq!(api.get(FLUNDERS).await.code, 404);
}

#[tokio::test]
async fn a2_this_server_decides_and_says_who_asks() {
    let served = serve().await;
    let api = &served.api;
    let answer = |request: http::Request<hyper::body::Incoming>| async move {
        let all = |name: &str| {
            let values = request.headers().get_all(name).iter();
            values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
        };
        let said = json!({
            "users": all("x-remote-user"), "groups": all("x-remote-group"), "proofs": all("authorization"),
            "uri": request.uri().to_string(), "resources": [],
        });
        Response::new(Full::<Bytes>::from(said.to_string()))
    };
    let hook = Hook::serve("wardle.default.svc", Some(served.pki.front_proxy_ca_pem()), answer).await;
    let client = hook.client("");
    let port: u16 = client["url"].as_str().and_then(|url| url.rsplit(':').next()?.parse().ok()).expect("a port");
    let spec = json!({"type": "ExternalName", "externalName": "localhost"});
    api.make(SERVICES, &json!({"metadata": {"name": "wardle"}, "spec": spec})).await;
    let reference = json!({"namespace": "default", "name": "wardle", "port": port});
    registered(api, reference, &client["caBundle"]).await;
    until(api, "Passed").await;

    let rules = json!([{"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["list"]}]);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    api.make(&format!("{roles}/roles"), &json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let group = "rbac.authorization.k8s.io";
    let subject = json!({"kind": "User", "name": "eve", "apiGroup": group});
    let role = json!({"kind": "Role", "name": "r", "apiGroup": group});
    let binding = json!({"metadata": {"name": "r"}, "subjects": [subject], "roleRef": role});
    api.make(&format!("{roles}/rolebindings"), &binding).await;
    let eve = || Identity::new("eve", []);
    let named = "x-remote-user, x-remote-group, x-remote-uid";
    let headers = [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("connection", named)];
    let listed = api.call_as(eve(), Method::GET, &format!("{FLUNDERS}?limit=5"), &headers, "").await;
    assert_eq!(listed.code, 200, "{}", listed.text());
    let said = listed.json();
    assert_eq!((&said["users"], &said["groups"]), (&json!(["eve"]), &json!(["system:authenticated"])));
    assert_eq!((&said["uri"], &said["proofs"]), (&json!(format!("{FLUNDERS}?limit=5")), &json!([])));
    for (method, path) in [
        (Method::GET, format!("{FLUNDERS}/a")),
        (Method::GET, format!("{FLUNDERS}?watch=true")),
        (Method::POST, FLUNDERS.to_owned()),
        (Method::GET, FLUNDERS.replace("/default/", "/other/")),
    ] {
        let refused = api.call_as(eve(), method, &path, &headers, "").await;
        assert_eq!(refused.code, 403, "{path}: {}", refused.text());
        assert!(refused.text().contains("wardle.example.com"), "{}", refused.text());
    }
    let sly = api.call_as(eve(), Method::GET, &format!("{FLUNDERS}/../../other/flunders"), &[], "").await;
    assert_ne!(sly.code, 200, "{}", sly.text());
}
