//! What a pod says of other pods: affinity, anti-affinity, and how it is to be spread. Read once with the pod.
//!
//! Source: API reference, core/v1 PodAffinityTerm and TopologySpreadConstraint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::field::{Errors, Path};
use windlass_api::selector::LabelSelector;

/// Labels by their names.
pub(crate) type Labels = BTreeMap<String, String>;

/// The pods that a term means: those that all of its parts mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peers {
    /// Tells these pods from those of other terms.
    pub(crate) text: String,
    parts: Vec<Part>,
    counts_ending: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    namespaces: BTreeSet<String>,
    /// Namespaces that are meant by their labels.
    of_labels: Option<LabelSelector>,
    pods: LabelSelector,
}

/// Pods in one domain of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    /// The label of nodes whose values are the domains.
    pub(crate) key: String,
    pub(crate) peers: Arc<Peers>,
}

/// Pods that a pod must be near to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Together {
    pub(crate) keys: Vec<String>,
    pub(crate) peers: Arc<Peers>,
    /// The pod is one of its own peers: the first of them need not find another.
    pub(crate) matches_self: bool,
}

/// How evenly pods are to be spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Constraint {
    pub(crate) key: String,
    pub(crate) max_skew: i64,
    /// A node that breaks it is out; else it is only worse.
    pub(crate) is_hard: bool,
    pub(crate) min_domains: usize,
    pub(crate) honors_affinity: bool,
    pub(crate) honors_taints: bool,
    pub(crate) peers: Arc<Peers>,
    pub(crate) matches_self: bool,
}

/// What a placed pod says of others that come to its domain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Tells it from other claims.
    pub(crate) text: String,
    pub(crate) term: Term,
    pub(crate) effect: Effect,
}

/// What a claim does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Peers may not come.
    Forbids,
    /// Peers are this much more welcome.
    Weighs(i64),
}

/// Everything that a pod says of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) together: Option<Together>,
    pub(crate) apart: Vec<Term>,
    pub(crate) preferred: Vec<(i64, Term)>,
    pub(crate) spread: Vec<Constraint>,
    pub(crate) claims: Vec<Arc<Claim>>,
}

impl Peers {
    /// Whether a pod is meant. `namespaces` are the labels of all namespaces.
    pub(crate) fn matches(&self, namespace: &str, labels: &Labels, namespaces: &BTreeMap<String, Labels>) -> bool {
        self.parts.iter().all(|part| {
            let is_named = part.namespaces.contains(namespace);
            let of_labels = || {
                part.of_labels.as_ref().is_some_and(|selector| {
                    selector.is_everything() || namespaces.get(namespace).is_some_and(|labels| selector.matches(labels))
                })
            };
            (is_named || of_labels()) && part.pods.matches(labels)
        })
    }

    /// Whether pods that are ending count.
    pub(crate) fn counts_ending(&self) -> bool {
        self.counts_ending
    }
}

/// Whose terms are read.
pub(crate) struct Speaker<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a Labels,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    pod_affinity: Sides,
    pod_anti_affinity: Sides,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Sides {
    required_during_scheduling_ignored_during_execution: Option<Vec<WireTerm>>,
    preferred_during_scheduling_ignored_during_execution: Option<Vec<Weighted>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Weighted {
    weight: i64,
    pod_affinity_term: WireTerm,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireTerm {
    label_selector: Value,
    namespaces: Option<BTreeSet<String>>,
    namespace_selector: Value,
    topology_key: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireConstraint {
    topology_key: String,
    max_skew: i64,
    when_unsatisfiable: String,
    label_selector: Value,
    min_domains: Option<usize>,
    node_affinity_policy: Option<String>,
    node_taints_policy: Option<String>,
}

impl Terms {
    /// Reads `spec.affinity` and `spec.topologySpreadConstraints`. What cannot be read the API would have refused: it
    /// says nothing.
    pub(crate) fn read(speaker: &Speaker, affinity: &Value, spread: &Value) -> Terms {
        let mut terms = Terms::default();
        if !affinity["podAffinity"].is_null() || !affinity["podAntiAffinity"].is_null() {
            let affinity: Affinity = Affinity::deserialize(affinity).unwrap_or_default();
            speaker.near(&affinity, &mut terms);
        }
        if !spread.is_null() {
            let constraints: Vec<WireConstraint> = Vec::deserialize(spread).unwrap_or_default();
            terms.spread = constraints.iter().map(|wire| speaker.constraint(wire)).collect();
        }
        terms
    }
}

impl Speaker<'_> {
    fn near(&self, affinity: &Affinity, terms: &mut Terms) {
        let required = |sides: &Sides| {
            let list = sides.required_during_scheduling_ignored_during_execution.iter().flatten();
            list.map(|wire| self.part(wire)).collect::<Vec<_>>()
        };
        let together = required(&affinity.pod_affinity);
        for (key, text, part) in required(&affinity.pod_anti_affinity) {
            terms.apart.push(Term { key, peers: peers(vec![(text, part)], true) });
        }
        let preferred = |sides: &Sides, sign: i64, terms: &mut Terms| {
            for wire in sides.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let (key, text, part) = self.part(&wire.pod_affinity_term);
                terms.preferred.push((sign * wire.weight, Term { key, peers: peers(vec![(text, part)], true) }));
            }
        };
        preferred(&affinity.pod_affinity, 1, terms);
        preferred(&affinity.pod_anti_affinity, -1, terms);
        let forbid = terms.apart.iter().map(|term| claim(term.clone(), Effect::Forbids));
        let weigh = terms.preferred.iter().map(|(weight, term)| claim(term.clone(), Effect::Weighs(*weight)));
        let mut claims: Vec<Arc<Claim>> = forbid.chain(weigh).collect();
        if !together.is_empty() {
            // Whoever must be near others likes them to come near, if only a little.
            for wire in affinity.pod_affinity.required_during_scheduling_ignored_during_execution.iter().flatten() {
                let (key, text, part) = self.part(wire);
                claims.push(claim(Term { key, peers: peers(vec![(text, part)], true) }, Effect::Weighs(1)));
            }
            let keys = together.iter().map(|(key, ..)| key.clone()).collect();
            let peers = peers(together.into_iter().map(|(_, text, part)| (text, part)).collect(), true);
            let matches_self = peers.matches(self.namespace, self.labels, &BTreeMap::new());
            terms.together = Some(Together { keys, peers, matches_self });
        }
        terms.claims = claims;
    }

    /// A term's topology, what tells it from others, and whom it means.
    fn part(&self, wire: &WireTerm) -> (String, String, Part) {
        // What the label keys of a term add stands in its selector since the pod was made.
        let selector = &wire.label_selector;
        let mut namespaces = wire.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && wire.namespace_selector.is_null() {
            namespaces.insert(self.namespace.to_owned());
        }
        let text = json!([namespaces, wire.namespace_selector, selector]).to_string();
        let of_labels = (!wire.namespace_selector.is_null()).then(|| read(&wire.namespace_selector));
        (wire.topology_key.clone(), text, Part { namespaces, of_labels, pods: read(selector) })
    }

    fn constraint(&self, wire: &WireConstraint) -> Constraint {
        let selector = &wire.label_selector;
        let namespaces = BTreeSet::from([self.namespace.to_owned()]);
        let text = json!([namespaces, null, selector]).to_string();
        let peers = peers(vec![(text, Part { namespaces, of_labels: None, pods: read(selector) })], false);
        let matches_self = peers.matches(self.namespace, self.labels, &BTreeMap::new());
        Constraint {
            key: wire.topology_key.clone(),
            max_skew: wire.max_skew,
            is_hard: wire.when_unsatisfiable != "ScheduleAnyway",
            min_domains: wire.min_domains.unwrap_or(1),
            honors_affinity: wire.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: wire.node_taints_policy.as_deref() == Some("Honor"),
            peers,
            matches_self,
        }
    }
}

fn peers(parts: Vec<(String, Part)>, counts_ending: bool) -> Arc<Peers> {
    let (texts, parts): (Vec<String>, Vec<Part>) = parts.into_iter().unzip();
    Arc::new(Peers { text: format!("{counts_ending} {}", texts.join(" & ")), parts, counts_ending })
}

fn claim(term: Term, effect: Effect) -> Arc<Claim> {
    let text = format!("{effect:?} {} {}", term.key, term.peers.text);
    Arc::new(Claim { text, term, effect })
}

/// A label selector; one that is none selects nothing.
pub(crate) fn read(selector: &Value) -> LabelSelector {
    let mut errors = Errors::new();
    let read = LabelSelector::from_json(selector, &Path::root(), &mut errors);
    if errors.is_empty() { read } else { LabelSelector::nothing() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{Effect, Labels, Speaker, Terms};

    fn labels(list: &[(&str, &str)]) -> Labels {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_term_means_pods_of_its_namespaces_that_its_selector_selects() {
        let own = labels(&[("app", "web"), ("version", "2")]);
        let speaker = Speaker { namespace: "a", labels: &own };
        let term = |extra: serde_json::Value| {
            let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}});
            windlass_api::merge::merge(&mut term, extra);
            let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            Terms::read(&speaker, &affinity, &json!(null)).apart.remove(0)
        };
        // As the API stores them.
        let keys = |field: &str, operator: &str| {
            let own = json!([{"key": "version", "operator": operator, "values": ["2"]}]);
            json!({field: ["version"], "labelSelector": {"matchExpressions": own}})
        };
        let namespaces = BTreeMap::from([("a".to_owned(), Labels::new()), ("b".to_owned(), labels(&[("team", "x")]))]);
        let (web, other) = (labels(&[("app", "web"), ("version", "1")]), labels(&[("app", "db")]));
        for (extra, namespace, pod, expected) in [
            (json!({}), "a", &web, true),
            (json!({}), "a", &other, false),
            (json!({}), "b", &web, false),
            (json!({"namespaces": ["b"]}), "b", &web, true),
            (json!({"namespaces": ["b"]}), "a", &web, false),
            (json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}), "b", &web, true),
            (json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}), "a", &web, false),
            (json!({"namespaceSelector": {}}), "unheard-of", &web, true),
            (keys("matchLabelKeys", "In"), "a", &web, false),
            (keys("mismatchLabelKeys", "NotIn"), "a", &web, true),
            (json!({"labelSelector": null}), "a", &web, false),
        ] {
            assert_eq!(term(extra.clone()).peers.matches(namespace, pod, &namespaces), expected, "{extra} {namespace}");
        }
    }

    #[test]
    fn what_a_pod_says_of_others_holds_for_those_that_come_later() {
        let own = labels(&[("app", "web")]);
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}});
        let affinity = json!({
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": term}]},
        });
        let terms = Terms::read(&Speaker { namespace: "a", labels: &own }, &affinity, &json!(null));
        let effects: Vec<Effect> = terms.claims.iter().map(|claim| claim.effect).collect();
        assert_eq!(effects, [Effect::Forbids, Effect::Weighs(-7), Effect::Weighs(1)]);
        assert!(terms.together.is_some_and(|together| together.matches_self));
    }
}
