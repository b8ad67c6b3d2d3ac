//! EndpointSlice: the addresses behind each Service that has a selector.
//!
//! Goal        the slices of a Service hold each selected pod with an address once per address family, with its state
//! Watches     Service; EndpointSlice (of a Service, ours); Pod (selected); Node (for its zone)
//! Writes      EndpointSlice: create, endpoints and ports, delete
//! Relies on   label `endpointslice.kubernetes.io/managed-by` to tell our slices from others'
//!
//! Rules, in order
//!   R1 whose       a Service without selector, or of type ExternalName, has its slices written by somebody else
//!   R2 members     selected pods with an address that have not ended; ending ones stay until they are gone
//!   R3 state       ready: the pod is ready and not ending, or the Service publishes not-ready addresses; serving: the
//!                  pod is ready; terminating: the pod is ending
//!   R4 ports       named target ports are looked up in each pod; pods with other numbers get another slice
//!   R5 few writes  an endpoint stays in its slice; room in existing slices is used before a new one is made
//!   R6 bounded     a slice holds at most ENDPOINTS_MAX endpoints
//!   R7 never none  a Service without endpoints keeps one empty slice per address family
//! Not here       what the addresses are used for (node: service rules, DNS) · deletion with the Service (garbage)

mod endpoint;
mod packing;

pub(super) use endpoint::{desired, families, family_of, wakes_of_pods};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use windlass_api::header::Labels;
use windlass_api::{Header, Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key};

use crate::controller::{Controller, Look, Wake};
use crate::plan::Plan;

/// Endpoints in one slice, as Kubernetes has it by default: small enough that a changed endpoint sends little to nodes.
const ENDPOINTS_MAX: usize = 100;
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller of EndpointSlices.
pub(crate) struct EndpointSlices {
    services: Cache,
    slices: Cache,
    pods: Cache,
    nodes: Cache,
}

/// What a decision about one Service depends on.
pub(crate) struct View {
    pub(super) header: Header,
    pub(super) service: Arc<Facts>,
    pods: Vec<Arc<Cached>>,
    slices: Vec<Arc<Cached>>,
    /// The zone of each node that has one.
    zones: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    kind: String,
    selector: Option<BTreeMap<String, String>>,
    ports: Option<Vec<Port>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    ip_families: Option<Vec<String>>,
    publish_not_ready_addresses: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: Option<String>,
    port: i64,
    protocol: Option<String>,
    app_protocol: Option<String>,
    target_port: Value,
}

impl Facts {
    fn selects(&self, labels: Labels<'_>) -> bool {
        self.selector()
            .is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value.as_str())))
    }

    /// R1: the selector, if the slices are ours to write.
    pub(super) fn selector(&self) -> Option<&BTreeMap<String, String>> {
        let selector = self.spec.selector.as_ref()?;
        (!selector.is_empty() && self.spec.kind != "ExternalName").then_some(selector)
    }

    /// Whether it is for somebody else to say where it leads.
    pub(super) fn has_no_selector(&self) -> bool {
        self.spec.selector.as_ref().is_none_or(BTreeMap::is_empty)
    }

    /// Whether endpoints that are not ready are to be used all the same.
    pub(super) fn publishes_all(&self) -> bool {
        self.spec.publish_not_ready_addresses
    }

    pub(super) fn is_headless(&self) -> bool {
        self.spec.cluster_ip.as_deref() == Some("None")
    }
}

pub(super) fn facts(service: &Cached) -> Arc<Facts> {
    service.memo(|service: &Object| {
        service.decode().unwrap_or_else(|error| {
            let key = service.header.key();
            tracing::error!(service = key, %error, "a service that cannot be read gets no endpoints");
            Facts::default()
        })
    })
}

fn is_ours(slice: &Cached) -> bool {
    slice.header.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

impl View {
    /// A Service with these pods and without slices.
    pub(super) fn of(service: &Cached, pods: Vec<Arc<Cached>>, zones: BTreeMap<String, String>) -> View {
        View { header: service.header.clone(), service: facts(service), pods, slices: Vec::new(), zones }
    }
}

impl EndpointSlices {
    pub(crate) fn new(caches: &Caches) -> EndpointSlices {
        EndpointSlices {
            services: caches.of(&kinds::SERVICE),
            slices: caches.of(&kinds::ENDPOINT_SLICE),
            pods: caches.of(&kinds::POD),
            nodes: caches.of(&kinds::NODE),
        }
    }

    /// A Service whose endpoints are ours to write, with its pods and without its slices.
    pub(super) fn pods_of(&self, key: &Key) -> Option<View> {
        let service = self.services.get_key(key.as_str())?;
        let facts = facts(&service);
        let pods = self.pods.with_labels(key.namespace(), facts.selector()?);
        let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.header.node_name()).collect();
        let zone = |node: &str| self.nodes.get("", node)?.header.labels().get(ZONE).map(str::to_owned);
        let zones = nodes.into_iter().filter_map(|node| Some((node.to_owned(), zone(node)?))).collect();
        Some(View::of(&service, pods, zones))
    }
}

impl Controller for EndpointSlices {
    type View = View;
    const NAME: &'static str = "endpointslice";

    fn wakes(&self) -> Vec<Wake> {
        let selecting = wakes_of_pods(self.services.clone());
        let of_service = Wake::new(&kinds::ENDPOINT_SLICE, |change, wake| {
            for slice in [&change.old, &change.new].into_iter().flatten().filter(|slice| is_ours(slice)) {
                if let Some(service) = slice.header.labels().get(SERVICE_NAME) {
                    wake(Key::new(slice.header.namespace(), service));
                }
            }
        });
        vec![Wake::itself(&kinds::SERVICE), selecting, of_service]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let mut view = self.pods_of(key)?;
        let label = BTreeMap::from([(SERVICE_NAME.to_owned(), key.name().to_owned())]);
        let mut slices = self.slices.with_labels(key.namespace(), &label);
        slices.retain(|slice| is_ours(slice) && !slice.header.is_ending());
        view.slices = slices;
        Some(view)
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if view.header.is_ending() || view.service.selector().is_none() {
            return plan;
        }
        packing::plan(view, endpoint::desired(view), &mut plan);
        plan
    }
}

#[cfg(test)]
mod tests;
