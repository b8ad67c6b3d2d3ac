//! Service: behind a service's address are its ready pods, and nobody else, on every machine.
//!
//! Source: Kubernetes documentation, "Service" and "EndpointSlices"; the Goal lines of the endpoint slice controller and
//! of the node agent.
//!
//! Rules
//!   R1 slices   the ready addresses in a service's slices are those of the ready pods that it selects
//!   R2 served   each machine sends what comes to the service's address to these
//! Not here    names (DNS), node ports

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use windlass_api::Object;

use super::converge::{View, holds};

/// Which services lead elsewhere than they should.
pub fn check(view: &View) -> Vec<String> {
    let selecting = view.services.iter().filter(|service| !selector(service).is_empty());
    selecting.flat_map(|service| check_service(view, service)).collect()
}

fn check_service(view: &View, service: &Object) -> Vec<String> {
    let (value, key) = (service.value(), service.header.key());
    let mut wrong = Vec::new();
    let expected = ready_pods(view, service);
    let sliced = sliced(view, service);
    if sliced != expected {
        wrong.push(format!("R1 service {key}: expected endpoints {expected:?}, found {sliced:?}"));
    }
    let address = value["spec"]["clusterIP"].as_str().unwrap_or_default();
    let ports = value["spec"]["ports"].as_array().into_iter().flatten();
    for (port, target) in ports.filter_map(|port| Some((port["port"].as_u64()?, port["targetPort"].as_u64()?))) {
        let expected: BTreeSet<String> = expected.iter().map(|ip| format!("{ip}:{target}")).collect();
        for (machine, served) in &view.served {
            let found = served.get(&format!("{address}:{port}")).cloned().unwrap_or_default();
            if found != expected {
                wrong.push(format!("R2 service {key} on {machine}: expected {expected:?}, found {found:?}"));
            }
        }
    }
    wrong
}

fn selector(service: &Object) -> BTreeMap<String, String> {
    let value = service.value();
    let entries = value["spec"]["selector"].as_object().cloned().unwrap_or_default();
    entries.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
}

fn ready_pods(view: &View, service: &Object) -> BTreeSet<String> {
    let selector = selector(service);
    let selected = view.pods.iter().filter(|pod| {
        pod.header.namespace() == service.header.namespace()
            && !pod.header.is_ending()
            && selector.iter().all(|(key, value)| pod.header.labels().get(key) == Some(value))
    });
    let ready = selected.map(Object::value).filter(|pod| holds(pod, "Ready"));
    ready.filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned)).collect()
}

fn sliced(view: &View, service: &Object) -> BTreeSet<String> {
    let of_service = view.slices.iter().filter(|slice| {
        slice.header.namespace() == service.header.namespace()
            && slice.header.labels().get("kubernetes.io/service-name") == Some(service.header.name())
    });
    let mut addresses = BTreeSet::new();
    for slice in of_service.map(Object::value) {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true) {
            let found = endpoint["addresses"].as_array().into_iter().flatten();
            addresses.extend(found.filter_map(Value::as_str).map(str::to_owned));
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::invariant::converge::View;
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};
    use windlass_api::Object;

    fn object(value: &Value) -> Object {
        Object::parse(value.to_string().into_bytes().into()).expect("an object")
    }

    fn view(sliced: &str, served: &str) -> View {
        let service = json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {
            "clusterIP": "10.43.0.9", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "labels": {"app": "web"}}, "status": {
            "podIP": "10.42.0.2", "conditions": [{"type": "Ready", "status": "True"}]}});
        let slice = json!({"metadata": {"namespace": "d", "name": "s", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": [sliced], "conditions": {"ready": true}}]});
        let served = BTreeMap::from([("10.43.0.9:80".to_owned(), BTreeSet::from([served.to_owned()]))]);
        View {
            services: vec![object(&service)],
            pods: vec![object(&pod)],
            slices: vec![object(&slice)],
            served: BTreeMap::from([("n1".to_owned(), served)]),
            ..View::default()
        }
    }

    #[test]
    fn a_service_that_leads_to_its_pod_is_well() {
        assert_eq!(check(&view("10.42.0.2", "10.42.0.2:8080")), [""; 0]);
    }

    #[test]
    fn r1_a_slice_with_another_address_is_found() {
        assert!(check(&view("10.42.0.3", "10.42.0.2:8080"))[0].starts_with("R1"));
    }

    #[test]
    fn r2_a_machine_that_sends_elsewhere_is_found() {
        assert!(check(&view("10.42.0.2", "10.42.0.3:8080"))[0].starts_with("R2"));
    }
}
