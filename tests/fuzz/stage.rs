//! The server under test, and what is checked of its answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use windlass_api::{Kind, Registry, Verbs};
use windlass_apiserver::{Apiserver, Config, GROUP_MASTERS, Identity, Pki};
use windlass_client::segment;
use windlass_stdx::{Response, Transport, World, body_from, read_body};
use windlass_store::{RealDisk, Store};

use crate::request::Request;

/// Every answer begins and, unless it is a watch, ends within this (F1).
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// More than any answer has.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A server over a store of its own.
pub struct Stage {
    pub registry: Registry,
    directory: PathBuf,
    world: World,
    parts: Option<Parts>,
    /// Writes that the server took: a run in which it refuses everything shows nothing.
    pub accepted: usize,
}

struct Parts {
    apiserver: Apiserver,
    store: Store,
    link: Arc<dyn Transport>,
}

/// A custom kind: each sort of schema that objects are checked, completed or cut by.
pub const THINGS: &str = "/apis/fuzz.example.com/v1/namespaces/default/things";
const DEFINITION: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.fuzz.example.com"}, "spec": {"group": "fuzz.example.com", "scope": "Namespaced",
    "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": true, "storage": true,
    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
    "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
    "selectableFields": [{"jsonPath": ".spec.word"}],
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-validations": [{"rule": "!has(self.word) || self.word != 'bad'"}],
            "properties": {
                "n": {"type": "integer", "minimum": 0, "maximum": 100, "default": 3,
                    "x-kubernetes-validations": [{"rule": "self >= oldSelf - 50"}]},
                "word": {"type": "string", "maxLength": 20},
                "set": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set",
                    "items": {"type": "string", "maxLength": 9}},
                "map": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"],
                        "properties": {"name": {"type": "string", "maxLength": 9},
                            "port": {"x-kubernetes-int-or-string": true}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "maybe": {"type": "string", "nullable": true, "default": "x"},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}]}}"#;
/// What is answered by servers that are not there: what pods and services serve, and node agents.
const ELSEWHERE: [&str; 6] = ["/proxy", "/log", "/exec", "/attach", "/portforward", "/apis/metrics.k8s.io/"];

/// Names of roles and their bindings may have spaces and the like.
fn path_of(kind: &Kind, namespace: &str, name: &str) -> String {
    kind.object_path(&segment(namespace), &segment(name))
}

impl Stage {
    pub async fn start() -> Result<Stage> {
        let world = World::real();
        let directory = std::env::temp_dir().join(format!("windlass-fuzz-{}", world.uuid()));
        let registry = windlass_api::resources::registry();
        let mut stage = Stage { registry, directory, world, parts: None, accepted: 0 };
        stage.open().await?;
        let definition = Request {
            method: Method::POST,
            path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(),
            headers: vec![("content-type", "application/json".to_owned())],
            body: DEFINITION.as_bytes().to_vec(),
        };
        let (code, body) = stage.read(stage.call(&definition).await?).await?;
        ensure!(code == 201, "the custom kind is not defined: {}", String::from_utf8_lossy(&body));
        Ok(stage)
    }

    fn revision(&self) -> Result<u64> {
        Ok(self.parts.as_ref().context("the stage is open")?.store.revision())
    }

    async fn open(&mut self) -> Result<()> {
        let store = windlass_store::Config::new(self.directory.join("store"));
        let store = Store::open(store, Arc::new(RealDisk), self.world.clone()).await?;
        let mut config = Config::new(self.registry.clone());
        config.pki = Some(Arc::new(Pki::open(&self.directory.join("pki"), &self.world)?));
        let apiserver = Apiserver::new(config, store.clone(), self.world.clone());
        apiserver.bootstrap().await.context("a store takes what every cluster has")?;
        let link = apiserver.transport(Identity::new("fuzzer", [GROUP_MASTERS.to_owned()]));
        self.parts = Some(Parts { apiserver, store, link });
        Ok(())
    }

    async fn close(&mut self) {
        if let Some(parts) = self.parts.take() {
            parts.apiserver.close();
            parts.store.close().await;
        }
    }

    /// F4.
    pub async fn restart(&mut self) -> Result<()> {
        let before = self.all_objects().await?;
        self.close().await;
        self.open().await?;
        let after = self.all_objects().await?;
        for (path, object) in &before {
            match after.get(path) {
                // It goes with the definition, at the latest when a server begins.
                None if path.ends_with("/v1.fuzz.example.com") => {}
                None => bail!("{path} is gone after a restart"),
                Some(again) if again != object => bail!("{path} was {object}, is {again} after a restart"),
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub async fn end(mut self) -> Result<()> {
        self.close().await;
        std::fs::remove_dir_all(&self.directory).context("the fuzzer's own directory")
    }

    /// F2.
    pub async fn check_no_panic(&self) -> Result<()> {
        let request =
            Request { method: Method::GET, path: "/metrics".to_owned(), headers: Vec::new(), body: Vec::new() };
        let (_, metrics) = self.read(self.call(&request).await?).await?;
        let metrics = String::from_utf8(metrics).context("metrics are text")?;
        let count = metrics.lines().find_map(|line| line.strip_prefix("apiserver_panics_total "));
        ensure!(count == Some("0"), "the server counts {count:?} panics");
        Ok(())
    }

    /// Sends a request and checks its answer.
    pub async fn send(&mut self, request: &Request) -> Result<()> {
        let before = self.revision()?;
        let response = self.call(request).await?;
        let code = response.status();
        let is_elsewhere = ELSEWHERE.iter().any(|part| request.path.contains(part));
        let is_early = code == 504 && request.path.contains("resourceVersion=");
        if code.is_server_error() && !is_elsewhere && !is_early {
            bail!("answered with {code}: {}", self.text(response).await?);
        }
        if request.path.contains("watch=") {
            return self.read_some(response, request).await;
        }
        let is_tried = request.path.contains("dryRun=All") && request.method != Method::GET;
        let after = self.revision()?;
        ensure!(!is_tried || before == after, "a dry run took the store from {before} to {after}");
        let (_, body) = self.read(response).await?;
        let is_write = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
        if code.is_success() && is_write && !request.path.contains("dryRun=") {
            let object: Value = serde_json::from_slice(&body).context("a write answers JSON")?;
            self.check_readable(&object).await?;
            self.accepted += 1;
        }
        Ok(())
    }

    /// F3.
    async fn check_readable(&self, object: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let row = self.registry.find_kind(&text(&object["apiVersion"]), &text(&object["kind"]));
        let path = match row {
            // Reviews are answered and not kept.
            Some(row) if row.verbs != Verbs::All || metadata["uid"].is_null() => return Ok(()),
            Some(row) => path_of(&row.kind, &text(&metadata["namespace"]), &text(&metadata["name"])),
            None if object["kind"] == "Thing" => format!("{THINGS}/{}", text(&metadata["name"])),
            None => return Ok(()),
        };
        let get = |accept: &str| Request {
            method: Method::GET,
            path: path.clone(),
            headers: vec![("accept", accept.to_owned())],
            body: Vec::new(),
        };
        let (code, body) = self.read(self.call(&get("application/json")).await?).await?;
        // An ending object may be gone by now.
        if code == 404 && !metadata["deletionTimestamp"].is_null() {
            return Ok(());
        }
        ensure!(code == 200, "{path} was written and reads {code}");
        let read: Value = serde_json::from_slice(&body).with_context(|| format!("{path} is no JSON"))?;
        ensure!(read == *object, "{path} was answered as {object} and reads {read}");
        let (code, _) = self.read(self.call(&get(TABLE)).await?).await?;
        ensure!(code == 200, "{path} as a table reads {code}");
        Ok(())
    }

    /// Every object of every kind, by path.
    async fn all_objects(&self) -> Result<BTreeMap<String, Value>> {
        let mut found = BTreeMap::new();
        let rows = self.registry.iter().filter(|row| row.verbs == Verbs::All);
        let rows = rows.map(|row| (Some(row), row.kind.collection_path(None)));
        for (row, path) in rows.chain([(None, THINGS.to_owned())]) {
            let list = Request { method: Method::GET, path, headers: Vec::new(), body: Vec::new() };
            let (code, body) = self.read(self.call(&list).await?).await?;
            // A run may delete the definition too.
            if row.is_none() && code == 404 {
                continue;
            }
            ensure!(code == 200, "{list} reads {code}: {}", String::from_utf8_lossy(&body));
            let list: Value = serde_json::from_slice(&body).context("a list is JSON")?;
            for item in list["items"].as_array().context("a list has items")? {
                let metadata = &item["metadata"];
                let text = |field: &str| metadata[field].as_str().unwrap_or_default();
                let at = match row {
                    Some(row) => path_of(&row.kind, text("namespace"), text("name")),
                    None => format!("{THINGS}/{}", text("name")),
                };
                found.insert(at, item.clone());
            }
        }
        Ok(found)
    }

    async fn call(&self, request: &Request) -> Result<Response> {
        let mut wire = http::Request::builder().method(request.method.clone()).uri(&request.path);
        for (name, value) in &request.headers {
            wire = wire.header(*name, value);
        }
        let wire = wire.body(body_from(request.body.clone())).with_context(|| format!("cannot be sent: {request}"))?;
        let link = &self.parts.as_ref().context("the stage is open")?.link;
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, link.call(wire)).await.context("no answer in time")?;
        Ok(answer?)
    }

    async fn read(&self, response: Response) -> Result<(u16, Vec<u8>)> {
        let code = response.status().as_u16();
        let reading = read_body(response.into_body(), ANSWER_BYTES_MAX);
        let body = tokio::time::timeout(ANSWER_TIME_MAX, reading).await.context("the answer does not end in time")?;
        let body = body.map_err(|error| anyhow::anyhow!("the answer breaks off: {error}"))?;
        Ok((code, body.context("the answer is larger than any should be")?.to_vec()))
    }

    async fn text(&self, response: Response) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read(response).await?.1).into_owned())
    }

    /// The beginning of a watch, if it has one soon; the rest is let go of. F6: one that begins with what is there is
    /// waited for, and its events are read.
    async fn read_some(&self, response: Response, request: &Request) -> Result<()> {
        let is_ok = response.status().is_success();
        let says_so = is_ok && request.path.contains("sendInitialEvents=true&") && request.path.contains("Bookmarks");
        let media = response.headers().get("content-type").and_then(|media| media.to_str().ok());
        let is_json = media.is_some_and(|media| media.starts_with("application/json"));
        let mut body = response.into_body();
        let mut text = Vec::new();
        let time = if says_so { ANSWER_TIME_MAX } else { Duration::from_millis(5) };
        loop {
            match tokio::time::timeout(time, body.frame()).await {
                Ok(Some(Ok(frame))) => text.extend(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(error))) => bail!("the watch breaks off: {error}"),
                Ok(None) => break,
                Err(_) if says_so => bail!("the watch does not say that it has begun"),
                Err(_) => break,
            }
            if !says_so || !is_json || String::from_utf8_lossy(&text).contains("k8s.io/initial-events-end") {
                break;
            }
        }
        if is_ok && is_json {
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).context("an event is JSON")?;
                // A part of an object is read whatever the query says.
                let is_event = event["type"].is_string() && event["object"].is_object();
                ensure!(is_event || event["kind"].is_string(), "neither an event nor an object: {event}");
            }
        }
        Ok(())
    }
}
