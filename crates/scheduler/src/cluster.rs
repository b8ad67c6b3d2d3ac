//! All nodes and what is on them: the view that placements are made on.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_client::Key;

use crate::neighbours::{Ground, Neighbours};
use crate::node::{Node, NodeFacts};
use crate::pod::{Footprint, Pod};
use crate::term::Labels;

/// The nodes, and where each pod counts.
#[derive(Default)]
pub(crate) struct Cluster {
    /// In no order that means anything, but in the same order in every replay.
    pub(crate) nodes: Vec<Node>,
    by_name: BTreeMap<String, usize>,
    placed: BTreeMap<Key, Placed>,
    pub(crate) neighbours: Neighbours,
    /// The labels of each namespace.
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// By node: pods that others have made or are making way for.
    nominated: BTreeMap<String, BTreeMap<Key, Arc<Footprint>>>,
    /// How many nodes there are.
    there: usize,
    /// Where the next placement begins to look.
    pub(crate) start: usize,
}

/// A pod that counts on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) node: String,
    pub(crate) footprint: Arc<Footprint>,
}

impl Cluster {
    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.there
    }

    /// The node of this name, whether or not it exists yet.
    fn node(&mut self, name: &str) -> &mut Node {
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => {
                self.nodes.push(Node::new(name));
                self.by_name.insert(name.to_owned(), self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        };
        &mut self.nodes[index]
    }

    /// The place of a node that exists.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Takes in what a node says; `true` when it is news.
    pub(crate) fn set_node(&mut self, name: &str, facts: NodeFacts) -> bool {
        let node = self.node(name);
        if node.facts.as_ref() == Some(&facts) {
            return false;
        }
        let is_new = node.facts.is_none();
        let same_domains = node.facts.as_ref().is_some_and(|before| before.labels == facts.labels);
        node.facts = Some(facts);
        self.there += usize::from(is_new);
        if !same_domains {
            self.neighbours.forget();
        }
        true
    }

    /// The node is gone. What is still on it keeps counting, should it come back.
    pub(crate) fn drop_node(&mut self, name: &str) {
        if let Some(index) = self.index_of(name) {
            self.there -= usize::from(self.nodes[index].facts.take().is_some());
            self.neighbours.forget();
            self.forget_if_gone(index);
        }
    }

    fn forget_if_gone(&mut self, index: usize) {
        if !self.nodes[index].is_gone() {
            return;
        }
        let gone = self.nodes.swap_remove(index);
        self.by_name.remove(&gone.name);
        if let Some(moved) = self.nodes.get(index) {
            self.by_name.insert(moved.name.clone(), index);
        }
    }

    /// A namespace has these labels, or is gone.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        self.neighbours.forget();
    }

    /// A pod counts on a node from now on, and nowhere else; `true` when that is news.
    pub(crate) fn put(&mut self, key: &Key, node: &str, footprint: Arc<Footprint>) -> bool {
        let placed = Placed { node: node.to_owned(), footprint };
        if self.placed.get(key) == Some(&placed) {
            return false;
        }
        self.take(key);
        self.denominate(key);
        self.node(node).put(key, &placed.footprint);
        let index = self.by_name[node];
        self.neighbours.count(&placed.footprint, &self.nodes[index], 1, &self.namespaces);
        self.placed.insert(key.clone(), placed);
        true
    }

    /// A pod counts nowhere any more; `true` when it did.
    pub(crate) fn take(&mut self, key: &Key) -> bool {
        let Some(placed) = self.placed.remove(key) else { return false };
        let index = self.index_of(&placed.node).expect("a node stays as long as a pod counts on it");
        self.nodes[index].take(key, &placed.footprint);
        self.neighbours.count(&placed.footprint, &self.nodes[index], -1, &self.namespaces);
        self.forget_if_gone(index);
        true
    }

    /// Sees to it that what a pod says of others can be looked up.
    pub(crate) fn know(&mut self, pod: &Pod) {
        let ground = Ground { nodes: &self.nodes, namespaces: &self.namespaces };
        self.neighbours.know(pod, &ground);
    }

    /// A pod is to have room on a node that others leave for it.
    pub(crate) fn nominate(&mut self, key: &Key, node: &str, footprint: Arc<Footprint>) {
        self.denominate(key);
        self.nominated.entry(node.to_owned()).or_default().insert(key.clone(), footprint);
    }

    /// A pod has no claim to room any more.
    pub(crate) fn denominate(&mut self, key: &Key) {
        self.nominated.retain(|_, pods| {
            pods.remove(key);
            !pods.is_empty()
        });
    }

    /// The pods that have room made for them on a node.
    pub(crate) fn nominated_on(&self, node: &str) -> impl Iterator<Item = (&Key, &Arc<Footprint>)> {
        self.nominated.get(node).into_iter().flatten()
    }

    /// The node as a pod may find it: those with room made for them that are no less important count as there.
    pub(crate) fn as_promised(&self, node: &Node, pod: &Pod) -> Option<Node> {
        let mut promised: Option<Node> = None;
        for (key, footprint) in self.nominated_on(&node.name) {
            if footprint.priority >= pod.priority && *key != pod.key {
                promised.get_or_insert_with(|| node.clone()).put(key, footprint);
            }
        }
        promised
    }
}

#[cfg(test)]
mod tests {
    use super::Cluster;
    use crate::fixture::{node, pod};
    use serde_json::json;

    #[test]
    fn r5_a_pod_counts_once_wherever_it_was_before() {
        let mut cluster = Cluster::default();
        for name in ["n1", "n2"] {
            cluster.set_node(name, node(name, json!({})).facts.expect("facts"));
        }
        let footprint = pod(json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]})).footprint;
        let taken = |cluster: &Cluster| cluster.nodes.iter().map(|node| node.taken.cpu_millis).collect::<Vec<_>>();
        cluster.put(&"a/p".into(), "n1", footprint.clone());
        cluster.put(&"a/p".into(), "n1", footprint.clone());
        assert_eq!(taken(&cluster), [1000, 0], "assumed and then seen is one pod");
        cluster.put(&"a/p".into(), "n2", footprint);
        assert_eq!(taken(&cluster), [0, 1000]);
        assert!(cluster.take(&"a/p".into()));
        assert!(!cluster.take(&"a/p".into()));
        assert_eq!(taken(&cluster), [0, 0]);
    }

    #[test]
    fn a_node_that_is_gone_stays_while_pods_count_on_it() {
        let mut cluster = Cluster::default();
        cluster.put(&"a/p".into(), "n1", pod(json!({})).footprint);
        assert_eq!((cluster.len(), cluster.nodes.len()), (0, 1));
        cluster.set_node("n1", node("n1", json!({})).facts.expect("facts"));
        assert_eq!(cluster.nodes[0].pods, 1, "what was seen before the node counts");
        cluster.drop_node("n1");
        assert_eq!((cluster.len(), cluster.nodes.len()), (0, 1));
        cluster.take(&"a/p".into());
        assert!(cluster.nodes.is_empty());
    }
}
