//! The API server in this process: requests through the pipeline, over a real store in a directory of its own.

mod access;
mod admit;
mod aggregate;
mod apply;
mod audit;
mod backup;
mod certificate;
mod convert;
mod create;
mod custom;
mod delete;
mod discovery;
mod eviction;
mod form;
mod handover;
mod health;
#[path = "../../../../tests/conformance/machinery/hook.rs"]
mod hook;
mod hostile;
mod impersonate;
mod kind;
mod list;
mod metrics;
mod node;
mod openapi;
mod pod_part;
mod pod_security;
mod policy;
mod proxy;
mod quota;
mod rbac;
mod review;
mod tls;
mod token;
mod update;
mod watch;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use windlass_apiserver::{Apiserver, Config, Identity};
use windlass_stdx::{Body, World, body_from, read_body};
use windlass_store::{RealDisk, Store};

/// Everything a test waits for comes well before this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server over a fresh store; both go with it.
struct Api {
    apiserver: Apiserver,
    store: Store,
    dir: PathBuf,
}

impl Drop for Api {
    fn drop(&mut self) {
        // The store may be in the middle of a write, whose file would stay.
        for _ in 0..100 {
            match std::fs::remove_dir_all(&self.dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ => return,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cannot remove {}", self.dir.display());
    }
}

/// What the server answered.
struct Reply {
    code: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("expected JSON, found {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `code reason: message` of a refusal, `code` of anything else.
    fn said(&self) -> String {
        let code = self.code.as_u16();
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(status) if status["status"] == "Failure" => {
                let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
                format!("{code} {}: {}", text("reason"), text("message"))
            }
            _ => code.to_string(),
        }
    }
}

fn temporary_dir() -> PathBuf {
    std::env::temp_dir().join(format!("windlass-apiserver-{}", World::real().uuid()))
}

impl Api {
    /// A server with what every cluster has.
    async fn start() -> Api {
        Api::start_with(|_, _| {}).await
    }

    async fn start_with(adjust: impl FnOnce(&mut Config, &std::path::Path)) -> Api {
        let world = World::real();
        let dir = temporary_dir();
        let store =
            Store::open(windlass_store::Config::new(dir.join("store")), Arc::new(RealDisk), world.clone()).await;
        let store = store.expect("an empty directory becomes a store");
        let mut config = Config::new(windlass_api::resources::registry());
        adjust(&mut config, &dir);
        let apiserver = Apiserver::new(config, store.clone(), world);
        apiserver.bootstrap().await.expect("an empty store takes what every cluster has");
        let api = Api { apiserver, store, dir };
        // No controller runs here; pods need the account.
        api.make("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
        api
    }

    /// Sends a request as somebody, with headers; gives the response before its body is read.
    async fn send(
        &self,
        who: Identity,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<Body> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a test sends a well-formed request");
        let answer = self.apiserver.transport(who).call(request);
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("the server answers in time");
        answer.expect("the server always answers")
    }

    async fn call_as(
        &self,
        who: Identity,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Reply {
        read(self.send(who, method, path, headers, body_from(body)).await).await
    }

    async fn call(&self, method: Method, path: &str, content_type: &str, body: impl Into<bytes::Bytes>) -> Reply {
        self.call_as(admin(), method, path, &[("content-type", content_type)], body).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, "application/json", "").await
    }

    async fn post(&self, path: &str, object: &Value) -> Reply {
        self.call(Method::POST, path, "application/json", object.to_string()).await
    }

    async fn put(&self, path: &str, object: &Value) -> Reply {
        self.call(Method::PUT, path, "application/json", object.to_string()).await
    }

    async fn merge(&self, path: &str, patch: &Value) -> Reply {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch.to_string()).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, "application/json", "").await
    }

    /// Creates an object that must be accepted.
    async fn make(&self, path: &str, object: &Value) -> Value {
        let reply = self.post(path, object).await;
        assert_eq!(reply.said(), "201", "creating {object}");
        reply.json()
    }

    /// Watches a collection: the lines that come.
    async fn watch(&self, path: &str) -> Lines {
        let response = self.send(admin(), Method::GET, path, &[], body_from("")).await;
        assert_eq!(response.status(), 200, "watching {path}");
        Lines { body: response.into_body(), rest: Vec::new() }
    }
}

async fn read(response: http::Response<Body>) -> Reply {
    let (parts, body) = response.into_parts();
    let bytes = tokio::time::timeout(PATIENCE, read_body(body, 64 << 20)).await.expect("the body comes in time");
    let bytes = bytes.expect("the body is whole").expect("the body is smaller than tests allow");
    Reply { code: parts.status, headers: parts.headers, body: bytes.to_vec() }
}

fn admin() -> Identity {
    Identity::new("admin", ["system:masters".to_owned()])
}

/// The lines of a watch.
struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of a watch is JSON"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event comes in time")?;
            let data = frame.expect("a watch does not break").into_data().expect("a watch has no trailers");
            self.rest.extend_from_slice(&data);
        }
    }

    /// `TYPE name` of the next event.
    async fn said(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]},
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]},
            },
        },
    })
}

/// Binds a pod to a node.
async fn bind(api: &Api, pod: &str, node: &str) -> Reply {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": node},
    });
    api.post(&format!("{PODS}/{pod}/binding"), &binding).await
}
