//! The controllers over the real API server and a real store, in this process: what is declared becomes true.

mod deployment;
mod garbage;
mod job;
mod namespace;
mod node;
mod resource_claim;
mod service;
mod stateful_set;
mod volume;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_api::{Kind, Object, Subresource, kinds};
use windlass_apiserver::{Apiserver, Config, Identity};
use windlass_client::{Cache, Cached, Caches, Client, Notice, Patch};
use windlass_controllers::ControllersConfig;
use windlass_stdx::World;
use windlass_store::{RealDisk, Store};

/// Everything a test waits for comes well before this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with controllers over a fresh store; all of it goes with it.
struct Cluster {
    client: Client,
    caches: Caches,
    stop: watch::Sender<bool>,
    controllers: JoinHandle<()>,
    agent: Option<JoinHandle<()>>,
    apiserver: Apiserver,
    store: Store,
    dir: PathBuf,
}

impl Cluster {
    async fn start() -> Cluster {
        let world = World::real();
        let dir = std::env::temp_dir().join(format!("windlass-loops-{}", world.uuid()));
        let store = Store::open(windlass_store::Config::new(dir.join("store")), Arc::new(RealDisk), world.clone());
        let store = store.await.expect("an empty directory becomes a store");
        let apiserver = Apiserver::new(Config::new(windlass_api::resources::registry()), store.clone(), world.clone());
        apiserver.bootstrap().await.expect("an empty store takes what every cluster has");
        let client = Client::new(apiserver.transport(Identity::part("controllers")), world);
        let caches = Caches::new(client.clone());
        let (stop, stopped) = watch::channel(false);
        let config = ControllersConfig { node_grace: Duration::from_secs(2), ..ControllersConfig::default() };
        let run = windlass_controllers::run(caches.clone(), config, stopped);
        let controllers = tokio::spawn(async move { run.await.expect("the default configuration can be used") });
        Cluster { client, caches, stop, controllers, agent: None, apiserver, store, dir }
    }

    /// Ends everything and takes the directory away.
    async fn end(self) {
        self.stop.send_replace(true);
        if let Some(agent) = self.agent {
            agent.abort();
        }
        tokio::time::timeout(PATIENCE, self.controllers).await.expect("in time").expect("controllers end in order");
        self.apiserver.close();
        self.store.close().await;
        std::fs::remove_dir_all(&self.dir).expect("the test's own directory");
    }

    async fn create(&self, kind: &Kind, object: Value) -> Object {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.client.create(kind, &namespace, &object).await.unwrap_or_else(|error| panic!("{object}: {error}"))
    }

    async fn merge(&self, kind: &Kind, namespace: &str, name: &str, patch: Value) {
        let patched = self.client.patch(kind, namespace, name, &Patch::Merge(patch), None).await;
        patched.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Waits until the objects of a kind are as the condition says.
    #[track_caller]
    fn until(
        &self,
        kind: &Kind,
        what: &'static str,
        condition: impl Fn(&[Arc<Cached>]) -> bool,
    ) -> impl Future<Output = Vec<Arc<Cached>>> {
        let cache = self.caches.of(kind);
        let at = std::panic::Location::caller();
        async move {
            // A copy that has not come yet has nothing in it either.
            let wait = async {
                cache.synced().await;
                cache.until("", |_| condition(&cache.list())).await;
            };
            if tokio::time::timeout(PATIENCE, wait).await.is_err() {
                let found: Vec<String> =
                    cache.list().iter().map(|object| String::from_utf8_lossy(&object.json).into_owned()).collect();
                panic!("{at}: expected {what}, found\n{}", found.join("\n"));
            }
            cache.list()
        }
    }

    /// A stand-in for all node agents: makes every pod ready with an address of its own.
    fn run_agent(&mut self) {
        let (client, pods) = (self.client.clone(), self.caches.of(&kinds::POD));
        self.agent = Some(tokio::spawn(make_ready(client, pods)));
    }
}

async fn make_ready(client: Client, pods: Cache) {
    let mut changes = pods.subscribe();
    let mut address = 1;
    loop {
        let Notice::Changed(change) = changes.next().await else { continue };
        let Some(pod) = change.new.filter(|pod| pod.header.phase() != "Running") else { continue };
        address += 1;
        let ip = format!("10.42.0.{address}");
        let now = client.world().now_rfc3339();
        let patch = Patch::Strategic(json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        }}));
        let (namespace, name) = (pod.header.namespace(), pod.header.name());
        let patched = client.patch(&kinds::POD, namespace, name, &patch, Some(Subresource::Status)).await;
        match patched {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

fn alive(objects: &[Arc<Cached>], namespace: &str) -> usize {
    objects.iter().filter(|object| object.header.namespace() == namespace && !object.header.is_ending()).count()
}

fn deployment(namespace: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}})
}
