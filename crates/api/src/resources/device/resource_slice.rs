//! ResourceSlice: devices that a driver offers in one pool.
//!
//! Rules
//!   S1 pool      named, with its generation and how many slices it has
//!   S2 where     on one node, on some, on all, or as each device says: exactly one of these; some are those of one term
//!   S3 devices   at most 128, named once; an attribute has one value; a version is a semantic one
//!   S4 kept      driver, pool and node never change
//! Source: API reference, resource.k8s.io/v1 ResourceSlice; KEP-4381, KEP-4815.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{amount, named, required_name};
use super::super::pod;
use super::super::tree::Tree;
use super::super::{age, age_column, column, name_column, row};
use super::{validate_attribute_name, validate_driver, validate_taint};
use crate::cel::Semver;
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

const DEVICES_MAX: usize = 128;
/// Taints of one device.
const TAINTS_MAX: usize = 16;
/// Attributes and capacities of one device, and bytes of a text among them.
const FACTS_MAX: usize = 32;
const FACT_BYTES_MAX: usize = 64;
const POOL_BYTES_MAX: usize = 253;
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
const FORMS: [&str; 8] = ["int", "bool", "string", "version", "ints", "bools", "strings", "versions"];

/// The row of ResourceSlice.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Node", "string", "where the devices are"),
        column("Driver", "string", "who offers them"),
        column("Pool", "string", "what they belong to"),
        age_column(),
    ];
    row(&kinds::RESOURCE_SLICE, columns, ResourceSlice)
        .shows_deleted()
        .selectable(&["spec.nodeName", "spec.driver"])
        .counts_generations()
}

struct ResourceSlice;

impl Rules for ResourceSlice {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_driver(spec, &at, errors);
        validate_pool(&spec["pool"], &at.child("pool"), errors);
        validate_place(spec, &at, errors);
        let (devices, path) = (spec.items("devices"), at.child("devices"));
        if devices.len() > DEVICES_MAX {
            errors.too_many(&path, devices.len(), DEVICES_MAX);
            return;
        }
        for (index, device) in devices.iter().enumerate() {
            let at = path.index(index);
            required_name(device, "name", name::label, &at, errors);
            let is_same = |other: &Value| other.text("name") == device.text("name");
            if !device.text("name").is_empty() && devices[..index].iter().any(is_same) {
                errors.duplicate(&at.child("name"), device.text("name"));
            }
            validate_facts(device, &at, errors);
            let (taints, path) = (device.items("taints"), at.child("taints"));
            if taints.len() > TAINTS_MAX {
                errors.too_many(&path, taints.len(), TAINTS_MAX);
                continue;
            }
            for (index, taint) in taints.iter().enumerate() {
                validate_taint(taint, &path.index(index), errors);
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (spec, before, at) = (&object["spec"], &old["spec"], Path::new("spec"));
        for field in ["driver", "nodeName", "allNodes"] {
            if spec[field] != before[field] {
                errors.immutable(&at.child(field), spec[field].clone());
            }
        }
        let pool = spec["pool"].text("name");
        if pool != before["pool"].text("name") {
            errors.immutable(&at.child("pool").child("name"), pool);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("nodeName")),
            json!(spec.text("driver")),
            json!(spec["pool"].text("name")),
            age::of(object, now),
        ]
    }
}

/// S1.
fn validate_pool(pool: &Value, at: &Path, errors: &mut Errors) {
    validate_pool_name(pool.text("name"), &at.child("name"), errors);
    if let Some(count) = Some(pool.int("resourceSliceCount").unwrap_or(0)).filter(|&count| count <= 0) {
        errors.invalid(&at.child("resourceSliceCount"), count, "must be greater than zero");
    }
    if let Some(generation) = pool.int("generation").filter(|&generation| generation < 0) {
        errors.invalid(&at.child("generation"), generation, "must be greater than or equal to zero");
    }
}

/// The name of a pool: domains with `/` between them.
pub(super) fn validate_pool_name(text: &str, path: &Path, errors: &mut Errors) {
    if text.is_empty() {
        errors.required(path, "");
    } else if text.len() > POOL_BYTES_MAX {
        errors.too_long(path, POOL_BYTES_MAX);
    } else {
        text.split('/').for_each(|part| named(name::subdomain, part, path, errors));
    }
}

/// S2.
fn validate_place(spec: &Value, at: &Path, errors: &mut Errors) {
    let said: Vec<&str> = PLACES.into_iter().filter(|field| spec.is_set(field) && spec[*field] != false).collect();
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match said[..] {
        [] => errors.required(at, detail),
        ["nodeName"] => required_name(spec, "nodeName", name::subdomain, at, errors),
        ["nodeSelector"] => {
            let (selector, at) = (&spec["nodeSelector"], at.child("nodeSelector"));
            pod::validate_node_selector(selector, &at, errors);
            // What devices of several slices are given together is said in one term.
            if selector.items("nodeSelectorTerms").len() != 1 {
                let (path, terms) = (at.child("nodeSelectorTerms"), selector["nodeSelectorTerms"].clone());
                errors.invalid(&path, terms, "must have exactly one node selector term");
            }
        }
        [_] => {}
        _ => errors.invalid(at, format!("{{{}}}", said.join(", ")), detail),
    }
}

/// S3.
fn validate_facts(device: &Value, at: &Path, errors: &mut Errors) {
    let (attributes, capacities) = (device.entries("attributes"), device.entries("capacity"));
    if attributes.len() + capacities.len() > FACTS_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {FACTS_MAX}");
        errors.invalid(at, attributes.len() + capacities.len(), &detail);
        return;
    }
    for (key, attribute) in attributes {
        let path = at.child("attributes").key(key);
        validate_attribute_name(key, false, &path, errors);
        let forms: Vec<&str> = FORMS.into_iter().filter(|form| attribute.is_set(form)).collect();
        match forms[..] {
            [] => errors.required(&path, "exactly one value must be specified"),
            [form] => {
                if form == "version" && Semver::parse(attribute.text(form)).is_none() {
                    let detail = "must be a string compatible with semver.org spec 2.0.0";
                    errors.invalid(&path.child(form), attribute.text(form), detail);
                }
                if attribute.text(form).len() > FACT_BYTES_MAX {
                    errors.too_long(&path.child(form), FACT_BYTES_MAX);
                }
            }
            _ => errors.invalid(&path, attribute.clone(), "exactly one value must be specified"),
        }
    }
    for (key, capacity) in capacities {
        let path = at.child("capacity").key(key);
        validate_attribute_name(key, false, &path, errors);
        amount(&capacity["value"], &path.child("value"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceSlice;
    use crate::resources::fixture::{cells, check, check_update};
    use serde_json::{Value, json};

    fn of(change: Value) -> Value {
        let mut spec = json!({"driver": "gpu.example.com", "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
            "nodeName": "n1", "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "x"}},
            "capacity": {"memory": {"value": "8Gi"}}}]});
        spec.as_object_mut().expect("a literal").extend(change.as_object().expect("a literal").clone());
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    #[test]
    fn s1_and_s2_a_pool_somewhere() {
        check(&ResourceSlice, of(json!({})), &[]);
        assert_eq!(cells(&ResourceSlice, &of(json!({})))[1..4], ["n1", "gpu.example.com", "n1"].map(Value::from));
        check(
            &ResourceSlice,
            of(json!({"pool": {"name": "A", "generation": -1}, "allNodes": true})),
            &[
                "spec.pool.name: Invalid value: \"A\"",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
                "spec: Invalid value: \"{nodeName, allNodes}\": exactly one of `nodeName`",
            ],
        );
        check(&ResourceSlice, of(json!({"nodeName": null})), &["spec: Required value: exactly one of `nodeName`"]);
        let term = |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        let selected = |terms: Value| of(json!({"nodeName": null, "nodeSelector": {"nodeSelectorTerms": terms}}));
        check(&ResourceSlice, selected(json!([term("a")])), &[]);
        check(
            &ResourceSlice,
            selected(json!([term("a"), term("b")])),
            &["spec.nodeSelector.nodeSelectorTerms: Invalid value"],
        );
    }

    #[test]
    fn s3_devices_have_names_and_facts() {
        let devices = json!([{"name": "a", "attributes": {"model": {}, "b/": {"int": 1}, "v": {"version": "v1"},
            "w": {"version": "1.2.3-rc.1+b"}}}, {"name": "a", "capacity": {"memory": {"value": "-1"}}}]);
        let at = "spec.devices";
        check(
            &ResourceSlice,
            of(json!({ "devices": devices })),
            &[
                &format!("{at}[0].attributes[b/]: Required value: the name must not be empty"),
                &format!("{at}[0].attributes[model]: Required value: exactly one value must be specified"),
                &format!(
                    "{at}[0].attributes[v].version: Invalid value: \"v1\": must be a string compatible with semver.org"
                ),
                &format!("{at}[1].name: Duplicate value: \"a\""),
                &format!("{at}[1].capacity[memory].value: Invalid value: \"-1\": must be greater than or equal to 0"),
            ],
        );
        let many = vec![json!({"name": "a"}); 129];
        check(&ResourceSlice, of(json!({ "devices": many })), &["spec.devices: Too many: 129: must have at most 128"]);
    }

    #[test]
    fn s4_whose_devices_they_are_never_changes() {
        let new = of(json!({"driver": "x", "nodeName": "n2", "pool": {"name": "n2"}}));
        check_update(
            &ResourceSlice,
            &new,
            &of(json!({})),
            &["spec.driver: Inv", "spec.nodeName: Inv", "spec.pool.name: Inv"],
        );
    }
}
