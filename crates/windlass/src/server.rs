//! The server's wiring: store, API, controllers and scheduler in one process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use windlass_apiserver::{AddressRange, Apiserver, Audit, AuditConfig, AuditPolicy, Config, Identity, Pki, Rotation};
use windlass_client::{Caches, Client};
use windlass_controllers::ControllersConfig;
use windlass_scheduler::SchedulerConfig;
use windlass_stdx::World;
use windlass_store::{RealDisk, Store};

use crate::cli::{AuditFlags, ServerFlags};
use crate::kubeconfig;
use crate::place::Place;

/// How long a watch may be away and still go on without a new list. Kubernetes keeps as much.
const HISTORY_KEPT: Duration = Duration::from_secs(300);

/// A running server.
pub struct Server {
    pub api: Apiserver,
    pub store: Store,
    pub pki: Arc<Pki>,
    pub listen: SocketAddr,
    audit: Option<Audit>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts everything; the API answers when this returns.
    pub async fn start(
        place: &Place,
        flags: &ServerFlags,
        world: &World,
        stop: watch::Receiver<bool>,
    ) -> Result<Server> {
        let listener = TcpListener::bind(flags.listen).await.with_context(|| {
            format!("cannot listen on {}: if it is in use, choose another address with --listen", flags.listen)
        })?;
        let listen = listener.local_addr().context("the listening socket has no address")?;
        let pki = Arc::new(Pki::open(&place.pki(), world).context("cannot open the cluster's certificates")?);
        let store = Store::open(windlass_store::Config::new(place.store()), Arc::new(RealDisk), world.clone())
            .await
            .context("cannot open the store")?;
        let service_range: AddressRange = flags.networks.service_cidr.parse()?;
        let mut config = Config::new(windlass_api::resources::registry());
        config.service_range = service_range;
        config.advertise = Some(listen);
        config.node_link = Some(pki.node_link().context("cannot make the link to nodes")?);
        config.pki = Some(pki.clone());
        let audit = open_audit(&flags.audit, world)?;
        config.audit = audit.clone();
        let address = IpAddr::V4(config.kubernetes_address());
        let api = Apiserver::new(config, store.clone(), world.clone());
        api.bootstrap().await.context("cannot create the first objects")?;
        let tls = pki.server_tls(address, &server_names(flags)).context("cannot make the API's certificate")?;
        kubeconfig::save(place, &pki, listen)?;

        let mut tasks = JoinSet::new();
        let serving = api.clone();
        tasks.spawn(async move { serving.serve(listener, tls).await });
        let caches = Caches::new(Client::new(api.transport(Identity::part("controllers")), world.clone()));
        let controllers = ControllersConfig {
            cluster_cidr: flags.networks.pod_cidr.clone(),
            root_ca_pem: pki.ca_pem().to_owned(),
            ..ControllersConfig::default()
        };
        let controlling = windlass_controllers::run(caches.clone(), controllers, stop.clone());
        let part = api.part("controller-manager");
        tasks.spawn(async move {
            let _runs = part;
            if let Err(error) = controlling.await {
                tracing::error!(%error, "the controllers stopped");
            }
        });
        let scheduling = windlass_scheduler::run(caches, SchedulerConfig::default(), stop.clone());
        let part = api.part("scheduler");
        tasks.spawn(async move {
            let _runs = part;
            scheduling.await;
        });
        tasks.spawn(compact(store.clone(), stop));
        Ok(Server { api, store, pki, listen, audit, tasks })
    }

    /// Stops serving, lets the loops end and closes the store.
    pub async fn stop(mut self) {
        self.api.close();
        while self.tasks.join_next().await.is_some() {}
        self.store.close().await;
        if let Some(audit) = self.audit {
            audit.close().await;
        }
    }
}

/// The audit log, if one is asked for.
fn open_audit(flags: &AuditFlags, world: &World) -> Result<Option<Audit>> {
    let Some(path) = &flags.audit_log_path else { return Ok(None) };
    let policy = match &flags.audit_policy_file {
        None => AuditPolicy::default_policy(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("--audit-policy-file: cannot read {}", file.display()))?;
            AuditPolicy::parse(&text).with_context(|| format!("--audit-policy-file {}", file.display()))?
        }
    };
    let rotation = Rotation {
        bytes_max: flags.audit_log_maxsize * 1024 * 1024,
        files_max: flags.audit_log_maxbackup,
        age_max: Duration::from_secs(flags.audit_log_maxage * 24 * 3600),
    };
    let path = std::path::absolute(path).with_context(|| format!("--audit-log-path: {}", path.display()))?;
    let audit = Audit::open(AuditConfig { path, policy, rotation }, world)
        .context("--audit-log-path: choose a file in a directory that is there")?;
    Ok(Some(audit))
}

/// Lets go of history that is older than a watch may be away, so that an idle cluster's memory does not grow.
async fn compact(store: Store, mut stop: watch::Receiver<bool>) {
    let mut keep_after = store.revision();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(HISTORY_KEPT) => {}
        }
        if let Err(error) = store.compact(keep_after) {
            tracing::debug!(%error, "nothing to compact");
        }
        keep_after = store.revision();
    }
}

fn server_names(flags: &ServerFlags) -> Vec<String> {
    let mut names = flags.names.clone();
    if !flags.listen.ip().is_unspecified() {
        names.push(flags.listen.ip().to_string());
    }
    names
}
