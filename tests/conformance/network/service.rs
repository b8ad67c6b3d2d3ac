//! Service: its types and who answers then, its status and collections.

use serde_json::{Value, json};

use super::dns;
use crate::Test;
use crate::api::STRATEGIC;
use crate::running::{is_ready, server, waiting};
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

/// Makes a Service, changes it, and gives what it was and what it became. Before: a server for it, a Service that does not
/// change, which leads to the same, and a client.
async fn changed(test: &Test, spec: Value, change: impl Fn(&mut Value)) -> (Value, Value) {
    let path = test.path("v1", "services");
    test.start(&server("server", &["http=8080"])).await;
    let target = json!({"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]});
    test.api.create(&path, &json!({"metadata": {"name": "target"}, "spec": target})).await.ok();
    test.start_ready(&waiting("client")).await;
    test.until_pod("server", "ready", is_ready).await;
    let object = json!({"metadata": {"name": "changing"}, "spec": spec});
    let made = test.api.create(&path, &object).await.ok();
    let became = test.api.replace(&format!("{path}/changing"), |object| change(&mut object["spec"])).await;
    (made["spec"].clone(), became["spec"].clone())
}

fn has_address(spec: &Value) -> bool {
    spec["clusterIP"].as_str().is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok())
}

/// The name of the Service that does not change.
fn target(test: &Test) -> String {
    format!("target.{}.svc.{}", test.namespace, dns::DOMAIN)
}

fn to_external_name(test: &Test, spec: &mut Value) {
    spec["type"] = json!("ExternalName");
    spec["externalName"] = json!(target(test));
    spec["clusterIP"] = json!("");
}

fn to_type(spec: &mut Value, kind: &str) {
    spec["type"] = json!(kind);
    spec["externalName"] = json!("");
    spec["selector"] = json!({"app": "server"});
    spec["ports"] = json!([{"port": 80, "targetPort": 8080, "name": "http", "protocol": "TCP"}]);
}

/// The changed Service's name leads to the address of the one that it is another name of.
async fn is_an_alias(test: &Test, became: &Value) {
    assert!(!has_address(became), "{became}");
    assert_eq!(became["externalName"], target(test));
    let led = test.api.get(&format!("{}/target", test.path("v1", "services"))).await.ok();
    let address = led["spec"]["clusterIP"].as_str().expect("an address");
    dns::resolves(test, &format!("changing.{}.svc.{}", test.namespace, dns::DOMAIN), address).await;
}

/// The server answers at each of these addresses.
async fn answers_at(test: &Test, addresses: &[String]) {
    for address in addresses {
        let ask = format!("/bin/peer fetch http://{address}/hostname");
        test.until_shell("client", &ask, |text| text.trim() == "server").await;
    }
}

fn cluster_address(spec: &Value) -> String {
    format!("{}:80", spec["clusterIP"].as_str().expect("an address"))
}

pub async fn from_cluster_ip_to_external_name(test: &Test) {
    let (made, became) = changed(test, json!({"ports": [{"port": 80}]}), |spec| to_external_name(test, spec)).await;
    assert!(has_address(&made), "{made}");
    is_an_alias(test, &became).await;
}

pub async fn from_external_name_to_cluster_ip(test: &Test) {
    let spec = json!({"type": "ExternalName", "externalName": "example.com"});
    let (made, became) = changed(test, spec, |spec| to_type(spec, "ClusterIP")).await;
    assert!(!has_address(&made), "{made}");
    assert!(has_address(&became), "{became}");
    answers_at(test, &["changing:80".to_owned(), cluster_address(&became)]).await;
}

pub async fn from_external_name_to_node_port(test: &Test) {
    let spec = json!({"type": "ExternalName", "externalName": "example.com"});
    let (made, became) = changed(test, spec, |spec| to_type(spec, "NodePort")).await;
    assert!(!has_address(&made), "{made}");
    assert!(has_address(&became) && became["ports"][0]["nodePort"].is_u64(), "{became}");
    let client = test.api.get(&test.pod("client")).await.ok();
    let node = client["status"]["hostIP"].as_str().expect("a node has an address");
    let of_node = format!("{node}:{}", became["ports"][0]["nodePort"]);
    answers_at(test, &["changing:80".to_owned(), cluster_address(&became), of_node]).await;
}

pub async fn from_node_port_to_external_name(test: &Test) {
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let (made, became) = changed(test, spec, |spec| {
        to_external_name(test, spec);
        spec["ports"][0]["nodePort"] = json!(0);
    })
    .await;
    let port = made["ports"][0]["nodePort"].as_u64().expect("a port of the node");
    assert!(became["ports"][0]["nodePort"].as_u64().is_none_or(|port| port == 0), "{became}");
    is_an_alias(test, &became).await;
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
