//! NetworkPolicies as this machine's network takes them: who is restricted, and with whom they may speak.
//!
//! Goal        the [`PolicyTable`] that the policies, pods and namespaces say, kept current change by change
//! Relies on   the API's validation for the form of policies
//! Source      API reference, networking.k8s.io/v1 NetworkPolicy; documentation, "Network Policies"
//!
//! Rules
//!   R1 selected    a policy restricts the pods of its namespace that its podSelector takes; the others are free
//!   R2 types       a policy restricts what its policyTypes say: without them ingress, and egress if it has rules for it
//!   R3 union       what any policy of a pod allows is allowed; a policy without rules allows nothing
//!   R4 peers       podSelector alone: the policy's namespace; namespaceSelector alone: all pods there; both: both must hold;
//!                  pods that are over, or in their machine's network, are nobody's peers
//!   R5 blocks      ipBlock without its exceptions
//!   R6 ports       none is every port of every protocol; else by number, from `port` to `endPort`, or by name: that of
//!                  the pod for ingress, of the peer for egress
//!   R7 empty       a rule without `from` or `to` is for everybody
//!   R8 names       the cluster's DNS, which this machine answers itself, is taken for a pod of kube-system with the label
//!                  k8s-app=kube-dns and the ports dns and dns-tcp, so that the usual policies let it through
//!   R9 to the end  the policies of a namespace that ends hold until its last pod here is gone (CVE-2024-7598)
//!
//! Not here    how it is enforced (network); when it is looked at (`agent::policing`)

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use windlass_network::{BLOCKS_MAX, Block, Direction, ELEMENTS_MAX, Group, PolicyTable, Protocol};

pub use read::{Peer, Policy, Port, named_ports, peer_of_pod};
use read::{PeerRule, PortRule, Rule};

/// The labels of a pod or namespace.
pub type Labels = BTreeMap<String, String>;

/// A pod of this machine that has an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// Its address.
    pub address: Ipv4Addr,
    /// The ports it has names for.
    pub ports: Vec<Port>,
}

/// A namespace, as far as policies care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: Labels,
    /// It is being deleted.
    pub is_ending: bool,
}

/// `namespace` and `name`.
pub type Name = (String, String);

/// Everything that policies depend on, and what follows from it.
pub struct Policies {
    policies: BTreeMap<Name, Arc<Policy>>,
    /// Those that the API has no more, of namespaces that end (R9).
    kept: BTreeSet<Name>,
    namespaces: BTreeMap<String, Namespace>,
    peers: BTreeMap<Name, Arc<Peer>>,
    locals: BTreeMap<Arc<str>, (Local, [Option<u32>; 2])>,
    groups: BTreeMap<u32, GroupState>,
    numbers: BTreeMap<GroupKey, u32>,
    last_number: u32,
}

/// What makes pods share a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    direction: Direction,
    policies: Vec<Name>,
    /// For ingress: what the pods call their ports, where a policy names one.
    ports: Vec<Port>,
}

struct GroupState {
    key: GroupKey,
    pods: usize,
    /// How many peers give reason for each entry.
    counts: BTreeMap<Entry, u32>,
    blocks: Vec<Block>,
    has_selectors: bool,
    built: Option<Arc<Group>>,
}

/// What one peer adds to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    All(Ipv4Addr),
    Ports(Ipv4Addr, Protocol, u16, u16),
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Policies {
    /// Nothing is known yet. The DNS server of this machine is at `dns` for its pods (R8).
    pub fn new(dns: Option<Ipv4Addr>) -> Policies {
        let mut policies = Policies {
            policies: BTreeMap::new(),
            kept: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            peers: BTreeMap::new(),
            locals: BTreeMap::new(),
            groups: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last_number: 0,
        };
        if let Some(address) = dns {
            policies.set_peer(dns_name(), Some(Arc::new(Peer::dns(address))));
        }
        policies
    }

    /// Whether any pod here is restricted by what other pods are.
    pub fn needs_peers(&self) -> bool {
        self.groups.values().any(|group| group.has_selectors)
    }

    /// A policy is new, different or gone.
    pub fn set_policy(&mut self, name: Name, policy: Option<Arc<Policy>>) {
        let namespace = name.0.clone();
        self.kept.remove(&name);
        match policy {
            Some(policy) => drop(self.policies.insert(name.clone(), policy)),
            // R9.
            None if self.is_ending(&namespace) && self.has_locals(&namespace) => {
                self.kept.insert(name);
                return;
            }
            None => drop(self.policies.remove(&name)),
        }
        let affected: Vec<u32> = self.groups_of(&name).collect();
        self.regroup(&namespace);
        for number in affected {
            if self.groups.contains_key(&number) {
                self.fill(number);
            }
        }
    }

    /// Takes away what was kept in vain.
    fn drop_kept(&mut self, name: Name) {
        let namespace = name.0.clone();
        self.kept.remove(&name);
        self.policies.remove(&name);
        self.regroup(&namespace);
    }

    fn groups_of(&self, policy: &Name) -> impl Iterator<Item = u32> {
        self.groups.iter().filter(|(_, group)| group.key.policies.contains(policy)).map(|(number, _)| *number)
    }

    /// R9: what another state kept for pods of namespaces that end, and what it knows of those that the API forgets.
    pub fn keeping(mut self, old: &Policies) -> Policies {
        let is_meant = |name: &Name| old.is_ending(&name.0) && old.has_locals(&name.0);
        for (name, policy) in old.policies.iter().filter(|(name, _)| is_meant(name)) {
            self.policies.insert(name.clone(), Arc::clone(policy));
            self.kept.insert(name.clone());
        }
        self
    }

    /// R9: what an earlier agent has kept. What the API has of it replaces it.
    pub fn restored(mut self, kept: impl IntoIterator<Item = (Name, Arc<Policy>)>) -> Policies {
        for (name, policy) in kept {
            self.kept.insert(name.clone());
            self.policies.insert(name, policy);
        }
        self
    }

    /// R9: the policies that a later agent may not find in the API any more, as the API has them.
    pub fn lasting(&self) -> Vec<&Bytes> {
        let ending = self.namespaces.iter().filter(|(name, found)| found.is_ending && self.has_locals(name));
        let of_ending = ending.flat_map(|(namespace, _)| {
            let first = (namespace.clone(), String::new());
            self.policies.range(first..).map(|(name, _)| name).take_while(move |name| name.0 == *namespace)
        });
        let kept = self.kept.iter().filter(|name| self.has_locals(&name.0));
        let names: BTreeSet<&Name> = kept.chain(of_ending).collect();
        names.into_iter().filter_map(|name| self.policies.get(name)).map(|policy| policy.document()).collect()
    }

    fn is_ending(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_none_or(|found| found.is_ending)
    }

    fn has_locals(&self, namespace: &str) -> bool {
        self.locals.values().any(|(local, _)| local.namespace == namespace)
    }

    /// A namespace is new, different or gone.
    pub fn set_namespace(&mut self, name: &str, namespace: Option<Namespace>) {
        let old = self.namespaces.get(name).map(|found| &found.labels);
        if old != namespace.as_ref().map(|found| &found.labels) {
            let peers: Vec<Arc<Peer>> = self.peers_in(name).cloned().collect();
            peers.iter().for_each(|peer| self.count(name, peer, false));
            self.put_namespace(name, namespace);
            peers.iter().for_each(|peer| self.count(name, peer, true));
        } else {
            self.put_namespace(name, namespace);
        }
    }

    fn put_namespace(&mut self, name: &str, namespace: Option<Namespace>) {
        // It lives, maybe anew: what was kept was another's.
        if namespace.as_ref().is_some_and(|found| !found.is_ending) {
            let over: Vec<Name> = self.kept.iter().filter(|kept| kept.0 == name).cloned().collect();
            over.into_iter().for_each(|kept| self.drop_kept(kept));
        }
        match namespace {
            Some(namespace) => self.namespaces.insert(name.to_owned(), namespace),
            None => self.namespaces.remove(name),
        };
    }

    fn peers_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Peer>> {
        let first = (namespace.to_owned(), String::new());
        self.peers.range(first..).take_while(move |(name, _)| name.0 == namespace).map(|(_, peer)| peer)
    }

    /// A pod of the cluster is new, different or gone.
    pub fn set_peer(&mut self, name: Name, peer: Option<Arc<Peer>>) {
        if self.peers.get(&name) == peer.as_ref() {
            return;
        }
        if let Some(old) = self.peers.remove(&name) {
            self.count(&name.0, &old, false);
        }
        if let Some(peer) = peer {
            self.count(&name.0, &peer, true);
            self.peers.insert(name, peer);
        }
    }

    /// Nobody is restricted by what other pods are any more.
    pub fn forget_peers(&mut self) {
        let names: Vec<Name> = self.peers.keys().filter(|name| **name != dns_name()).cloned().collect();
        for name in names {
            self.set_peer(name, None);
        }
    }

    /// A pod of this machine is new, different or gone.
    pub fn set_local(&mut self, uid: &Arc<str>, local: Option<Local>) {
        let old = self.locals.remove(uid);
        let before = old.as_ref().map(|(_, groups)| *groups).unwrap_or_default();
        if let Some(local) = &local {
            let groups = DIRECTIONS.map(|direction| self.join(direction, local));
            self.locals.insert(Arc::clone(uid), (local.clone(), groups));
        }
        before.into_iter().flatten().for_each(|number| self.leave(number));
        let Some((old, _)) = old else { return };
        let is_last = local.is_none_or(|local| local.namespace != old.namespace) && !self.has_locals(&old.namespace);
        if is_last && !self.kept.is_empty() {
            let over: Vec<Name> = self.kept.iter().filter(|name| name.0 == old.namespace).cloned().collect();
            for name in over {
                self.kept.remove(&name);
                self.policies.remove(&name);
            }
        }
    }

    /// The pods of a namespace may belong to other groups.
    fn regroup(&mut self, namespace: &str) {
        let of_it = self.locals.iter().filter(|(_, (local, _))| local.namespace == namespace);
        for (uid, local) in of_it.map(|(uid, (local, _))| (Arc::clone(uid), local.clone())).collect::<Vec<_>>() {
            self.set_local(&uid, Some(local));
        }
    }

    /// The group that a pod belongs to in a direction, with one pod more; `None` when it is free (R1, R2, R3).
    fn join(&mut self, direction: Direction, local: &Local) -> Option<u32> {
        let first = (local.namespace.clone(), String::new());
        let own = self.policies.range(first..).take_while(|(name, _)| name.0 == local.namespace);
        let mut policies = Vec::new();
        let mut names_ports = false;
        for (name, policy) in own {
            let Some(rules) = policy.rules(direction).filter(|_| policy.selector.matches(&local.labels)) else {
                continue;
            };
            if rules.iter().any(Rule::is_everything) {
                return None;
            }
            names_ports |= rules.iter().any(Rule::names_ports);
            policies.push(name.clone());
        }
        if policies.is_empty() {
            return None;
        }
        let ports = if names_ports && direction == Direction::Ingress { local.ports.clone() } else { Vec::new() };
        let key = GroupKey { direction, policies, ports };
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.add_group(key),
        };
        self.groups.get_mut(&number).expect("a numbered group exists").pods += 1;
        Some(number)
    }

    fn add_group(&mut self, key: GroupKey) -> u32 {
        self.last_number += 1;
        let number = self.last_number;
        self.numbers.insert(key.clone(), number);
        let state =
            GroupState { key, pods: 0, counts: BTreeMap::new(), blocks: Vec::new(), has_selectors: false, built: None };
        self.groups.insert(number, state);
        self.fill(number);
        number
    }

    fn leave(&mut self, number: u32) {
        let group = self.groups.get_mut(&number).expect("a pod's group exists");
        group.pods -= 1;
        if group.pods == 0 {
            let ended = self.groups.remove(&number).expect("it was there a line ago");
            self.numbers.remove(&ended.key);
        }
    }

    /// Makes a group's contents from nothing.
    fn fill(&mut self, number: u32) {
        let Some(mut group) = self.groups.remove(&number) else { return };
        let rules = self.rules_of(&group.key);
        group.has_selectors = rules.iter().any(|(_, rule)| rule.has_selectors(group.key.direction));
        group.blocks = rules.iter().flat_map(|(_, rule)| blocks(&group.key, rule)).take(BLOCKS_MAX + 1).collect();
        group.blocks.sort_unstable();
        group.blocks.dedup();
        group.counts = BTreeMap::new();
        for ((namespace, _), peer) in &self.peers {
            let labels = self.namespaces.get(namespace).map(|found| &found.labels);
            for entry in entries(&group.key, &rules, (namespace.as_str(), labels), peer) {
                if group.counts.len() <= ELEMENTS_MAX || group.counts.contains_key(&entry) {
                    *group.counts.entry(entry).or_default() += 1;
                }
            }
        }
        group.built = None;
        self.groups.insert(number, group);
    }

    /// The rules of a group, each with the namespace of its policy.
    fn rules_of(&self, key: &GroupKey) -> Vec<(String, Rule)> {
        let policies = key.policies.iter().filter_map(|name| Some((name, self.policies.get(name)?)));
        let rules = policies.flat_map(|(name, policy)| {
            policy.rules(key.direction).into_iter().flatten().map(|rule| (name.0.clone(), rule.clone()))
        });
        rules.collect()
    }

    /// Adds what a peer gives to every group, or takes it away.
    fn count(&mut self, namespace: &str, peer: &Peer, add: bool) {
        let labels = self.namespaces.get(namespace).map(|found| &found.labels);
        for group in self.groups.values_mut().filter(|group| group.has_selectors) {
            let policies =
                group.key.policies.iter().filter_map(|name| Some((name.0.as_str(), self.policies.get(name)?)));
            let rules = policies.flat_map(|(own, policy)| {
                policy.rules(group.key.direction).into_iter().flatten().map(move |rule| (own, rule))
            });
            let mut found = BTreeSet::new();
            for (own, rule) in rules {
                add_entries(&mut found, (&group.key, own), rule, (namespace, labels), peer);
            }
            for entry in found {
                if add && group.counts.len() > ELEMENTS_MAX && !group.counts.contains_key(&entry) {
                    continue;
                }
                let count = group.counts.entry(entry).or_default();
                if add {
                    *count += 1;
                } else {
                    *count = count.saturating_sub(1);
                }
                if *count == 0 {
                    group.counts.remove(&entry);
                }
                group.built = None;
            }
        }
    }

    /// What the kernel shall do.
    pub fn table(&mut self) -> PolicyTable {
        let groups = self.groups.iter_mut().map(|(number, group)| (*number, group.build())).collect();
        let pods = self.locals.values().flat_map(|(local, numbers)| {
            DIRECTIONS.into_iter().zip(numbers).filter_map(|(way, number)| Some(((way, local.address), (*number)?)))
        });
        PolicyTable { pods: pods.collect(), groups }
    }
}

impl GroupState {
    fn build(&mut self) -> Arc<Group> {
        if let Some(built) = &self.built {
            return Arc::clone(built);
        }
        let mut group = Group { blocks: self.blocks.clone(), ..Group::new(self.key.direction) };
        for entry in self.counts.keys() {
            match *entry {
                Entry::All(address) => drop(group.peers.insert(address)),
                Entry::Ports(address, protocol, first, last) if first == last => {
                    group.ports.insert((address, protocol, first));
                }
                Entry::Ports(address, protocol, first, last) => {
                    let ports = Some((protocol, first, last));
                    group.blocks.push(Block { first: address, last: address, ports });
                }
            }
        }
        let built = Arc::new(group);
        self.built = Some(Arc::clone(&built));
        built
    }
}

/// The name of the cluster's DNS among the peers; no pod has an empty one.
fn dns_name() -> Name {
    ("kube-system".to_owned(), String::new())
}

/// What is allowed whoever the pods are (R5, R7): at most one more than is taken, so that it is said that there are too
/// many.
fn blocks(key: &GroupKey, rule: &Rule) -> Vec<Block> {
    let everybody = Block { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST, ports: None };
    let mut ranges: Vec<Block> = rule.peers.iter().flat_map(PeerRule::blocks).copied().collect();
    if rule.peers.is_empty() {
        ranges.push(everybody);
    }
    let ports: Vec<Option<(Protocol, u16, u16)>> = match rule.ports.as_slice() {
        [] => vec![None],
        ports => ports.iter().flat_map(|port| port.of(&key.ports)).map(Some).collect(),
    };
    let blocks = ranges.iter().flat_map(|range| ports.iter().map(|ports| Block { ports: *ports, ..*range }));
    blocks.take(BLOCKS_MAX + 1).collect()
}

fn entries(
    key: &GroupKey,
    rules: &[(String, Rule)],
    (namespace, labels): (&str, Option<&Labels>),
    peer: &Peer,
) -> BTreeSet<Entry> {
    let mut found = BTreeSet::new();
    for (own, rule) in rules {
        add_entries(&mut found, (key, own.as_str()), rule, (namespace, labels), peer);
    }
    found
}

/// What one rule allows of one peer (R4, R6, R8).
fn add_entries(
    found: &mut BTreeSet<Entry>,
    (key, own): (&GroupKey, &str),
    rule: &Rule,
    (namespace, labels): (&str, Option<&Labels>),
    peer: &Peer,
) {
    let egress = key.direction == Direction::Egress;
    // To everybody by a port's name is to every pod that has such a port.
    let by_name = rule.peers.is_empty() && egress && rule.names_ports();
    if peer.is_dns && !egress || !by_name && !rule.peers.iter().any(|it| it.takes(own, namespace, labels, &peer.labels))
    {
        return;
    }
    if peer.is_dns {
        let asked = |port: &&Port| rule.ports.is_empty() || rule.ports.iter().any(|rule| rule.covers(port));
        let answered = peer.ports.iter().filter(asked);
        found.extend(answered.map(|port| Entry::Ports(peer.address, port.protocol, port.number, port.number)));
        return;
    }
    if rule.ports.is_empty() {
        found.insert(Entry::All(peer.address));
        return;
    }
    let names = if egress { &peer.ports } else { &key.ports };
    let ports = rule.ports.iter().filter(|port| !by_name || matches!(port, PortRule::Named { .. }));
    for (protocol, first, last) in ports.flat_map(|port| port.of(names)) {
        found.insert(Entry::Ports(peer.address, protocol, first, last));
    }
}

#[cfg(test)]
mod tests;
