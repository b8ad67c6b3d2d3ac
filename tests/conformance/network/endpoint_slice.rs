//! EndpointSlice: the walk, and the slice of a Service that has no pods.

use serde_json::{Value, json};

use crate::api::{Reply, STRATEGIC};
use crate::walk::Walk;
use crate::{Test, pod};

pub fn row(test: &Test) -> Walk {
    let object = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    let change = json!({"endpoints": [{"addresses": ["10.1.2.3", "10.1.2.4"]}]});
    Walk::namespaced(test, "discovery.k8s.io/v1", "endpointslices", object).change(change)
}

fn slices(reply: &Reply) -> Vec<Value> {
    reply.json()["items"].as_array().cloned().unwrap_or_default()
}

/// A Service of the pods with this label `app`: its path, and that of the list of its slices.
async fn a_service(test: &Test, app: &str) -> (String, String) {
    let services = test.path("v1", "services");
    let service = json!({"metadata": {"name": app}, "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}});
    test.api.create(&services, &service).await.ok();
    let of_service = format!("labelSelector=kubernetes.io%2Fservice-name%3D{app}");
    (format!("{services}/{app}"), format!("{}?{of_service}", test.path("discovery.k8s.io/v1", "endpointslices")))
}

pub async fn a_service_without_pods_has_an_empty_slice(test: &Test) {
    let (service, path) = a_service(test, "empty").await;
    let found = test.api.until(&path, "a slice", |reply| slices(reply).len() == 1).await;
    let endpoints = &slices(&found)[0]["endpoints"];
    assert!(endpoints.as_array().is_none_or(Vec::is_empty), "{endpoints}");
    assert_eq!(slices(&found)[0]["metadata"]["ownerReferences"][0]["name"], Value::from("empty"));
    test.api.delete(&service).await.ok();
    test.api.until(&path, "gone with its service", |reply| slices(reply).is_empty()).await;
}

/// The test says what a node would say of the pods.
pub async fn ready_pods_of_a_service_are_in_its_slices(test: &Test) {
    let (service, path) = a_service(test, "backed").await;
    let pods = test.path("v1", "pods");
    let addresses = ["192.0.2.11", "192.0.2.12"];
    for (at, address) in addresses.iter().enumerate() {
        let mut object = pod::named(&format!("backed-{at}"), "backed");
        object["spec"]["nodeName"] = json!(test.unique("none"));
        test.api.create(&pods, &object).await.ok();
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        test.api.patch(&format!("{pods}/backed-{at}/status"), STRATEGIC, &status).await.ok();
    }
    let ready = |reply: &Reply| {
        let endpoints = slices(reply).into_iter().flat_map(|slice| slice["endpoints"].as_array().cloned());
        let ready = endpoints.flatten().filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let mut found: Vec<String> =
            ready.filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned)).collect();
        found.sort();
        found
    };
    let found = test.api.until(&path, "both pods", |reply| ready(reply) == addresses).await;
    let target = &slices(&found)[0]["endpoints"][0]["targetRef"];
    assert_eq!((&target["kind"], &target["namespace"]), (&json!("Pod"), &json!(test.namespace)));
    test.api.delete(&service).await.ok();
    test.api.until(&path, "gone with its service", |reply| slices(reply).is_empty()).await;
    test.api.delete(&format!("{pods}?labelSelector=app%3Dbacked&gracePeriodSeconds=0")).await.ok();
}

pub async fn endpoints_that_a_user_writes_are_mirrored(test: &Test) {
    let services = test.path("v1", "services");
    let service = json!({"metadata": {"name": "mirrored"}, "spec": {"ports": [{"port": 80}]}});
    test.api.create(&services, &service).await.ok();
    let endpoints = test.path("v1", "endpoints");
    let object = json!({"metadata": {"name": "mirrored"}, "subsets": [{
        "addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]});
    test.api.create(&endpoints, &object).await.ok();
    let path = test.path("discovery.k8s.io/v1", "endpointslices");
    let path = format!("{path}?labelSelector=kubernetes.io%2Fservice-name%3Dmirrored");
    let holds = |address: &'static str| {
        move |reply: &Reply| {
            let slices = slices(reply);
            slices.len() == 1 && slices[0]["endpoints"][0]["addresses"][0] == address
        }
    };
    let found = test.api.until(&path, "mirrored", holds("10.1.2.3")).await;
    let slice = &slices(&found)[0];
    assert_eq!(slice["ports"][0]["port"], 80);
    let label = "endpointslice.kubernetes.io/managed-by";
    assert_eq!(slice["metadata"]["labels"][label], "endpointslicemirroring-controller.k8s.io");
    let one = format!("{endpoints}/mirrored");
    test.api.replace(&one, |found| found["subsets"][0]["addresses"] = json!([{"ip": "10.2.3.4"}])).await;
    test.api.until(&path, "mirrored again", holds("10.2.3.4")).await;
    test.api.delete(&one).await.ok();
    test.api.until(&path, "gone", |reply| slices(reply).is_empty()).await;
}
