//! A node as the scheduler reads it, and what is on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use windlass_api::Object;
use windlass_client::Key;

use crate::pod::{Footprint, HostPort};
use crate::resource::Resources;

/// One node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// What the node says; `None` for a node that only its pods tell of.
    pub(crate) facts: Option<NodeFacts>,
    /// What is taken by the pods that are bound or assumed.
    pub(crate) taken: Resources,
    /// What they weigh when nodes are compared: thousandths of a processor and bytes.
    pub(crate) weight: (i64, i64),
    pub(crate) pods: i64,
    /// The pods that are bound or assumed.
    pub(crate) on: BTreeMap<Key, Arc<Footprint>>,
    ports: BTreeMap<HostPort, usize>,
    owners: BTreeMap<String, usize>,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) is_unschedulable: bool,
    pub(crate) taints: Vec<Taint>,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: i64,
    /// Bytes of each image by each of its names.
    pub(crate) images: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Taint {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    pub(crate) effect: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    spec: WireSpec,
    status: WireStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireSpec {
    unschedulable: Option<bool>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireStatus {
    allocatable: Option<Map<String, Value>>,
    capacity: Option<Map<String, Value>>,
    images: Option<Vec<WireImage>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireImage {
    names: Option<Vec<String>>,
    size_bytes: Option<i64>,
}

impl NodeFacts {
    /// Reads a node; one that cannot be read has room for nothing.
    pub(crate) fn read(object: &Object) -> NodeFacts {
        let wire: Wire = object.decode().unwrap_or_else(|error| {
            tracing::error!(node = object.header.name(), %error, "a node that cannot be read");
            Wire::default()
        });
        let list = wire.status.allocatable.or(wire.status.capacity).unwrap_or_default();
        let pods_max = list.get("pods").map_or(0, |pods| Resources::read(Some(&renamed(pods))).others["count"]);
        let images = wire.status.images.into_iter().flatten().flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.into_iter().flatten().map(move |name| (name, size))
        });
        NodeFacts {
            labels: object.header.labels().to_map(),
            is_unschedulable: wire.spec.unschedulable.unwrap_or(false),
            taints: wire.spec.taints.unwrap_or_default(),
            allocatable: Resources::read(Some(&list)),
            pods_max,
            images: images.collect(),
        }
    }
}

fn renamed(count: &Value) -> Map<String, Value> {
    Map::from_iter([("count".to_owned(), count.clone())])
}

impl Node {
    pub(crate) fn new(name: &str) -> Node {
        Node { name: name.to_owned(), ..Node::default() }
    }

    /// Whether the node may be dropped: it does not exist and nothing is on it.
    pub(crate) fn is_gone(&self) -> bool {
        self.facts.is_none() && self.pods == 0
    }

    /// Counts a pod in.
    pub(crate) fn put(&mut self, key: &Key, pod: &Arc<Footprint>) {
        self.on.insert(key.clone(), Arc::clone(pod));
        self.taken.add(&pod.requests);
        self.weight = (self.weight.0 + pod.weight.0, self.weight.1 + pod.weight.1);
        self.pods += 1;
        for port in &pod.ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        if !pod.owner.is_empty() {
            *self.owners.entry(pod.owner.clone()).or_default() += 1;
        }
    }

    /// Counts a pod out.
    pub(crate) fn take(&mut self, key: &Key, pod: &Footprint) {
        self.on.remove(key);
        self.taken.subtract(&pod.requests);
        self.weight = (self.weight.0 - pod.weight.0, self.weight.1 - pod.weight.1);
        self.pods -= 1;
        for port in &pod.ports {
            count_down(&mut self.ports, port);
        }
        if !pod.owner.is_empty() {
            count_down(&mut self.owners, &pod.owner);
        }
    }

    /// Whether this port of the node is taken. An empty address stands for all of them.
    pub(crate) fn has_port(&self, wanted: &HostPort) -> bool {
        self.ports.keys().any(|taken| {
            taken.port == wanted.port
                && taken.protocol == wanted.protocol
                && (taken.address.is_empty() || wanted.address.is_empty() || taken.address == wanted.address)
        })
    }

    /// How many pods of this owner are on it.
    pub(crate) fn pods_of(&self, owner: &str) -> usize {
        self.owners.get(owner).copied().unwrap_or(0)
    }
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
