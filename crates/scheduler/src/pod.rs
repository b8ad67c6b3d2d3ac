//! A pod as the scheduler reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use windlass_api::Object;
use windlass_api::device::{PodClaim, pod_claims};
use windlass_api::field::{Errors, Path};
use windlass_api::selector::{Requirement, Test, read_expression};
use windlass_client::Key;

use crate::device::Asked;
use crate::resource::Resources;
use crate::storage::Need;
use crate::term::{Claim, Labels, Speaker, Terms};

/// What a pod that asks for no processor time counts as when nodes are compared, in thousandths.
const UNASKED_CPU_MILLIS: i64 = 100;
/// What a pod that asks for no memory counts as when nodes are compared.
const UNASKED_MEMORY_BYTES: i64 = 200 << 20;

/// What a placement depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) priority: i64,
    /// Less important pods may be ended to make room for it.
    pub(crate) preempts: bool,
    pub(crate) scheduler: String,
    pub(crate) gates: Vec<String>,
    pub(crate) node_selector: Vec<(String, String)>,
    /// Any of these must hold; `None` asks for nothing.
    pub(crate) required: Option<Vec<NodeTerm>>,
    pub(crate) preferred: Vec<(i64, NodeTerm)>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) images: Vec<String>,
    pub(crate) terms: Terms,
    /// The node on which others are said to make room for it; empty for none.
    pub(crate) nominated: String,
    pub(crate) footprint: Arc<Footprint>,
    /// The claims that it has its volumes by.
    pub(crate) volume_claims: Vec<String>,
    /// What those ask of its node; only known when it is placed.
    pub(crate) needs: Vec<Need>,
    /// The claims that it has its devices by.
    pub(crate) device_claims: Vec<PodClaim>,
    /// What those ask of its node; only known when it is placed.
    pub(crate) devices: Asked,
}

/// What a pod takes of its node, and what it is to pods that come there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) requests: Resources,
    /// Requests for comparing nodes: a pod that asks for nothing still takes something.
    pub(crate) weight: (i64, i64),
    pub(crate) ports: Vec<HostPort>,
    /// Uid of the owner that controls it; empty for none.
    pub(crate) owner: String,
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    pub(crate) claims: Vec<Arc<Claim>>,
    pub(crate) priority: i64,
    /// When it began, or else was created: times that sort as text.
    pub(crate) since: String,
    pub(crate) is_ending: bool,
}

/// A port of the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub(crate) protocol: String,
    pub(crate) port: i64,
    /// Empty for every address.
    pub(crate) address: String,
}

/// One term of a node selector: all of it must hold. An empty term holds nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeTerm {
    pub(crate) labels: Vec<Requirement>,
    /// About `metadata.name`, the only field there is.
    pub(crate) names: Vec<Requirement>,
    /// A requirement that cannot be read: the term holds nowhere.
    pub(crate) is_broken: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Toleration {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    spec: WireSpec,
    status: WireStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    start_time: Option<String>,
    nominated_node_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    priority: Option<i64>,
    preemption_policy: Option<String>,
    topology_spread_constraints: Value,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<WireName>>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Value,
    tolerations: Option<Vec<Toleration>>,
    containers: Vec<WireContainer>,
    init_containers: Option<Vec<WireContainer>>,
    overhead: Option<Map<String, Value>>,
    resources: Option<WireResources>,
    host_network: Option<bool>,
    volumes: Option<Vec<WireVolume>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireVolume {
    name: String,
    persistent_volume_claim: Option<WireClaim>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireClaim {
    claim_name: String,
}

impl WireVolume {
    /// The claim behind it, if there is one: an ephemeral volume has one of the pod's own.
    fn claim(&self, pod: &str) -> Option<String> {
        let ephemeral = self.ephemeral.as_ref().map(|_| format!("{pod}-{}", self.name));
        self.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone()).or(ephemeral)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireName {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireContainer {
    image: Option<String>,
    resources: Option<WireResources>,
    ports: Option<Vec<WirePort>>,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireResources {
    requests: Option<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WirePort {
    container_port: i64,
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

impl Pod {
    /// Reads a pod; one that cannot be read asks for nothing, as the API would have refused it.
    pub(crate) fn read(object: &Object) -> Pod {
        let wire: Wire = object.decode().unwrap_or_else(|error| {
            tracing::error!(pod = object.header.key(), %error, "a pod that cannot be read");
            Wire::default()
        });
        let mut spec = wire.spec;
        let volumes = spec.volumes.take().unwrap_or_default();
        let owner = object.header.controller().map(|owner| owner.uid.clone()).unwrap_or_default();
        let labels = object.header.labels().to_map();
        let speaker = Speaker { namespace: object.header.namespace(), labels: &labels };
        let terms = Terms::read(&speaker, &spec.affinity, &spec.topology_spread_constraints);
        let footprint = Footprint {
            namespace: object.header.namespace().to_owned(),
            labels,
            claims: terms.claims.clone(),
            priority: spec.priority.unwrap_or(0),
            since: wire.status.start_time.unwrap_or_else(|| object.header.created().to_owned()),
            is_ending: object.header.is_ending(),
            ..footprint(&spec, owner)
        };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let affinity = &spec.affinity["nodeAffinity"];
        Pod {
            key: Key::of(&object.header),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: wire.status.nominated_node_name.unwrap_or_default(),
            terms,
            uid: object.header.uid().to_owned(),
            priority: spec.priority.unwrap_or(0),
            images: containers.filter_map(|container| container.image.clone()).collect(),
            scheduler: spec.scheduler_name.unwrap_or_else(|| "default-scheduler".to_owned()),
            gates: spec.scheduling_gates.into_iter().flatten().map(|gate| gate.name).collect(),
            node_selector: spec.node_selector.into_iter().flatten().collect(),
            required: required(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]),
            preferred: preferred(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]),
            tolerations: spec.tolerations.unwrap_or_default(),
            footprint: Arc::new(footprint),
            volume_claims: volumes.iter().filter_map(|volume| volume.claim(object.header.name())).collect(),
            needs: Vec::new(),
            device_claims: pod_claims(object),
            devices: Asked::default(),
        }
    }

    /// The only nodes it can go to, when every term of its required affinity names nodes, as those of daemons do.
    pub(crate) fn named_nodes(&self) -> Option<BTreeSet<&str>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        let named: Option<Vec<_>> = terms.iter().map(NodeTerm::named).collect();
        Some(named?.into_iter().flatten().map(String::as_str).collect())
    }

    /// Whether it tolerates a taint.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations.iter().any(|toleration| toleration.covers(key, value, effect))
    }
}

impl NodeTerm {
    /// The nodes it names, if it names any: then no other can be selected by it.
    pub(crate) fn named(&self) -> Option<&BTreeSet<String>> {
        self.names.iter().find_map(|found| match &found.test {
            Test::In(names) => Some(names),
            _ => None,
        })
    }
}

impl Toleration {
    fn covers(&self, key: &str, value: &str, effect: &str) -> bool {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (own_key, own_effect) = (text(&self.key), text(&self.effect));
        if !own_effect.is_empty() && own_effect != effect || !own_key.is_empty() && own_key != key {
            return false;
        }
        match self.operator.as_deref().unwrap_or_default() {
            "Exists" => true,
            // An empty key needs `Exists`.
            "" | "Equal" => !own_key.is_empty() && self.value.as_deref().unwrap_or_default() == value,
            _ => false,
        }
    }
}

fn requests(resources: &Option<WireResources>) -> Resources {
    Resources::read(resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn footprint(spec: &WireSpec, owner: String) -> Footprint {
    let mut total = containers_request(spec);
    // What is asked for the pod as a whole replaces the sum of its containers.
    if let Some(resources) = &spec.resources
        && let Some(list) = &resources.requests
    {
        let whole = Resources::read(Some(list));
        for name in list.keys() {
            match name.as_str() {
                "cpu" => total.cpu_millis = whole.cpu_millis,
                "memory" => total.memory_bytes = whole.memory_bytes,
                _ => {}
            }
        }
    }
    total.add(&Resources::read(spec.overhead.as_ref()));
    let weight = (
        if total.cpu_millis == 0 { UNASKED_CPU_MILLIS } else { total.cpu_millis },
        if total.memory_bytes == 0 { UNASKED_MEMORY_BYTES } else { total.memory_bytes },
    );
    Footprint { requests: total, weight, ports: ports(spec), owner, ..Footprint::default() }
}

/// What the containers need at the worst moment: all of them and their sidecars, or one init container beside the
/// sidecars started before it.
fn containers_request(spec: &WireSpec) -> Resources {
    let mut sidecars = Resources::default();
    let mut worst_start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = requests(&container.resources);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            worst_start.raise_to(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&own);
            worst_start.raise_to(&moment);
        }
    }
    let mut running = sidecars;
    for container in &spec.containers {
        running.add(&requests(&container.resources));
    }
    running.raise_to(&worst_start);
    running
}

fn ports(spec: &WireSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let on_host = spec.host_network.unwrap_or(false);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            // On the node's own network every container port is a port of the node.
            let number = port.host_port.filter(|number| *number > 0);
            let number = number.or_else(|| on_host.then_some(port.container_port))?;
            let address = port.host_ip.clone().filter(|address| address != "0.0.0.0").unwrap_or_default();
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(HostPort { protocol, port: number, address })
        })
        .collect()
}

fn required(selector: &Value) -> Option<Vec<NodeTerm>> {
    let terms = selector["nodeSelectorTerms"].as_array()?;
    Some(terms.iter().map(term).collect())
}

fn preferred(terms: &Value) -> Vec<(i64, NodeTerm)> {
    let terms = terms.as_array().map(Vec::as_slice).unwrap_or_default();
    terms.iter().map(|found| (found["weight"].as_i64().unwrap_or(0), term(&found["preference"]))).collect()
}

fn term(wire: &Value) -> NodeTerm {
    let mut errors = Errors::new();
    let mut read = |field: &str| -> Vec<Requirement> {
        let expressions = wire[field].as_array().map(Vec::as_slice).unwrap_or_default();
        expressions.iter().filter_map(|found| read_expression(found, &Path::new(field), &mut errors)).collect()
    };
    let (labels, names) = (read("matchExpressions"), read("matchFields"));
    let is_broken = !errors.is_empty() || names.iter().any(|found| found.key != "metadata.name");
    NodeTerm { labels, names, is_broken }
}

#[cfg(test)]
mod tests {
    use crate::fixture::pod;
    use serde_json::json;

    #[test]
    fn requests_are_those_of_the_worst_moment() {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Gi"}});
        let found = pod(json!({
            "containers": [{"resources": asks("100m")}, {"resources": asks("200m")}],
            "initContainers": [
                {"resources": asks("50m"), "restartPolicy": "Always"},
                {"resources": asks("900m")},
            ],
            "overhead": {"cpu": "10m"},
        }));
        assert_eq!(found.footprint.requests.cpu_millis, 960, "the second init container beside the sidecar");
        assert_eq!(found.footprint.requests.memory_bytes, 3 << 30, "all containers and the sidecar");
    }

    #[test]
    fn a_pod_that_asks_for_nothing_still_weighs_something() {
        let found = pod(json!({"containers": [{}]}));
        assert_eq!(found.footprint.weight, (100, 200 << 20));
        assert_eq!(found.footprint.requests.cpu_millis, 0);
    }

    #[test]
    fn on_the_nodes_network_container_ports_are_ports_of_the_node() {
        let ports = json!([{"containerPort": 80}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]);
        let numbers = |spec| pod(spec).footprint.ports.iter().map(|port| port.port).collect::<Vec<_>>();
        assert_eq!(numbers(json!({"containers": [{"ports": ports}]})), [53]);
        assert_eq!(numbers(json!({"containers": [{"ports": ports}], "hostNetwork": true})), [80, 53]);
    }
}
