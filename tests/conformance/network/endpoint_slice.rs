//! EndpointSlice: the walk, and the slice of a Service that has no pods.

use serde_json::{Value, json};

use crate::Test;
use crate::walk::Walk;

pub fn row(test: &Test) -> Walk {
    let object = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    let change = json!({"endpoints": [{"addresses": ["10.1.2.3", "10.1.2.4"]}]});
    Walk::namespaced(test, "discovery.k8s.io/v1", "endpointslices", object).change(change)
}

pub async fn a_service_without_pods_has_an_empty_slice(test: &Test) {
    let services = test.path("v1", "services");
    let service =
        json!({"metadata": {"name": "empty"}, "spec": {"selector": {"app": "none"}, "ports": [{"port": 80}]}});
    test.api.create(&services, &service).await.ok();
    let of_service = "labelSelector=kubernetes.io%2Fservice-name%3Dempty";
    let path = format!("{}?{of_service}", test.path("discovery.k8s.io/v1", "endpointslices"));
    let slices = |reply: &crate::api::Reply| reply.json()["items"].as_array().cloned().unwrap_or_default();
    let found = test.api.until(&path, "a slice", |reply| slices(reply).len() == 1).await;
    let endpoints = &slices(&found)[0]["endpoints"];
    assert!(endpoints.as_array().is_none_or(Vec::is_empty), "{endpoints}");
    assert_eq!(slices(&found)[0]["metadata"]["ownerReferences"][0]["name"], Value::from("empty"));
    test.api.delete(&format!("{services}/empty")).await.ok();
    test.api.until(&path, "gone with its service", |reply| slices(reply).is_empty()).await;
}
