//! What whoever writes a pod or a template is warned of: it is valid, but hardly what was meant, or on its way out.
//!
//! Source: what Kubernetes 1.37 sends as `Warning` headers; KEP-1693.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::persistent_volume_claim;
use super::super::tree::Tree;
use super::annotation::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD};
use crate::field::Path;
use crate::name;
use crate::quantity::Quantity;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";
const NO_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// Labels of nodes that have newer names, since when, and these.
const OLD_NODE_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];
/// Annotations that do nothing any more.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
/// Sources of volumes that nothing mounts any more, or soon.
const OLD_SOURCES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What is found, in the order in which it is said.
struct Found(Vec<String>);

impl Found {
    fn add(&mut self, path: &Path, what: &str) {
        self.0.push(format!("{path}: {what}"));
    }
}

/// Of a pod, or of the template at `at`, which is not the root.
pub(in super::super) fn warnings(pod: &Value, at: &Path) -> Vec<String> {
    let (spec, mut found) = (&pod["spec"], Found(Vec::new()));
    let path = at.child("spec");
    of_place(spec, &path, &mut found);
    of_annotations(pod, &at.child("metadata").child("annotations"), &mut found);
    of_volumes(spec, &path, &mut found);
    of_twice(spec, &path, &mut found);
    for resource in ["memory", "ephemeral-storage"] {
        of_amount(&spec["overhead"], resource, &path.child("overhead"), &mut found);
    }
    of_containers(pod, at, &mut found);
    of_ports(spec, &path, &mut found);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        found.add(&path, "must be >= 0; negative values are invalid and will be treated as 1");
    }
    of_pod_terms(spec, &path.child("affinity"), &mut found);
    found.0
}

/// That a name which becomes part of a host's is no label of DNS.
pub(in super::super) fn of_name(object: &Value, used: &str) -> Option<String> {
    let reasons = name::label(object["metadata"].text("name"));
    let said = reasons.join(" ");
    (!reasons.is_empty()).then(|| {
        format!("metadata.name: {used}, which can result in surprising behavior; a DNS label is recommended: [{said}]")
    })
}

/// That a volume's source is on its way out.
pub(in super::super) fn of_source(kind: &str) -> Option<&'static str> {
    OLD_SOURCES.iter().find(|(old, _)| *old == kind).map(|(_, what)| *what)
}

/// The new name of a label of nodes.
pub(in super::super) fn new_node_label(key: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(old, ..)| *old == key).map(|(_, _, new)| *new)
}

/// What a label of a node is called by now.
pub(in super::super) fn of_node_label(key: &str) -> Option<String> {
    let (_, since, new) = OLD_NODE_LABELS.iter().find(|(old, ..)| *old == key)?;
    Some(format!("deprecated since {since}; use {new:?} instead"))
}

/// A term that selects nodes. `path` is its own.
pub(in super::super) fn of_node_term(term: &Value, path: &Path) -> Vec<String> {
    let expressions = term.items("matchExpressions").iter().enumerate();
    let old = expressions.filter_map(|(index, expression)| {
        let key = expression.text("key");
        let path = path.child("matchExpressions").index(index).child("key");
        of_node_label(key).map(|what| format!("{path}: {key} is {what}"))
    });
    old.collect()
}

fn of_place(spec: &Value, at: &Path, found: &mut Found) {
    for key in spec.entries("nodeSelector").keys() {
        if let Some(what) = of_node_label(key) {
            found.add(&at.child("nodeSelector").key(key), &what);
        }
    }
    let (node, path) = (&spec["affinity"]["nodeAffinity"], at.child("affinity").child("nodeAffinity"));
    let terms = path.child(REQUIRED).child("nodeSelectorTerms");
    for (index, term) in node[REQUIRED].items("nodeSelectorTerms").iter().enumerate() {
        found.0.extend(of_node_term(term, &terms.index(index)));
    }
    for (index, preferred) in node.items(PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index).child("preference");
        found.0.extend(of_node_term(&preferred["preference"], &path));
        for (index, expression) in preferred["preference"].items("matchExpressions").iter().enumerate() {
            let values = path.child("matchExpressions").index(index).child("values");
            for (index, value) in expression.items("values").iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                for reason in name::label_value(value) {
                    found.add(&values.index(index), &format!("{value} is invalid, {reason}"));
                }
            }
        }
    }
    for (index, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let (key, path) = (constraint.text("topologyKey"), at.child("topologySpreadConstraints").index(index));
        if let Some(what) = of_node_label(key) {
            found.add(&path.child("topologyKey"), &format!("{key} is {what}"));
        }
        if !constraint.is_set("labelSelector") {
            found.add(&path.child("labelSelector"), NO_SELECTOR);
        }
    }
}

fn of_annotations(pod: &Value, at: &Path, found: &mut Found) {
    let annotations = pod["metadata"].entries("annotations");
    for (key, what) in OLD_ANNOTATIONS.iter().filter(|(key, _)| annotations.contains_key(*key)) {
        found.add(&at.key(key), what);
    }
    if annotations.contains_key(SECCOMP_POD) && !pod["spec"]["securityContext"].is_set("seccompProfile") {
        found.add(&at.key(SECCOMP_POD), NO_SECCOMP);
    }
}

fn of_volumes(spec: &Value, at: &Path, found: &mut Found) {
    let (volumes, at) = (spec.items("volumes"), at.child("volumes"));
    for (index, volume) in volumes.iter().enumerate() {
        let path = at.index(index);
        for (kind, what) in OLD_SOURCES.iter().filter(|(kind, _)| volume.is_set(kind)) {
            let spelled = if *kind == "storageos" { "storageOS" } else { kind };
            found.add(&path.child(spelled), what);
        }
        let claim = &volume["ephemeral"]["volumeClaimTemplate"];
        let path = path.child("ephemeral").child("volumeClaimTemplate").child("spec");
        found.0.extend(persistent_volume_claim::size_warning(&claim["spec"], &path));
    }
    let projected = |volume: &Value| volume["projected"].items("sources").to_vec();
    let tokens: BTreeSet<String> = volumes
        .iter()
        .flat_map(projected)
        .filter(|source| source.is_set("serviceAccountToken"))
        .map(|source| source["serviceAccountToken"].text("path").to_owned())
        .collect();
    for (index, volume) in volumes.iter().enumerate().filter(|_| !tokens.is_empty()) {
        let path = at.index(index).child("projected").child("sources");
        for source in volume["projected"].items("sources") {
            for (kind, spelled) in [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")] {
                for (index, item) in source[kind].items("items").iter().enumerate() {
                    if tokens.contains(item.text("path")) {
                        let path = path.child(spelled).index(index);
                        let what = format!("has duplicated path with ServiceAccountToken {:?}", item.text("path"));
                        found.add(&path, &what);
                    }
                }
            }
        }
    }
}

/// What is there twice in lists where only one of them counts.
fn of_twice(spec: &Value, at: &Path, found: &mut Found) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut seen = BTreeSet::new();
        for (index, item) in spec.items(list).iter().enumerate() {
            let (text, path) = (item.text(field), at.child(list).index(index).child(field));
            if !seen.insert(text) {
                found.add(&path, &format!("duplicate {field} {text:?}"));
            }
        }
    }
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            found.add(&at.child("imagePullSecrets").index(index).child("name"), "invalid empty name \"\"");
        }
    }
}

/// Bytes come whole.
fn of_amount(amounts: &Value, resource: &str, at: &Path, found: &mut Found) {
    let Some(amount) = amounts.get(resource).and_then(|amount| Quantity::from_json(amount).ok()) else { return };
    if Quantity::from_units(amount.units(), amount.notation()) != amount {
        let shown = amount.to_string();
        found.add(&at.key(resource), &format!("fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

fn of_containers(pod: &Value, at: &Path, found: &mut Found) {
    let (annotations, spec) = (pod["metadata"].entries("annotations"), &pod["spec"]);
    let annotations_path = at.child("metadata").child("annotations");
    for (list, index, container) in super::containers(spec) {
        let path = at.child("spec").child(list).index(index);
        let (name, context) = (container.text("name"), &container["securityContext"]);
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if annotations.contains_key(&key) && !context.is_set("seccompProfile") {
            found.add(&annotations_path.key(&key), NO_SECCOMP);
        }
        let key = format!("{APP_ARMOR}{name}");
        let has_profile = context.is_set("appArmorProfile") || spec["securityContext"].is_set("appArmorProfile");
        if annotations.contains_key(&key) && !has_profile {
            let what = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            found.add(&annotations_path.key(&key), what);
        }
        for resource in ["memory", "ephemeral-storage"] {
            for field in ["limits", "requests"] {
                let path = path.child("resources").child(field);
                of_amount(&container["resources"][field], resource, &path, found);
            }
        }
        of_variables(container, &path.child("env"), found);
    }
}

/// A variable that is said again may speak of what it was; else what was said first is lost.
fn of_variables(container: &Value, at: &Path, found: &mut Found) {
    let mut seen = BTreeSet::new();
    for (index, variable) in container.items("env").iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        if variable.is_set("valueFrom") || value == reference || !value.contains(&reference) {
            let what = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            found.add(&at.index(index), &what);
        }
    }
}

fn of_ports(spec: &Value, at: &Path, found: &mut Found) {
    let mut all: BTreeMap<(i64, &str), Vec<(Path, &Value)>> = BTreeMap::new();
    for (list, index, container) in super::containers(spec) {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let path = at.child(list).index(index).child("ports").index(port_index);
            let (ip, number) = (port.text("hostIP"), port.int("hostPort").unwrap_or(0));
            if !ip.is_empty() && number == 0 {
                found.add(&path, &format!("hostIP set without hostPort: {port}"));
            }
            let others = all.entry((port.int("containerPort").unwrap_or(0), port.text("protocol"))).or_default();
            for (other_path, other) in others.iter() {
                let (other_ip, other_number) = (other.text("hostIP"), other.int("hostPort").unwrap_or(0));
                let what = if (ip, number) == (other_ip, other_number) {
                    "duplicate"
                } else if number == 0 || other_number == 0 {
                    "overlapping"
                } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                found.add(&path, &format!("{what} port definition with {other_path}"));
            }
            others.push((path, port));
        }
    }
}

fn of_pod_terms(spec: &Value, at: &Path, found: &mut Found) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (&spec["affinity"][kind], at.child(kind));
        for (index, term) in terms.items(REQUIRED).iter().enumerate() {
            if !term.is_set("labelSelector") {
                found.add(&path.child(REQUIRED).index(index).child("labelSelector"), NO_SELECTOR);
            }
        }
        for (index, preferred) in terms.items(PREFERRED).iter().enumerate() {
            if !preferred["podAffinityTerm"].is_set("labelSelector") {
                let path = path.child(PREFERRED).index(index).child("podAffinityTerm");
                found.add(&path.child("labelSelector"), NO_SELECTOR);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{of_name, warnings};
    use crate::field::Path;
    use serde_json::{Value, json};

    fn check(pod: Value, expected: &[&str]) {
        let found = warnings(&pod, &Path::new("template"));
        assert_eq!(found, expected, "{pod}");
    }

    #[test]
    fn a_plain_pod_warns_of_nothing() {
        let spec = json!({"containers": [{"name": "c", "image": "a", "env": [{"name": "A", "value": "x"}, {"name": "A", "value": "$(A)y"}],
            "resources": {"limits": {"memory": "1Gi"}}}]});
        check(json!({"spec": spec}), &[]);
        assert_eq!(of_name(&json!({"metadata": {"name": "web-1"}}), ""), None);
        let warned = of_name(&json!({"metadata": {"name": "web.1"}}), "this is used in the Pod's hostname");
        let expected = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS \
                        label is recommended: [must not contain dots]";
        assert_eq!(warned.as_deref(), Some(expected));
    }

    #[test]
    fn of_where_it_runs() {
        let old = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "In", "values": ["a b"]}]});
        check(
            json!({"spec": {"nodeSelector": {"beta.kubernetes.io/arch": "amd64"},
                "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": old}]},
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
                "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]}}),
            &[
                "template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                "template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: a b is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                "template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
                "template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
            ],
        );
    }

    #[test]
    fn of_what_is_on_its_way_out() {
        check(
            json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": "",
                    "seccomp.security.alpha.kubernetes.io/pod": "unconfined", "container.apparmor.security.beta.kubernetes.io/c": ""}},
                "spec": {"volumes": [{"name": "a", "gitRepo": {}}, {"name": "b", "storageos": {}}], "containers": [{"name": "c"}]}}),
            &[
                "template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
                "template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                "template.spec.volumes[0].gitRepo: deprecated in v1.11",
                "template.spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+",
                "template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
            ],
        );
    }

    #[test]
    fn of_what_is_said_twice_or_in_parts() {
        let sources = json!([{"serviceAccountToken": {"path": "t"}}, {"secret": {"items": [{"path": "t"}]}}]);
        check(
            json!({"spec": {"terminationGracePeriodSeconds": -1, "hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}],
                "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}], "overhead": {"memory": "100m"},
                "volumes": [{"name": "v", "projected": {"sources": sources}}],
                "containers": [{"name": "c", "resources": {"limits": {"memory": "500m"}}, "env": [{"name": "A"}, {"name": "A", "value": "x"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 80},
                        {"containerPort": 80, "protocol": "TCP", "hostPort": 80, "hostIP": "10.0.0.1"}, {"containerPort": 80, "protocol": "TCP"}]}]}}),
            &[
                "template.spec.volumes[0].projected.sources.secrets[0]: has duplicated path with ServiceAccountToken \"t\"",
                "template.spec.hostAliases[1].ip: duplicate ip \"10.0.0.1\"",
                "template.spec.imagePullSecrets[1].name: duplicate name \"a\"",
                "template.spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "template.spec.overhead[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "template.spec.containers[0].resources.limits[memory]: fractional byte value \"500m\" is invalid, must be an integer",
                "template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "template.spec.containers[0].ports[1]: overlapping port definition with template.spec.containers[0].ports[0]",
                "template.spec.containers[0].ports[2]: overlapping port definition with template.spec.containers[0].ports[0]",
                "template.spec.containers[0].ports[2]: dangerously ambiguous port definition with template.spec.containers[0].ports[1]",
                "template.spec.containers[0].ports[3]: duplicate port definition with template.spec.containers[0].ports[0]",
                "template.spec.containers[0].ports[3]: overlapping port definition with template.spec.containers[0].ports[1]",
                "template.spec.containers[0].ports[3]: overlapping port definition with template.spec.containers[0].ports[2]",
                "template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ],
        );
    }
}
