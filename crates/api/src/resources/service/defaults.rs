//! What a service's author may leave out, and what follows the type when it changes.

use serde_json::{Value, json};

use super::super::same::same;
use super::super::tree::{Tree, carry_over, fill, fill_text, items_mut, part_mut, remove};

/// Seconds that a client keeps its endpoint, where it keeps one.
const AFFINITY_SECONDS_DEFAULT: i64 = 10_800;

/// Whether services of this type have an address inside the cluster.
pub(super) fn has_cluster_ip(spec: &Value) -> bool {
    matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether services of this type have a port on every node.
pub(super) fn has_node_ports(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether the service is a name for its endpoints only.
pub(super) fn is_headless(spec: &Value) -> bool {
    spec.text("clusterIP") == "None" || spec.items("clusterIPs").first().is_some_and(|address| address == "None")
}

/// Whether the service can be reached from outside the cluster.
pub(super) fn is_external(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.items("externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether balancers ask nodes whether they have an endpoint of the service.
pub(super) fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// Fills in a service.
pub(super) fn fill_service(service: &mut Value) {
    let Some(spec) = part_mut(service, "spec") else { return };
    fill_text(spec, "type", "ClusterIP");
    fill_text(spec, "sessionAffinity", "None");
    fill_affinity(spec);
    for port in items_mut(spec, "ports") {
        fill_text(port, "protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_null() || target == "" || target == 0 {
            let number = port["port"].clone();
            if !number.is_null() {
                port["targetPort"] = number;
            }
        }
    }
    if is_external(spec) {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if spec.text("type") == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    if has_cluster_ip(spec) {
        fill(spec, "internalTrafficPolicy", "Cluster");
        fill_families(spec);
    }
    for ingress in service
        .get_mut("status")
        .and_then(|status| status.get_mut("loadBalancer"))
        .map(|balancer| items_mut(balancer, "ingress"))
        .unwrap_or_default()
    {
        if !ingress.text("ip").is_empty() {
            fill(ingress, "ipMode", "VIP");
        }
    }
}

fn fill_affinity(spec: &mut Value) {
    match spec.text("sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" if !spec["sessionAffinityConfig"]["clientIP"].is_set("timeoutSeconds") => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS_DEFAULT}});
        }
        _ => {}
    }
}

/// Headless services without a selector may list endpoints of any family: nobody routes to them. All others are IPv4.
fn fill_families(spec: &mut Value) {
    let any = is_headless(spec) && spec.entries("selector").is_empty();
    if spec.items("ipFamilies").is_empty() {
        let first = spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or(spec.text("clusterIP"));
        spec["ipFamilies"] = if first.contains(':') { json!(["IPv6"]) } else { json!(["IPv4"]) };
    }
    if any && spec.text("ipFamilyPolicy") != "SingleStack" {
        let second = if spec["ipFamilies"][0] == "IPv4" { "IPv6" } else { "IPv4" };
        if let Some(families) = spec["ipFamilies"].as_array_mut().filter(|families| families.len() == 1) {
            families.push(Value::from(second));
        }
    }
    fill_text(spec, "ipFamilyPolicy", if any { "RequireDualStack" } else { "SingleStack" });
}

/// A new service: `clusterIPs` is what counts, `clusterIP` is its first for clients from before there were several.
pub(super) fn prepare_create(service: &mut Value) {
    let Some(spec) = part_mut(service, "spec") else { return };
    let (one, all) = (spec.text("clusterIP").to_owned(), spec.items("clusterIPs").len());
    if !one.is_empty() && all == 0 {
        spec["clusterIPs"] = json!([one]);
    }
    service["status"] = json!({"loadBalancer": {}});
}

/// A changed service: what was allocated stays where the type still has it and the client did not say otherwise, and goes
/// where the type has it no longer.
pub(super) fn prepare_update(service: &mut Value, old: &Value) {
    carry_over(service, old, "status");
    let before = &old["spec"];
    let Some(spec) = part_mut(service, "spec") else { return };
    follow_cluster_ip(spec, before);
    keep_allocated(spec, before);
    drop_unfitting(spec, before);
}

/// A client that knows only `clusterIP` means both.
fn follow_cluster_ip(spec: &mut Value, before: &Value) {
    let (one, then) = (spec.text("clusterIP").to_owned(), before.text("clusterIP"));
    if one == then || spec.items("clusterIPs") != before.items("clusterIPs") {
        if !one.is_empty() && spec.items("clusterIPs").is_empty() {
            spec["clusterIPs"] = json!([one]);
        }
        return;
    }
    if one.is_empty() {
        remove(spec, "clusterIPs");
    } else {
        spec["clusterIPs"] = json!([one]);
    }
}

fn keep_allocated(spec: &mut Value, before: &Value) {
    if has_cluster_ip(spec)
        && has_cluster_ip(before)
        && spec.text("clusterIP").is_empty()
        && spec.items("clusterIPs").is_empty()
    {
        carry_over(spec, before, "clusterIP");
        carry_over(spec, before, "clusterIPs");
    }
    if has_node_ports(spec) && has_node_ports(before) {
        let mut taken: Vec<i64> = spec.items("ports").iter().filter_map(|port| port.int("nodePort")).collect();
        for port in items_mut(spec, "ports") {
            let matching =
                |then: &&Value| then.text("protocol") == port.text("protocol") && then.int("port") == port.int("port");
            let then = before.items("ports").iter().find(matching).and_then(|then| then.int("nodePort"));
            if let Some(then) = then
                && port.int("nodePort").unwrap_or(0) == 0
                && !taken.contains(&then)
            {
                port["nodePort"] = json!(then);
                taken.push(then);
            }
        }
    }
    if needs_health_check(spec) && needs_health_check(before) && spec.int("healthCheckNodePort").unwrap_or(0) == 0 {
        carry_over(spec, before, "healthCheckNodePort");
    }
}

fn drop_unfitting(spec: &mut Value, before: &Value) {
    let drop_if_same = |spec: &mut Value, field: &str| {
        if same(&spec[field], &before[field]) {
            remove(spec, field);
        }
    };
    if has_cluster_ip(before) && !has_cluster_ip(spec) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            drop_if_same(spec, field);
        }
    }
    if is_external(before) && !is_external(spec) {
        drop_if_same(spec, "externalTrafficPolicy");
    }
    if needs_health_check(before) && !needs_health_check(spec) {
        drop_if_same(spec, "healthCheckNodePort");
    }
    if before.text("type") == "LoadBalancer" && spec.text("type") != "LoadBalancer" {
        drop_if_same(spec, "allocateLoadBalancerNodePorts");
        drop_if_same(spec, "loadBalancerClass");
    }
    if has_node_ports(before) && !has_node_ports(spec) {
        let then: Vec<i64> = before.items("ports").iter().filter_map(|port| port.int("nodePort")).collect();
        for port in items_mut(spec, "ports") {
            if port.int("nodePort").is_some_and(|number| then.contains(&number)) {
                remove(port, "nodePort");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fill_service, prepare_create, prepare_update};
    use serde_json::{Value, json};

    fn filled(spec: Value) -> Value {
        let mut service = json!({"spec": spec});
        fill_service(&mut service);
        let once = service.clone();
        fill_service(&mut service);
        assert_eq!(once, service);
        service
    }

    #[test]
    fn a_small_service_is_filled_in() {
        assert_eq!(
            filled(json!({"selector": {"app": "web"}, "ports": [{"port": 80}, {"port": 81, "targetPort": "http"}]}))["spec"],
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "selector": {"app": "web"},
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 81, "protocol": "TCP", "targetPort": "http"}],
            })
        );
        let balancer = filled(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}));
        assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(balancer["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
        let name = filled(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert_eq!(name["spec"], json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}));
        let headless = filled(json!({"clusterIP": "None"}));
        assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(headless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    }

    fn stored() -> Value {
        let mut old =
            filled(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "clusterIP": "10.43.0.9"}));
        prepare_create(&mut old);
        old
    }

    #[test]
    fn what_was_allocated_stays() {
        let old = stored();
        assert_eq!(old["spec"]["clusterIPs"], json!(["10.43.0.9"]));
        assert_eq!(old["status"], json!({"loadBalancer": {}}));
        let mut new = filled(json!({"type": "NodePort", "ports": [{"port": 81}, {"port": 80}]}));
        prepare_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.43.0.9"]));
        assert_eq!(new["spec"]["clusterIP"], "10.43.0.9");
        assert_eq!(new["spec"]["ports"][1]["nodePort"], 30080);
        assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    }

    #[test]
    fn what_the_type_has_no_longer_goes() {
        let old = stored();
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        fill_service(&mut new);
        prepare_update(&mut new, &old);
        assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
        assert_eq!(new["spec"]["clusterIP"], "10.43.0.9");

        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        new["spec"]["externalName"] = json!("a.b");
        prepare_update(&mut new, &old);
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            assert_eq!(new["spec"].get(field), None, "{field}");
        }
    }

    #[test]
    fn a_client_that_knows_one_address_means_all() {
        let old = stored();
        let mut new = old.clone();
        new["spec"]["clusterIP"] = json!("10.43.0.10");
        prepare_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.43.0.10"]));
    }
}
