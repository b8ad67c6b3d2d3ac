//! HTTP as a test speaks it: a path and a body in, a code and JSON out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use windlass_api::codec::{Limits, yaml};
use windlass_client::{HttpsConfig, HttpsTransport};
use windlass_stdx::{Body, Transport, World, body_from, read_body};

/// Everything a test waits for comes well before this.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often an object is looked at while a test waits for it.
const PERIOD: Duration = Duration::from_millis(20);
/// More than any answer has.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";

/// A WebSocket to the API.
pub type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A cluster's API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    link: Arc<dyn Transport>,
    /// The same link where it leads out of the process: only there can a connection be upgraded.
    outward: Option<HttpsTransport>,
    world: World,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("expected JSON, found {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of an answer that must be a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code.is_success(), "{}: {}", self.code, String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The message of an answer that must be a refusal with this code.
    #[track_caller]
    pub fn refused(self, code: u16) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.code.as_u16(), code, "{text}");
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    pub fn new(link: Arc<dyn Transport>) -> Api {
        Api { link, outward: None, world: World::real() }
    }

    /// The cluster of a kubeconfig's current context, reached with its client certificate.
    pub fn of_kubeconfig(path: &Path) -> Result<Api> {
        let text = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let config = yaml::decode(&text, Limits::default()).context("the kubeconfig is not YAML")?.value;
        let named = |list: &str, name: &Value| {
            let found = config[list].as_array().into_iter().flatten().find(|entry| entry["name"] == *name);
            found.cloned().with_context(|| format!("the kubeconfig's {list} have no {name}"))
        };
        let context = named("contexts", &config["current-context"])?["context"].clone();
        let cluster = named("clusters", &context["cluster"])?["cluster"].clone();
        let user = named("users", &context["user"])?["user"].clone();
        let bytes = |part: &Value, key: &str| {
            let text = part[format!("{key}-data")].as_str();
            match (text, part[key].as_str()) {
                (Some(text), _) => BASE64.decode(text).with_context(|| format!("{key}-data is not base64")),
                (None, Some(path)) => std::fs::read(path).with_context(|| format!("could not read {path}")),
                (None, None) => anyhow::bail!("the kubeconfig has no {key}"),
            }
        };
        let link = HttpsTransport::new(HttpsConfig {
            server: cluster["server"].as_str().context("the kubeconfig's cluster has no server")?.to_owned(),
            ca_pem: bytes(&cluster, "certificate-authority")?,
            identity: Some((bytes(&user, "client-certificate")?, bytes(&user, "client-key")?)),
        })?;
        Ok(Api { link: Arc::new(link.clone()), outward: Some(link), world: World::real() })
    }

    /// Opens a WebSocket that speaks the protocol.
    pub async fn socket(&self, path: &str, protocol: &str) -> Socket {
        let link = self.outward.as_ref().expect("a test that needs a node has a real cluster");
        let mut key = [0; 16];
        self.world.fill_random(&mut key);
        let key = BASE64.encode(key);
        let request = http::Request::get(path)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", protocol)
            .header("sec-websocket-key", &key)
            .body(body_from(Bytes::new()))
            .expect("a test sends a well-formed request");
        let upgraded = tokio::time::timeout(PATIENCE, link.upgrade(request)).await.expect("an answer in time");
        let upgraded = upgraded.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let accept = upgraded.accept.expect("the server proves that it has read our key");
        assert_eq!(accept, derive_accept_key(key.as_bytes()));
        assert_eq!(upgraded.protocol.expect("the server says what it speaks"), protocol);
        WebSocketStream::from_raw_socket(upgraded.io, Role::Client, None).await
    }

    /// Sends a request; gives the answer before its body is read.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> http::Response<Body> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body_from(body)).expect("a test sends a well-formed request");
        let answer = tokio::time::timeout(PATIENCE, self.link.call(request)).await.expect("an answer in time");
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let (parts, body) = self.send(method, path, headers, body.into()).await.into_parts();
        let read = tokio::time::timeout(PATIENCE, read_body(body, ANSWER_BYTES_MAX)).await.expect("a body in time");
        let body = read.expect("a whole body").expect("no answer is that large");
        Reply { code: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &[], "").await
    }

    pub async fn create(&self, path: &str, object: &Value) -> Reply {
        self.call(Method::POST, path, &[("content-type", JSON)], object.to_string()).await
    }

    pub async fn update(&self, path: &str, object: &Value) -> Reply {
        self.call(Method::PUT, path, &[("content-type", JSON)], object.to_string()).await
    }

    /// Reads an object, changes it and puts it back, again while others were faster. Gives what it became.
    pub async fn replace(&self, path: &str, change: impl Fn(&mut Value)) -> Value {
        loop {
            let mut object = self.get(path).await.ok();
            change(&mut object);
            let reply = self.update(path, &object).await;
            if reply.code != StatusCode::CONFLICT {
                return reply.ok();
            }
        }
    }

    /// A patch of the given content type.
    pub async fn patch(&self, path: &str, form: &str, patch: &Value) -> Reply {
        self.call(Method::PATCH, path, &[("content-type", form)], patch.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, &[], "").await
    }

    /// Deletes with DeleteOptions.
    pub async fn delete_with(&self, path: &str, options: &Value) -> Reply {
        self.call(Method::DELETE, path, &[("content-type", JSON)], options.to_string()).await
    }

    /// A watch of a collection, `query` without its question mark.
    pub async fn watch(&self, path: &str, query: &str) -> Events {
        let path = format!("{path}?watch=true&{query}");
        let response = self.send(Method::GET, &path, &[], Bytes::new()).await;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        Events { body: response.into_body(), pending: Vec::new() }
    }

    /// Waits until an answer to GET satisfies a condition.
    pub async fn until(&self, path: &str, what: &str, condition: impl Fn(&Reply) -> bool) -> Reply {
        let looking = async {
            loop {
                let reply = self.get(path).await;
                if condition(&reply) {
                    return reply;
                }
                // Polling is what any client can do, whatever it waits for.
                tokio::time::sleep(PERIOD).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(reply) => reply,
            Err(_) => {
                let last = self.get(path).await;
                panic!("{path}: not {what} within {PATIENCE:?}; {}: {}", last.code, String::from_utf8_lossy(&last.body))
            }
        }
    }

    /// Waits, by a watch, until one object of a collection satisfies a condition.
    pub async fn seen(&self, collection: &str, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let query = format!("fieldSelector=metadata.name%3D{name}");
        let looking = async {
            loop {
                let mut events = self.watch(collection, &query).await;
                while let Some((kind, object)) = events.read().await {
                    assert_ne!(kind, "DELETED", "{collection}/{name}: expected {what}, but it was deleted: {object:#}");
                    last = object;
                    if condition(&last) {
                        return;
                    }
                }
            }
        };
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            panic!("{collection}/{name}: not {what} within {PATIENCE:?}; last seen: {:#}", last["status"]);
        }
        last
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, path: &str) {
        self.until(path, "gone", |reply| reply.code == StatusCode::NOT_FOUND).await;
    }

    /// A namespace that no other test uses, with its default ServiceAccount.
    pub async fn make_namespace(&self) -> String {
        let name = format!("conformance-{:x}", self.world.random_u64());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &object).await.ok();
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        self.until(&account, "there", |reply| reply.code.is_success()).await;
        name
    }
}

/// The events of a watch.
pub struct Events {
    body: Body,
    pending: Vec<u8>,
}

impl Events {
    /// The next event: its type and object. `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    /// The next event, which must be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let (found, object) = self.next().await.unwrap_or_else(|| panic!("expected {kind}, but the watch ended"));
        assert_eq!(found, kind, "{object}");
        object
    }

    /// Waits for an event of this type whose object satisfies a condition, and passes over changes that others made.
    pub async fn until(&mut self, kind: &str, condition: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (found, object) = self.next().await.unwrap_or_else(|| panic!("expected {kind}, but the watch ended"));
            if found == kind && condition(&object) {
                return object;
            }
            assert_eq!(found, "MODIFIED", "expected {kind}, found {object}");
        }
    }

    async fn read(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event is a line of JSON");
                let kind = event["type"].as_str().expect("an event has a type").to_owned();
                return Some((kind, event["object"].clone()));
            }
            match self.body.frame().await?.expect("the watch does not break").into_data() {
                Ok(bytes) => self.pending.extend_from_slice(&bytes),
                Err(_) => continue,
            }
        }
    }
}
