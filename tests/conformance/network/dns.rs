//! DNS: what names a pod resolves, by its own resolver settings.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::running::{has_lines, script, server, waiting};

/// The domain of clusters that nobody configured otherwise.
pub(super) const DOMAIN: &str = "cluster.local";

/// Waits until a name resolves in the pod to an address.
pub(super) async fn resolves(test: &Test, name: &str, address: &str) {
    // The node hears of Services by a watch of its own.
    let ask = format!("/bin/peer resolve {name}");
    test.until_shell("client", &ask, |text| text.lines().any(|line| line == address)).await;
}

/// Waits until a question of this type is answered with this text.
async fn answers(test: &Test, kind: &str, name: &str, expected: &str) {
    let ask = format!("nslookup -type={kind} {name}");
    test.until_shell("client", &ask, |text| text.contains(expected)).await;
}

async fn client(test: &Test) {
    test.start_ready(&waiting("client")).await;
}

async fn service(test: &Test, name: &str, spec: Value) -> Value {
    test.api.create(&test.path("v1", "services"), &json!({"metadata": {"name": name}, "spec": spec})).await.ok()
}

fn http() -> Value {
    json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}])
}

/// A Service with an address, a headless one, and the server behind both; gives their addresses.
async fn both(test: &Test) -> (String, String) {
    let selector = json!({"app": "server"});
    service(test, "headless", json!({"clusterIP": "None", "selector": selector, "ports": http()})).await;
    let plain = service(test, "plain", json!({"selector": selector, "ports": http()})).await;
    let pod = test.start_ready(&server("server", &["http=8080"])).await;
    client(test).await;
    let address = |text: &Value| text.as_str().expect("an address").to_owned();
    (address(&plain["spec"]["clusterIP"]), address(&pod["status"]["podIP"]))
}

pub async fn the_cluster_has_its_names(test: &Test) {
    client(test).await;
    let kubernetes = test.api.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
    let address = kubernetes["spec"]["clusterIP"].as_str().expect("the API has an address");
    for name in ["kubernetes.default", "kubernetes.default.svc", &format!("kubernetes.default.svc.{DOMAIN}")] {
        resolves(test, name, address).await;
    }
}

pub async fn services_have_addresses_servers_and_pointers(test: &Test) {
    let (cluster, pod) = both(test).await;
    for (name, address) in [("plain", &cluster), ("headless", &pod)] {
        let full = format!("{name}.{}.svc.{DOMAIN}", test.namespace);
        resolves(test, &full, address).await;
        answers(test, "srv", &format!("_http._tcp.{full}"), &full).await;
        let mut parts: Vec<&str> = address.split('.').collect();
        parts.reverse();
        answers(test, "ptr", &format!("{}.in-addr.arpa", parts.join(".")), &full).await;
    }
}

pub async fn parts_of_names_are_enough(test: &Test) {
    let (cluster, pod) = both(test).await;
    for (name, address) in [("plain", &cluster), ("headless", &pod)] {
        for name in [name.to_owned(), format!("{name}.{}", test.namespace), format!("{name}.{}.svc", test.namespace)] {
            resolves(test, &name, address).await;
        }
    }
}

/// A pod with a host name in a headless Service, and its address.
async fn named(test: &Test) -> String {
    let spec = json!({"clusterIP": "None", "selector": {"app": "named"}, "ports": http()});
    service(test, "group", spec).await;
    let mut pod = server("named", &["http=8080"]);
    pod["spec"]["hostname"] = json!("one");
    pod["spec"]["subdomain"] = json!("group");
    let pod = test.start_ready(&pod).await;
    client(test).await;
    pod["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned()
}

pub async fn a_pod_is_found_by_its_host_name(test: &Test) {
    let address = named(test).await;
    for name in [format!("one.group.{}.svc.{DOMAIN}", test.namespace), "one.group".to_owned()] {
        resolves(test, &name, &address).await;
    }
    assert_eq!(test.shell("named", "hostname").await.trim(), "one");
}

pub async fn a_pod_is_found_by_its_subdomain(test: &Test) {
    let address = named(test).await;
    for name in [format!("group.{}.svc.{DOMAIN}", test.namespace), "group".to_owned()] {
        resolves(test, &name, &address).await;
    }
}

pub async fn a_pod_finds_itself_in_its_hosts_file(test: &Test) {
    let address = named(test).await;
    let full = format!("one.group.{}.svc.{DOMAIN}", test.namespace);
    let text = test.shell("named", &format!("cat /etc/hosts; /bin/peer resolve {full}; /bin/peer resolve one")).await;
    assert!(text.lines().any(|line| line == format!("{address}\t{full}\tone")), "{text}");
    assert_eq!(text.lines().filter(|line| **line == *address).count(), 2, "{text}");
}

pub async fn a_pod_has_the_resolver_it_asks_for(test: &Test) {
    let mut pod = script("custom", "cat /etc/resolv.conf");
    pod["spec"]["dnsPolicy"] = json!("None");
    pod["spec"]["dnsConfig"] = json!({"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"],
        "options": [{"name": "ndots", "value": "2"}]});
    let text = test.run(&pod).await;
    has_lines(&text, &["nameserver 1.1.1.1", "search resolv.conf.local", "options ndots:2"]);
    assert_eq!(text.lines().count(), 3, "{text}");
}

pub async fn an_external_name_is_an_alias(test: &Test) {
    let made = service(test, "far", json!({"type": "ExternalName", "externalName": "foo.example.com"})).await;
    let name = format!("far.{}.svc.{DOMAIN}", test.namespace);
    client(test).await;
    answers(test, "cname", &name, "foo.example.com").await;
    let one = format!("{}/far", test.path("v1", "services"));
    let patch = json!({"spec": {"externalName": "bar.example.com"}});
    test.api.patch(&one, MERGE, &patch).await.ok();
    answers(test, "cname", &name, "bar.example.com").await;
    let patch = json!({"spec": {"type": "ClusterIP", "externalName": null, "ports": http()}});
    let changed = test.api.patch(&one, MERGE, &patch).await.ok();
    assert_eq!(made["spec"]["clusterIP"], Value::Null);
    resolves(test, &name, changed["spec"]["clusterIP"].as_str().expect("an address")).await;
}
