//! Ingress and IngressClass: the walk.

use serde_json::json;

use crate::Test;
use crate::walk::Walk;

pub fn row(test: &Test) -> Walk {
    let service = json!({"service": {"name": "web", "port": {"number": 80}}});
    let spec = json!({"defaultBackend": service, "tls": [{"hosts": ["*.example.com"], "secretName": "tls"}],
        "rules": [{"host": "a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": service}]}}]});
    let at = |ip: &str| json!({"metadata": {"annotations": {"at": ip}}, "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
    Walk::namespaced(test, "networking.k8s.io/v1", "ingresses", json!({"spec": spec}))
        .change(json!({"spec": {"defaultBackend": {"service": {"name": "another"}}}}))
        .status(at("169.1.1.1"), at("169.1.1.2"))
}

pub fn class_row(test: &Test) -> Walk {
    let spec = json!({"controller": "conformance.example.com/controller"});
    Walk::cluster(test, "networking.k8s.io/v1", "ingressclasses", json!({"spec": spec}))
}
