//! What the pods that are placed mean for one that is not: looked up once before its nodes are gone through.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::filter;
use crate::neighbours::Group;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;
use crate::term::{Constraint, Effect, Together};

/// Pods by domain.
type Counts = BTreeMap<String, i64>;

/// The neighbours of one pod.
#[derive(Default)]
pub(crate) struct Near<'a> {
    /// Constraints that every node must keep.
    pub(crate) spread: Vec<Skew<'a>>,
    /// Constraints that make a node worse.
    pub(crate) soft: Vec<Skew<'a>>,
    pub(crate) together: Option<(&'a Together, &'a Group)>,
    /// Domains where a pod is that this one keeps away from.
    pub(crate) apart: Vec<(&'a str, &'a Counts)>,
    /// Domains where a pod is that keeps this one away.
    pub(crate) forbidden: Vec<(&'a str, &'a Counts)>,
    /// What each pod in a domain adds to its nodes' score.
    pub(crate) weights: Vec<(i64, &'a str, &'a Counts)>,
}

/// A constraint with the counts it is about.
pub(crate) struct Skew<'a> {
    pub(crate) constraint: &'a Constraint,
    pub(crate) pods: Cow<'a, Counts>,
    /// The pods of the domain with the fewest.
    pub(crate) fewest: i64,
}

impl<'a> Near<'a> {
    /// Looks everything up. The cluster knows the pod's groups already.
    pub(crate) fn of(pod: &'a Pod, cluster: &'a Cluster) -> Near<'a> {
        let (terms, neighbours) = (&pod.terms, &cluster.neighbours);
        let mut near = Near::default();
        for constraint in &terms.spread {
            let Some(skew) = skew(pod, constraint, cluster) else { continue };
            if constraint.is_hard { near.spread.push(skew) } else { near.soft.push(skew) }
        }
        near.together = terms.together.as_ref().and_then(|together| {
            let group = neighbours.group(&together.peers)?;
            Some((together, group))
        });
        for term in &terms.apart {
            if let Some(domains) = neighbours.group(&term.peers).and_then(|group| group.by(&term.key)) {
                near.apart.push((&term.key, &domains.pods));
            }
        }
        for (weight, term) in &terms.preferred {
            if let Some(domains) = neighbours.group(&term.peers).and_then(|group| group.by(&term.key)) {
                near.weights.push((*weight, &term.key, &domains.pods));
            }
        }
        let footprint = &pod.footprint;
        for claimed in neighbours.claims() {
            let term = &claimed.claim.term;
            if !term.peers.matches(&footprint.namespace, &footprint.labels, &cluster.namespaces) {
                continue;
            }
            match claimed.claim.effect {
                Effect::Forbids => near.forbidden.push((&term.key, &claimed.domains)),
                Effect::Weighs(weight) => near.weights.push((weight, &term.key, &claimed.domains)),
            }
        }
        near
    }
}

fn skew<'a>(pod: &'a Pod, constraint: &'a Constraint, cluster: &'a Cluster) -> Option<Skew<'a>> {
    let group = cluster.neighbours.group(&constraint.peers)?;
    let domains = group.by(&constraint.key)?;
    let everywhere = cluster.len();
    let is_whole = |key: &str| group.by(key).is_some_and(|domains| domains.nodes == everywhere);
    let keys = || pod.terms.spread.iter().filter(|other| other.is_hard == constraint.is_hard);
    // Most pods may go to any node, so all nodes count; then what is kept is what is asked for.
    let all_nodes = (pod.node_selector.is_empty() && pod.required.is_none() || !constraint.honors_affinity)
        && !constraint.honors_taints
        && keys().all(|other| other.key == constraint.key || is_whole(&other.key) || has_key(cluster, &other.key));
    let (pods, fewest, count) = if all_nodes {
        (Cow::Borrowed(&domains.pods), domains.fewest(), domains.pods.len())
    } else {
        let pods = of_eligible(pod, constraint, group, cluster);
        let (fewest, count) = (pods.values().copied().min().unwrap_or(0), pods.len());
        (Cow::Owned(pods), fewest, count)
    };
    // Fewer domains than there should be: another one, empty, is still to come.
    let fewest = if count < constraint.min_domains { 0 } else { fewest };
    Some(Skew { constraint, pods, fewest })
}

fn has_key(cluster: &Cluster, key: &str) -> bool {
    cluster.nodes.iter().filter_map(|node| node.facts.as_ref()).all(|facts| facts.labels.contains_key(key))
}

/// Counts over the nodes that the pod could go to as far as its own wishes go.
fn of_eligible(pod: &Pod, constraint: &Constraint, group: &Group, cluster: &Cluster) -> Counts {
    let mut counts = Counts::new();
    for node in &cluster.nodes {
        let Some(facts) = &node.facts else { continue };
        if is_eligible(pod, constraint, node, facts)
            && let Some(domain) = facts.labels.get(&constraint.key)
        {
            *counts.entry(domain.clone()).or_default() += group.on.get(&node.name).copied().unwrap_or(0);
        }
    }
    counts
}

fn is_eligible(pod: &Pod, constraint: &Constraint, node: &Node, facts: &NodeFacts) -> bool {
    let keys = pod.terms.spread.iter().filter(|other| other.is_hard == constraint.is_hard);
    keys.into_iter().all(|other| facts.labels.contains_key(&other.key))
        && (!constraint.honors_affinity || filter::suits(pod, node, facts))
        && (!constraint.honors_taints || filter::tolerates(pod, facts))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::cluster::Cluster;
    use crate::fixture::{labelled_pod, node};
    use crate::place::place;
    use crate::pod::Pod;

    /// Two zones with two nodes each, and one node outside of any.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")] {
            let labels = json!({"/metadata/labels": {"zone": zone, "host": name}});
            cluster.set_node(name, node(name, labels).facts.expect("facts"));
        }
        cluster
    }

    fn put(cluster: &mut Cluster, name: &str, on: &str, pod: &Pod) {
        cluster.put(&format!("a/{name}").as_str().into(), on, Arc::clone(&pod.footprint));
    }

    fn app(app: &str) -> Pod {
        labelled_pod("placed", json!({"app": app}), json!({}))
    }

    fn term(key: &str, app: &str) -> Value {
        json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn required(side: &str, terms: Value) -> Value {
        json!({"affinity": {side: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    }

    /// Where a pod goes, or why nowhere.
    fn goes(cluster: &mut Cluster, labels: Value, spec: Value) -> String {
        match place(&labelled_pod("p", labels, spec), cluster) {
            Ok(placement) => placement.node,
            Err(refusal) => refusal.message,
        }
    }

    #[test]
    fn affinity_finds_the_domain_of_its_peers() {
        let mut cluster = cluster();
        let near_db = required("podAffinity", json!([term("zone", "db")]));
        let nowhere = "0/4 nodes are available: 4 node(s) didn't match pod affinity rules.";
        assert_eq!(goes(&mut cluster, json!({}), near_db.clone()), nowhere);
        put(&mut cluster, "db", "b1", &app("db"));
        assert!(goes(&mut cluster, json!({}), near_db.clone()).starts_with('b'));
        let both = required("podAffinity", json!([term("zone", "db"), term("host", "db")]));
        assert_eq!(goes(&mut cluster, json!({}), both), "b1");
        cluster.take(&"a/db".into());
        assert_eq!(goes(&mut cluster, json!({}), near_db), nowhere);
    }

    #[test]
    fn the_first_of_its_own_peers_goes_anywhere_that_has_the_label() {
        let mut cluster = cluster();
        let near_itself = required("podAffinity", json!([term("zone", "web")]));
        assert!(!goes(&mut cluster, json!({"app": "web"}), near_itself).contains("nodes are available"));
        let by_rack = required("podAffinity", json!([term("rack", "web")]));
        let nowhere = "0/4 nodes are available: 4 node(s) didn't match pod affinity rules.";
        assert_eq!(goes(&mut cluster, json!({"app": "web"}), by_rack), nowhere);
    }

    #[test]
    fn anti_affinity_keeps_away_from_peers_and_keeps_peers_away() {
        let mut cluster = cluster();
        put(&mut cluster, "db", "b1", &app("db"));
        let not_near_db = required("podAntiAffinity", json!([term("zone", "db")]));
        assert!(goes(&mut cluster, json!({}), not_near_db.clone()).starts_with('a'));
        put(&mut cluster, "db2", "a1", &app("db"));
        let nowhere = "0/4 nodes are available: 4 node(s) didn't match pod anti-affinity rules.";
        assert_eq!(goes(&mut cluster, json!({}), not_near_db.clone()), nowhere);
        let mut cluster = self::cluster();
        put(&mut cluster, "jealous", "a2", &labelled_pod("jealous", json!({}), not_near_db));
        assert!(goes(&mut cluster, json!({"app": "db"}), json!({})).starts_with('b'));
        for node in ["b1", "b2"] {
            cluster.drop_node(node);
        }
        let nowhere = "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.";
        assert_eq!(goes(&mut cluster, json!({"app": "db"}), json!({})), nowhere);
        cluster.take(&"a/jealous".into());
        assert!(goes(&mut cluster, json!({"app": "db"}), json!({})).starts_with('a'));
    }

    fn spread(key: &str, changes: Value) -> Value {
        let mut constraint = json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}});
        windlass_api::merge::merge(&mut constraint, changes);
        json!({"topologySpreadConstraints": [constraint]})
    }

    #[test]
    fn spread_keeps_the_skew() {
        let mut cluster = cluster();
        let web = json!({"app": "web"});
        put(&mut cluster, "w1", "a1", &app("web"));
        assert!(goes(&mut cluster, web.clone(), spread("zone", json!({}))).starts_with('b'));
        put(&mut cluster, "w2", "b1", &app("web"));
        put(&mut cluster, "w3", "b2", &app("web"));
        assert!(goes(&mut cluster, web.clone(), spread("zone", json!({}))).starts_with('a'));
        assert_eq!(goes(&mut cluster, web.clone(), spread("host", json!({}))), "a2");
        let nowhere = "0/4 nodes are available: 4 node(s) didn't match pod topology spread constraints \
            (missing required label).";
        assert_eq!(goes(&mut cluster, web.clone(), spread("rack", json!({}))), nowhere);
        let nowhere = "0/4 nodes are available: 4 node(s) didn't match pod topology spread constraints.";
        assert_eq!(goes(&mut cluster, web, spread("zone", json!({"minDomains": 3}))), nowhere);
    }

    #[test]
    fn spread_counts_only_nodes_that_the_pod_could_go_to() {
        let mut cluster = cluster();
        let web = json!({"app": "web"});
        put(&mut cluster, "w1", "a1", &app("web"));
        let mut in_a = spread("zone", json!({}));
        in_a["nodeSelector"] = json!({"zone": "a"});
        assert!(goes(&mut cluster, web.clone(), in_a.clone()).starts_with('a'), "zone b does not count");
        in_a["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = json!("Ignore");
        assert!(goes(&mut cluster, web.clone(), in_a).contains("topology spread constraints"), "now it does");
        let tainted = json!({"/metadata/labels": {"zone": "b", "host": "b1"},
            "/spec/taints": [{"key": "x", "effect": "NoSchedule"}]});
        for name in ["b1", "b2"] {
            cluster.set_node(name, node(name, tainted.clone()).facts.expect("facts"));
        }
        assert!(goes(&mut cluster, web.clone(), spread("zone", json!({}))).contains("topology spread constraints"));
        let honoring = spread("zone", json!({"nodeTaintsPolicy": "Honor"}));
        assert!(goes(&mut cluster, web, honoring).starts_with('a'));
    }

    #[test]
    fn what_is_only_preferred_makes_a_node_better_or_worse() {
        let mut cluster = cluster();
        put(&mut cluster, "db", "b2", &app("db"));
        let preferred = |side: &str, key: &str| {
            json!({"affinity": {side: {"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 100, "podAffinityTerm": term(key, "db")}]}}})
        };
        assert_eq!(goes(&mut cluster, json!({}), preferred("podAffinity", "host")), "b2");
        assert!(goes(&mut cluster, json!({}), preferred("podAntiAffinity", "zone")).starts_with('a'));
        let soft = spread(
            "zone",
            json!({"whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "db"}}}),
        );
        assert!(goes(&mut cluster, json!({}), soft).starts_with('a'));
    }
}
