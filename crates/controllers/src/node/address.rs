//! Node addresses: each node gets its part of the cluster's pod network.
//!
//! Goal        every node has a podCIDR, and no two the same
//! Watches     Node
//! Writes      Node: spec.podCIDR, spec.podCIDRs
//! Relies on   one pass at a time decides about all nodes, so that no part is given twice
//!
//! Rules
//!   R1 given       a node without podCIDR gets the lowest free part of the cluster's network
//!   R2 kept        a part that a node has is never changed, even one outside the cluster's network
//!   R3 full        when no part is free the node says so in an Event and waits for one
//! Not here       routes and addresses of pods (network)

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::json;
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Caches, EventKind, Key, Note, ObjectRef, Recorder};

use super::facts::NodeFacts;
use crate::ControllersError;
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};

/// All nodes are decided about together, under this key.
const ALL: &str = "nodes";

/// The controller of node addresses.
pub(crate) struct NodeAddresses {
    nodes: Cache,
    network: Network,
    recorder: Recorder,
}

/// The cluster's pod network, cut into equal parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: u32,
    prefix: u8,
    node_prefix: u8,
}

/// What the decision depends on: the nodes with their parts, by name.
pub(crate) struct View {
    network: Network,
    nodes: Vec<(Header, Option<String>)>,
}

impl Network {
    /// Reads `10.42.0.0/16`; parts have `node_prefix`.
    fn parse(cidr: &str, node_prefix: u8) -> Option<Network> {
        let (address, prefix) = cidr.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let fits = prefix >= 1 && prefix <= node_prefix && node_prefix <= 30;
        let address = u32::from(address);
        let is_network = fits && address & (u32::MAX >> prefix) == 0;
        is_network.then_some(Network { address, prefix, node_prefix })
    }

    /// The parts, lowest first.
    fn parts(self) -> impl Iterator<Item = u32> {
        let count = 1u32 << (self.node_prefix - self.prefix);
        (0..count).map(move |index| self.address + (index << (32 - self.node_prefix)))
    }

    fn text(self, part: u32) -> String {
        format!("{}/{}", Ipv4Addr::from(part), self.node_prefix)
    }

    /// The parts that a given CIDR covers, even if only in part.
    fn covered(self, cidr: &str) -> impl Iterator<Item = u32> + use<> {
        let parsed = cidr.split_once('/').and_then(|(address, prefix)| {
            let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
            Some((u32::from(address.parse::<Ipv4Addr>().ok()?), prefix))
        });
        let size = 1u64 << (32 - self.node_prefix);
        let (first, last) = parsed.map_or((1, 0), |(address, prefix)| {
            let first = u64::from(address) & !((1u64 << (32 - prefix)) - 1);
            let last = first + (1u64 << (32 - prefix)) - 1;
            // A CIDR far larger than the network covers all of it, and no more is of interest.
            let (start, end) = (u64::from(self.address), u64::from(self.address) + (1u64 << (32 - self.prefix)) - 1);
            (first.max(start) / size, last.min(end) / size)
        });
        (first..=last).map(move |part| u32::try_from(part * size).expect("it lies inside the network"))
    }
}

impl NodeAddresses {
    pub(crate) fn new(caches: &Caches, cidr: &str, node_prefix: u8) -> Result<NodeAddresses, ControllersError> {
        let network = Network::parse(cidr, node_prefix)
            .ok_or_else(|| ControllersError::ClusterCidr { cidr: cidr.to_owned(), node_prefix })?;
        let recorder = Recorder::new(caches.client().clone(), "nodeaddress-controller", "");
        Ok(NodeAddresses { nodes: caches.of(&kinds::NODE), network, recorder })
    }
}

impl Controller for NodeAddresses {
    type View = View;
    const NAME: &'static str = "nodeaddress";

    fn wakes(&self) -> Vec<Wake> {
        vec![Wake::new(&kinds::NODE, |change, wake| {
            let lacks = |node: &windlass_client::Cached| NodeFacts::of(node).spec.pod_cidr.is_none();
            if change.new.as_ref().is_none_or(|node| lacks(node)) {
                wake(Key::from(ALL));
            }
        })]
    }

    fn view(&self, _key: &Key, _look: &Look) -> Option<View> {
        let nodes: Vec<_> = self
            .nodes
            .list()
            .iter()
            .map(|node| {
                let cidr = NodeFacts::of(node).spec.pod_cidr.clone().filter(|cidr| !cidr.is_empty());
                (node.header.clone(), cidr)
            })
            .collect();
        let view = View { network: self.network, nodes };
        for node in view.left_over() {
            let message = "the cluster's pod network has no free part for this node".to_owned();
            let (about, reason) = (ObjectRef::of(node), "CIDRNotAvailable".to_owned());
            self.recorder.note(Note { about, kind: EventKind::Warning, reason, message });
        }
        Some(view)
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        for (node, cidr) in view.assignments() {
            let patch = json!({"metadata": {"resourceVersion": node.revision.to_string()},
                "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
            let why = format!("node {} has no addresses for pods, {cidr} is free", node.name());
            plan.patch(Target::of(&kinds::NODE, node), patch, why);
        }
        plan
    }
}

impl View {
    fn waiting(&self) -> impl Iterator<Item = &Header> {
        self.nodes.iter().filter(|(node, cidr)| cidr.is_none() && !node.is_ending()).map(|(node, _)| node)
    }

    fn assignments(&self) -> impl Iterator<Item = (&Header, String)> {
        let network = self.network;
        let given = self.nodes.iter().filter_map(|(_, cidr)| cidr.as_deref());
        let taken: BTreeSet<u32> = given.flat_map(|cidr| network.covered(cidr)).collect();
        let free = network.parts().filter(move |part| !taken.contains(part));
        self.waiting().zip(free.map(move |part| network.text(part)))
    }

    /// R3: the nodes for which there is no part.
    fn left_over(&self) -> impl Iterator<Item = &Header> {
        self.waiting().skip(self.assignments().count())
    }
}

#[cfg(test)]
mod tests {
    use super::{Controller, Network, NodeAddresses, View};
    use crate::fixture::check;
    use serde_json::json;
    use windlass_api::Header;

    fn view(network: &str, nodes: &[(&str, &str)]) -> View {
        let node = |(name, cidr): &(&str, &str)| {
            let cidr = Some(*cidr).filter(|cidr| !cidr.is_empty()).map(str::to_owned);
            (Header::parse(&json!({"metadata": {"name": name}}).to_string().into()).expect("a header"), cidr)
        };
        let network = Network::parse(network, 24).expect("a network");
        View { network, nodes: nodes.iter().map(node).collect() }
    }

    #[test]
    fn r1_r2_a_new_node_gets_the_lowest_free_part() {
        check(
            &NodeAddresses::plan(&view(
                "10.42.0.0/16",
                &[("a", "10.42.0.0/24"), ("b", ""), ("c", "10.42.2.0/23"), ("d", ""), ("e", "192.168.0.0/24")],
            )),
            "patch nodes b: node b has no addresses for pods, 10.42.1.0/24 is free
             patch nodes d: node d has no addresses for pods, 10.42.4.0/24 is free",
        );
    }

    #[test]
    fn r3_without_a_free_part_a_node_waits() {
        let full = view("10.42.0.0/23", &[("a", "10.0.0.0/8"), ("b", "")]);
        check(&NodeAddresses::plan(&full), "");
        assert_eq!(full.left_over().map(|node| node.name()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for cidr in ["10.42.0.0", "10.42.0.1/16", "10.42.0.0/25", "10.42.0.0/0", "x/16"] {
            assert_eq!(Network::parse(cidr, 24), None, "{cidr}");
        }
    }
}
