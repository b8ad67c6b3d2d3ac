//! Controllers: each looks at objects and plans changes; one driver carries them out.
//!
//! Goal        what users declare (deployments, services, namespaces …) becomes true, and stays true
//! Relies on   `client` for objects as they are, the API for every write
//! Not here    where a pod runs (scheduler), how it runs (node)
//!
//! To add a controller: one file with its rules, one line in [`run`].

mod claim;
mod cluster_role;
mod condition;
mod controller;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod driver;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
#[cfg(test)]
mod fixture;
mod garbage;
mod job;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod plan;
mod pod;
mod pod_disruption_budget;
mod pod_garbage;
mod pod_resource_claim;
mod replica_set;
mod replication_controller;
mod resource_claim;
mod resource_quota;
mod selector;
mod served;
mod service_account;
mod stateful_set;
mod status;
mod template;
mod volume_attachment;

pub use driver::{Counters, Metrics};

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use windlass_client::{Caches, Recorder};

use controller::Controller;

/// What the controllers of a cluster are told.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Addresses for pods, such as `10.42.0.0/16`.
    pub cluster_cidr: String,
    /// The prefix length of one node's part of it.
    pub node_prefix: u8,
    /// How long a node whose lease does not say its own duration may be silent.
    pub node_grace: Duration,
    /// The cluster's certificate authority, PEM: published as ConfigMap `kube-root-ca.crt` in every namespace. Empty
    /// publishes none.
    pub root_ca_pem: String,
    /// Where the controllers count what they do.
    pub metrics: Metrics,
}

impl Default for ControllersConfig {
    fn default() -> ControllersConfig {
        ControllersConfig {
            cluster_cidr: "10.42.0.0/16".to_owned(),
            node_prefix: 24,
            node_grace: Duration::from_secs(10),
            root_ca_pem: String::new(),
            metrics: Metrics::default(),
        }
    }
}

/// Runs all controllers until `shutdown` says true.
///
/// Guarantees  nothing is planned before every cache has its first list
/// Assumes     at most one process of a cluster runs this at a time
/// Errors      only a configuration that cannot be used, at once
pub async fn run(
    caches: Caches,
    config: ControllersConfig,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ControllersError> {
    let mut list = List { caches: caches.clone(), metrics: config.metrics.clone(), shutdown, starts: Vec::new() };
    list.add(deployment::Deployments::new(&caches));
    list.add(replica_set::ReplicaSets::new(&caches));
    list.add(replication_controller::ReplicationControllers::new(&caches));
    list.add(daemon_set::DaemonSets::new(&caches));
    list.add(stateful_set::StatefulSets::new(&caches));
    list.add(job::Jobs::new(&caches));
    list.add(cron_job::CronJobs::new(&caches));
    list.add(endpoint_slice::EndpointSlices::new(&caches));
    list.add(endpoints::EndpointsObjects::new(&caches));
    list.add(endpoint_slice_mirroring::EndpointSliceMirrors::new(&caches));
    list.add(pod_disruption_budget::PodDisruptionBudgets::new(&caches));
    list.add(namespace::Namespaces::new(&caches));
    list.add(service_account::ServiceAccounts::new(&caches, &config.root_ca_pem));
    list.add(cluster_role::ClusterRoles::new(&caches));
    list.add(garbage::Garbage::new(&caches));
    list.add(node::address::NodeAddresses::new(&caches, &config.cluster_cidr, config.node_prefix)?);
    list.add(node::health::NodeHealth::new(&caches, config.node_grace));
    list.add(node::eviction::Evictions::new(&caches));
    list.add(pod_garbage::PodGarbage::new(&caches));
    list.add(persistent_volume_claim::PersistentVolumeClaims::new(&caches));
    list.add(ephemeral_volume::EphemeralVolumes::new(&caches));
    list.add(persistent_volume::PersistentVolumes::new(&caches));
    list.add(volume_attachment::VolumeAttachments::new(&caches));
    list.add(resource_quota::ResourceQuotas::new(&caches));
    list.add(pod_resource_claim::PodResourceClaims::new(&caches));
    list.add(resource_claim::ResourceClaims::new(&caches));
    list.run().await;
    Ok(())
}

/// Why controllers cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// The pod network is not one, or cannot be cut into parts of the size asked for.
    #[error(
        "cluster CIDR {cidr:?}: expected an IPv4 network such as 10.42.0.0/16 that holds networks of /{node_prefix}"
    )]
    ClusterCidr {
        /// What was given.
        cidr: String,
        /// The prefix length of one node's part.
        node_prefix: u8,
    },
}

/// The controllers before they run.
struct List {
    caches: Caches,
    metrics: Metrics,
    shutdown: watch::Receiver<bool>,
    starts: Vec<Start>,
}

type Start = Box<dyn FnOnce(&mut JoinSet<()>) + Send>;

impl List {
    fn add<C: Controller>(&mut self, controller: C)
    where
        C::View: Send,
    {
        let component = format!("{}-controller", C::NAME);
        let client = self.caches.client().named(&component);
        let shared = driver::Shared {
            recorder: Recorder::new(client.clone(), &component, ""),
            client,
            counters: self.metrics.of(C::NAME),
            caches: self.caches.clone(),
        };
        let shutdown = self.shutdown.clone();
        self.starts.push(Box::new(move |tasks| {
            tasks.spawn(driver::drive(controller, shared, shutdown));
        }));
    }

    async fn run(self) {
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = self.caches.synced() => {}
        }
        let mut tasks = JoinSet::new();
        for start in self.starts {
            start(&mut tasks);
        }
        // A driver ends only at shutdown: what can panic in it, a pass, has its own boundary.
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller ended");
            }
        }
    }
}
