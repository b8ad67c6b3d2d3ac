//! How many pods of each group are in each domain of a topology, kept as pods come and go.
//!
//! Goal        a placement looks up counts and never goes through pods
//! Guarantees  a group that some pod once asked for is counted from then on · counts are those of a recount
//! Caveats     what changes domains (a node's labels, a namespace's) makes everything be counted anew, once

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::Node;
use crate::pod::{Footprint, Pod};
use crate::term::{Claim, Labels, Peers};

/// Groups that are counted. Beyond it the one that was asked for least recently is forgotten.
const GROUPS_MAX: usize = 4096;

/// All counts.
#[derive(Default)]
pub(crate) struct Neighbours {
    groups: BTreeMap<String, Group>,
    claims: BTreeMap<String, Claimed>,
    /// The domains have changed: nothing here holds.
    is_stale: bool,
    asked: u64,
}

/// The pods that one term means.
pub(crate) struct Group {
    peers: Arc<Peers>,
    /// How many there are, on nodes that are there.
    pub(crate) total: i64,
    /// By node.
    pub(crate) on: BTreeMap<String, i64>,
    keys: BTreeMap<String, Domains>,
    asked: u64,
}

/// Pods of a group by domain.
#[derive(Default)]
pub(crate) struct Domains {
    /// Every domain that a node is in, with its pods.
    pub(crate) pods: BTreeMap<String, i64>,
    /// How many nodes are in any domain.
    pub(crate) nodes: usize,
    /// How many domains have so many pods.
    levels: BTreeMap<i64, usize>,
}

/// A claim, and where there are pods that make it.
pub(crate) struct Claimed {
    pub(crate) claim: Arc<Claim>,
    pub(crate) domains: BTreeMap<String, i64>,
}

/// What counts are made from.
pub(crate) struct Ground<'a> {
    pub(crate) nodes: &'a [Node],
    /// The labels of all namespaces.
    pub(crate) namespaces: &'a BTreeMap<String, Labels>,
}

impl Domains {
    /// The pods of the domain that has the fewest.
    pub(crate) fn fewest(&self) -> i64 {
        self.levels.keys().next().copied().unwrap_or(0)
    }

    fn count(&mut self, domain: &str, change: i64) {
        let Some(pods) = self.pods.get_mut(domain) else { return };
        let before = *pods;
        *pods += change;
        let after = *pods;
        if let Some(domains) = self.levels.get_mut(&before) {
            *domains -= 1;
            if *domains == 0 {
                self.levels.remove(&before);
            }
        }
        *self.levels.entry(after).or_default() += 1;
    }

    fn of(key: &str, on: &BTreeMap<String, i64>, nodes: &[Node]) -> Domains {
        let mut domains = Domains::default();
        for node in nodes {
            let Some(domain) = node.facts.as_ref().and_then(|facts| facts.labels.get(key)) else { continue };
            *domains.pods.entry(domain.clone()).or_default() += on.get(&node.name).copied().unwrap_or(0);
            domains.nodes += 1;
        }
        for pods in domains.pods.values() {
            *domains.levels.entry(*pods).or_default() += 1;
        }
        domains
    }
}

impl Group {
    fn means(&self, pod: &Footprint, namespaces: &BTreeMap<String, Labels>) -> bool {
        (self.peers.counts_ending() || !pod.is_ending) && self.peers.matches(&pod.namespace, &pod.labels, namespaces)
    }

    fn count(&mut self, node: &Node, change: i64) {
        let Some(facts) = &node.facts else { return };
        self.total += change;
        match self.on.get_mut(&node.name) {
            Some(pods) => *pods += change,
            None => {
                self.on.insert(node.name.clone(), change);
            }
        }
        for (key, domains) in &mut self.keys {
            if let Some(domain) = facts.labels.get(key) {
                domains.count(domain, change);
            }
        }
    }

    /// The group's pods by domain; the key was asked for before.
    pub(crate) fn by(&self, key: &str) -> Option<&Domains> {
        self.keys.get(key)
    }
}

impl Neighbours {
    /// The domains are others than before.
    pub(crate) fn forget(&mut self) {
        self.is_stale = true;
    }

    /// A pod comes to a node (`change` is 1) or leaves it (-1).
    pub(crate) fn count(&mut self, pod: &Footprint, node: &Node, change: i64, namespaces: &BTreeMap<String, Labels>) {
        if self.is_stale {
            return;
        }
        for group in self.groups.values_mut() {
            if group.means(pod, namespaces) {
                group.count(node, change);
            }
        }
        for claim in &pod.claims {
            self.count_claim(claim, node, change);
        }
    }

    fn count_claim(&mut self, claim: &Arc<Claim>, node: &Node, change: i64) {
        let Some(domain) = node.facts.as_ref().and_then(|facts| facts.labels.get(&claim.term.key)) else { return };
        if !self.claims.contains_key(&claim.text) {
            let claimed = Claimed { claim: Arc::clone(claim), domains: BTreeMap::new() };
            self.claims.insert(claim.text.clone(), claimed);
        }
        let Some(claimed) = self.claims.get_mut(&claim.text) else { return };
        let pods = claimed.domains.entry(domain.clone()).or_default();
        *pods += change;
        if *pods == 0 {
            claimed.domains.remove(domain);
            if claimed.domains.is_empty() {
                self.claims.remove(&claim.text);
            }
        }
    }

    /// Sees to it that every group which a pod asks for is counted.
    pub(crate) fn know(&mut self, pod: &Pod, ground: &Ground) {
        if self.is_stale {
            self.is_stale = false;
            self.groups.clear();
            self.claims.clear();
            for node in ground.nodes {
                for claim in node.on.values().flat_map(|pod| &pod.claims) {
                    self.count_claim(claim, node, 1);
                }
            }
        }
        let terms = &pod.terms;
        let apart = terms.apart.iter().chain(terms.preferred.iter().map(|(_, term)| term));
        for term in apart {
            self.know_group(&term.peers, &term.key, ground);
        }
        for constraint in &terms.spread {
            self.know_group(&constraint.peers, &constraint.key, ground);
        }
        if let Some(together) = &terms.together {
            for key in &together.keys {
                self.know_group(&together.peers, key, ground);
            }
        }
    }

    fn know_group(&mut self, peers: &Arc<Peers>, key: &str, ground: &Ground) {
        self.asked += 1;
        if !self.groups.contains_key(&peers.text) {
            self.make_room();
            let mut group = Group {
                peers: Arc::clone(peers),
                total: 0,
                on: BTreeMap::new(),
                keys: BTreeMap::new(),
                asked: self.asked,
            };
            for node in ground.nodes {
                let members = node.on.values().filter(|pod| group.means(pod, ground.namespaces)).count();
                if members > 0 {
                    group.count(node, i64::try_from(members).unwrap_or(i64::MAX));
                }
            }
            self.groups.insert(peers.text.clone(), group);
        }
        let Some(group) = self.groups.get_mut(&peers.text) else { return };
        group.asked = self.asked;
        if !group.keys.contains_key(key) {
            let domains = Domains::of(key, &group.on, ground.nodes);
            group.keys.insert(key.to_owned(), domains);
        }
    }

    fn make_room(&mut self) {
        if self.groups.len() < GROUPS_MAX {
            return;
        }
        let oldest = self.groups.iter().min_by_key(|(_, group)| group.asked).map(|(text, _)| text.clone());
        if let Some(oldest) = oldest {
            self.groups.remove(&oldest);
        }
    }

    /// The pods of a group that was asked for.
    pub(crate) fn group(&self, peers: &Peers) -> Option<&Group> {
        self.groups.get(&peers.text)
    }

    /// All claims that placed pods make.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claimed> {
        self.claims.values()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::cluster::Cluster;
    use crate::fixture::{labelled_pod, node};

    fn labels(zone: &str) -> Value {
        json!({"/metadata/labels": {"zone": zone}})
    }

    fn spreading() -> crate::pod::Pod {
        let spread = json!([{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}}]);
        labelled_pod("asks", json!({"app": "web"}), json!({"topologySpreadConstraints": spread}))
    }

    /// What the counts say: in all, by zone, and in the emptiest zone.
    fn counts(cluster: &mut Cluster) -> (i64, Vec<(String, i64)>, i64) {
        let pod = spreading();
        cluster.know(&pod);
        let constraint = &pod.terms.spread[0];
        let group = cluster.neighbours.group(&constraint.peers).expect("asked for a line ago");
        let zones = group.by("zone").expect("asked for a line ago");
        (group.total, zones.pods.iter().map(|(zone, pods)| (zone.clone(), *pods)).collect(), zones.fewest())
    }

    fn is(cluster: &mut Cluster, total: i64, zones: &[(&str, i64)], fewest: i64) {
        let zones = zones.iter().map(|(zone, pods)| ((*zone).to_owned(), *pods)).collect();
        assert_eq!(counts(cluster), (total, zones, fewest));
    }

    #[test]
    fn r7_counts_follow_pods_nodes_and_their_labels() {
        let mut cluster = Cluster::default();
        for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
            cluster.set_node(name, node(name, labels(zone)).facts.expect("facts"));
        }
        let web = labelled_pod("w", json!({"app": "web"}), json!({}));
        let other = labelled_pod("o", json!({"app": "db"}), json!({}));
        cluster.put(&"a/before".into(), "n1", Arc::clone(&web.footprint));
        is(&mut cluster, 1, &[("a", 1), ("b", 0)], 0);
        cluster.put(&"a/after".into(), "n3", Arc::clone(&web.footprint));
        cluster.put(&"a/other".into(), "n3", Arc::clone(&other.footprint));
        is(&mut cluster, 2, &[("a", 1), ("b", 1)], 1);
        cluster.put(&"a/after".into(), "n2", Arc::clone(&web.footprint));
        is(&mut cluster, 2, &[("a", 2), ("b", 0)], 0);
        let mut ending = (*web.footprint).clone();
        ending.is_ending = true;
        cluster.put(&"a/after".into(), "n2", Arc::new(ending));
        is(&mut cluster, 1, &[("a", 1), ("b", 0)], 0);
        cluster.set_node("n1", node("n1", labels("c")).facts.expect("facts"));
        is(&mut cluster, 1, &[("a", 0), ("b", 0), ("c", 1)], 0);
        cluster.take(&"a/before".into());
        is(&mut cluster, 0, &[("a", 0), ("b", 0), ("c", 0)], 0);
        cluster.drop_node("n3");
        is(&mut cluster, 0, &[("a", 0), ("c", 0)], 0);
    }
}
