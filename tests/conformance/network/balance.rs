//! Services from the packets' side: who answers a client, by address, by name, and by a port of the node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::running::{is_ready, server, waiting};

/// Servers behind a Service.
const SERVERS: usize = 3;
/// Questions of one round: that a random choice among the servers gives one answer this often happens once in 10^9 times.
const QUESTIONS: usize = 20;

/// Servers, a Service of this type that leads to them, and a client. Gives the Service and the node's address.
async fn served(test: &Test, kind: &str, affinity: &str) -> (Value, String) {
    let spec = json!({"type": kind, "selector": {"role": "server"}, "sessionAffinity": affinity,
        "ports": [{"port": 80, "targetPort": 8080}]});
    let service = json!({"metadata": {"name": "served"}, "spec": spec});
    let service = test.api.create(&test.path("v1", "services"), &service).await.ok();
    for number in 0..SERVERS {
        let mut pod = server(&format!("server-{number}"), &["http=8080"]);
        pod["metadata"]["labels"]["role"] = json!("server");
        test.start(&pod).await;
    }
    for number in 0..SERVERS {
        test.until_pod(&format!("server-{number}"), "ready", is_ready).await;
    }
    let client = test.start_ready(&waiting("client")).await;
    (service, client["status"]["hostIP"].as_str().expect("a node has an address").to_owned())
}

/// Asks in a row who answers.
async fn who(test: &Test, address: &str) -> BTreeSet<String> {
    let script =
        format!("for i in $(seq {QUESTIONS}); do /bin/peer fetch http://{address}/hostname && echo || echo none; done");
    test.shell("client", &script).await.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Asks until the answers are as they should be: the node hears of changes by a watch of its own.
async fn until_who(test: &Test, address: &str, condition: impl Fn(&BTreeSet<String>) -> bool) {
    let mut last = BTreeSet::new();
    for _ in 0..QUESTIONS {
        last = who(test, address).await;
        if condition(&last) {
            return;
        }
    }
    panic!("{address}: these answered: {last:?}");
}

fn is_one(who: &BTreeSet<String>) -> bool {
    who.len() == 1 && !who.contains("none")
}

fn is_many(who: &BTreeSet<String>) -> bool {
    who.len() > 1 && !who.contains("none")
}

async fn changes(test: &Test, affinity: &str) {
    let one = format!("{}/served", test.path("v1", "services"));
    test.api.patch(&one, MERGE, &json!({"spec": {"sessionAffinity": affinity}})).await.ok();
}

fn cluster_address(service: &Value) -> String {
    format!("{}:80", service["spec"]["clusterIP"].as_str().expect("a Service has an address"))
}

fn node_address(service: &Value, node: &str) -> String {
    format!("{node}:{}", service["spec"]["ports"][0]["nodePort"])
}

pub async fn a_client_stays_with_its_server(test: &Test) {
    let (service, _) = served(test, "ClusterIP", "ClientIP").await;
    until_who(test, &cluster_address(&service), is_one).await;
    until_who(test, "served:80", is_one).await;
}

pub async fn a_client_of_the_node_stays_with_its_server(test: &Test) {
    let (service, node) = served(test, "NodePort", "ClientIP").await;
    for address in [node_address(&service, &node), cluster_address(&service), "served:80".to_owned()] {
        until_who(test, &address, is_one).await;
    }
}

pub async fn clients_are_spread_once_asked(test: &Test) {
    let (service, _) = served(test, "ClusterIP", "ClientIP").await;
    are_spread_and_kept(test, &[cluster_address(&service), "served:80".to_owned()]).await;
}

/// A client stays with its server, then does not, then does again; at each of these addresses.
async fn are_spread_and_kept(test: &Test, addresses: &[String]) {
    for address in addresses {
        until_who(test, address, is_one).await;
    }
    changes(test, "None").await;
    for address in addresses {
        until_who(test, address, is_many).await;
    }
    changes(test, "ClientIP").await;
    for address in addresses {
        until_who(test, address, is_one).await;
    }
}

pub async fn clients_of_the_node_are_spread_once_asked(test: &Test) {
    let (service, node) = served(test, "NodePort", "ClientIP").await;
    let addresses = [node_address(&service, &node), cluster_address(&service), "served:80".to_owned()];
    are_spread_and_kept(test, &addresses).await;
}

pub async fn a_node_port_is_reached_every_way(test: &Test) {
    let (service, node) = served(test, "NodePort", "None").await;
    for address in [cluster_address(&service), "served:80".to_owned(), node_address(&service, &node)] {
        until_who(test, &address, is_many).await;
    }
}

/// A pod on the node's own network asks a pod.
async fn from_the_node(test: &Test, setting: &str, ask: fn(&str) -> String) {
    let pod = test.start_ready(&server("server", &[setting])).await;
    let address = pod["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned();
    let mut client = waiting("client");
    client["spec"]["hostNetwork"] = json!(true);
    test.start_ready(&client).await;
    test.until_shell("client", &ask(&address), |text| text.trim() == "server").await;
}

pub async fn the_node_reaches_pods_over_http(test: &Test) {
    from_the_node(test, "http=8080", |address| format!("/bin/peer fetch http://{address}:8080/hostname")).await;
}

pub async fn the_node_reaches_pods_over_udp(test: &Test) {
    from_the_node(test, "udp=8081", |address| format!("/bin/peer udp {address}:8081 hostname")).await;
}

/// A port of the machine that other suites on it do not use, as far as chance allows.
fn host_port(test: &Test) -> u64 {
    20_000 + test.namespace.bytes().fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 9_000)
}

fn on_host_port(name: &str, port: u64, (ip, protocol): (&str, &str)) -> Value {
    let mut pod = server(name, &["http=8080", "udp=8080"]);
    pod["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 8080, "hostPort": port, "hostIP": ip, "protocol": protocol}]);
    pod
}

pub async fn one_host_port_serves_addresses_and_protocols(test: &Test) {
    crate::scheduling::placement::one_port_serves_other_addresses_and_protocols(test).await;
    let port = host_port(test);
    let probe = test.start_ready(&waiting("probe")).await;
    let node = probe["status"]["hostIP"].as_str().expect("a node has an address");
    test.start_ready(&on_host_port("loopback", port, ("127.0.0.1", "TCP"))).await;
    test.start_ready(&on_host_port("node-tcp", port, (node, "TCP"))).await;
    test.start_ready(&on_host_port("node-udp", port, (node, "UDP"))).await;
    let mut client = waiting("client");
    client["spec"]["hostNetwork"] = json!(true);
    test.start_ready(&client).await;
    for (ask, answer) in [
        (format!("/bin/peer fetch http://127.0.0.1:{port}/hostname"), "loopback"),
        (format!("/bin/peer fetch http://{node}:{port}/hostname"), "node-tcp"),
        (format!("/bin/peer udp {node}:{port} hostname"), "node-udp"),
    ] {
        test.until_shell("client", &ask, |text| text.trim() == answer).await;
    }
}

/// A Service without a selector, whose slices the test writes: one for each pod and each of its ports.
async fn by_slices(test: &Test, pods: &[(&str, &[u16])]) {
    let ports = json!([{"name": "first", "port": 80, "targetPort": 3000}, {"name": "second", "port": 8080, "targetPort": 3001}]);
    let service = json!({"metadata": {"name": "sliced"}, "spec": {"ports": ports}});
    let service = test.api.create(&test.path("v1", "services"), &service).await.ok();
    for (name, ports) in pods {
        let settings: Vec<String> = ports.iter().map(|port| format!("http={port}")).collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let pod = test.start_ready(&server(name, &settings)).await;
        for port in *ports {
            let slice = json!({
                "metadata": {"name": format!("sliced-{name}-{port}"), "labels": {"kubernetes.io/service-name": "sliced",
                    "endpointslice.kubernetes.io/managed-by": "conformance"}},
                "addressType": "IPv4", "endpoints": [{"addresses": [pod["status"]["podIP"]]}],
                "ports": [{"name": if *port == 3000 { "first" } else { "second" }, "port": port, "protocol": "TCP"}],
            });
            test.api.create(&test.path("discovery.k8s.io/v1", "endpointslices"), &slice).await.ok();
        }
    }
    test.start_ready(&waiting("client")).await;
    let address = service["spec"]["clusterIP"].as_str().expect("a Service has an address");
    for (port, own) in [(80, 3000), (8080, 3001)] {
        let expected: BTreeSet<String> =
            pods.iter().filter(|(_, ports)| ports.contains(&own)).map(|(name, _)| (*name).to_owned()).collect();
        until_who(test, &format!("{address}:{port}"), |who| *who == expected).await;
    }
}

pub async fn slices_of_many_addresses_and_ports_are_served(test: &Test) {
    by_slices(test, &[("one", &[3000]), ("two", &[3001])]).await;
}

pub async fn slices_of_one_address_and_many_ports_are_served(test: &Test) {
    by_slices(test, &[("one", &[3000, 3001])]).await;
}
