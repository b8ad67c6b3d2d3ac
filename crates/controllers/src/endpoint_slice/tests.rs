//! Each rule of the endpoint slice controller, by its number.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_client::Patch;

use super::{Controller, EndpointSlices, View, facts};
use crate::fixture::{change, check, object};
use crate::plan::{Action, Plan};

fn service(changes: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "a", "uid": "s", "resourceVersion": "3"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.43.0.9", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]},
    });
    change(&mut service, changes);
    service
}

fn pod(name: &str, address: &str, changes: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    change(&mut pod, changes);
    pod
}

fn plan(service: &Value, pods: &[Value], slices: &[Value]) -> Plan {
    let service = object(service);
    EndpointSlices::plan(&View {
        header: service.header.clone(),
        service: facts(&service),
        pods: pods.iter().map(object).collect(),
        slices: slices.iter().map(object).collect(),
        zones: BTreeMap::from([("n1".to_owned(), "z1".to_owned())]),
    })
}

/// The slices that a plan creates, as the API would then hold them.
fn created(plan: &Plan) -> Vec<Value> {
    let objects = plan.items.iter().filter_map(|item| match &item.action {
        Action::Create { object, .. } => Some(object.clone()),
        _ => None,
    });
    objects
        .enumerate()
        .map(|(index, mut object)| {
            object["metadata"]["name"] = json!(format!("web-{index}"));
            object["metadata"]["uid"] = json!(format!("slice-{index}"));
            object["metadata"]["resourceVersion"] = json!("7");
            object
        })
        .collect()
}

#[test]
fn r1_a_service_without_selector_is_left_alone() {
    for changes in
        [json!({"/spec/selector": null}), json!({"/spec/selector": {}}), json!({"/spec/type": "ExternalName"})]
    {
        check(&plan(&service(changes), &[pod("p", "10.42.0.2", json!({}))], &[]), "");
    }
}

#[test]
fn r2_members_have_an_address_and_have_not_ended() {
    let pods = [
        pod("fine", "10.42.0.2", json!({})),
        pod("new", "", json!({})),
        pod("done", "10.42.0.3", json!({"/status/phase": "Succeeded"})),
        pod("ending", "10.42.0.4", json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"})),
    ];
    let slices = created(&plan(&service(json!({})), &pods, &[]));
    let names: Vec<&Value> =
        slices[0]["endpoints"].as_array().expect("endpoints").iter().map(|e| &e["targetRef"]["name"]).collect();
    assert_eq!(names, ["ending", "fine"]);
}

#[test]
fn r3_conditions_follow_readiness_and_ending() {
    let unready = json!({"/status/conditions": []});
    let ending = json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"});
    for (changes, publish, expected) in [
        (json!({}), false, [true, true, false]),
        (unready.clone(), false, [false, false, false]),
        (unready, true, [true, false, false]),
        (ending, false, [false, true, true]),
    ] {
        let service = service(json!({"/spec/publishNotReadyAddresses": publish}));
        let slices = created(&plan(&service, &[pod("p", "10.42.0.2", changes)], &[]));
        let conditions = &slices[0]["endpoints"][0]["conditions"];
        let found = ["ready", "serving", "terminating"].map(|name| conditions[name].as_bool().expect("a condition"));
        assert_eq!(found, expected);
    }
}

#[test]
fn r4_pods_with_another_number_for_a_named_port_get_another_slice() {
    let service = service(json!({"/spec/ports": [{"name": "web", "port": 80, "targetPort": "http"}]}));
    let other =
        pod("q", "10.42.0.3", json!({"/spec/containers": [{"ports": [{"name": "http", "containerPort": 9090}]}]}));
    let slices = created(&plan(&service, &[pod("p", "10.42.0.2", json!({})), other], &[]));
    let ports: Vec<&Value> = slices.iter().map(|slice| &slice["ports"][0]["port"]).collect();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn r5_what_is_right_is_not_written_and_a_change_writes_one_slice() {
    let service = service(json!({}));
    let pods: Vec<Value> = (0..150).map(|n| pod(&format!("p{n:03}"), &format!("10.42.0.{n}"), json!({}))).collect();
    let slices = created(&plan(&service, &pods, &[]));
    assert_eq!(slices.len(), 2);
    check(&plan(&service, &pods, &slices), "");
    let mut pods = pods;
    change(&mut pods[120], json!({"/status/conditions": []}));
    check(
        &plan(&service, &pods, &slices),
        "patch endpointslices a/web-1: 50 of the endpoints of service web are as they are now",
    );
    pods.push(pod("p999", "10.42.1.1", json!({})));
    let plan = plan(&service, &pods, &slices);
    check(&plan, "patch endpointslices a/web-1: 51 of the endpoints of service web are as they are now");
    let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[0].action else { panic!("a merge patch") };
    assert_eq!(patch["metadata"]["resourceVersion"], "7", "only onto what was seen");
}

#[test]
fn r6_a_slice_holds_at_most_a_hundred() {
    let pods: Vec<Value> = (0..250).map(|n| pod(&format!("p{n:03}"), &format!("10.42.0.{n}"), json!({}))).collect();
    let slices = created(&plan(&service(json!({})), &pods, &[]));
    let sizes: Vec<usize> =
        slices.iter().map(|slice| slice["endpoints"].as_array().expect("endpoints").len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn r7_a_service_without_endpoints_keeps_one_empty_slice() {
    let service = service(json!({}));
    let slices = created(&plan(&service, &[], &[]));
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0]["endpoints"], json!([]));
    check(&plan(&service, &[], &slices), "");
    let full = created(&plan(&service, &[pod("p", "10.42.0.2", json!({}))], &slices));
    assert_eq!(full.len(), 1, "its ports differ from the empty one's, so it is another slice");
}

#[test]
fn slices_say_whose_they_are() {
    let headless = service(json!({"/spec/clusterIP": "None", "/metadata/labels": {"team": "x"}}));
    let member = pod("p", "10.42.0.2", json!({"/spec/hostname": "zero", "/spec/subdomain": "web"}));
    let slice = &created(&plan(&headless, &[member], &[]))[0];
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "x", "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s");
    let endpoint = &slice["endpoints"][0];
    assert_eq!(
        (&endpoint["nodeName"], &endpoint["zone"], &endpoint["hostname"]),
        (&json!("n1"), &json!("z1"), &json!("zero"))
    );
}
