//! An API that another server serves: discovered, allowed and carried by the server under test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};

use super::discovery::{aggregated, find};
use super::hook::Hook;
use crate::Test;
use crate::api::{MERGE, Reply};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const AUTHENTICATION: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

/// The sample server: flunders, kept in memory.
#[derive(Clone)]
struct Sample {
    group: String,
    flunders: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Sample {
    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("nobody");
        let (root, open_api) =
            (format!("/apis/{}/v1alpha1", self.group), format!("/openapi/v3/apis/{}/v1alpha1", self.group));
        let path = parts.uri.path();
        let (code, answer) = match path.strip_prefix(&root) {
            Some("") => (200, self.resources()),
            Some(rest) => self.flunder(
                &parts.method,
                rest.rsplit("flunders").next().unwrap_or_default(),
                &body,
                header("x-remote-user"),
            ),
            None if path == "/openapi/v3" => {
                let url = json!({"serverRelativeURL": format!("{open_api}?hash=1")});
                (200, json!({"paths": {root.trim_start_matches('/'): url}}))
            }
            None if path == open_api => {
                (200, json!({"openapi": "3.0.0", "info": {"title": "sample", "version": "1"}, "paths": {}}))
            }
            None if path == "/openapi/v2" => {
                let answer = json!({"description": "OK", "schema": {"$ref": "#/definitions/io.example.Flunder"}});
                let path = json!({"get": {"operationId": "listFlunder", "responses": {"200": answer}}});
                let definitions = json!({"io.example.Flunder": {"type": "object", "description": self.group}});
                (
                    200,
                    json!({"swagger": "2.0", "paths": {format!("{root}/flunders"): path}, "definitions": definitions}),
                )
            }
            None => (404, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})),
        };
        let mut response = Response::new(Full::from(answer.to_string()));
        *response.status_mut() = http::StatusCode::from_u16(code).expect("a code");
        response.headers_mut().insert("content-type", "application/json".parse().expect("a header value"));
        response
    }

    fn resources(&self) -> Value {
        let flunders = json!({"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "verbs": ["create", "delete", "get", "list"]});
        let version = format!("{}/v1alpha1", self.group);
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [flunders]})
    }

    fn flunder(&self, method: &Method, rest: &str, body: &[u8], who: &str) -> (u16, Value) {
        let mut flunders = self.flunders.lock().expect("no request panics while it holds them");
        let name = rest.trim_start_matches('/').to_owned();
        let version = format!("{}/v1alpha1", self.group);
        match (method.as_str(), flunders.get(&name).cloned()) {
            ("POST", _) => {
                let mut made: Value = serde_json::from_slice(body).expect("a flunder");
                made["metadata"]["annotations"] = json!({"made-by": who});
                flunders.insert(made["metadata"]["name"].as_str().expect("a name").to_owned(), made.clone());
                (201, made)
            }
            ("GET", _) if name.is_empty() => {
                let items: Vec<&Value> = flunders.values().collect();
                (200, json!({"kind": "FlunderList", "apiVersion": version, "metadata": {}, "items": items}))
            }
            ("GET", Some(found)) => (200, found),
            ("DELETE", Some(_)) => {
                flunders.remove(&name);
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            _ => (404, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})),
        }
    }
}

fn is_available(reply: &Reply) -> bool {
    let conditions = reply.json()["status"]["conditions"].clone();
    let is_it = |condition: &Value| condition["type"] == "Available" && condition["status"] == "True";
    conditions.as_array().is_some_and(|conditions| conditions.iter().any(is_it))
}

pub async fn the_sample_server_is_served(test: &Test) {
    let trusted = test.api.get(AUTHENTICATION).await.ok();
    let authority = trusted["data"]["requestheader-client-ca-file"].as_str().expect("who vouches for the server");
    assert_eq!(trusted["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
    let group = format!("{}.example.com", test.unique("wardle"));
    let sample = Sample { group: group.clone(), flunders: Arc::default() };
    let name = format!("sample-api.{}.svc", test.namespace);
    let hook = Hook::serve(&name, Some(authority), move |request| sample.clone().answer(request)).await;
    let client = hook.client("");
    let port: u16 = client["url"].as_str().and_then(|url| url.rsplit(':').next()?.parse().ok()).expect("a port");
    let spec = json!({"type": "ExternalName", "externalName": "localhost"});
    let service = json!({"metadata": {"name": "sample-api"}, "spec": spec});

    let path = format!("{API_SERVICES}/v1alpha1.{group}");
    let spec = json!({
        "group": group, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "caBundle": client["caBundle"], "service": {"namespace": test.namespace, "name": "sample-api", "port": port},
    });
    let metadata = json!({"name": format!("v1alpha1.{group}"), "labels": {"test": test.namespace}});
    test.api.create(API_SERVICES, &json!({"metadata": metadata, "spec": spec})).await.ok();
    let away = |reply: &Reply| reply.json()["status"]["conditions"][0]["reason"] == "ServiceNotFound";
    test.api.until(&path, "said to be away", away).await;
    let flunders = format!("/apis/{group}/v1alpha1/namespaces/{}/flunders", test.namespace);
    test.api.get(&flunders).await.refused(503);
    test.api.create(&test.path("v1", "services"), &service).await.ok();
    test.api.until(&path, "available", is_available).await;

    let flunder = json!({"apiVersion": format!("{group}/v1alpha1"), "kind": "Flunder", "metadata": {"name": "f"}});
    let made = test.api.create(&flunders, &flunder).await.ok();
    assert_ne!(made["metadata"]["annotations"]["made-by"], "nobody", "it is told who asks");
    assert_eq!(test.api.get(&format!("{flunders}/f")).await.ok(), made);
    assert_eq!(test.api.get(&flunders).await.ok()["items"].as_array().map(Vec::len), Some(1));
    test.api.delete(&format!("{flunders}/f")).await.ok();
    test.api.get(&format!("{flunders}/f")).await.refused(404);

    let groups = test.api.get("/apis").await.ok();
    assert!(groups["groups"].as_array().expect("groups").iter().any(|found| found["name"] == group), "{groups}");
    assert_eq!(test.api.get(&format!("/apis/{group}")).await.ok()["preferredVersion"]["version"], "v1alpha1");
    assert_eq!(test.api.get(&format!("/apis/{group}/v1alpha1")).await.ok()["resources"][0]["kind"], "Flunder");
    let resource = find(&aggregated(test).await, &group, "v1alpha1", "flunders").expect("its resource").clone();
    assert_eq!((&resource["scope"], &resource["responseKind"]["kind"]), (&json!("Namespaced"), &json!("Flunder")));
    let index = test.api.get("/openapi/v3").await.ok();
    let url = index["paths"][format!("apis/{group}/v1alpha1")]["serverRelativeURL"].as_str().expect("its OpenAPI");
    assert_eq!(test.api.get(url).await.ok()["info"]["title"], "sample");

    let v2 = test.api.get("/openapi/v2").await.ok();
    let listed = &v2["paths"][format!("/apis/{group}/v1alpha1/flunders")]["get"];
    assert_eq!(listed["operationId"], "listFlunder");
    assert_eq!(v2["definitions"]["io.example.Flunder"]["type"], "object");
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object(), "and all that was there before");

    test.api.patch(&path, MERGE, &json!({"spec": {"versionPriority": 201}})).await.ok();
    test.api.until(&path, "available still", is_available).await;
    let selected = format!("{API_SERVICES}?labelSelector=test%3D{}", test.namespace);
    assert_eq!(test.api.get(&selected).await.ok()["items"].as_array().map(Vec::len), Some(1));
    test.api.delete(&selected).await.ok();
    test.api.get(&flunders).await.refused(404);
    for path in ["/apis", "/openapi/v2", "/openapi/v3"] {
        assert!(!test.api.get(path).await.ok().to_string().contains(&format!("{group}/v1alpha1")), "{path}");
    }
}
