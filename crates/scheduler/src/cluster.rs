//! All nodes and what is on them: the view that placements are made on.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_client::Key;

use crate::node::{Node, NodeFacts};
use crate::pod::Footprint;

/// The nodes, and where each pod counts.
#[derive(Default)]
pub(crate) struct Cluster {
    /// In no order that means anything, but in the same order in every replay.
    pub(crate) nodes: Vec<Node>,
    by_name: BTreeMap<String, usize>,
    placed: BTreeMap<Key, Placed>,
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
        self.nodes.iter().filter(|node| node.facts.is_some()).count()
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
        node.facts = Some(facts);
        true
    }

    /// The node is gone. What is still on it keeps counting, should it come back.
    pub(crate) fn drop_node(&mut self, name: &str) {
        if let Some(index) = self.index_of(name) {
            self.nodes[index].facts = None;
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

    /// A pod counts on a node from now on, and nowhere else.
    pub(crate) fn put(&mut self, key: &Key, node: &str, footprint: Arc<Footprint>) {
        let placed = Placed { node: node.to_owned(), footprint };
        if self.placed.get(key) == Some(&placed) {
            return;
        }
        self.take(key);
        self.node(node).put(&placed.footprint);
        self.placed.insert(key.clone(), placed);
    }

    /// A pod counts nowhere any more; `true` when it did.
    pub(crate) fn take(&mut self, key: &Key) -> bool {
        let Some(placed) = self.placed.remove(key) else { return false };
        let index = self.index_of(&placed.node).expect("a node stays as long as a pod counts on it");
        self.nodes[index].take(&placed.footprint);
        self.forget_if_gone(index);
        true
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
