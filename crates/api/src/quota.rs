//! What an object uses of the quotas of its namespace, and which of them it counts against.
//!
//! Rules
//!   U1 objects    every object is one of its resource (`count/pods`), some also under their plain name (`pods`)
//!   U2 pods       use what their containers request and are limited to, and the overhead, until they have ended
//!   U3 services   use node ports and load balancers
//!   U4 claims     use storage, in all and of their class
//!   U5 scopes     a quota with scopes counts only what is in all of them
//!   U6 said       where a quota bounds what a pod may request, each of its containers says how much it does
//! Source: "Resource Quotas"; API reference, core/v1 ResourceQuota.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kind::{Kind, kinds};
use crate::quantity::{Notation, Quantity};
use crate::resources::pod;
use crate::resources::tree::Tree;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Kinds that quotas also count under their plain name.
const PLAIN: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// U1 to U4: what an object uses.
pub fn usage(kind: &Kind, object: &Value) -> Amounts {
    let one = Quantity::from_units(1, Notation::Decimal);
    let mut used = Amounts::from([(format!("count/{}", kind.qualified_plural()), one)]);
    if *kind == kinds::POD {
        if !has_ended(object) {
            used.insert("pods".to_owned(), one);
            used.extend(of_pod(&object["spec"]));
        }
        return used;
    }
    if kind.group.is_empty() && PLAIN.contains(&kind.plural.as_ref()) {
        used.insert(kind.plural.to_string(), one);
    }
    if *kind == kinds::SERVICE {
        used.extend(of_service(&object["spec"]));
    } else if kind.group.is_empty() && kind.kind == "PersistentVolumeClaim" {
        used.extend(of_claim(object, one));
    }
    used
}

fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"].text("phase"), "Failed" | "Succeeded")
}

/// U2.
fn of_pod(spec: &Value) -> Amounts {
    let mut used = Amounts::new();
    let overhead = pod::amounts(&spec["overhead"]);
    let is_compute = |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage");
    let mut requests = pod::together(spec, "requests");
    for (name, more) in &overhead {
        let slot = requests.entry(name.clone()).or_insert(Quantity::ZERO);
        *slot = *slot + *more;
    }
    for (name, amount) in requests {
        if is_compute(&name) || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod::together(spec, "limits").into_iter().filter(|(name, _)| is_compute(name)) {
        let more = overhead.get(&name).copied().unwrap_or(Quantity::ZERO);
        used.insert(format!("limits.{name}"), amount + more);
    }
    used
}

/// U3.
fn of_service(spec: &Value) -> Amounts {
    let ports = spec.items("ports");
    let (node_ports, balancers) = match spec.text("type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false)) => {
            (ports.iter().filter(|port| port.int("nodePort").unwrap_or(0) != 0).count(), 1)
        }
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    let count = |count: usize| Quantity::from_units(count as i64, Notation::Decimal);
    Amounts::from([
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

/// U4.
fn of_claim(claim: &Value, one: Quantity) -> Amounts {
    let spec = &claim["spec"];
    let class = match claim["metadata"]["annotations"].text(CLASS_ANNOTATION) {
        "" => spec.text("storageClassName"),
        class => class,
    };
    let mut used = Amounts::new();
    let storage = pod::amounts(&spec["resources"]["requests"]).remove("storage");
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
    }
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{prefix}/persistentvolumeclaims"), one);
        if let Some(storage) = storage {
            used.insert(format!("{prefix}/requests.storage"), storage);
        }
    }
    used
}

/// U5: whether a quota counts an object.
pub fn counts(quota: &Value, kind: &Kind, object: &Value) -> bool {
    let spec = &quota["spec"];
    let named = spec.items("scopes").iter().filter_map(Value::as_str);
    let selected = spec["scopeSelector"].items("matchExpressions");
    named.into_iter().all(|scope| is_in(scope, "Exists", &[], (kind, object)))
        && selected
            .iter()
            .all(|term| is_in(term.text("scopeName"), term.text("operator"), term.items("values"), (kind, object)))
}

fn is_in(scope: &str, operator: &str, values: &[Value], (kind, object): (&Kind, &Value)) -> bool {
    let spec = &object["spec"];
    let chosen = |class: &str| match operator {
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        "In" => values.iter().any(|value| value == class),
        "NotIn" => !values.iter().any(|value| value == class),
        _ => false,
    };
    let is_pod = *kind == kinds::POD;
    match scope {
        "VolumeAttributesClass" => {
            kind.kind == "PersistentVolumeClaim" && attributes_classes(object).into_iter().any(chosen)
        }
        "Terminating" => is_pod && spec.int("activeDeadlineSeconds").is_some(),
        "NotTerminating" => is_pod && spec.int("activeDeadlineSeconds").is_none(),
        "BestEffort" => is_pod && pod::quality(spec) == "BestEffort",
        "NotBestEffort" => is_pod && pod::quality(spec) != "BestEffort",
        "PriorityClass" => is_pod && chosen(spec.text("priorityClassName")),
        "CrossNamespacePodAffinity" => is_pod && looks_across_namespaces(spec),
        _ => false,
    }
}

/// The attributes class that a claim asks for, has, and is on its way to: it uses what each of them stands for.
fn attributes_classes(claim: &Value) -> [&str; 3] {
    let status = &claim["status"];
    [
        claim["spec"].text("volumeAttributesClassName"),
        status.text("currentVolumeAttributesClassName"),
        status["modifyVolumeStatus"].text("targetVolumeAttributesClassName"),
    ]
}

/// Whether a pod says where it runs by pods of other namespaces.
fn looks_across_namespaces(spec: &Value) -> bool {
    let is_across = |term: &Value| !term.items("namespaces").is_empty() || term.is_set("namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &spec["affinity"][*kind];
        let preferred = affinity.items("preferredDuringSchedulingIgnoredDuringExecution").iter();
        affinity.items("requiredDuringSchedulingIgnoredDuringExecution").iter().any(is_across)
            || preferred.map(|term| &term["podAffinityTerm"]).any(is_across)
    })
}

/// U6: what a pod does not say though a quota bounds it, as a sentence; `None` when it says everything.
pub fn unsaid<'a>(pod: &Value, bounded: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let spec = &pod["spec"];
    let containers = || spec.items("initContainers").iter().chain(spec.items("containers"));
    let mut missing = Vec::new();
    for resource in bounded {
        let (field, name) = resource.split_once('.').unwrap_or(("requests", resource));
        if !matches!(name, "cpu" | "memory") || !matches!(field, "requests" | "limits") {
            continue;
        }
        if spec["resources"].entries(field).contains_key(name) {
            continue;
        }
        let silent = containers().filter(|container| !container["resources"].entries(field).contains_key(name));
        let mut silent: Vec<&str> = silent.map(|container| container.text("name")).collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            missing.push(format!("{resource} for: {}", silent.join(",")));
        }
    }
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::{counts, unsaid, usage};
    use crate::kind::{Kind, kinds};
    use serde_json::{Value, json};

    fn check(kind: &Kind, object: Value, expected: &[(&str, &str)]) {
        let used = usage(kind, &object);
        let used: Vec<(String, String)> = used.into_iter().map(|(name, amount)| (name, amount.to_string())).collect();
        let used: Vec<(&str, &str)> = used.iter().map(|(name, amount)| (name.as_str(), amount.as_str())).collect();
        assert_eq!(used, expected);
    }

    fn pod(requests: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": {"cpu": "2"}}}],
            "overhead": {"cpu": "100m"}}})
    }

    #[test]
    fn u1_every_object_is_one() {
        check(&kinds::SECRET, json!({}), &[("count/secrets", "1"), ("secrets", "1")]);
        check(&kinds::DEPLOYMENT, json!({}), &[("count/deployments.apps", "1")]);
    }

    #[test]
    fn u2_a_pod_uses_what_it_requests_until_it_ends() {
        let mut running = pod(json!({"cpu": "1", "memory": "1Gi", "example.com/gpu": 1}));
        let expected = [
            ("count/pods", "1"),
            ("cpu", "1100m"),
            ("limits.cpu", "2100m"),
            ("memory", "1Gi"),
            ("pods", "1"),
            ("requests.cpu", "1100m"),
            ("requests.example.com/gpu", "1"),
            ("requests.memory", "1Gi"),
        ];
        check(&kinds::POD, running.clone(), &expected);
        running["status"]["phase"] = json!("Succeeded");
        check(&kinds::POD, running, &[("count/pods", "1")]);
    }

    #[test]
    fn u3_services_use_ports_and_balancers() {
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}});
        let used = |ports, balancers| {
            [
                ("count/services", "1"),
                ("services", "1"),
                ("services.loadbalancers", balancers),
                ("services.nodeports", ports),
            ]
        };
        check(&kinds::SERVICE, service("ClusterIP"), &used("0", "0"));
        check(&kinds::SERVICE, service("NodePort"), &used("2", "0"));
        check(&kinds::SERVICE, service("LoadBalancer"), &used("2", "1"));
    }

    #[test]
    fn u5_a_quota_counts_what_is_in_all_its_scopes() {
        let in_scope = |spec: Value, pod: &Value| counts(&json!({ "spec": spec }), &kinds::POD, pod);
        let (modest, idle) = (pod(json!({"cpu": "1"})), json!({"spec": {"containers": [{"name": "c"}]}}));
        assert!(
            in_scope(json!({}), &modest) && in_scope(json!({"scopes": ["NotBestEffort", "NotTerminating"]}), &modest)
        );
        assert!(
            in_scope(json!({"scopes": ["BestEffort"]}), &idle) && !in_scope(json!({"scopes": ["BestEffort"]}), &modest)
        );
        assert!(!in_scope(json!({"scopes": ["NotTerminating", "Terminating"]}), &modest));
        let classes = json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
        let mut high = idle.clone();
        high["spec"]["priorityClassName"] = json!("high");
        assert!(in_scope(classes.clone(), &high) && !in_scope(classes.clone(), &idle));
        assert!(!counts(&json!({ "spec": classes }), &kinds::SECRET, &json!({})), "scopes of pods count pods only");
    }

    #[test]
    fn u5_a_claim_is_in_the_attributes_class_it_asks_for_has_and_gets() {
        let claim = json!({"spec": {"volumeAttributesClassName": "asked"}, "status": {
            "currentVolumeAttributesClassName": "had", "modifyVolumeStatus": {"targetVolumeAttributesClassName": "gets"}}});
        let counted = |operator: &str, values: Value, claim: &Value| {
            let term = json!({"scopeName": "VolumeAttributesClass", "operator": operator, "values": values});
            let quota = json!({"spec": {"scopeSelector": {"matchExpressions": [term]}}});
            counts(&quota, &kinds::PERSISTENT_VOLUME_CLAIM, claim)
        };
        for (class, expected) in [("asked", true), ("had", true), ("gets", true), ("other", false)] {
            assert_eq!(counted("In", json!([class]), &claim), expected, "{class}");
        }
        assert!(!counted("Exists", json!([]), &json!({"spec": {}})) && counted("Exists", json!([]), &claim));
    }

    #[test]
    fn u6_what_is_bounded_is_said() {
        let silent =
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"limits": {"cpu": 1}}}]}});
        let bounded = ["limits.cpu", "pods", "requests.memory"];
        let expected = "must specify limits.cpu for: b; requests.memory for: a,b";
        assert_eq!(unsaid(&silent, bounded), Some(expected.to_owned()));
        assert_eq!(unsaid(&silent, ["pods"]), None);
    }
}
