//! R2, R3 and R4: which endpoints a Service should have, grouped by address family and ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Cached, Key};

use super::{Port, View, facts};
use crate::controller::Wake;
use crate::pod::PodFacts;

/// What the endpoints of one slice have in common: address family, and ports as the slice shows them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) family: &'static str,
    /// JSON text of the ports: comparable, and short.
    ports: String,
}

impl Group {
    pub(super) fn new(family: &'static str, ports: &Value) -> Group {
        Group { family, ports: ports.to_string() }
    }

    pub(crate) fn ports(&self) -> Value {
        serde_json::from_str(&self.ports).expect("written as JSON when the group was made")
    }
}

/// The endpoints of each group, by the pod they lead to.
pub(crate) type Endpoints = BTreeMap<Group, BTreeMap<Key, Value>>;

/// The endpoints as they should be. Every family of the Service is there, if only with an empty group (R7).
pub(crate) fn desired(view: &View) -> Endpoints {
    let families = families(view);
    let mut endpoints = Endpoints::new();
    for pod in &view.pods {
        let facts = PodFacts::of(pod);
        if facts.is_terminal() {
            continue;
        }
        for family in &families {
            let Some(address) = facts.addresses().find(|address| family_of(address) == Some(*family)) else { continue };
            let group = Group::new(family, &ports(view, &facts));
            endpoints.entry(group).or_default().insert(Key::of(&pod.header), endpoint(view, pod, &facts, address));
        }
    }
    for family in families {
        if !endpoints.keys().any(|group| group.family == family) {
            endpoints.insert(Group::new(family, &json!([])), BTreeMap::new());
        }
    }
    endpoints
}

pub(crate) fn families(view: &View) -> Vec<&'static str> {
    let listed = view.service.spec.ip_families.iter().flatten();
    let mut families: Vec<&'static str> = listed.map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    families
}

pub(crate) fn family_of(address: &str) -> Option<&'static str> {
    match address.parse().ok()? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

fn endpoint(view: &View, pod: &Cached, facts: &PodFacts, address: &str) -> Value {
    let (is_ready, is_ending) = (facts.is_ready(), facts.is_ending());
    let publishes_all = view.service.spec.publish_not_ready_addresses;
    let header = &pod.header;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": publishes_all || is_ready && !is_ending, "serving": is_ready, "terminating": is_ending,
        },
        "targetRef": {"kind": "Pod", "namespace": header.namespace(), "name": header.name(), "uid": header.uid()},
    });
    if !header.node_name().is_empty() {
        endpoint["nodeName"] = json!(header.node_name());
    }
    if let Some(zone) = view.zones.get(header.node_name()) {
        endpoint["zone"] = json!(zone);
    }
    // A pod of a headless Service that is its subdomain gets a DNS name of its own.
    if let Some(hostname) = facts.spec.hostname.as_deref().filter(|hostname| !hostname.is_empty())
        && facts.spec.subdomain.as_deref() == Some(view.header.name())
    {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}

/// The Service's ports as this pod has them.
fn ports(view: &View, pod: &PodFacts) -> Value {
    let ports = view.service.spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let number = number(port, pod)?;
            let mut shown = json!({
                "name": port.name.as_deref().unwrap_or_default(), "protocol": protocol(&port.protocol), "port": number,
            });
            if let Some(app_protocol) = &port.app_protocol {
                shown["appProtocol"] = json!(app_protocol);
            }
            Some(shown)
        })
        .collect()
}

fn protocol(protocol: &Option<String>) -> &str {
    protocol.as_deref().unwrap_or("TCP")
}

/// The port's number in this pod; a named port that the pod does not have is left out.
fn number(port: &Port, pod: &PodFacts) -> Option<i64> {
    let Some(name) = port.target_port.as_str().filter(|name| !name.is_empty()) else {
        return Some(port.target_port.as_i64().filter(|number| *number > 0).unwrap_or(port.port));
    };
    let sidecars = pod.spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|found| protocol(&found.protocol) == protocol(&port.protocol))
        .find(|found| found.name.as_deref() == Some(name))
        .map(|found| found.container_port)
}

/// A change of a pod that changes an endpoint concerns the Services that select it, before or after.
pub(crate) fn wakes_of_pods(services: Cache) -> Wake {
    Wake::new(&kinds::POD, move |change, wake| {
        let seen: Vec<&Header> = [&change.old, &change.new].into_iter().flatten().map(|pod| &pod.header).collect();
        let Some(namespace) = seen.first().map(|header| header.namespace()) else { return };
        if change.old.as_ref().zip(change.new.as_ref()).is_some_and(|(old, new)| is_same(old, new)) {
            return;
        }
        for service in services.in_namespace(namespace) {
            let facts = facts(&service);
            if seen.iter().any(|header| facts.selects(header.labels())) {
                wake(Key::of(&service.header));
            }
        }
    })
}

/// Whether a pod's change leaves every endpoint that leads to it as it is.
fn is_same(old: &Cached, new: &Cached) -> bool {
    let (before, after) = (PodFacts::of(old), PodFacts::of(new));
    old.header.uid() == new.header.uid()
        && old.header.labels() == new.header.labels()
        && old.header.node_name() == new.header.node_name()
        && before.is_ready() == after.is_ready()
        && before.is_ending() == after.is_ending()
        && before.is_terminal() == after.is_terminal()
        && before.addresses().eq(after.addresses())
        && before.spec == after.spec
}
