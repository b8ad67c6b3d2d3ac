//! Whether this node takes a pod that was bound to it: a pure function of the pod and of what the node is.
//!
//! Goal        a pod that cannot run here as it asks is refused once, with the reason, and never begun
//! Relies on   `budget` for what other pods have been promised
//!
//! Rules
//!   A1 system     only pods for Linux
//!   A2 sysctls    kernel parameters of the pod's own: the safe ones, and those the node was told to allow
//!   A3 AppArmor   a profile is not asked for where the kernel has none
//!   A4 labels     the node is one that the pod's selector and required affinity choose
//!   A5 pressure   a node short of something takes only pods that are not the cause; of memory: none that promise nothing.
//!                 Critical and static pods come all the same
//! Not here       how much room there is (budget); what else a security context may ask (steps/security)
//! Source: Kubernetes documentation, "Using sysctls in a Kubernetes Cluster", "Node-pressure Eviction"; API reference.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::selector::read_expression;
use windlass_api::types::core;

use crate::steps::resources::{self, Quality};

/// Kernel parameters that belong to the pod alone and cannot harm others.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why a pod is not taken: it fails with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In one word, as the pod's status has it.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What the node is, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct NodeView<'a> {
    /// The Node's name.
    pub name: &'a str,
    /// The Node's labels; `None` while the Node has not been seen, and then its pods are believed.
    pub labels: Option<BTreeMap<String, String>>,
    /// Kernel parameters beyond the safe ones; one that ends in `*` stands for all that begin so.
    pub unsafe_sysctls: &'a [String],
    /// The kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// What the node is short of: `MemoryPressure`, …
    pub pressure: Vec<&'static str>,
    /// The pod is one that a file of the machine says.
    pub is_static: bool,
}

/// The first rule the pod breaks.
pub fn refusal(spec: &core::PodSpec, view: &NodeView) -> Option<Refusal> {
    let rules: [fn(&core::PodSpec, &NodeView) -> Option<Refusal>; 5] = [system, sysctls, app_armor, labels, pressure];
    rules.into_iter().find_map(|rule| rule(spec, view))
}

fn refuse(reason: &'static str, message: impl Into<String>) -> Option<Refusal> {
    Some(Refusal { reason, message: message.into() })
}

/// A1.
fn system(spec: &core::PodSpec, _: &NodeView) -> Option<Refusal> {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None | Some("" | "linux") => None,
        Some(_) => refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"),
    }
}

/// A2.
fn sysctls(spec: &core::PodSpec, view: &NodeView) -> Option<Refusal> {
    let context = spec.security_context.as_ref()?;
    context.sysctls.iter().flatten().find_map(|sysctl| {
        let name = sysctl_name(&sysctl.name);
        let allows = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => &name == pattern,
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !view.unsafe_sysctls.iter().any(allows) {
            return refuse("SysctlForbidden", format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        let is_net = name.starts_with("net.");
        let shares = if is_net { spec.host_network } else { spec.host_ipc };
        let what = if is_net { "net" } else { "ipc" };
        let why = format!("forbidden sysctl: {:?} not allowed with host {what} enabled", sysctl.name);
        (shares == Some(true)).then_some(Refusal { reason: "SysctlForbidden", message: why })
    })
}

/// Names may be written with slashes; what is then a dot is part of a name.
pub fn sysctl_name(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// A3.
fn app_armor(spec: &core::PodSpec, view: &NodeView) -> Option<Refusal> {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = all.filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let asks = of_pod.into_iter().chain(own).any(|profile| profile.type_ != "Unconfined");
    match asks && !view.app_armor {
        true => refuse("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"),
        false => None,
    }
}

/// A4.
fn labels(spec: &core::PodSpec, view: &NodeView) -> Option<Refusal> {
    let labels = view.labels.as_ref()?;
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = required.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let chosen = required.is_none_or(|required| {
        let terms = serde_json::to_value(&required.node_selector_terms).unwrap_or_default();
        terms.as_array().into_iter().flatten().any(|term| term_fits(term, labels, view.name))
    });
    match selected && chosen {
        true => None,
        false => {
            refuse("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
        }
    }
}

/// An empty term chooses nothing.
fn term_fits(term: &Value, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let mut errors = Errors::new();
    let mut fits = |list: &str, find: &dyn Fn(&str) -> Option<String>| {
        let all: Vec<Value> = term[list].as_array().cloned().unwrap_or_default();
        let holds = all.iter().all(|expression| {
            let read = read_expression(expression, &Path::root(), &mut errors);
            read.is_some_and(|asked| asked.matches(find(&asked.key).as_deref()))
        });
        (holds, !all.is_empty())
    };
    let by_label = fits("matchExpressions", &|key| labels.get(key).cloned());
    let by_field = fits("matchFields", &|key| (key == "metadata.name").then(|| name.to_owned()));
    by_label.0 && by_field.0 && (by_label.1 || by_field.1)
}

/// A5.
fn pressure(spec: &core::PodSpec, view: &NodeView) -> Option<Refusal> {
    let is_critical = spec.priority >= Some(resources::CRITICAL_PRIORITY);
    if view.pressure.is_empty() || is_critical || view.is_static {
        return None;
    }
    let only_memory = view.pressure == ["MemoryPressure"];
    let promises = resources::quality(spec) != Quality::BestEffort;
    let tolerates = || {
        let mut all = spec.tolerations.iter().flatten();
        all.any(|toleration| {
            let (key, effect) = (toleration.key.as_deref().unwrap_or_default(), toleration.effect.as_deref());
            (key.is_empty() || key == "node.kubernetes.io/memory-pressure") && effect != Some("NoExecute")
        })
    };
    match only_memory && (promises || tolerates()) {
        true => None,
        false => refuse("Evicted", format!("The node had condition: [{}]. ", view.pressure.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeView, refusal, sysctl_name};
    use serde_json::{Value, json};
    use windlass_api::types::core;

    fn check(mut spec: Value, view: &NodeView) -> Option<(&'static str, String)> {
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "a"}]);
        }
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        refusal(&spec, view).map(|refusal| (refusal.reason, refusal.message))
    }

    fn reason(spec: Value, view: &NodeView) -> &'static str {
        check(spec, view).map_or("", |(reason, _)| reason)
    }

    #[test]
    fn a1_pods_for_other_systems_are_refused() {
        assert_eq!(reason(json!({"os": {"name": "linux"}}), &NodeView::default()), "");
        assert_eq!(reason(json!({"os": {"name": "windows"}}), &NodeView::default()), "PodOSNotSupported");
    }

    #[test]
    fn a2_unsafe_sysctls_are_refused_unless_allowed() {
        let allowed = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned()];
        let open = NodeView { unsafe_sysctls: &allowed, ..NodeView::default() };
        let with = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        assert_eq!(reason(with("kernel.shm_rmid_forced"), &NodeView::default()), "");
        let refused = check(with("kernel.msgmax"), &NodeView::default());
        assert_eq!(
            refused,
            Some(("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted".to_owned()))
        );
        for name in ["kernel.msgmax", "net.core.somaxconn", "net/core/somaxconn"] {
            assert_eq!(reason(with(name), &open), "", "{name}");
        }
        assert_eq!(reason(with("net.core.other"), &open), "SysctlForbidden");
        let mut shared = with("net.ipv4.tcp_syncookies");
        shared["hostNetwork"] = json!(true);
        assert_eq!(reason(shared, &NodeView::default()), "SysctlForbidden");
        assert_eq!(sysctl_name("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    }

    #[test]
    fn a3_profiles_are_refused_where_the_kernel_has_none() {
        let with = |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}});
        assert_eq!(reason(with("Unconfined"), &NodeView::default()), "");
        assert_eq!(reason(with("RuntimeDefault"), &NodeView::default()), "AppArmor");
        assert_eq!(reason(with("RuntimeDefault"), &NodeView { app_armor: true, ..NodeView::default() }), "");
        let own = json!({"containers": [{"name": "a", "securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}}}]});
        assert_eq!(reason(own, &NodeView::default()), "AppArmor");
    }

    #[test]
    fn a4_a_node_the_pod_does_not_choose_refuses_it() {
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        let view = NodeView { name: "n1", labels: Some(labels), ..NodeView::default() };
        let affinity = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        let rows = [
            (json!({"nodeSelector": {"disk": "ssd"}}), ""),
            (json!({"nodeSelector": {"disk": "hdd"}}), "NodeAffinity"),
            (affinity(json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]})), ""),
            (affinity(json!({"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]})), "NodeAffinity"),
            (affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})), ""),
            (
                affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]})),
                "NodeAffinity",
            ),
            (affinity(json!({})), "NodeAffinity"),
        ];
        for (spec, expected) in rows {
            assert_eq!(reason(spec.clone(), &view), expected, "{spec}");
        }
        assert_eq!(reason(json!({"nodeSelector": {"disk": "hdd"}}), &NodeView::default()), "", "not seen yet");
    }

    #[test]
    fn a5_a_node_under_pressure_takes_only_what_is_not_the_cause() {
        let (memory, disk) = (vec!["MemoryPressure"], vec!["DiskPressure"]);
        let view = |pressure: &Vec<&'static str>| NodeView { pressure: pressure.clone(), ..NodeView::default() };
        let burstable = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]});
        let critical = json!({"priority": 2_000_000_000});
        let rows = [
            (json!({}), &memory, "Evicted"),
            (burstable.clone(), &memory, ""),
            (
                json!({"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]}),
                &memory,
                "",
            ),
            (burstable, &disk, "Evicted"),
            (critical, &disk, ""),
        ];
        for (spec, pressure, expected) in rows {
            assert_eq!(reason(spec.clone(), &view(pressure)), expected, "{spec} {pressure:?}");
        }
        assert_eq!(reason(json!({}), &NodeView { is_static: true, ..view(&memory) }), "");
    }
}
