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
        Ok(stage)
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
        let response = self.call(request).await?;
        let code = response.status();
        ensure!(code != 500, "answered with 500: {}", self.text(response).await?);
        if request.path.contains("watch=") {
            return self.read_some(response).await;
        }
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
        let Some(row) = self.registry.find_kind(&text(&object["apiVersion"]), &text(&object["kind"])) else {
            return Ok(());
        };
        let metadata = &object["metadata"];
        // Reviews are answered and not kept.
        if row.verbs != Verbs::All || metadata["uid"].is_null() {
            return Ok(());
        }
        let path = path_of(&row.kind, &text(&metadata["namespace"]), &text(&metadata["name"]));
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
        ensure!(read["metadata"]["uid"] == metadata["uid"], "{path} is another object than was written");
        let (code, _) = self.read(self.call(&get(TABLE)).await?).await?;
        ensure!(code == 200, "{path} as a table reads {code}");
        Ok(())
    }

    /// Every object of every kind, by path.
    async fn all_objects(&self) -> Result<BTreeMap<String, Value>> {
        let mut found = BTreeMap::new();
        for row in self.registry.iter().filter(|row| row.verbs == Verbs::All) {
            let path = row.kind.collection_path(None);
            let list = Request { method: Method::GET, path, headers: Vec::new(), body: Vec::new() };
            let (code, body) = self.read(self.call(&list).await?).await?;
            ensure!(code == 200, "{list} reads {code}: {}", String::from_utf8_lossy(&body));
            let list: Value = serde_json::from_slice(&body).context("a list is JSON")?;
            for item in list["items"].as_array().context("a list has items")? {
                let metadata = &item["metadata"];
                let text = |field: &str| metadata[field].as_str().unwrap_or_default();
                found.insert(path_of(&row.kind, text("namespace"), text("name")), item.clone());
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

    /// The beginning of a watch, if it has one soon; the rest is let go of.
    async fn read_some(&self, response: Response) -> Result<()> {
        let mut body = response.into_body();
        let first = tokio::time::timeout(Duration::from_millis(5), body.frame()).await;
        if let Ok(Some(Err(error))) = first {
            bail!("the watch breaks off: {error}");
        }
        Ok(())
    }
}
