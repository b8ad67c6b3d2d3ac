//! Service: one address for the pods that a selector finds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, label_selector, name_column, row, wide};
use crate::kind::kinds;
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
        .short_names(&["svc"])
        .in_all()
        .subresources(&[Subresource::Status])
        .selectable(&["spec.clusterIP", "spec.type"])
}

struct Service;

impl Rules for Service {
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
