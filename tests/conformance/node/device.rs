//! Devices (`resource.k8s.io`): the walk of each kind.

use serde_json::{Value, json};

use crate::Test;
use crate::walk::Walk;

const VERSION: &str = "resource.k8s.io/v1";

fn claim() -> Value {
    json!({"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "conformance"}}]}})
}

pub fn class_row(test: &Test) -> Walk {
    let selectors = json!([{"cel": {"expression": "device.driver == \"conformance.example.com\""}}]);
    Walk::cluster(test, VERSION, "deviceclasses", json!({"spec": {"selectors": selectors}}))
        .change(json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}}))
}

pub fn claim_row(test: &Test) -> Walk {
    let of = |device: &str| {
        let data = json!({"state": device});
        let status = json!({"driver": "conformance.example.com", "pool": "pool", "device": "one", "data": data});
        let result = json!({"request": "one", "driver": "conformance.example.com", "pool": "pool", "device": "one"});
        json!({"status": {"allocation": {"devices": {"results": [result]}}, "devices": [status]}})
    };
    Walk::namespaced(test, VERSION, "resourceclaims", json!({"spec": claim()})).status(of("patched"), of("replaced"))
}

pub fn claim_template_row(test: &Test) -> Walk {
    Walk::namespaced(test, VERSION, "resourceclaimtemplates", json!({"spec": {"spec": claim()}}))
}

pub fn slice_row(test: &Test) -> Walk {
    let spec = json!({"driver": "conformance.example.com", "nodeName": test.unique("none"), "devices": [],
        "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1}});
    Walk::cluster(test, VERSION, "resourceslices", json!({"spec": spec}))
        .change(json!({"spec": {"devices": [{"name": "one"}]}}))
}
