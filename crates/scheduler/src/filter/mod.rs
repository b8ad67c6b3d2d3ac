//! What keeps a pod from a node. One file each; the order of the list is the order in which they are asked.
//!
//! The reasons are Kubernetes' own words, as they stand in its FailedScheduling events. A node that a pod names in
//! `spec.nodeName` is never asked: such a pod is bound already.

mod affinity;
mod device;
mod pod_affinity;
mod port;
mod resource;
mod spread;
mod taint;
mod unschedulable;
mod volume;

use std::borrow::Cow;

use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// Why a pod does not fit: one or more reasons, each counted by itself.
pub(crate) type Why = Vec<Cow<'static, str>>;

/// One filter.
pub(crate) struct Filter {
    /// What may make a pod fit that this filter refused.
    pub(crate) cured_by: Cure,
    /// Whether fewer pods on a node may make it fit.
    pub(crate) yields: bool,
    /// Whether the pod fits, as far as this filter goes.
    pub(crate) fits: fn(&Pod, &Near, &Node, &NodeFacts) -> Result<(), Why>,
}

/// What may change so that a refused pod fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cure {
    /// A node that is new or says something else of itself.
    NodeChanged,
    /// That, or a pod that leaves a node.
    PodLeft,
    /// That, or a pod that comes to one.
    PodsChanged,
}

/// All filters.
pub(crate) const LIST: [Filter; 10] = [
    Filter { cured_by: Cure::NodeChanged, yields: false, fits: unschedulable::fits },
    Filter { cured_by: Cure::NodeChanged, yields: false, fits: taint::fits },
    Filter { cured_by: Cure::NodeChanged, yields: false, fits: affinity::fits },
    Filter { cured_by: Cure::PodLeft, yields: false, fits: volume::fits },
    Filter { cured_by: Cure::PodLeft, yields: true, fits: port::fits },
    Filter { cured_by: Cure::PodLeft, yields: true, fits: resource::fits },
    Filter { cured_by: Cure::PodsChanged, yields: true, fits: spread::fits },
    Filter { cured_by: Cure::PodsChanged, yields: false, fits: pod_affinity::together },
    Filter { cured_by: Cure::PodLeft, yields: true, fits: pod_affinity::apart },
    // Last: it is dear.
    Filter { cured_by: Cure::NodeChanged, yields: false, fits: device::fits },
];

pub(crate) use affinity::{holds, suits};
pub(crate) use taint::tolerates;

fn refuse(why: &'static str) -> Result<(), Why> {
    Err(vec![Cow::Borrowed(why)])
}

/// The first filter that refuses, and its reasons.
pub(crate) fn check(pod: &Pod, near: &Near, node: &Node, facts: &NodeFacts) -> Result<(), (&'static Filter, Why)> {
    const FILTERS: &[Filter] = &LIST;
    for filter in FILTERS {
        (filter.fits)(pod, near, node, facts).map_err(|why| (filter, why))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::fixture::{node, pod};
    use crate::near::Near;
    use serde_json::{Value, json};

    /// Whether `spec` fits a node with `changes`, or why not.
    #[track_caller]
    fn fits(spec: Value, changes: Value, expected: &str) {
        let node = node("n1", changes.clone());
        let facts = node.facts.clone().expect("the fixture's node says something");
        let found = match check(&pod(spec.clone()), &Near::default(), &node, &facts) {
            Ok(()) => String::new(),
            Err((_, why)) => why.join(", "),
        };
        assert_eq!(found, expected, "{spec} on {changes}");
    }

    #[test]
    fn a_cordoned_node_takes_only_who_tolerates_it() {
        let cordoned = json!({"/spec/unschedulable": true});
        fits(json!({}), json!({}), "");
        fits(json!({}), cordoned.clone(), "node(s) were unschedulable");
        let tolerations = json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
        fits(json!({"tolerations": tolerations}), cordoned, "");
    }

    #[test]
    fn taints_are_named_with_their_value() {
        let taint = |effect: &str| json!({"/spec/taints": [{"key": "team", "value": "x", "effect": effect}]});
        let refused = "node(s) had untolerated taint {team: x}";
        fits(json!({}), taint("NoSchedule"), refused);
        fits(json!({}), taint("NoExecute"), refused);
        fits(json!({}), taint("PreferNoSchedule"), "");
        for (toleration, expected) in [
            (json!({"key": "team", "operator": "Exists"}), ""),
            (json!({"key": "team", "operator": "Equal", "value": "x", "effect": "NoSchedule"}), ""),
            (json!({"key": "team", "value": "y"}), refused),
            (json!({"key": "team", "value": "x", "effect": "NoExecute"}), refused),
            (json!({"operator": "Exists"}), ""),
        ] {
            fits(json!({"tolerations": [toleration]}), taint("NoSchedule"), expected);
        }
    }

    #[test]
    fn selectors_and_required_affinity_must_hold() {
        let refused = "node(s) didn't match Pod's node affinity/selector";
        let labelled = json!({"/metadata/labels": {"zone": "a", "size": "5"}});
        fits(json!({"nodeSelector": {"zone": "a"}}), labelled.clone(), "");
        fits(json!({"nodeSelector": {"zone": "b"}}), labelled.clone(), refused);
        let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let expression =
            |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        for (terms, expected) in [
            (json!([{"matchExpressions": [expression("zone", "In", &["a", "b"])]}]), ""),
            (json!([{"matchExpressions": [expression("zone", "NotIn", &["a"])]}]), refused),
            (json!([{"matchExpressions": [expression("size", "Gt", &["4"])]}]), ""),
            (json!([{"matchExpressions": [expression("size", "Lt", &["4"])]}]), refused),
            (
                json!([{"matchExpressions": [expression("zone", "In", &["b"])]}, {"matchExpressions": [expression("zone", "Exists", &[])]}]),
                "",
            ),
            (json!([{"matchFields": [expression("metadata.name", "In", &["n1"])]}]), ""),
            (json!([{"matchFields": [expression("metadata.name", "In", &["n2"])]}]), refused),
            (json!([{}]), refused),
            (json!([{"matchExpressions": [expression("zone", "Odd", &["a"])]}]), refused),
        ] {
            fits(required(terms), labelled.clone(), expected);
        }
    }

    #[test]
    fn a_port_of_the_node_is_given_once() {
        let port = |port: u16, address: &str, protocol: &str| json!({"containers": [{"ports": [{"containerPort": 1, "hostPort": port, "hostIP": address, "protocol": protocol}]}]});
        for (wanted, is_free) in [
            (port(80, "", "TCP"), false),
            (port(80, "10.0.0.1", "TCP"), false),
            (port(80, "10.0.0.2", "TCP"), true),
            (port(80, "", "UDP"), true),
            (port(81, "", "TCP"), true),
        ] {
            let mut node = node("n1", json!({}));
            node.put(&"a/q".into(), &pod(port(80, "10.0.0.1", "TCP")).footprint);
            let facts = node.facts.clone().expect("the fixture's node says something");
            let found = check(&pod(wanted.clone()), &Near::default(), &node, &facts);
            assert_eq!(found.is_ok(), is_free, "{wanted}");
            if let Err((_, why)) = found {
                assert_eq!(why, ["node(s) didn't have free ports for the requested pod ports"]);
            }
        }
    }

    #[test]
    fn what_is_not_there_is_named_resource_by_resource() {
        let asks = |requests: Value| json!({"containers": [{"resources": {"requests": requests}}]});
        fits(asks(json!({"cpu": "4", "memory": "8Gi"})), json!({}), "");
        fits(asks(json!({"cpu": "4001m"})), json!({}), "Insufficient cpu");
        fits(asks(json!({"cpu": "5", "memory": "9Gi"})), json!({}), "Insufficient cpu, Insufficient memory");
        fits(asks(json!({"ephemeral-storage": "1Ti"})), json!({}), "Insufficient ephemeral-storage");
        fits(asks(json!({"example.com/gpu": 1})), json!({}), "Insufficient example.com/gpu");
        fits(asks(json!({})), json!({"/status/allocatable/pods": "0"}), "Too many pods");
    }
}
