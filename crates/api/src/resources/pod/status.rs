//! What may become of a pod's status.
//!
//! Rules
//!   S1 ended        a container that ended for good stays ended, unless its policy, or a rule of it, starts it again
//!   S2 class        the quality of service never changes
//!   S3 conditions   have types that are qualified names
//!   S4 addresses    at most one of each family, the first of which is the pod's, or the machine's
//!   S5 claims       are those of the spec
//!   S6 nominated    a node that exists by its name, for a pod that has none yet
//!   S7 users        are numbers that the kernel takes, and not there on Windows
//! Source: API reference, core/v1 PodStatus; KEP-5307, KEP-4680, KEP-3619.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::super::check::{address, named, within};
use super::super::tree::{Tree, carry_over, part_mut};
use crate::field::{Errors, Path};
use crate::name;

const IDS: (i64, i64) = (0, i32::MAX as i64);
const MESSAGE_BYTES_MAX: usize = 1024;
const NOT_NEGATIVE: &str = "must be a non-negative integer";
/// Conditions that were there before their types had to be qualified names.
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Fills in what the one who writes a status leaves to the server: the quality of service.
pub(super) fn fill(pod: &mut Value, old: &Value) {
    let Some(status) = part_mut(pod, "status") else { return };
    if status.text("qosClass").is_empty() {
        carry_over(status, &old["status"], "qosClass");
    }
}

/// S1 to S7.
pub(super) fn validate(pod: &Value, old: &Value, errors: &mut Errors) {
    let (status, before, spec, at) = (&pod["status"], &old["status"], &old["spec"], Path::new("status"));
    validate_conditions(status.items("conditions"), &at.child("conditions"), errors);
    validate_nominated(pod, old, &at, errors);
    if let Some(generation) = status.int("observedGeneration").filter(|&generation| generation < 0) {
        errors.invalid(&at.child("observedGeneration"), generation, NOT_NEGATIVE);
    }
    if status.text("qosClass") != before.text("qosClass") {
        errors.immutable(&at.child("qosClass"), status["qosClass"].clone());
    }
    for list in ["containers", "initContainers"] {
        validate_ended(status, before, (spec, list), &at, errors);
    }
    validate_ephemeral(status, before, &at, errors);
    validate_claims(status, &pod["spec"], &at, errors);
    validate_addresses(status.items("podIPs"), &at.child("podIPs"), errors);
    let host = status.items("hostIPs");
    if let Some(first) = host.first().map(|first| first.text("ip")).filter(|first| *first != status.text("hostIP")) {
        errors.invalid(&at.child("hostIPs").index(0).child("ip"), first, "must be equal to `hostIP`");
    }
    validate_addresses(host, &at.child("hostIPs"), errors);
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        validate_users(status.items(list), spec, &at.child(list), errors);
    }
    for (list, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        validate_devices(status.items(list), spec.items(containers), &at.child(list), errors);
    }
    for (index, container) in status.items("ephemeralContainerStatuses").iter().enumerate() {
        if !container.items("allocatedResourcesStatus").is_empty() {
            let path = at.child("ephemeralContainerStatuses").index(index).child("allocatedResourcesStatus");
            errors.forbidden(&path, "must not be specified in container status");
        }
    }
}

/// S3.
fn validate_conditions(conditions: &[Value], at: &Path, errors: &mut Errors) {
    for (index, condition) in conditions.iter().enumerate() {
        let (kind, path) = (condition.text("type"), at.index(index));
        if let Some(generation) = condition.int("observedGeneration").filter(|&generation| generation < 0) {
            errors.invalid(&path.child("observedGeneration"), generation, NOT_NEGATIVE);
        }
        if !SYSTEM_CONDITIONS.contains(&kind) {
            named(name::label_key, kind, &path.child("Type"), errors);
        }
    }
}

/// S6.
fn validate_nominated(pod: &Value, old: &Value, at: &Path, errors: &mut Errors) {
    let (node, path) = (pod["status"].text("nominatedNodeName"), at.child("nominatedNodeName"));
    if node.is_empty() || node == old["status"].text("nominatedNodeName") {
        return;
    }
    named(name::subdomain, node, &path, errors);
    if !old["spec"].text("nodeName").is_empty() {
        errors.forbidden(&path, "may not be set on pods that are already bound to a node");
    }
}

/// S1.
fn validate_ended(status: &Value, before: &Value, (spec, list): (&Value, &str), at: &Path, errors: &mut Errors) {
    let rules = super::containers(spec).flat_map(|(_, _, container)| container.items("restartPolicyRules"));
    if rules.into_iter().any(|rule| rule.text("action") == "RestartAllContainers") {
        return;
    }
    let field = if list == "containers" { "containerStatuses" } else { "initContainerStatuses" };
    for (index, ended) in before.items(field).iter().enumerate() {
        let name = ended.text("name");
        let is_named = |item: &&Value| item.text("name") == name;
        let starts_again = status.items(field).iter().find(is_named).is_some_and(|now| !is_ended(now));
        if !is_ended(ended) || !starts_again {
            continue;
        }
        let code = ended["state"]["terminated"].int("exitCode").unwrap_or(0);
        let container = spec.items(list).iter().find(is_named);
        if !container.is_some_and(|container| may_start_again(container, spec, code)) {
            let path = at.child(field).index(index).child("state");
            errors.forbidden(&path, "may not be transitioned to non-terminated state");
        }
    }
}

fn is_ended(status: &Value) -> bool {
    status["state"]["terminated"].is_object()
}

/// Whether a container that ended with this code is started again.
fn may_start_again(container: &Value, spec: &Value, code: i64) -> bool {
    let is_met = |rule: &Value| {
        let listed = rule["exitCodes"].items("values").iter().any(|value| value.as_i64() == Some(code));
        rule["exitCodes"].is_object() && listed == (rule["exitCodes"].text("operator") == "In")
    };
    let own = container.text("restartPolicy");
    if !own.is_empty() && container.items("restartPolicyRules").iter().any(is_met) {
        return true;
    }
    match if own.is_empty() { spec.text("restartPolicy") } else { own } {
        "OnFailure" => code != 0,
        "Never" => false,
        _ => true,
    }
}

/// S1 for a visitor, who is never started again.
fn validate_ephemeral(status: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    const FIELD: &str = "ephemeralContainerStatuses";
    for (index, ended) in before.items(FIELD).iter().enumerate().filter(|(_, ended)| is_ended(ended)) {
        let mut now = status.items(FIELD).iter();
        if now.any(|now| now.text("name") == ended.text("name") && !is_ended(now)) {
            let path = at.child(FIELD).index(index).child("state");
            errors.forbidden(&path, "may not be transitioned to non-terminated state");
        }
    }
}

/// S5.
fn validate_claims(status: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, claim) in status.items("resourceClaimStatuses").iter().enumerate() {
        let (name, path) = (claim.text("name"), at.child("resourceClaimStatuses").index(index));
        if !spec.items("resourceClaims").iter().any(|claim| claim.text("name") == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&path.child("name"), name, detail);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if claim.is_set("resourceClaimName") {
            named(name::subdomain, claim.text("resourceClaimName"), &path.child("resourceClaimName"), errors);
        }
    }
}

/// S4. Kubernetes names the item, not its field, where it is no address.
fn validate_addresses(addresses: &[Value], at: &Path, errors: &mut Errors) {
    let found: Vec<Option<IpAddr>> =
        addresses.iter().enumerate().map(|(index, ip)| address(ip.text("ip"), &at.index(index), errors)).collect();
    let one_each = match found[..] {
        [] | [_] => true,
        [Some(first), Some(second)] => first.is_ipv4() != second.is_ipv4(),
        _ => false,
    };
    if !one_each {
        let found = Value::Array(addresses.to_vec());
        errors.invalid(at, found, "may specify no more than one IP for each IP family");
    }
}

/// S7.
fn validate_users(statuses: &[Value], spec: &Value, at: &Path, errors: &mut Errors) {
    for (index, status) in statuses.iter().enumerate() {
        let (user, path) = (&status["user"]["linux"], at.index(index).child("user").child("linux"));
        if !user.is_object() {
            continue;
        }
        if spec["os"].text("name") == "windows" {
            errors.forbidden(&path, "cannot be set for a windows pod");
            continue;
        }
        for field in ["uid", "gid"] {
            within(user, field, IDS, &path, errors);
        }
        for (index, group) in user.items("supplementalGroups").iter().enumerate() {
            if !group.as_i64().is_some_and(|group| (IDS.0..=IDS.1).contains(&group)) {
                let path = path.child("supplementalGroups").index(index);
                errors.invalid(&path, group.clone(), "must be between 0 and 2147483647, inclusive");
            }
        }
    }
}

/// S5 for the devices that a container got.
fn validate_devices(statuses: &[Value], containers: &[Value], at: &Path, errors: &mut Errors) {
    for (index, status) in statuses.iter().enumerate() {
        let container = containers.iter().find(|container| container.text("name") == status.text("name"));
        for (device_index, device) in status.items("allocatedResourcesStatus").iter().enumerate() {
            let path = at.index(index).child("allocatedResourcesStatus").index(device_index);
            if let Some(container) = container {
                validate_device_name(device.text("name"), container, &path.child("name"), errors);
            }
            validate_health(device.items("resources"), &path.child("resources"), errors);
        }
    }
}

fn validate_device_name(name: &str, container: &Value, path: &Path, errors: &mut Errors) {
    let resources = &container["resources"];
    let (is_known, detail) = match name.strip_prefix("claim:") {
        Some(used) => {
            let is_used = |claim: &Value| match claim.text("request") {
                "" => claim.text("name") == used,
                request => used.split_once('/') == Some((claim.text("name"), request)),
            };
            let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                          'claim:<claimName>' if request is empty";
            (resources.items("claims").iter().any(is_used), detail)
        }
        None => {
            let detail = "must match one of the container's resource requests";
            (resources.entries("requests").contains_key(name), detail)
        }
    };
    if !is_known {
        errors.invalid(path, name, detail);
    }
}

fn validate_health(devices: &[Value], at: &Path, errors: &mut Errors) {
    const HEALTH: &[&str] = &["Healthy", "Unhealthy", "Unknown"];
    let mut seen = BTreeSet::new();
    for (index, device) in devices.iter().enumerate() {
        let (health, path) = (device.text("health"), at.index(index));
        if !HEALTH.contains(&health) {
            errors.not_supported(&path.child("health"), health, HEALTH);
        }
        match device.get("message").and_then(Value::as_str) {
            Some("") => errors.required(&path.child("message"), "must be non-empty if specified"),
            Some(message) if message.len() > MESSAGE_BYTES_MAX => {
                errors.too_long(&path.child("message"), MESSAGE_BYTES_MAX);
            }
            _ => {}
        }
        if !seen.insert(device.text("resourceID")) {
            errors.duplicate(&path.child("resourceID"), device.text("resourceID"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fill, validate};
    use crate::field::Errors;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(spec: Value, before: Value, status: Value, expected: &[&str]) {
        let old = json!({"spec": spec, "status": before});
        let mut pod = json!({"spec": spec, "status": status});
        fill(&mut pod, &old);
        let mut errors = Errors::new();
        validate(&pod, &old, &mut errors);
        compare(&errors, expected);
    }

    /// Checks that a container with these fields, which ended with this code, may or may not be started again.
    fn check_ended(policy: &str, container: Value, code: i64, may: bool) {
        let mut container = container;
        container["name"] = json!("c");
        let spec = json!({"restartPolicy": policy, "containers": [container]});
        let status = |state: Value| json!({"containerStatuses": [{"name": "c", "state": state}]});
        let expected =
            ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"];
        check(
            spec,
            status(json!({"terminated": {"exitCode": code}})),
            status(json!({"running": {}})),
            if may { &[] } else { &expected },
        );
    }

    #[test]
    fn s1_a_container_that_ended_for_good_stays_ended() {
        check_ended("Always", json!({}), 0, true);
        check_ended("OnFailure", json!({}), 0, false);
        check_ended("OnFailure", json!({}), 1, true);
        check_ended("Never", json!({}), 1, false);
        check_ended("Never", json!({"restartPolicy": "Always"}), 0, true);
        check_ended("Always", json!({"restartPolicy": "Never"}), 1, false);
        let rule = |operator: &str, action: &str| {
            json!({"restartPolicy": "Never", "restartPolicyRules": [
                {"action": action, "exitCodes": {"operator": operator, "values": [42]}}]})
        };
        check_ended("Never", rule("In", "Restart"), 42, true);
        check_ended("Never", rule("In", "Restart"), 1, false);
        check_ended("Never", rule("NotIn", "Restart"), 1, true);
        check_ended("Never", rule("In", "RestartAllContainers"), 1, true);
        let visitor = |state: Value| json!({"ephemeralContainerStatuses": [{"name": "d", "state": state}]});
        check(
            json!({"restartPolicy": "Always"}),
            visitor(json!({"terminated": {"exitCode": 1}})),
            visitor(json!({"running": {}})),
            &["status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned"],
        );
    }

    #[test]
    fn s2_and_s3_the_class_stays_and_conditions_are_named() {
        check(json!({}), json!({"qosClass": "Burstable"}), json!({"conditions": [{"type": "example.com/ok"}]}), &[]);
        check(
            json!({}),
            json!({"qosClass": "Burstable"}),
            json!({"qosClass": "Guaranteed", "observedGeneration": -1, "conditions": [{"type": "a b", "observedGeneration": -1}]}),
            &[
                "status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
                "status.conditions[0].Type: Invalid value: \"a b\": name part must consist",
                "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
                "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
            ],
        );
    }

    #[test]
    fn s4_addresses_are_one_of_each_family() {
        let ips = |ips: &[&str]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        check(
            json!({}),
            json!({}),
            json!({"podIPs": ips(&["10.0.0.1", "fd00::1"]), "hostIP": "10.0.0.2", "hostIPs": ips(&["10.0.0.2"])}),
            &[],
        );
        check(
            json!({}),
            json!({}),
            json!({"podIPs": ips(&["10.0.0.1", "10.0.0.2"]), "hostIP": "10.0.0.2", "hostIPs": ips(&["x"])}),
            &[
                "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP",
                "status.hostIPs[0].ip: Invalid value: \"x\": must be equal to `hostIP`",
                "status.hostIPs[0]: Invalid value: \"x\": must be a valid IP address",
            ],
        );
    }

    #[test]
    fn s5_to_s7_claims_nodes_and_users() {
        let spec = json!({"nodeName": "n", "resourceClaims": [{"name": "gpu"}], "containers": [{"name": "c",
            "resources": {"claims": [{"name": "gpu", "request": "one"}]}}]});
        let device = |name: &str, health: &str| {
            json!({"containerStatuses": [{"name": "c", "allocatedResourcesStatus": [
            {"name": name, "resources": [{"resourceID": "a", "health": health}]}]}]})
        };
        check(spec.clone(), json!({}), device("claim:gpu/one", "Healthy"), &[]);
        check(
            spec.clone(),
            json!({}),
            device("claim:gpu", "Fine"),
            &[
                "status.containerStatuses[0].allocatedResourcesStatus[0].name: Invalid value: \"claim:gpu\": must match one of",
                "status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health: Unsupported value: \"Fine\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\"",
            ],
        );
        check(
            spec,
            json!({}),
            json!({"nominatedNodeName": "m", "resourceClaimStatuses": [{"name": "gpu"}, {"name": "nic"}],
                "containerStatuses": [{"name": "c", "user": {"linux": {"uid": -1, "gid": 0}}}]}),
            &[
                "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
                "status.resourceClaimStatuses[1].name: Invalid value: \"nic\": must match the name of an entry in `spec.resourceClaims`",
                "status.containerStatuses[0].user.linux.uid: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ],
        );
    }
}
