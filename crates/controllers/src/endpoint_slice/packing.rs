//! R5, R6 and R7: endpoints into slices, with as few writes as can be.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use windlass_api::kinds;
use windlass_client::{Cached, Key};

use super::endpoint::{Endpoints, Group};
use super::{ENDPOINTS_MAX, MANAGED_BY, MANAGER, SERVICE_NAME, View};
use crate::claim::controller_reference;
use crate::plan::{Plan, Target};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Found {
    address_type: String,
    ports: Value,
    endpoints: Option<Vec<Value>>,
}

/// A slice while endpoints are put into it.
struct Slice<'a> {
    /// The slice as it is; `None` for a new one.
    exists: Option<&'a Cached>,
    before: Vec<Value>,
    endpoints: Vec<Value>,
}

pub(super) fn plan(view: &View, mut desired: Endpoints, plan: &mut Plan) {
    let mut by_group: BTreeMap<Group, Vec<Slice>> = BTreeMap::new();
    let mut unusable = Vec::new();
    let found: Vec<(Group, &Cached, Vec<Value>)> = view.slices.iter().map(|slice| read(slice)).collect();
    keep_ports_of_empty(&mut desired, &found);
    for (group, slice, before) in found {
        if desired.contains_key(&group) {
            by_group.entry(group).or_default().push(Slice { exists: Some(slice), before, endpoints: Vec::new() });
        } else {
            unusable.push(slice);
        }
    }
    for (group, endpoints) in &mut desired {
        let slices = by_group.entry(group.clone()).or_default();
        pack(slices, std::mem::take(endpoints));
        write(view, group, slices, plan);
    }
    for slice in unusable {
        let why = format!("no endpoint of service {} has the ports of this slice", view.header.name());
        plan.delete(Target::of(&kinds::ENDPOINT_SLICE, &slice.header), why);
    }
}

fn read(slice: &Cached) -> (Group, &Cached, Vec<Value>) {
    let found: Found = slice.decode().unwrap_or_default();
    let family = if found.address_type == "IPv6" { "IPv6" } else { "IPv4" };
    (Group::new(family, &normal_ports(&found.ports)), slice, found.endpoints.unwrap_or_default())
}

/// When the last endpoint goes its slice stays as the empty one, whatever its ports.
fn keep_ports_of_empty(desired: &mut Endpoints, found: &[(Group, &Cached, Vec<Value>)]) {
    let empty: Vec<Group> =
        desired.iter().filter(|(_, endpoints)| endpoints.is_empty()).map(|(group, _)| group.clone()).collect();
    for group in empty {
        if found.iter().any(|(exists, ..)| *exists == group) {
            continue;
        }
        if let Some((exists, ..)) = found.iter().find(|(exists, ..)| exists.family == group.family) {
            let endpoints = desired.remove(&group).expect("taken from its keys");
            desired.insert(exists.clone(), endpoints);
        }
    }
}

/// Ports as we write them: an unnamed port has the empty name.
fn normal_ports(ports: &Value) -> Value {
    let ports = ports.as_array().map(Vec::as_slice).unwrap_or_default();
    ports
        .iter()
        .map(|port| {
            let mut port = port.clone();
            if port["name"].is_null() {
                port["name"] = json!("");
            }
            port
        })
        .collect()
}

fn pod_of(endpoint: &Value) -> Option<Key> {
    let target = &endpoint["targetRef"];
    Some(Key::new(target["namespace"].as_str()?, target["name"].as_str()?))
}

/// Puts each endpoint into the slice that has it, the others where there is room, the rest into new slices.
fn pack(slices: &mut Vec<Slice>, mut missing: BTreeMap<Key, Value>) {
    for slice in slices.iter_mut() {
        for endpoint in &slice.before {
            if let Some(kept) = pod_of(endpoint).and_then(|pod| missing.remove(&pod)) {
                slice.endpoints.push(kept);
            }
        }
    }
    let mut missing: Vec<Value> = missing.into_values().collect();
    // Slices that are written anyway take the new ones first, then the fullest that have room.
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|index| {
        let slice = &slices[*index];
        (slice.endpoints == slice.before, std::cmp::Reverse(slice.endpoints.len()))
    });
    for index in order {
        let room = ENDPOINTS_MAX.saturating_sub(slices[index].endpoints.len()).min(missing.len());
        slices[index].endpoints.extend(missing.drain(..room));
    }
    for endpoints in missing.chunks(ENDPOINTS_MAX) {
        slices.push(Slice { exists: None, before: Vec::new(), endpoints: endpoints.to_vec() });
    }
    if slices.is_empty() {
        slices.push(Slice { exists: None, before: Vec::new(), endpoints: Vec::new() });
    }
}

fn write(view: &View, group: &Group, slices: &[Slice], plan: &mut Plan) {
    let labels = labels(view);
    let mut kept = 0;
    for slice in slices {
        let count = slice.endpoints.len();
        let Some(exists) = slice.exists else {
            let why = format!("service {} has {count} endpoints without a slice", view.header.name());
            plan.create(&kinds::ENDPOINT_SLICE, view.header.namespace(), new(view, group, &labels, slice), why);
            kept += 1;
            continue;
        };
        let others = slices.len() > 1;
        let is_last = kept == 0 && std::ptr::eq(slice, slices.last().expect("it holds this one"));
        if count == 0 && others && !is_last {
            let why = format!("a slice of service {} is empty and not the only one", view.header.name());
            plan.delete(Target::of(&kinds::ENDPOINT_SLICE, &exists.header), why);
            continue;
        }
        kept += 1;
        let labels_differ = labels.iter().any(|(name, value)| exists.header.labels().get(name) != value.as_str());
        if slice.endpoints != slice.before || labels_differ {
            let why = format!("{count} of the endpoints of service {} are as they are now", view.header.name());
            let patch = json!({
                "metadata": {"resourceVersion": exists.header.revision.to_string(), "labels": labels},
                "endpoints": slice.endpoints,
            });
            plan.patch(Target::of(&kinds::ENDPOINT_SLICE, &exists.header), patch, why);
        }
    }
}

/// The Service's labels, and those that say whose the slice is.
fn labels(view: &View) -> Map<String, Value> {
    let mut labels: Map<String, Value> =
        view.header.labels().iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    labels.insert(SERVICE_NAME.to_owned(), json!(view.header.name()));
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    if view.service.is_headless() {
        labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
    }
    labels
}

fn new(view: &View, group: &Group, labels: &Map<String, Value>, slice: &Slice) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", view.header.name()), "namespace": view.header.namespace(), "labels": labels,
            "ownerReferences": [controller_reference(&kinds::SERVICE, &view.header)],
        },
        "addressType": group.family, "ports": group.ports(), "endpoints": slice.endpoints,
    })
}
