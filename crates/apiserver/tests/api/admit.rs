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

const PRIORITY_CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn priority_class(name: &str, value: i64, is_default: bool) -> Value {
    json!({"metadata": {"name": name}, "value": value, "globalDefault": is_default, "preemptionPolicy": "Never"})
}

#[tokio::test]
async fn a_pod_is_as_important_as_its_class() {
    let api = Api::start().await;
    let importance = |pod: &Value| (pod["spec"]["priority"].clone(), pod["spec"]["preemptionPolicy"].clone());
    let made = api.make(PODS, &pod("plain")).await;
    assert_eq!(importance(&made), (json!(0), json!("PreemptLowerPriority")));
    let mut critical = pod("critical");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(importance(&api.make(PODS, &critical).await).0, json!(2_000_001_000));
    let mut unknown = pod("unknown");
    unknown["spec"]["priorityClassName"] = json!("none");
    let expected = "403 Forbidden: pods \"unknown\" is forbidden: no PriorityClass with name none was found";
    assert_eq!(api.post(PODS, &unknown).await.said(), expected);
    let mut wishes = pod("wishes");
    wishes["spec"]["priority"] = json!(7);
    let said = api.post(PODS, &wishes).await.said();
    assert!(said.contains("the integer value of priority (7) must not be provided in pod spec"), "{said}");
}

#[tokio::test]
async fn there_is_one_default_priority() {
    let api = Api::start().await;
    api.make(PRIORITY_CLASSES, &priority_class("usual", 10, true)).await;
    let said = api.post(PRIORITY_CLASSES, &priority_class("other", 20, true)).await.said();
    assert!(said.contains("PriorityClass usual is already marked as default. Only one default can exist"), "{said}");
    api.make(PRIORITY_CLASSES, &priority_class("other", 20, false)).await;
    let reply = api.merge(&format!("{PRIORITY_CLASSES}/other"), &json!({"globalDefault": true})).await;
    assert_eq!(reply.code, 403, "{}", reply.said());
    let made = api.make(PODS, &pod("p")).await;
    let spec = &made["spec"];
    assert_eq!((&spec["priorityClassName"], &spec["priority"]), (&json!("usual"), &json!(10)));
    assert_eq!(spec["preemptionPolicy"], "Never");
}

#[tokio::test]
async fn a_pod_takes_overhead_and_place_from_its_runtime_class() {
    let api = Api::start().await;
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"memory": "120Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
    api.make("/apis/node.k8s.io/v1/runtimeclasses", &class).await;
    let mut in_vm = pod("in-vm");
    in_vm["spec"]["runtimeClassName"] = json!("vm");
    let made = api.make(PODS, &in_vm).await;
    assert_eq!(made["spec"]["overhead"], json!({"memory": "120Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"vm": "yes"}));
    in_vm["metadata"]["name"] = json!("other");
    in_vm["spec"]["runtimeClassName"] = json!("none");
    let expected = "403 Forbidden: pods \"other\" is forbidden: pod rejected: RuntimeClass \"none\" not found";
    assert_eq!(api.post(PODS, &in_vm).await.said(), expected);
}

#[tokio::test]
async fn the_cluster_has_its_priorities_and_lists_what_it_serves() {
    let api = Api::start().await;
    let flow = "/apis/flowcontrol.apiserver.k8s.io/v1";
    for path in [
        format!("{PRIORITY_CLASSES}/system-cluster-critical"),
        format!("{flow}/flowschemas/catch-all"),
        format!("{flow}/flowschemas/system-nodes"),
        format!("{flow}/prioritylevelconfigurations/exempt"),
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes".to_owned(),
        "/apis/apiregistration.k8s.io/v1/apiservices/v1.".to_owned(),
    ] {
        assert_eq!(api.get(&path).await.code, 200, "{path}");
    }
    let service = api.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps").await.json();
    assert_eq!(service["spec"]["groupPriorityMinimum"], 17_800);
    assert_eq!(service["status"]["conditions"][0]["status"], "True");
}

#[tokio::test]
async fn a_certificate_is_asked_for_by_who_asks_and_decided_through_approval() {
    use windlass_api::resources::samples::samples;
    let api = Api::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let sample = samples().into_iter().find(|sample| sample.object["kind"] == "CertificateSigningRequest");
    let mut request = sample.expect("every kind has a sample").object;
    request["spec"]["username"] = json!("somebody-else");
    let made = api.make(path, &request).await;
    assert_eq!(made["spec"]["username"], "admin");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Known"}]}});
    let beside = api.merge(&format!("{path}/sample/status"), &approve).await.json();
    assert_eq!(beside["status"].get("conditions").cloned().unwrap_or(json!([])), json!([]), "not through /status");
    let approved = api.merge(&format!("{path}/sample/approval"), &approve).await.json();
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let undone = api.merge(&format!("{path}/sample/approval"), &json!({"status": {"conditions": []}})).await;
    let expected = "updates may not remove a condition of type \"Approved\"";
    assert!(undone.said().contains(expected), "{}", undone.said());
}
