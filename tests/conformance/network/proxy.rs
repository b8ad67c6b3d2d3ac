//! `proxy` of pods and services: what runs in containers, asked through the API server.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::Test;
use crate::api::{PATIENCE, Reply};
use crate::running::server;

/// How often a proxy is tried until what is behind it listens.
const PERIOD: Duration = Duration::from_millis(100);
/// The ways to ask.
const METHODS: [Method; 7] =
    [Method::DELETE, Method::GET, Method::HEAD, Method::OPTIONS, Method::PATCH, Method::POST, Method::PUT];

/// A pod `agnhost` that serves HTTP, behind a service `test-service`: their paths, and ports to be named.
async fn serving(test: &Test) -> [String; 2] {
    let mut pod = server("agnhost", &["http=8080"]);
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    test.start_ready(&pod).await;
    let spec = json!({"selector": {"app": "agnhost"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    let services = test.path("v1", "services");
    test.api.create(&services, &json!({"metadata": {"name": "test-service"}, "spec": spec})).await.ok();
    [test.pod("agnhost"), format!("{services}/test-service")]
}

/// Asks until something is behind the proxy: a service has no endpoint at first, a program may not listen yet.
async fn ask(test: &Test, method: &Method, path: &str) -> Reply {
    let asking = async {
        loop {
            let reply = test.api.call(method.clone(), path, &[], "").await;
            if reply.code != StatusCode::SERVICE_UNAVAILABLE {
                return reply;
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{method} {path}: nothing is behind it"))
}

pub async fn every_method_reaches_a_path(test: &Test) {
    for path in serving(test).await {
        for method in METHODS {
            let reply = ask(test, &method, &format!("{path}/proxy/method")).await;
            assert_eq!(reply.code, StatusCode::OK, "{method} {path}");
            let said = String::from_utf8_lossy(&reply.body).into_owned();
            assert_eq!(said.trim(), if method == Method::HEAD { "" } else { method.as_str() }, "{path}");
        }
    }
}

/// Without a path, who asks for something is sent to `/`, and who brings something gets there.
pub async fn every_method_reaches_what_is_proxied(test: &Test) {
    for path in serving(test).await {
        let path = format!("{path}/proxy");
        for method in METHODS {
            let reply = ask(test, &method, &path).await;
            if matches!(method, Method::GET | Method::HEAD) {
                assert_eq!(reply.code, StatusCode::MOVED_PERMANENTLY, "{method} {path}");
                assert_eq!(reply.headers["location"], format!("{path}/"));
            } else {
                assert_eq!(reply.code, StatusCode::OK, "{method} {path}");
                assert_eq!(String::from_utf8_lossy(&reply.body).trim(), "agnhost", "{method} {path}");
            }
        }
    }
}

pub async fn ports_are_named_in_every_way(test: &Test) {
    let [pod, service] = serving(test).await;
    let (pods, services) = (test.path("v1", "pods"), test.path("v1", "services"));
    let names = [
        pod,
        service,
        format!("{pods}/agnhost:8080"),
        format!("{pods}/http:agnhost:8080"),
        format!("{pods}/agnhost:web"),
        format!("{services}/test-service:80"),
        format!("{services}/test-service:http"),
        format!("{services}/http:test-service:http"),
    ];
    for name in names {
        let reply = ask(test, &Method::GET, &format!("{name}/proxy/hostname")).await;
        assert_eq!((reply.code, String::from_utf8_lossy(&reply.body).trim()), (StatusCode::OK, "agnhost"), "{name}");
    }
}
