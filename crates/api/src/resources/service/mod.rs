//! Service: one address for the pods that a selector finds.

mod defaults;
mod validate;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, label_selector, name_column, row, wide};
use crate::field::Errors;
use crate::kind::kinds;
use crate::name::NameRule;
use crate::resource::{Resource, Rules, Subresource};

/// The row of Service.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Type", "string", "how far the service can be reached"),
        column("Cluster-IP", "string", "the address inside the cluster"),
        column("External-IP", "string", "the addresses or the name outside the cluster"),
        column("Port(s)", "string", "port, node port and protocol of each"),
        age_column(),
        wide("Selector", "string", "which pods answer"),
    ];
    row(&kinds::SERVICE, columns, Service)
        .shows_deleted()
        .created_by_update()
        .short_names(&["svc"])
        .in_all()
        .subresources(&[Subresource::Status, Subresource::Proxy])
        .selectable(&["spec.clusterIP", "spec.type"])
}

struct Service;

impl Rules for Service {
    /// A service's name is the first part of its DNS name.
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, object: &mut Value) {
        defaults::fill_service(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        defaults::prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        defaults::prepare_update(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate::validate(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        validate::validate_update(&object["spec"], &old["spec"], errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        validate::validate_status(object, errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        validate::warnings(object)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let cluster_ip = spec.items("clusterIPs").first().and_then(Value::as_str);
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("type")),
            json!(cluster_ip.filter(|address| !address.is_empty()).unwrap_or("<none>")),
            json!(external_addresses(object)),
            json!(ports(spec)),
            age::of(object, now),
            json!(label_selector::shown_labels(spec.entries("selector"))),
        ]
    }
}

fn external_addresses(service: &Value) -> String {
    let spec = &service["spec"];
    let balancer = service["status"]["loadBalancer"].items("ingress").iter().map(|ingress| match ingress.text("ip") {
        "" => ingress.text("hostname"),
        address => address,
    });
    let external = spec.items("externalIPs").iter().filter_map(Value::as_str);
    let (addresses, none): (Vec<&str>, _) = match spec.text("type") {
        "ExternalName" => (vec![spec.text("externalName")], ""),
        "LoadBalancer" => (balancer.filter(|address| !address.is_empty()).chain(external).collect(), "<pending>"),
        _ => (external.collect(), "<none>"),
    };
    if addresses.is_empty() { none.to_owned() } else { addresses.join(",") }
}

fn ports(spec: &Value) -> String {
    let shown: Vec<String> = spec
        .items("ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (port.int("port").unwrap_or(0), port.text("protocol"));
            match port.int("nodePort") {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") }
}

#[cfg(test)]
mod tests {
    use super::Service;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    /// Checks type, cluster IP, external IP, ports of the printed row.
    fn check(service: Value, expected: [&str; 4]) {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(Service.cells(&service, now)[1..5], expected.map(Value::from), "{service}");
    }

    #[test]
    fn the_printed_row() {
        let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}]);
        check(
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.43.0.9"], "ports": ports}}),
            ["NodePort", "10.43.0.9", "<none>", "80/TCP,53:30053/UDP"],
        );
        check(
            json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
            ["ExternalName", "<none>", "a.b", "<none>"],
        );
        check(
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.43.0.9"]}}),
            ["LoadBalancer", "10.43.0.9", "<pending>", "<none>"],
        );
        check(
            json!({"spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb"}]}}}),
            ["LoadBalancer", "<none>", "192.0.2.1,lb,192.0.2.9", "<none>"],
        );
        let selected = json!({"spec": {"selector": {"b": "2", "a": "1"}}});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(Service.cells(&selected, now)[6], "a=1,b=2");
    }
}
