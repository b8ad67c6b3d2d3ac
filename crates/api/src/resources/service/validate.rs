//! What a service may say.
//!
//! Rules
//!   S1 ports      at least one unless headless or a name only; named if several; each number and protocol once
//!   S2 address    IPv4, None or left to the server; stays once it is set
//!   S3 type       known, and only what belongs to it is set
//!   S4 outside    external addresses are ordinary ones; a name is a DNS name; ranges are networks
//!   S5 traffic    goes where it may: policies are known, and there where they say something
//!   S6 hints      the old and the new annotation say the same
//!   U1 addresses  stay, but for a second one that is added or given up
//!   U2 families   likewise
//!   U3 balancer   its class stays, and so does the port where it asks for health
//!   L1 status     of a load balancer only, with addresses or names
//! Not here        whether an address or a node port is free and in range (apiserver: allocation)
//! Source: API reference, core/v1 Service.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::check::{self, named, network, optional_word, required_word, within};
use super::super::metadata::validate_labels;
use super::super::tree::Tree;
use super::defaults::{has_cluster_ip, is_external, is_headless, needs_health_check};
use crate::field::{Errors, Path};
use crate::name;

/// Seconds that a client may keep its endpoint: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";
const MODE_ANNOTATION: &str = "service.kubernetes.io/topology-mode";
const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// S1 to S6.
pub(super) fn validate(service: &Value, errors: &mut Errors) {
    let (spec, at) = (&service["spec"], Path::new("spec"));
    validate_hints(service, errors);
    if spec.items("ports").is_empty() && !is_headless(spec) && spec.text("type") != "ExternalName" {
        errors.required(&at.child("ports"), "");
    }
    validate_type(spec, &at, errors);
    validate_ports(spec, &at.child("ports"), errors);
    validate_labels(spec.entries("selector"), &at.child("selector"), errors);
    validate_affinity(spec, &at, errors);
    validate_cluster_ips(spec, &at, errors);
    for (index, address) in spec.items("externalIPs").iter().enumerate() {
        let path = at.child("externalIPs").index(index);
        if let Some(address) = check::address(address.as_str().unwrap_or_default(), &path, errors) {
            check::ordinary_address(address, &path, errors);
        }
    }
    required_word(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &at, errors);
    validate_numbers(spec, &at.child("ports"), errors);
    validate_source_ranges(service, &at, errors);
    validate_balancer(spec, &at, errors);
    validate_traffic(spec, &at, errors);
}

/// S6: the old and the new annotation say the same.
fn validate_hints(service: &Value, errors: &mut Errors) {
    let annotations = service["metadata"].entries("annotations");
    if let (Some(old), Some(new)) = (annotations.get(HINTS_ANNOTATION), annotations.get(MODE_ANNOTATION))
        && old != new
    {
        let path = Path::new("metadata").child("annotations").key(MODE_ANNOTATION);
        let detail = format!("must match annotations[{HINTS_ANNOTATION}] when both are specified");
        errors.invalid(&path, new.clone(), &detail);
    }
}

/// S3.
fn validate_type(spec: &Value, at: &Path, errors: &mut Errors) {
    let kind = spec.text("type");
    if is_headless(spec) && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.invalid(&at.child("clusterIPs").index(0), "None", &detail);
    }
    if kind != "ExternalName" {
        return;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        if !spec.items(field).is_empty() {
            errors.forbidden(&at.child(field), "may not be set for ExternalName services");
        }
    }
    if spec.is_set("ipFamilyPolicy") {
        errors.forbidden(&at.child("ipFamilyPolicy"), "may not be set for ExternalName services");
    }
    let (external, path) = (spec.text("externalName"), at.child("externalName"));
    match external.strip_suffix('.').unwrap_or(external) {
        "" => errors.required(&path, ""),
        external => named(name::subdomain, external, &path, errors),
    }
}

/// S1.
fn validate_ports(spec: &Value, at: &Path, errors: &mut Errors) {
    let ports = spec.items("ports");
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = at.index(index);
        match port.text("name") {
            "" if ports.len() > 1 => errors.required(&path.child("name"), ""),
            "" => {}
            name => {
                named(name::label, name, &path.child("name"), errors);
                if !names.insert(name) {
                    errors.duplicate(&path.child("name"), name);
                }
            }
        }
        check::port(port, "port", &path, errors);
        required_word(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        if port.is_set("targetPort") {
            check::port(port, "targetPort", &path, errors);
        }
        if port.is_set("appProtocol") {
            named(name::label_key, port.text("appProtocol"), &path.child("appProtocol"), errors);
        }
    }
}

/// S1: what clients and nodes tell ports by.
fn validate_numbers(spec: &Value, at: &Path, errors: &mut Errors) {
    let ports = spec.items("ports");
    let node_port = |port: &Value| port.int("nodePort").unwrap_or(0);
    let given = || ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0);
    for (index, _) in given().filter(|_| spec.text("type") == "ClusterIP") {
        let path = at.index(index).child("nodePort");
        errors.forbidden(&path, "may not be used when `type` is 'ClusterIP'");
    }
    let mut seen = BTreeSet::new();
    for (index, port) in given() {
        within(port, "nodePort", check::PORTS, &at.index(index), errors);
        if !seen.insert((port.text("protocol"), node_port(port))) {
            errors.duplicate(&at.index(index).child("nodePort"), node_port(port));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (protocol, number) = (port.text("protocol"), port.int("port").unwrap_or(0));
        if !seen.insert((protocol, number)) {
            errors.duplicate(&at.index(index), json!({"port": number, "protocol": protocol}));
        }
    }
}

fn validate_affinity(spec: &Value, at: &Path, errors: &mut Errors) {
    const NEEDED: &str = "when session affinity type is ClientIP";
    required_word(spec, "sessionAffinity", &["ClientIP", "None"], at, errors);
    let (config, path) = (&spec["sessionAffinityConfig"], at.child("sessionAffinityConfig"));
    match spec.text("sessionAffinity") {
        "None" if config.is_object() => {
            errors.forbidden(&path, "must not be set when session affinity is None");
        }
        "ClientIP" => {
            let path = path.child("clientIP").child("timeoutSeconds");
            match config["clientIP"].int("timeoutSeconds") {
                None => errors.required(&path, NEEDED),
                Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errors.invalid(&path, seconds, &detail);
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

/// S2.
fn validate_cluster_ips(spec: &Value, at: &Path, errors: &mut Errors) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let (all, path, one) = (spec.items("clusterIPs"), at.child("clusterIPs"), spec.text("clusterIP"));
    let given = || spec["clusterIPs"].clone();
    match (one, all.first()) {
        ("", None) => {}
        ("", Some(_)) => errors.invalid(&path, given(), "must be empty when `clusterIP` is not specified"),
        (_, None) => errors.required(&path, ""),
        (one, Some(first)) if first != one => errors.invalid(&path, given(), "first value must match `clusterIP`"),
        _ => {}
    }
    validate_families(spec, at, errors);
    let before = errors.len();
    for (index, address) in all.iter().enumerate() {
        match address.as_str().unwrap_or_default() {
            "None" if index == 0 && all.len() == 1 => {}
            "None" if index == 0 => errors.invalid(&path, given(), "'None' must be the first and only value"),
            address => drop(check::address(address, &path.index(index), errors)),
        }
    }
    let are_well = errors.len() == before;
    if all.len() > 2 {
        errors.invalid(&path, given(), "may only hold up to 2 values");
    }
    if !are_well || is_headless(spec) {
        return;
    }
    let is_six = |address: &Value| address.as_str().is_some_and(|address| address.contains(':'));
    if all.len() > 1 && (all.len() > 2 || is_six(&all[0]) == is_six(&all[1])) {
        errors.invalid(&path, given(), "may specify no more than one IP for each IP family");
    }
    for (index, (address, family)) in all.iter().zip(spec.items("ipFamilies")).enumerate() {
        let wanted = family.as_str().unwrap_or_default();
        if is_six(address) != (wanted == "IPv6") && matches!(wanted, "IPv4" | "IPv6") {
            let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&path.index(index), address.clone(), &detail);
        }
    }
}

/// This cluster's own network speaks IPv4 only; endpoints that nobody routes to may be of any family.
fn validate_families(spec: &Value, at: &Path, errors: &mut Errors) {
    let (families, path) = (spec.items("ipFamilies"), at.child("ipFamilies"));
    let mut seen = BTreeSet::new();
    let unrouted = is_headless(spec) && spec.entries("selector").is_empty();
    for (index, family) in families.iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        let path = path.index(index);
        if !matches!(family, "IPv4" | "IPv6") {
            errors.not_supported(&path, family, &["IPv4", "IPv6"]);
        } else if !seen.insert(family) {
            errors.duplicate(&path, family);
        } else if family == "IPv6" && !unrouted {
            errors.invalid(&path, family, "not configured on this cluster");
        }
    }
    optional_word(spec, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], at, errors);
    if spec.text("ipFamilyPolicy") == "RequireDualStack" && !unrouted {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&at.child("ipFamilyPolicy"), "RequireDualStack", detail);
    }
}

/// S4: who may reach the load balancer, by field or, from before there was one, by annotation.
fn validate_source_ranges(service: &Value, at: &Path, errors: &mut Errors) {
    const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
    let spec = &service["spec"];
    let is_balancer = spec.text("type") == "LoadBalancer";
    // Kubernetes spells the field as Go does.
    let (ranges, path) = (spec.items("loadBalancerSourceRanges"), at.child("LoadBalancerSourceRanges"));
    if !ranges.is_empty() {
        if !is_balancer {
            errors.forbidden(&path, ONLY_BALANCERS);
        }
        for (index, range) in ranges.iter().enumerate() {
            network(range.as_str().unwrap_or_default().trim(), &path.index(index), errors);
        }
    } else if let Some(ranges) = service["metadata"].entries("annotations").get(RANGES_ANNOTATION) {
        let path = Path::new("metadata").child("annotations").key(RANGES_ANNOTATION);
        if !is_balancer {
            errors.forbidden(&path, ONLY_BALANCERS);
        }
        let ranges = ranges.as_str().unwrap_or_default().trim();
        for range in ranges.split(',').filter(|_| !ranges.is_empty()) {
            network(range.trim(), &path, errors);
        }
    }
}

/// S3 for what only load balancers have.
fn validate_balancer(spec: &Value, at: &Path, errors: &mut Errors) {
    let is_balancer = spec.text("type") == "LoadBalancer";
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !is_balancer && spec.is_set(field) {
            errors.forbidden(&at.child(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    if is_balancer && spec.is_set("loadBalancerClass") {
        named(name::label_key, spec.text("loadBalancerClass"), &at.child("loadBalancerClass"), errors);
    }
}

/// S5.
fn validate_traffic(spec: &Value, at: &Path, errors: &mut Errors) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let policy = spec.text("externalTrafficPolicy");
    if is_external(spec) {
        required_word(spec, "externalTrafficPolicy", POLICIES, at, errors);
    } else if !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.invalid(&at.child("externalTrafficPolicy"), policy, detail);
    }
    let (health_port, path) = (spec.int("healthCheckNodePort").unwrap_or(0), at.child("healthCheckNodePort"));
    match (needs_health_check(spec), health_port) {
        (true, 0) => errors.required(&path, ""),
        (true, _) => within(spec, "healthCheckNodePort", check::PORTS, at, errors),
        (false, 0) => {}
        (false, port) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&path, port, detail);
        }
    }
    if has_cluster_ip(spec) {
        required_word(spec, "internalTrafficPolicy", POLICIES, at, errors);
    } else {
        optional_word(spec, "internalTrafficPolicy", POLICIES, at, errors);
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = spec.text("trafficDistribution");
    if spec.is_set("trafficDistribution") && !DISTRIBUTIONS.contains(&distribution) {
        errors.not_supported(&at.child("trafficDistribution"), distribution, DISTRIBUTIONS);
    }
}

/// U1 to U3: what clients, balancers and routers may know is not taken away while the service has it.
pub(super) fn validate_update(spec: &Value, before: &Value, errors: &mut Errors) {
    let at = Path::new("spec");
    if spec.text("type") != "ExternalName" && before.text("type") != "ExternalName" {
        validate_addresses_kept(spec, before, &at, errors);
        validate_families_kept(spec, before, &at, errors);
    }
    let are_balancers = [spec, before].iter().all(|spec| spec.text("type") == "LoadBalancer");
    if are_balancers && spec.text("loadBalancerClass") != before.text("loadBalancerClass") {
        let class = spec["loadBalancerClass"].clone();
        errors.invalid(&at.child("loadBalancerClass"), class, "may not change once set");
    }
    let port = |spec: &Value| spec.int("healthCheckNodePort").unwrap_or(0);
    if needs_health_check(spec) && needs_health_check(before) && port(spec) != port(before) {
        errors.forbidden(&at.child("healthCheckNodePort"), "field is immutable");
    }
}

/// U1.
fn validate_addresses_kept(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let (now, then, path) = (spec.items("clusterIPs"), before.items("clusterIPs"), at.child("clusterIPs"));
    if is_headless(spec) && is_headless(before) {
        return;
    }
    let given = || Value::Array(now.to_vec());
    if now.is_empty() && !then.is_empty() {
        errors.invalid(&path.index(0), given(), "primary clusterIP can not be unset");
    }
    let changed = now.iter().zip(then).enumerate().filter(|(_, (now, then))| now != then);
    for (index, _) in changed {
        errors.invalid(&path.index(index), given(), "may not change once set");
    }
    if then.len() > now.len() && now.len() == 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&at.child("ipFamilyPolicy"), spec["ipFamilyPolicy"].clone(), detail);
    }
}

/// U2.
fn validate_families_kept(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let (now, then, path) = (spec.items("ipFamilies"), before.items("ipFamilies"), at.child("ipFamilies").index(0));
    if is_headless(spec) || is_headless(before) {
        return;
    }
    let given = || Value::Array(now.to_vec());
    if now.is_empty() && !then.is_empty() {
        errors.invalid(&path, given(), "primary ipFamily can not be unset");
    } else if now.iter().zip(then).any(|(now, then)| now != then) {
        errors.invalid(&path, given(), "may not change once set");
    }
    if then.len() > now.len() && now.len() == 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.invalid(&at.child("ipFamilyPolicy"), spec["ipFamilyPolicy"].clone(), detail);
    }
}

/// L1: what a load balancer says of itself.
pub(super) fn validate_status(service: &Value, errors: &mut Errors) {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = service["status"]["loadBalancer"].items("ingress");
    if service["spec"].text("type") != "LoadBalancer" {
        if !ingress.is_empty() {
            errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    for (index, ingress) in ingress.iter().enumerate() {
        let (ip, hostname, path) = (ingress.text("ip"), ingress.text("hostname"), path.index(index));
        if !ip.is_empty() {
            check::address(ip, &path.child("ip"), errors);
        }
        match (ip.is_empty(), ingress.is_set("ipMode")) {
            (false, false) => errors.required(&path.child("ipMode"), "must be specified when `ip` is set"),
            (true, true) => errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"),
            (false, true) => optional_word(ingress, "ipMode", &["Proxy", "VIP"], &path, errors),
            (true, false) => {}
        }
        if !hostname.is_empty() {
            named(name::subdomain, hostname, &path.child("hostname"), errors);
            if hostname.parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&path.child("hostname"), hostname, "must be a DNS name, not an IP address");
            }
        }
    }
}

/// What is said in vain, or by an old name.
pub(super) fn warnings(service: &Value) -> Vec<String> {
    let (spec, mut all) = (&service["spec"], Vec::new());
    if service["metadata"].entries("annotations").contains_key(HINTS_ANNOTATION) {
        all.push(format!("annotation {HINTS_ANNOTATION} is deprecated, please use {MODE_ANNOTATION} instead"));
    }
    if is_headless(spec) && spec.text("sessionAffinity") != "None" {
        all.push("spec.SessionAffinity is ignored for headless services".to_owned());
    }
    let is_name = spec.text("type") == "ExternalName";
    if is_name && !spec.items("externalIPs").is_empty() {
        all.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_name && !spec.text("externalName").is_empty() {
        all.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::defaults::{fill_service, prepare_create};
    use super::{validate, validate_status, validate_update, warnings};
    use crate::field::Errors;
    use serde_json::{Value, json};

    fn compare(errors: &Errors, expected: &[&str]) {
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    fn check(spec: Value, expected: &[&str]) {
        let mut service = json!({"spec": spec});
        fill_service(&mut service);
        prepare_create(&mut service);
        let mut errors = Errors::new();
        validate(&service, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn s1_ports_can_be_told_apart() {
        check(json!({"ports": [{"port": 80}]}), &[]);
        check(json!({}), &["spec.ports: Required value"]);
        check(json!({"clusterIP": "None"}), &[]);
        check(
            json!({"ports": [{"port": 80}, {"name": "b", "port": 80}, {"name": "b", "port": 0, "protocol": "X", "targetPort": "a_"}]}),
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[2].name: Duplicate value: \"b\"",
                "spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[2].protocol: Unsupported value: \"X\"",
                "spec.ports[2].targetPort: Invalid value: \"a_\"",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ],
        );
        check(
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        );
        check(
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81, "nodePort": 30000}]}),
            &["spec.ports[1].nodePort: Duplicate value: 30000"],
        );
    }

    #[test]
    fn s2_the_address_stays() {
        let of = |addresses: Value| json!({"type": "ClusterIP", "clusterIPs": addresses});
        let mut errors = Errors::new();
        validate_update(&of(json!(["10.43.0.9"])), &of(json!(["10.43.0.9"])), &mut errors);
        validate_update(&of(json!(["10.43.0.9"])), &json!({"type": "ExternalName"}), &mut errors);
        compare(&errors, &[]);
        validate_update(&of(json!(["10.43.0.1"])), &of(json!(["10.43.0.9"])), &mut errors);
        validate_update(&of(json!([])), &of(json!(["10.43.0.9"])), &mut errors);
        compare(
            &errors,
            &[
                "spec.clusterIPs[0]: Invalid value: [\"10.43.0.1\"]: may not change once set",
                "spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset",
            ],
        );
        check(
            json!({"ports": [{"port": 80}], "clusterIP": "10.43.0.300", "clusterIPs": ["10.43.0.300"]}),
            &["spec.clusterIPs[0]: Invalid value: \"10.43.0.300\": must be a valid IP address"],
        );
        check(
            json!({"ports": [{"port": 80}], "clusterIP": "10.43.0.3", "clusterIPs": ["10.43.0.4"]}),
            &["spec.clusterIPs: Invalid value: [\"10.43.0.4\"]: first value must match `clusterIP`"],
        );
    }

    #[test]
    fn s3_only_what_belongs_to_the_type() {
        check(json!({"type": "Magic", "ports": [{"port": 1}]}), &["spec.type: Unsupported value: \"Magic\""]);
        check(json!({"type": "ExternalName"}), &["spec.externalName: Required value"]);
        check(
            json!({"type": "ExternalName", "externalName": "a.b.", "clusterIPs": ["10.43.0.2"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
            &[
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ],
        );
        check(
            json!({"ports": [{"port": 1}], "loadBalancerClass": "a/b", "allocateLoadBalancerNodePorts": true}),
            &[
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        );
        check(
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}]}),
            &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        );
        check(
            json!({"ports": [{"port": 1}], "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            &["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured", "spec.ipFamilyPolicy: Invalid value"],
        );
        check(
            json!({"ports": [{"port": 1}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90_000}}}),
            &["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0"],
        );
    }

    #[test]
    fn s4_outside_addresses_are_ordinary() {
        check(
            json!({"ports": [{"port": 1}], "externalIPs": ["127.0.0.1", "10.0.0.256", "192.0.2.1"], "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            &[
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "spec.externalIPs[1]: Invalid value: \"10.0.0.256\": must be a valid IP",
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        );
        check(
            json!({"ports": [{"port": 1}], "externalTrafficPolicy": "Local"}),
            &[
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        );
    }

    #[test]
    fn s2_addresses_are_one_of_each_family() {
        check(
            json!({"ports": [{"port": 1}], "clusterIPs": ["10.43.0.3"]}),
            &["spec.clusterIPs: Invalid value: [\"10.43.0.3\"]: must be empty when `clusterIP` is not specified"],
        );
        check(
            json!({"ports": [{"port": 1}], "clusterIP": "10.43.0.3", "clusterIPs": ["10.43.0.3", "10.43.0.4"]}),
            &[
                "spec.clusterIPs: Invalid value: [\"10.43.0.3\",\"10.43.0.4\"]: may specify no more than one IP for each",
            ],
        );
        check(
            json!({"ports": [{"port": 1}], "clusterIP": "fd00::3", "clusterIPs": ["fd00::3"], "ipFamilies": ["IPv4"]}),
            &["spec.clusterIPs[0]: Invalid value: \"fd00::3\": expected an IPv4 value as indicated by `ipFamilies[0]`"],
        );
        check(
            json!({"clusterIP": "None", "clusterIPs": ["None", "10.43.0.3"]}),
            &["spec.clusterIPs: Invalid value: [\"None\",\"10.43.0.3\"]: 'None' must be the first and only value"],
        );
    }

    #[test]
    fn s5_traffic_goes_where_it_may() {
        check(
            json!({"type": "LoadBalancer", "ports": [{"port": 1}], "externalTrafficPolicy": "Local", "trafficDistribution": "Near",
                "internalTrafficPolicy": "None"}),
            &[
                "spec.healthCheckNodePort: Required value",
                "spec.internalTrafficPolicy: Unsupported value: \"None\": supported values: \"Cluster\", \"Local\"",
                "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
            ],
        );
        check(
            json!({"ports": [{"port": 1}], "healthCheckNodePort": 30000}),
            &["spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and"],
        );
    }

    #[test]
    fn s6_annotations_say_what_fields_do() {
        let with = |annotations: Value, expected: &[&str]| {
            let mut service = json!({"metadata": {"annotations": annotations}, "spec": {"ports": [{"port": 1}]}});
            fill_service(&mut service);
            let mut errors = Errors::new();
            validate(&service, &mut errors);
            compare(&errors, expected);
        };
        with(
            json!({"service.kubernetes.io/topology-aware-hints": "Auto", "service.kubernetes.io/topology-mode": "Disabled"}),
            &[
                "metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Disabled\": must match annotations[",
            ],
        );
        let at = "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]";
        with(
            json!({"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8, x"}),
            &[
                &format!("{at}: Forbidden: may only be used when `type` is 'LoadBalancer'"),
                &format!("{at}: Invalid value: \"x\": must be a valid CIDR value"),
            ],
        );
    }

    #[test]
    fn u1_to_u3_what_others_know_stays() {
        let update = |now: Value, then: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            validate_update(&now, &then, &mut errors);
            compare(&errors, expected);
        };
        let both = json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.9", "fd00::9"], "ipFamilies": ["IPv4", "IPv6"]});
        update(
            json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
            both.clone(),
            &[],
        );
        update(
            json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv6"]}),
            both,
            &[
                "spec.ipFamilyPolicy: Invalid value: null: must be set to 'SingleStack' when releasing the secondary clusterIP",
                "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
                "spec.ipFamilyPolicy: Invalid value: null: must be set to 'SingleStack' when releasing the secondary ipFamily",
            ],
        );
        let balancer = |class: &str, port: i64| {
            json!({"type": "LoadBalancer", "loadBalancerClass": class, "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port})
        };
        update(
            balancer("a/c", 30001),
            balancer("a/b", 30000),
            &[
                "spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set",
                "spec.healthCheckNodePort: Forbidden: field is immutable",
            ],
        );
    }

    #[test]
    fn l1_only_balancers_have_a_status() {
        let check = |kind: &str, ingress: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            let service = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": ingress}}});
            validate_status(&service, &mut errors);
            compare(&errors, expected);
        };
        check("LoadBalancer", json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "lb.example"}]), &[]);
        check(
            "ClusterIP",
            json!([{"hostname": "lb"}]),
            &["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
        );
        check(
            "LoadBalancer",
            json!([{"ip": "x"}, {"hostname": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.1", "ipMode": "Mirror"}]),
            &[
                "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address",
                "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set",
                "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[1].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP",
                "status.loadBalancer.ingress[2].ipMode: Unsupported value: \"Mirror\": supported values: \"Proxy\", \"VIP\"",
            ],
        );
    }

    #[test]
    fn what_is_said_in_vain_is_warned_of() {
        let service = json!({"metadata": {"annotations": {"service.kubernetes.io/topology-aware-hints": "Auto"}},
            "spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP", "externalName": "a.b"}});
        assert_eq!(
            warnings(&service),
            [
                "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ]
        );
    }
}
