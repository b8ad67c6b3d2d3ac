//! Service: its types, status and collections. Whether packets arrive is for the end-to-end suite.

use serde_json::{Value, json};

use crate::Test;
use crate::api::STRATEGIC;
use crate::walk::{Walk, condition, holds};

pub async fn kubernetes_is_among_all_services(test: &Test) {
    let list = test.api.get("/api/v1/services").await.ok();
    let is_it =
        |service: &Value| service["metadata"]["name"] == "kubernetes" && service["metadata"]["namespace"] == "default";
    assert!(list["items"].as_array().expect("a list").iter().any(is_it), "{list}");
}

pub async fn kubernetes_is_a_service(test: &Test) {
    let service = test.api.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
    assert!(service["spec"]["clusterIP"].as_str().is_some_and(|address| !address.is_empty()), "{service}");
}

/// Makes a Service, changes it, and gives what it became.
async fn changed(test: &Test, spec: Value, change: impl Fn(&mut Value)) -> (Value, Value) {
    let path = test.path("v1", "services");
    let object = json!({"metadata": {"name": "changing"}, "spec": spec});
    let made = test.api.create(&path, &object).await.ok();
    let became = test.api.replace(&format!("{path}/changing"), |object| change(&mut object["spec"])).await;
    (made["spec"].clone(), became["spec"].clone())
}

fn has_address(spec: &Value) -> bool {
    spec["clusterIP"].as_str().is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok())
}

fn to_external_name(spec: &mut Value) {
    spec["type"] = json!("ExternalName");
    spec["externalName"] = json!("example.com");
    spec["clusterIP"] = json!("");
}

fn to_type(spec: &mut Value, kind: &str) {
    spec["type"] = json!(kind);
    spec["externalName"] = json!("");
    spec["ports"] = json!([{"port": 80, "name": "http", "protocol": "TCP"}]);
}

pub async fn from_cluster_ip_to_external_name(test: &Test) {
    let (made, became) = changed(test, json!({"ports": [{"port": 80}]}), to_external_name).await;
    assert!(has_address(&made), "{made}");
    assert!(!has_address(&became), "{became}");
    assert_eq!(became["externalName"], "example.com");
}

pub async fn from_external_name_to_cluster_ip(test: &Test) {
    let spec = json!({"type": "ExternalName", "externalName": "example.com"});
    let (made, became) = changed(test, spec, |spec| to_type(spec, "ClusterIP")).await;
    assert!(!has_address(&made), "{made}");
    assert!(has_address(&became), "{became}");
}

pub async fn from_external_name_to_node_port(test: &Test) {
    let spec = json!({"type": "ExternalName", "externalName": "example.com"});
    let (made, became) = changed(test, spec, |spec| to_type(spec, "NodePort")).await;
    assert!(!has_address(&made), "{made}");
    assert!(has_address(&became) && became["ports"][0]["nodePort"].is_u64(), "{became}");
}

pub async fn from_node_port_to_external_name(test: &Test) {
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let (made, became) = changed(test, spec, |spec| {
        to_external_name(spec);
        spec["ports"][0]["nodePort"] = json!(0);
    })
    .await;
    let port = made["ports"][0]["nodePort"].as_u64().expect("a port of the node");
    assert!(!has_address(&became) && became["ports"][0]["nodePort"].as_u64().is_none_or(|port| port == 0), "{became}");
    let again = json!({"metadata": {"name": "again"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    holds(&test.api.create(&test.path("v1", "services"), &again).await.ok(), &again);
}

fn row(test: &Test) -> Walk {
    let spec = json!({"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    let ingress = json!({"metadata": {"annotations": {"patched": "yes"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    Walk::namespaced(test, "v1", "services", json!({"spec": {"type": "LoadBalancer", "ports": spec["ports"]}}))
        .status(ingress, condition("StatusReplaced"))
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
    row(test).lives(test).await;
    let path = test.path("v1", "services");
    let object = json!({"metadata": {"name": "patched"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    test.api.create(&path, &object).await.ok();
    let patch = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
    let patched = test.api.patch(&format!("{path}/patched"), STRATEGIC, &patch).await.ok();
    assert_eq!(patched["spec"]["ports"].as_array().map(Vec::len), Some(2), "ports are merged: {patched}");
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}
