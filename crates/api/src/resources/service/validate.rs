//! What a service may say.
//!
//! Rules
//!   S1 ports      at least one unless headless or a name only; named if several; each number and protocol once
//!   S2 address    IPv4, None or left to the server; stays once it is set
//!   S3 type       known, and only what belongs to it is set
//!   S4 outside    external addresses are ordinary ones; a name is a DNS name
//! Not here        whether an address or a node port is free and in range (apiserver: allocation)
//! Source: API reference, core/v1 Service.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::check::{self, named, network, optional_name, optional_word, required_word, within};
use super::super::metadata::validate_labels;
use super::super::tree::Tree;
use super::defaults::{has_cluster_ip, has_node_ports, is_external, is_headless};
use crate::field::{Errors, Path};
use crate::name;

/// Seconds that a client may keep its endpoint: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn validate(spec: &Value, errors: &mut Errors) {
    let at = Path::new("spec");
    validate_type(spec, &at, errors);
    validate_ports(spec, &at, errors);
    validate_cluster_ips(spec, &at, errors);
    validate_families(spec, &at, errors);
    validate_labels(spec.entries("selector"), &at.child("selector"), errors);
    validate_affinity(spec, &at, errors);
    validate_outside(spec, &at, errors);
}

/// S2: an address that clients may know is not taken away while the service has one.
pub(super) fn validate_update(spec: &Value, before: &Value, errors: &mut Errors) {
    if !has_cluster_ip(spec) || !has_cluster_ip(before) {
        return;
    }
    let path = Path::new("spec").child("clusterIPs");
    match (before.items("clusterIPs").first(), spec.items("clusterIPs").first()) {
        (Some(_), None) => errors.required(&path.index(0), "primary clusterIP can not be unset"),
        (Some(then), Some(now)) if then != now => {
            errors.invalid(&path.index(0), spec["clusterIPs"].clone(), "may not change once set");
        }
        _ => {}
    }
}

/// S3.
fn validate_type(spec: &Value, at: &Path, errors: &mut Errors) {
    required_word(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], at, errors);
    let kind = spec.text("type");
    if is_headless(spec) && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.invalid(&at.child("clusterIPs").index(0), "None", &detail);
    }
    if kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            if !spec.text(field).is_empty() || !spec.items(field).is_empty() {
                errors.forbidden(&at.child(field), "may not be set for ExternalName services");
            }
        }
        let path = at.child("externalName");
        match spec.text("externalName") {
            "" => errors.required(&path, ""),
            external => named(name::subdomain, external.strip_suffix('.').unwrap_or(external), &path, errors),
        }
    }
    for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
        if kind != "LoadBalancer" && spec.is_set(field) {
            errors.forbidden(&at.child(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    optional_name(spec, "loadBalancerClass", name::label_key, at, errors);
    optional_word(spec, "trafficDistribution", &["PreferClose", "PreferSameNode", "PreferSameZone"], at, errors);
}

/// S1.
fn validate_ports(spec: &Value, at: &Path, errors: &mut Errors) {
    let (ports, path) = (spec.items("ports"), at.child("ports"));
    if ports.is_empty() && has_cluster_ip(spec) && !is_headless(spec) {
        errors.required(&path, "");
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
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
        optional_name(port, "appProtocol", name::label_key, &path, errors);
        let (protocol, number) = (port.text("protocol"), port.int("port").unwrap_or(0));
        if !numbers.insert((protocol, number)) {
            errors.duplicate(&path, json!({"port": number, "protocol": protocol}));
        }
        let node_port = port.int("nodePort").unwrap_or(0);
        if node_port == 0 {
            continue;
        }
        within(port, "nodePort", check::PORTS, &path, errors);
        if !has_node_ports(spec) && spec.text("type") != "LoadBalancer" {
            errors
                .forbidden(&path.child("nodePort"), &format!("may not be used when `type` is '{}'", spec.text("type")));
        }
        if !node_ports.insert((protocol, node_port)) {
            errors.duplicate(&path.child("nodePort"), node_port);
        }
    }
}

/// S2.
fn validate_cluster_ips(spec: &Value, at: &Path, errors: &mut Errors) {
    if !has_cluster_ip(spec) {
        return;
    }
    let (all, path) = (spec.items("clusterIPs"), at.child("clusterIPs"));
    let one = spec.text("clusterIP");
    if one.is_empty() && !all.is_empty() {
        errors.required(&at.child("clusterIP"), "must be set when `clusterIPs` is set");
    } else if all.first().is_some_and(|first| first != one) {
        errors.invalid(&path, spec["clusterIPs"].clone(), "first value must match `clusterIP`");
    }
    if is_headless(spec) && all.len() > 1 {
        errors.invalid(&path, spec["clusterIPs"].clone(), "'None' must be the first and only value");
        return;
    }
    for (index, address) in all.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        if address == "None" && index == 0 {
            continue;
        }
        check::address(address, &path.index(index), errors);
    }
}

/// This cluster's own network speaks IPv4 only; endpoints that nobody routes to may be of any family.
fn validate_families(spec: &Value, at: &Path, errors: &mut Errors) {
    let (families, path) = (spec.items("ipFamilies"), at.child("ipFamilies"));
    optional_word(spec, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], at, errors);
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
    if spec.text("ipFamilyPolicy") == "RequireDualStack" && !unrouted {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&at.child("ipFamilyPolicy"), "RequireDualStack", detail);
    }
    if !has_cluster_ip(spec) {
        if !families.is_empty() {
            errors.forbidden(&path, "may not be set for ExternalName services");
        }
        if spec.is_set("ipFamilyPolicy") {
            errors.forbidden(&at.child("ipFamilyPolicy"), "may not be set for ExternalName services");
        }
    }
}

fn validate_affinity(spec: &Value, at: &Path, errors: &mut Errors) {
    required_word(spec, "sessionAffinity", &["ClientIP", "None"], at, errors);
    if spec.text("sessionAffinity") != "ClientIP" {
        return;
    }
    let seconds = spec["sessionAffinityConfig"]["clientIP"].int("timeoutSeconds").unwrap_or(0);
    if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
        let path = at.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.invalid(&path, seconds, &detail);
    }
}

/// S4.
fn validate_outside(spec: &Value, at: &Path, errors: &mut Errors) {
    for (index, address) in spec.items("externalIPs").iter().enumerate() {
        let path = at.child("externalIPs").index(index);
        if let Some(address) = check::address(address.as_str().unwrap_or_default(), &path, errors) {
            check::ordinary_address(address, &path, errors);
        }
    }
    let ranges = at.child("loadBalancerSourceRanges");
    for (index, range) in spec.items("loadBalancerSourceRanges").iter().enumerate() {
        if spec.text("type") != "LoadBalancer" {
            errors.forbidden(&ranges, "may only be used when `type` is 'LoadBalancer'");
            break;
        }
        network(range.as_str().unwrap_or_default().trim(), &ranges.index(index), errors);
    }
    let policy = spec.text("externalTrafficPolicy");
    if !policy.is_empty() && !is_external(spec) {
        let detail = "may only be set for externally-accessible services";
        errors.invalid(&at.child("externalTrafficPolicy"), policy, detail);
    }
    optional_word(spec, "externalTrafficPolicy", &["Cluster", "Local"], at, errors);
    optional_word(spec, "internalTrafficPolicy", &["Cluster", "Local"], at, errors);
    let check_port = spec.int("healthCheckNodePort").unwrap_or(0);
    if check_port != 0 {
        within(spec, "healthCheckNodePort", check::PORTS, at, errors);
        if spec.text("type") != "LoadBalancer" || policy != "Local" {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&at.child("healthCheckNodePort"), check_port, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::defaults::fill_service;
    use super::{validate, validate_update};
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
        let mut errors = Errors::new();
        validate(&service["spec"], &mut errors);
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
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
                "spec.ports[2].name: Duplicate value: \"b\"",
                "spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[2].protocol: Unsupported value: \"X\"",
                "spec.ports[2].targetPort: Invalid value: \"a_\"",
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
                "spec.clusterIPs[0]: Required value: primary clusterIP can not be unset",
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
            json!({"type": "ExternalName", "externalName": "a.b.", "clusterIP": "10.43.0.2"}),
            &["spec.clusterIP: Forbidden: may not be set for ExternalName services"],
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
                "spec.loadBalancerSourceRanges: Forbidden",
            ],
        );
        check(
            json!({"ports": [{"port": 1}], "externalTrafficPolicy": "Local"}),
            &[
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        );
    }
}
