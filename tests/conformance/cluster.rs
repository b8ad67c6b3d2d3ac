//! The cluster in process: API server, controllers and scheduler over a real store in a directory of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use windlass_apiserver::{Apiserver, Config, GROUP_MASTERS, Identity, Pki};
use windlass_client::{Caches, Client};
use windlass_controllers::ControllersConfig;
use windlass_scheduler::SchedulerConfig;
use windlass_stdx::World;
use windlass_store::{RealDisk, Store};

use crate::api::Api;

/// A running cluster without nodes.
pub struct Cluster {
    apiserver: Apiserver,
    store: Store,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    directory: PathBuf,
}

impl Cluster {
    pub async fn start() -> Result<Cluster> {
        let world = World::real();
        let directory = std::env::temp_dir().join(format!("windlass-conformance-{}", world.uuid()));
        let store = windlass_store::Config::new(directory.join("store"));
        let store = Store::open(store, Arc::new(RealDisk), world.clone()).await?;
        let pki = Pki::open(&directory.join("pki"), &world)?;
        let mut config = Config::new(windlass_api::resources::registry());
        let root_ca_pem = pki.ca_pem().to_owned();
        config.pki = Some(Arc::new(pki));
        // An address for documentation: pods are told it, and there is none to ask it.
        config.advertise = Some(SocketAddr::from(([192, 0, 2, 1], 6443)));
        let apiserver = Apiserver::new(config, store.clone(), world.clone());
        apiserver.bootstrap().await.context("an empty store takes what every cluster has")?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let caches = Caches::new(Client::new(apiserver.transport(Identity::part("controllers")), world));
        let controllers = ControllersConfig { root_ca_pem, ..ControllersConfig::default() };
        let controlling = windlass_controllers::run(caches.clone(), controllers, stopped.clone());
        tasks.spawn(async move { controlling.await.expect("the default configuration can be used") });
        tasks.spawn(windlass_scheduler::run(caches, SchedulerConfig::default(), stopped));
        Ok(Cluster { apiserver, store, stop, tasks, directory })
    }

    /// The API as an administrator.
    pub fn api(&self) -> Api {
        let administrator = Identity::new("conformance", [GROUP_MASTERS.to_owned()]);
        Api::new(self.apiserver.transport(administrator))
    }

    /// Ends everything and takes the directory away.
    pub async fn end(mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.apiserver.close();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a part of the cluster panicked")?;
        }
        self.store.close().await;
        std::fs::remove_dir_all(&self.directory).context("the suite's own directory")
    }
}
