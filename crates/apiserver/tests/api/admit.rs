//! What a write takes from outside its object: addresses, ports, accounts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{Api, DEPLOYMENTS, PODS, SERVICES, deployment, pod, service};

fn address(service: &Value) -> String {
    service["spec"]["clusterIP"].as_str().expect("an address").to_owned()
}

#[tokio::test]
async fn every_service_has_an_address_of_its_own_until_it_is_deleted() {
    let api = Api::start().await;
    let mut seen = BTreeSet::from(["10.43.0.1".to_owned()]);
    for index in 0..30 {
        let made = api.make(SERVICES, &service(&format!("s{index}"))).await;
        assert_eq!(made["spec"]["clusterIPs"], json!([address(&made)]));
        assert!(seen.insert(address(&made)), "{} was given twice", address(&made));
    }
    let taken = address(&api.get(&format!("{SERVICES}/s0")).await.json());
    let mut wished = service("wished");
    wished["spec"]["clusterIP"] = json!(taken);
    let reply = api.post(SERVICES, &wished).await;
    assert_eq!(reply.code, 422);
    assert!(reply.said().contains("provided IP is already allocated"), "{}", reply.said());
    api.delete(&format!("{SERVICES}/s0")).await;
    assert_eq!(address(&api.make(SERVICES, &wished).await), taken);
    for wrong in ["10.44.0.1", "10.43.0.0", "10.43.255.255", "fe80::1", "nonsense"] {
        let mut service = service("wrong");
        service["spec"]["clusterIP"] = json!(wrong);
        assert_eq!(api.post(SERVICES, &service).await.code, 422, "{wrong}");
    }
}

#[tokio::test]
async fn of_services_racing_for_one_address_one_gets_it() {
    let api = Api::start().await;
    let attempts = (0..20).map(|index| {
        let mut wished = service(&format!("s{index}"));
        wished["spec"]["clusterIP"] = json!("10.43.7.7");
        let api = &api;
        async move { api.post(SERVICES, &wished).await.code.as_u16() }
    });
    let codes = futures::future::join_all(attempts).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 422).count(), 19, "{codes:?}");
}

#[tokio::test]
async fn headless_and_external_services_take_no_address() {
    let api = Api::start().await;
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = json!("None");
    assert_eq!(api.make(SERVICES, &headless).await["spec"]["clusterIPs"], json!(["None"]));
    let external =
        json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    assert_eq!(api.make(SERVICES, &external).await["spec"].get("clusterIP"), None);
}

#[tokio::test]
async fn node_ports_are_given_kept_and_given_back() {
    let api = Api::start().await;
    let mut object = service("np");
    object["spec"]["type"] = json!("NodePort");
    let made = api.make(SERVICES, &object).await;
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().expect("a port");
    assert!((30_000..=32_767).contains(&port));
    let again = api.put(&format!("{SERVICES}/np"), &object).await;
    assert_eq!(again.json(), made, "a manifest that does not mention address and port keeps them");
    let mut rival = service("rival");
    rival["spec"]["type"] = json!("NodePort");
    rival["spec"]["ports"][0]["nodePort"] = json!(port);
    let reply = api.post(SERVICES, &rival).await;
    assert!(reply.said().contains("provided port is already allocated"), "{}", reply.said());
    rival["spec"]["ports"][0]["nodePort"] = json!(80);
    assert!(api.post(SERVICES, &rival).await.said().contains("The range of valid ports is 30000-32767"));
    let inner = api.merge(&format!("{SERVICES}/np"), &json!({"spec": {"type": "ClusterIP"}})).await.json();
    assert_eq!(inner["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(address(&inner), address(&made));
    rival["spec"]["ports"][0]["nodePort"] = json!(port);
    api.make(SERVICES, &rival).await;
}

#[tokio::test]
async fn a_pod_runs_as_the_default_account_and_bears_an_unwell_node() {
    let api = Api::start().await;
    let made = api.make(PODS, &pod("p")).await;
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(made["status"]["phase"], "Pending");
    let template = api.make(DEPLOYMENTS, &deployment("web")).await;
    assert_eq!(template["spec"]["template"]["spec"].get("tolerations"), None, "templates stay as written");
}

#[tokio::test]
async fn the_cluster_has_its_namespaces_and_its_service_once() {
    let api = Api::start().await;
    let before = api.store.revision();
    api.apiserver.bootstrap().await.expect("again");
    assert_eq!(api.store.revision(), before, "what is there is left alone");
    let kubernetes = api.get(&format!("{SERVICES}/kubernetes")).await.json();
    assert_eq!(address(&kubernetes), "10.43.0.1");
    let namespaces = api.get("/api/v1/namespaces").await.json();
    assert_eq!(namespaces["items"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn pods_are_told_where_the_api_listens_unless_that_is_loopback() {
    for (advertise, expected) in
        [("192.0.2.7:6443", Some("192.0.2.7")), ("127.0.0.1:6443", None), ("0.0.0.0:6443", None)]
    {
        let api = Api::start_with(|config, _| config.advertise = Some(advertise.parse().expect("an address"))).await;
        let slice = api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.json();
        assert_eq!(slice["endpoints"][0]["addresses"][0].as_str(), expected, "{advertise}");
    }
}
