//! Endpoints: their life, and that they are those of a Service's ready pods.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::{MERGE, Reply};
use crate::running::{server, waiting};
use crate::walk::holds;
use crate::{Test, pod};

pub async fn endpoints_live(test: &Test) {
    let path = test.path("v1", "endpoints");
    let selected = "labelSelector=test%3Dlife";
    let mut events = test.api.watch(&path, selected).await;
    let object = json!({"metadata": {"name": "life", "labels": {"test": "life"}}, "subsets": [{
        "addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]});
    test.api.create(&path, &object).await.ok();
    events.expect("ADDED").await;
    let one = format!("{path}/life");
    test.api.replace(&one, |object| object["metadata"]["labels"]["updated"] = json!("yes")).await;
    events.until("MODIFIED", |object: &Value| object["metadata"]["labels"]["updated"] == "yes").await;
    let patch = json!({"subsets": [{
        "addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080, "protocol": "TCP"}]}]});
    test.api.patch(&one, MERGE, &patch).await.ok();
    events.until("MODIFIED", |object: &Value| object["subsets"][0]["addresses"][0]["ip"] == "10.0.0.25").await;
    holds(&test.api.get(&one).await.ok(), &patch);
    test.api.delete(&format!("{path}?{selected}")).await.ok();
    events.expect("DELETED").await;
    test.api.until_gone(&one).await;
}

/// What a Service leads to: by pod, the ports with their protocols.
type Led = BTreeMap<String, Vec<String>>;

fn port(port: &Value) -> String {
    format!("{}/{}", port["protocol"].as_str().unwrap_or_default(), port["port"])
}

/// Where the Endpoints lead, as far as it is ready.
fn of_endpoints(endpoints: &Value) -> Led {
    let mut led = Led::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for address in subset["addresses"].as_array().into_iter().flatten() {
            let ports = subset["ports"].as_array().into_iter().flatten().map(port);
            led.entry(address["targetRef"]["name"].as_str().unwrap_or_default().to_owned()).or_default().extend(ports);
        }
    }
    sorted(led)
}

/// Where the slices of a list lead, as far as they are ready.
fn of_slices(slices: &Value) -> Led {
    let mut led = Led::new();
    for slice in slices["items"].as_array().into_iter().flatten() {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true) {
            let ports = slice["ports"].as_array().into_iter().flatten().map(port);
            led.entry(endpoint["targetRef"]["name"].as_str().unwrap_or_default().to_owned()).or_default().extend(ports);
        }
    }
    sorted(led)
}

fn sorted(mut led: Led) -> Led {
    led.values_mut().for_each(|ports| ports.sort());
    led
}

/// A Service named `led` of the pods with label `app: led`.
async fn a_service(test: &Test, ports: Value) -> String {
    let services = test.path("v1", "services");
    let service = json!({"metadata": {"name": "led"}, "spec": {"selector": {"app": "led"}, "ports": ports}});
    test.api.create(&services, &service).await.ok();
    format!("{services}/led")
}

async fn a_pod(test: &Test, name: &str, address: &str, ports: Value) {
    let mut object = pod::named(name, "led");
    object["spec"]["containers"][0]["ports"] = ports;
    test.api.create(&test.path("v1", "pods"), &object).await.ok();
    pod::make_ready(test, name, address).await;
}

async fn drop_pod(test: &Test, name: &str) {
    test.api.delete(&format!("{}/{name}?gracePeriodSeconds=0", test.path("v1", "pods"))).await.ok();
}

/// Waits until the Service leads there, by its Endpoints and by its slices.
async fn leads_to(test: &Test, expected: &[(&str, &[&str])]) {
    let ports = |ports: &[&str]| ports.iter().map(|port| (*port).to_owned()).collect();
    let expected: Led = expected.iter().map(|(pod, led)| ((*pod).to_owned(), ports(led))).collect();
    let what = format!("leading to {expected:?}");
    let endpoints = format!("{}/led", test.path("v1", "endpoints"));
    let leads = |reply: &Reply| reply.code.is_success() && of_endpoints(&reply.json()) == expected;
    test.api.until(&endpoints, &what, leads).await;
    let slices = test.path("discovery.k8s.io/v1", "endpointslices");
    let slices = format!("{slices}?labelSelector=kubernetes.io%2Fservice-name%3Dled");
    let leads = |reply: &Reply| reply.json()["items"][0].is_object() && of_slices(&reply.json()) == expected;
    test.api.until(&slices, &what, leads).await;
}

pub async fn a_service_without_pods_has_empty_endpoints(test: &Test) {
    let service = a_service(test, json!([{"port": 80}])).await;
    leads_to(test, &[]).await;
    test.api.delete(&service).await.ok();
    test.api.until_gone(&format!("{}/led", test.path("v1", "endpoints"))).await;
    a_service_without_selector_takes_its_endpoints_along(test).await;
}

/// What a user writes for a Service without a selector.
async fn a_service_without_selector_takes_its_endpoints_along(test: &Test) {
    let service = json!({"metadata": {"name": "led"}, "spec": {"ports": [{"port": 80}]}});
    test.api.create(&test.path("v1", "services"), &service).await.ok();
    let path = test.path("v1", "endpoints");
    let object =
        json!({"metadata": {"name": "led"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]});
    test.api.create(&path, &object).await.ok();
    let owned = |reply: &Reply| reply.json()["metadata"]["ownerReferences"][0]["name"] == "led";
    test.api.until(&format!("{path}/led"), "its service's", owned).await;
    test.api.delete(&format!("{}/led", test.path("v1", "services"))).await.ok();
    test.api.until_gone(&format!("{path}/led")).await;
}

pub async fn endpoints_are_the_pods_of_a_service(test: &Test) {
    let service = a_service(test, json!([{"port": 80, "targetPort": 8080}])).await;
    a_pod(test, "one", "192.0.2.1", json!([])).await;
    a_pod(test, "two", "192.0.2.2", json!([])).await;
    leads_to(test, &[("one", &["TCP/8080"]), ("two", &["TCP/8080"])]).await;
    let found = test.api.get(&format!("{}/led", test.path("v1", "endpoints"))).await.ok();
    assert_eq!(found["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    test.api.delete(&service).await.ok();
    test.api.until_gone(&format!("{}/led", test.path("v1", "endpoints"))).await;
}

pub async fn a_service_leads_to_its_pods_as_they_come_and_go(test: &Test) {
    a_service(test, json!([{"port": 80, "targetPort": 80}])).await;
    leads_to(test, &[]).await;
    a_pod(test, "one", "192.0.2.1", json!([{"containerPort": 80}])).await;
    leads_to(test, &[("one", &["TCP/80"])]).await;
    a_pod(test, "two", "192.0.2.2", json!([{"containerPort": 80}])).await;
    leads_to(test, &[("one", &["TCP/80"]), ("two", &["TCP/80"])]).await;
    drop_pod(test, "one").await;
    leads_to(test, &[("two", &["TCP/80"])]).await;
    drop_pod(test, "two").await;
    leads_to(test, &[]).await;
}

pub async fn each_port_leads_to_the_pods_that_have_it(test: &Test) {
    let ports = json!([{"name": "portname1", "port": 80, "targetPort": "svc1"},
        {"name": "portname2", "port": 81, "targetPort": "svc2"}]);
    a_service(test, ports).await;
    leads_to(test, &[]).await;
    a_pod(test, "one", "192.0.2.1", json!([{"name": "svc1", "containerPort": 100}])).await;
    leads_to(test, &[("one", &["TCP/100"])]).await;
    a_pod(test, "two", "192.0.2.2", json!([{"name": "svc2", "containerPort": 101}])).await;
    leads_to(test, &[("one", &["TCP/100"]), ("two", &["TCP/101"])]).await;
    drop_pod(test, "one").await;
    leads_to(test, &[("two", &["TCP/101"])]).await;
    drop_pod(test, "two").await;
    leads_to(test, &[]).await;
}

pub async fn one_port_is_served_in_two_protocols(test: &Test) {
    let ports = json!([{"name": "tcp", "port": 80, "protocol": "TCP"}, {"name": "udp", "port": 80, "protocol": "UDP"}]);
    a_service(test, ports).await;
    a_pod(test, "one", "192.0.2.1", json!([])).await;
    leads_to(test, &[("one", &["TCP/80", "UDP/80"])]).await;
    drop_pod(test, "one").await;

    let mut pod = server("one", &["http=80", "udp=80"]);
    pod["metadata"]["labels"]["app"] = json!("led");
    test.start_ready(&pod).await;
    test.start_ready(&waiting("client")).await;
    let one = format!("{}/led", test.path("v1", "services"));
    let address = test.api.get(&one).await.ok()["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let tcp = format!("/bin/peer fetch http://{address}:80/hostname || echo nobody");
    let udp = format!("/bin/peer udp {address}:80 hostname || echo nobody");
    let says = |answer: &'static str| move |text: &str| text.trim() == answer;
    test.until_shell("client", &tcp, says("one")).await;
    test.until_shell("client", &udp, says("one")).await;
    for (protocol, of_tcp, of_udp) in [("TCP", "one", "nobody"), ("UDP", "nobody", "one")] {
        let only = json!([{"name": protocol.to_lowercase(), "port": 80, "protocol": protocol}]);
        test.api.replace(&one, |service| service["spec"]["ports"] = only.clone()).await;
        test.until_shell("client", &tcp, says(of_tcp)).await;
        test.until_shell("client", &udp, says(of_udp)).await;
    }
}

pub async fn the_server_itself_has_endpoints(test: &Test) {
    let addresses = |list: &Value| -> Vec<Value> {
        let list = list.as_array().into_iter().flatten();
        list.map(|found| found.get("ip").unwrap_or(&found["addresses"][0]).clone()).collect()
    };
    let endpoints = test.api.get("/api/v1/namespaces/default/endpoints/kubernetes").await.ok();
    let listed = addresses(&endpoints["subsets"][0]["addresses"]);
    assert!(!listed.is_empty(), "{endpoints}");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slices = format!("{slices}?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes");
    let found = test.api.get(&slices).await.ok();
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(addresses(&found["items"][0]["endpoints"]), listed);
    assert_eq!(found["items"][0]["ports"], endpoints["subsets"][0]["ports"]);
}
