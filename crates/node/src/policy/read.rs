//! NetworkPolicies and pods, read out of their objects as far as policies need them.

use std::net::Ipv4Addr;

use bytes::Bytes;
use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::selector::LabelSelector;
use windlass_api::{Object, types::core};
use windlass_network::{Block, Cidr, Direction, Protocol};

use super::Labels;

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) selector: LabelSelector,
    /// `None`: it says nothing about this direction.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
    /// What it was read from.
    document: Bytes,
}

/// Whom a policy allows, and by which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Empty is everybody.
    pub(super) peers: Vec<PeerRule>,
    /// Empty is every port.
    pub(super) ports: Vec<PortRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerRule {
    /// Without a selector of namespaces: those of the policy's own.
    Pods {
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
    Blocks(Vec<Block>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortRule {
    Numbers { protocol: Protocol, first: u16, last: u16 },
    Named { protocol: Protocol, name: String },
}

/// A port that a pod has a name for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// A pod of the cluster with whom others may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub(super) labels: Labels,
    pub(super) address: Ipv4Addr,
    pub(super) ports: Vec<Port>,
    /// It is the DNS server of this machine: nothing else at its address is meant.
    pub(super) is_dns: bool,
}

impl Peer {
    /// R8.
    pub(super) fn dns(address: Ipv4Addr) -> Peer {
        let port = |name: &str, protocol| Port { name: name.to_owned(), protocol, number: 53 };
        Peer {
            labels: Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
            address,
            ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
            is_dns: true,
        }
    }
}

impl Policy {
    /// Reads a policy. What the API has let through and is not understood selects nobody and allows nobody.
    pub fn read(object: &Object) -> Policy {
        Policy { document: object.json.clone(), ..Policy::of(&object.value()["spec"]) }
    }

    pub(super) fn of(spec: &Value) -> Policy {
        let types = list(&spec["policyTypes"]);
        let restricts = |word: &str, otherwise: bool| match types {
            [] => otherwise,
            types => types.iter().any(|found| found == word),
        };
        let has_egress = !list(&spec["egress"]).is_empty();
        let rules = |field: &str, peers: &str| list(&spec[field]).iter().map(|rule| Rule::read(rule, peers)).collect();
        Policy {
            selector: selector(&spec["podSelector"]),
            ingress: restricts("Ingress", true).then(|| rules("ingress", "from")),
            egress: restricts("Egress", has_egress).then(|| rules("egress", "to")),
            document: Bytes::new(),
        }
    }

    /// The policy as the API has it.
    pub(super) fn document(&self) -> &Bytes {
        &self.document
    }

    /// The rules for a direction; `None` when the policy does not restrict it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl Rule {
    fn read(rule: &Value, peers: &str) -> Rule {
        let peers = list(&rule[peers]).iter().map(PeerRule::read).collect();
        let given = list(&rule["ports"]);
        let mut ports: Vec<PortRule> = given.iter().flat_map(PortRule::read).collect();
        if ports.is_empty() && !given.is_empty() {
            // What is not understood allows nothing: no port has this name.
            ports.push(PortRule::Named { protocol: Protocol::Tcp, name: "\0".to_owned() });
        }
        Rule { peers, ports }
    }

    /// It allows everybody everything.
    pub(super) fn is_everything(&self) -> bool {
        self.peers.is_empty() && self.ports.is_empty()
    }

    pub(super) fn names_ports(&self) -> bool {
        self.ports.iter().any(|port| matches!(port, PortRule::Named { .. }))
    }

    /// Whether it depends on what other pods are.
    pub(super) fn has_selectors(&self, direction: Direction) -> bool {
        let selects = self.peers.iter().any(|peer| matches!(peer, PeerRule::Pods { .. }));
        selects || (self.peers.is_empty() && direction == Direction::Egress && self.names_ports())
    }
}

impl PeerRule {
    fn read(peer: &Value) -> PeerRule {
        if !peer["ipBlock"].is_null() {
            return PeerRule::Blocks(read_blocks(&peer["ipBlock"]));
        }
        let (namespaces, pods) = (&peer["namespaceSelector"], &peer["podSelector"]);
        PeerRule::Pods {
            namespaces: (!namespaces.is_null()).then(|| selector(namespaces)),
            // A selector of namespaces alone takes all their pods.
            pods: if pods.is_null() && !namespaces.is_null() { LabelSelector::everything() } else { selector(pods) },
        }
    }

    pub(super) fn blocks(&self) -> &[Block] {
        match self {
            PeerRule::Pods { .. } => &[],
            PeerRule::Blocks(blocks) => blocks,
        }
    }

    /// Whether it means this pod; `own` is the policy's namespace.
    pub(super) fn takes(&self, own: &str, namespace: &str, of_namespace: Option<&Labels>, labels: &Labels) -> bool {
        let PeerRule::Pods { namespaces, pods } = self else { return false };
        let is_there = match namespaces {
            None => own == namespace,
            Some(selector) => of_namespace.is_some_and(|labels| selector.matches(labels)),
        };
        is_there && pods.matches(labels)
    }
}

/// The block without its exceptions; IPv6 blocks mean no address here.
fn read_blocks(block: &Value) -> Vec<Block> {
    let network = |text: &Value| {
        let (address, length) = text.as_str()?.split_once('/')?;
        Cidr::containing(address.parse().ok()?, length.parse().ok()?)
    };
    let except: Vec<Cidr> = list(&block["except"]).iter().filter_map(network).collect();
    network(&block["cidr"]).map(|whole| Block::without(whole, &except, None)).unwrap_or_default()
}

impl PortRule {
    fn read(port: &Value) -> Option<PortRule> {
        let protocol = protocol(port["protocol"].as_str())?;
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        Some(match &port["port"] {
            Value::String(name) => PortRule::Named { protocol, name: name.clone() },
            Value::Null => PortRule::Numbers { protocol, first: 0, last: u16::MAX },
            first => {
                let first = number(first)?;
                PortRule::Numbers { protocol, first, last: number(&port["endPort"]).unwrap_or(first) }
            }
        })
    }

    /// Protocol, first and last port, by what a pod calls its ports.
    pub(super) fn of<'a>(&'a self, names: &'a [Port]) -> impl Iterator<Item = (Protocol, u16, u16)> {
        let number = match self {
            PortRule::Numbers { protocol, first, last } => Some((*protocol, *first, *last)),
            PortRule::Named { .. } => None,
        };
        let named = names.iter().filter(|port| match self {
            PortRule::Named { protocol, name } => port.protocol == *protocol && port.name == *name,
            PortRule::Numbers { .. } => false,
        });
        number.into_iter().chain(named.map(|port| (port.protocol, port.number, port.number)))
    }

    pub(super) fn covers(&self, port: &Port) -> bool {
        match self {
            PortRule::Numbers { protocol, first, last } => {
                *protocol == port.protocol && (*first..=*last).contains(&port.number)
            }
            PortRule::Named { protocol, name } => *protocol == port.protocol && *name == port.name,
        }
    }
}

/// A pod as a peer; `None` for one that is nobody's (R4).
pub fn peer_of_pod(object: &Object) -> Option<Peer> {
    if matches!(object.header.phase(), "Succeeded" | "Failed") {
        return None;
    }
    let pod: PodParts = object.decode().ok()?;
    if pod.spec.host_network {
        return None;
    }
    let address = pod.status.pod_ip.parse().ok()?;
    let labels = object.header.labels().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let ports = pod.spec.containers.into_iter().chain(pod.spec.init_containers).flat_map(|container| container.ports);
    let ports = ports.filter_map(|port| port_of(&port.name?, port.protocol.as_deref(), port.container_port));
    Some(Peer { labels, address, ports: ports.collect(), is_dns: false })
}

/// The ports that a pod's containers have names for, in order.
pub fn named_ports(spec: &core::PodSpec) -> Vec<Port> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let ports = ports.filter_map(|port| port_of(port.name.as_deref()?, port.protocol.as_deref(), port.container_port));
    let mut ports: Vec<Port> = ports.collect();
    ports.sort();
    ports
}

fn port_of(name: &str, word: Option<&str>, number: i32) -> Option<Port> {
    Some(Port { name: name.to_owned(), protocol: protocol(word)?, number: u16::try_from(number).ok()? })
}

/// What of a pod makes it a peer.
#[derive(serde::Deserialize)]
struct PodParts {
    spec: SpecParts,
    #[serde(default)]
    status: StatusParts,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecParts {
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    containers: Vec<ContainerParts>,
    #[serde(default)]
    init_containers: Vec<ContainerParts>,
}

#[derive(serde::Deserialize)]
struct ContainerParts {
    #[serde(default)]
    ports: Vec<PortParts>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortParts {
    name: Option<String>,
    protocol: Option<String>,
    #[serde(default)]
    container_port: i32,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct StatusParts {
    #[serde(rename = "podIP")]
    pod_ip: String,
}

fn protocol(word: Option<&str>) -> Option<Protocol> {
    crate::services::protocol(word)
}

fn selector(selector: &Value) -> LabelSelector {
    let mut errors = Errors::new();
    let read = LabelSelector::from_json(selector, &Path::new("selector"), &mut errors);
    if errors.is_empty() { read } else { LabelSelector::nothing() }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
