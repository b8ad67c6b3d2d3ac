//! What makes one fitting node better than another. One file each; a node's score is the weighted sum.

mod affinity;
mod image;
mod pod_affinity;
mod resource;
mod spread;
mod taint;
mod topology;

use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// The best that a score can be.
const BEST: i64 = 100;

/// One score.
pub(crate) struct Score {
    /// Its name in the reason for a placement.
    pub(crate) name: &'static str,
    weight: i64,
    scale: Scale,
    rate: fn(&Pod, &Near, &Node, &NodeFacts) -> i64,
}

/// How raw ratings become 0 to `BEST`.
enum Scale {
    /// They are already.
    AsIs,
    /// The highest becomes `BEST`.
    MoreIsBetter,
    /// Zero becomes `BEST`, the highest zero.
    LessIsBetter,
    /// The lowest becomes zero and the highest `BEST`; where all are alike they count nothing.
    Range,
}

/// All scores, with Kubernetes' default weights where it has the same one.
pub(crate) const LIST: [Score; 8] = [
    Score { name: "free", weight: 1, scale: Scale::AsIs, rate: resource::least_taken },
    Score { name: "balanced", weight: 1, scale: Scale::AsIs, rate: resource::balanced },
    Score { name: "preferred", weight: 2, scale: Scale::MoreIsBetter, rate: affinity::rate },
    Score { name: "untainted", weight: 3, scale: Scale::LessIsBetter, rate: taint::rate },
    Score { name: "spread", weight: 2, scale: Scale::LessIsBetter, rate: spread::rate },
    Score { name: "near", weight: 2, scale: Scale::Range, rate: pod_affinity::rate },
    Score { name: "even", weight: 2, scale: Scale::LessIsBetter, rate: topology::rate },
    Score { name: "image", weight: 1, scale: Scale::AsIs, rate: image::rate },
];

/// The index of the best node, its total, and what each score gave it. Of equals the first is taken.
pub(crate) fn best(pod: &Pod, near: &Near, nodes: &[(&Node, &NodeFacts)]) -> Option<(usize, i64, [i64; LIST.len()])> {
    let mut parts = vec![[0; LIST.len()]; nodes.len()];
    for (index, score) in LIST.iter().enumerate() {
        let raw: Vec<i64> = nodes.iter().map(|(node, facts)| (score.rate)(pod, near, node, facts)).collect();
        let highest = raw.iter().copied().max().unwrap_or(0);
        let lowest = raw.iter().copied().min().unwrap_or(0);
        for (part, rating) in parts.iter_mut().zip(raw) {
            part[index] = match score.scale {
                Scale::AsIs => rating,
                Scale::MoreIsBetter if highest == 0 => 0,
                Scale::MoreIsBetter => rating * BEST / highest,
                Scale::LessIsBetter if highest == 0 => BEST,
                Scale::LessIsBetter => BEST - rating * BEST / highest,
                Scale::Range if highest == lowest => 0,
                Scale::Range => (rating - lowest) * BEST / (highest - lowest),
            };
        }
    }
    let total = |part: &[i64; LIST.len()]| part.iter().zip(&LIST).map(|(part, score)| part * score.weight).sum::<i64>();
    let rated = parts.iter().enumerate().map(|(index, part)| (index, total(part), *part));
    rated.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::best;
    use crate::fixture::{node, pod};
    use crate::near::Near;
    use crate::node::Node;
    use serde_json::{Value, json};

    #[track_caller]
    fn picks(spec: Value, nodes: &[Node], expected: &str) {
        let pod = pod(spec);
        let nodes: Vec<_> = nodes.iter().map(|node| (node, node.facts.as_ref().expect("facts"))).collect();
        let (index, ..) = best(&pod, &Near::default(), &nodes).expect("there are nodes");
        assert_eq!(nodes[index].0.name, expected);
    }

    fn busy(name: &str, cpu: &str) -> Node {
        let mut node = node(name, json!({}));
        let requests = json!({"cpu": cpu, "memory": "1Gi"});
        node.put(&"a/q".into(), &pod(json!({"containers": [{"resources": {"requests": requests}}]})).footprint);
        node
    }

    #[test]
    fn the_emptier_node_is_better() {
        picks(json!({}), &[busy("full", "3"), busy("empty", "1")], "empty");
        picks(json!({}), &[busy("first", "1"), busy("second", "1")], "first");
    }

    #[test]
    fn preferred_affinity_outweighs_a_little_room() {
        let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}});
        let mut ssd = busy("ssd", "2");
        ssd.facts.as_mut().expect("facts").labels.insert("disk".to_owned(), "ssd".to_owned());
        picks(preferred, &[busy("plain", "1"), ssd], "ssd");
    }

    #[test]
    fn a_preferred_taint_is_avoided() {
        let tainted = node("tainted", json!({"/spec/taints": [{"key": "old", "effect": "PreferNoSchedule"}]}));
        picks(json!({}), &[tainted.clone(), busy("plain", "1")], "plain");
        picks(
            json!({"tolerations": [{"key": "old", "operator": "Exists"}]}),
            &[tainted, busy("plain", "1")],
            "tainted",
        );
    }

    #[test]
    fn pods_of_one_owner_are_spread() {
        let owned = |name: &str| {
            let mut node = node(name, json!({}));
            let mut other = (*pod(json!({})).footprint).clone();
            other.owner = "set".to_owned();
            node.put(&"a/q".into(), &other.into());
            node
        };
        let mut crowded = owned("crowded");
        crowded.put(&"a/r".into(), &crate::pod::Footprint { owner: "set".to_owned(), ..Default::default() }.into());
        let mut pod = pod(json!({}));
        pod.footprint = crate::pod::Footprint { owner: "set".to_owned(), ..Default::default() }.into();
        let nodes = [crowded, owned("roomy")];
        let nodes: Vec<_> = nodes.iter().map(|node| (node, node.facts.as_ref().expect("facts"))).collect();
        assert_eq!(best(&pod, &Near::default(), &nodes).map(|(index, ..)| nodes[index].0.name.as_str()), Some("roomy"));
    }

    #[test]
    fn a_node_that_has_the_image_is_better() {
        let with_image = node("has", json!({"/status/images": [{"names": ["web:1"], "sizeBytes": 800 << 20}]}));
        picks(json!({"containers": [{"image": "web:1"}]}), &[node("plain", json!({})), with_image], "has");
    }
}
