//! Addresses and NodePorts of Services: each is a key of the store, taken and given back in the transaction that writes
//! the Service, so that two Services never have the same one.
//!
//! Rules
//!   R1 wished       an address or port that is asked for is given if it is in range and free, else the field is at fault
//!   R2 chosen       one that is not asked for is chosen at random among the free; the low addresses are left to wishes
//!   R3 kept         a change that does not mention them keeps them
//!   R4 given back   when the type needs them no more, or the Service is removed
//!
//! Source: API reference, core/v1 ServiceSpec; KEP-3070 on the static band.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use windlass_api::ApiError;
use windlass_api::field::{Errors, Path};
use windlass_store::{Expect, Op, Template};

use crate::key;
use crate::server::Call;
use crate::write::text;

/// The address of the cluster's DNS, as a distance from the network's own; never chosen, only given when asked for.
const DNS_OFFSET: u32 = 10;
const NO_ADDRESS: &str = "None";

pub(super) fn create(call: Call<'_>, service: &mut Value) -> Result<Vec<Op>, ApiError> {
    allocate(call, None, service)
}

pub(super) fn update(call: Call<'_>, old: &Value, service: &mut Value) -> Result<Vec<Op>, ApiError> {
    keep(old, service);
    allocate(call, Some(old), service)
}

/// R4.
pub(super) fn release(service: &Value) -> Vec<Op> {
    held(service).into_iter().map(|key| Op::delete(key, Expect::Any)).collect()
}

/// The keys that a Service holds.
fn held(service: &Value) -> BTreeSet<String> {
    let spec = &service["spec"];
    let address = text(spec, "clusterIP").parse().ok().map(key::cluster_ip);
    let ports = ports(spec).iter().filter_map(node_port).chain(health_port(spec)).map(key::node_port);
    ports.chain(address).collect()
}

fn allocate(call: Call<'_>, old: Option<&Value>, service: &mut Value) -> Result<Vec<Op>, ApiError> {
    if !service["spec"].is_object() {
        return Ok(Vec::new()); // validation says what is missing
    }
    let held_before = old.map(held).unwrap_or_default();
    let mut errors = Errors::new();
    give_address(call, &held_before, service, &mut errors);
    give_node_ports(call, &held_before, service, &mut errors);
    give_health_port(call, &held_before, service, &mut errors);
    crate::write::refuse_if_any(&call.target.resource, service, &errors)?;
    let wanted = held(service);
    let owner = format!("{}/{}", call.target.namespace, text(&service["metadata"], "name"));
    let taken = wanted.difference(&held_before);
    let mut ops: Vec<Op> =
        taken.map(|key| Op::put(key.as_str(), Template::plain(owner.clone()), Expect::Absent)).collect();
    ops.extend(held_before.difference(&wanted).map(|key| Op::delete(key.as_str(), Expect::Any)));
    Ok(ops)
}

fn give_address(call: Call<'_>, held_before: &BTreeSet<String>, service: &mut Value, errors: &mut Errors) {
    let spec = &mut service["spec"];
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let wished = text(spec, "clusterIP").to_owned();
    if wished.is_empty() && spec["clusterIPs"].get(0).is_some() {
        return; // validation says that the first of them must be said too
    }
    let path = Path::new("spec").child("clusterIPs").index(0);
    let range = call.server.config.service_range;
    let address = match wished.as_str() {
        NO_ADDRESS => NO_ADDRESS.to_owned(),
        "" => match choose_address(call) {
            Some(address) => address.to_string(),
            None => {
                errors.invalid(&path, "", &format!("failed to allocate a serviceIP: range {range} is full"));
                return;
            }
        },
        wished => {
            let detail = match wished.parse::<Ipv4Addr>() {
                Err(_) => Some("must be a valid IPv4 address".to_owned()),
                Ok(address) if !range.contains(address) => {
                    Some(format!("the provided IP is not in the valid range. The range of valid IPs is {range}"))
                }
                Ok(address) => {
                    let key = key::cluster_ip(address);
                    let is_taken = !held_before.contains(&key) && call.server.store.get(&key).is_some();
                    is_taken.then(|| "provided IP is already allocated".to_owned())
                }
            };
            if let Some(detail) = detail {
                errors.invalid(&path, wished, &format!("failed to allocate IP {wished}: {detail}"));
                return;
            }
            wished.to_owned()
        }
    };
    spec["clusterIP"] = json!(address);
    spec["clusterIPs"] = json!([address]);
    if spec["ipFamilies"].is_null() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
}

/// R2.
fn choose_address(call: Call<'_>) -> Option<Ipv4Addr> {
    let range = call.server.config.service_range;
    let (first, last) = (1, range.size() - 2);
    let band = (range.size() / 16).clamp(16, 256).min(last);
    let is_free =
        |offset: &u32| *offset != DNS_OFFSET && call.server.store.get(&key::cluster_ip(range.at(*offset))).is_none();
    let found = free_from(call, band, last, is_free).or_else(|| free_from(call, first, band, is_free));
    found.map(|offset| range.at(offset))
}

/// A free number of `first..=last`, looked for upwards from a random one, around the end.
fn free_from(call: Call<'_>, first: u32, last: u32, is_free: impl Fn(&u32) -> bool) -> Option<u32> {
    let count = last.checked_sub(first)? + 1;
    let start = call.server.world.random_below(u64::from(count)) as u32;
    (0..count).map(|step| first + (start + step) % count).find(|number| is_free(number))
}

fn give_node_ports(call: Call<'_>, held_before: &BTreeSet<String>, service: &mut Value, errors: &mut Errors) {
    let spec = &mut service["spec"];
    let wants = match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    };
    let range = call.server.config.node_ports.clone();
    let is_free = |port: u16| {
        let key = key::node_port(port);
        held_before.contains(&key) || call.server.store.get(&key).is_none()
    };
    let path = Path::new("spec").child("ports");
    let mut given: BTreeSet<u16> = ports(spec).iter().filter_map(node_port).collect();
    let Some(list) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    for (index, port) in list.iter_mut().enumerate() {
        let path = path.index(index).child("nodePort");
        match node_port(port) {
            Some(wished) if !range.contains(&wished) => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                );
                errors.invalid(&path, wished, &detail);
            }
            Some(wished) if !is_free(wished) => errors.invalid(&path, wished, "provided port is already allocated"),
            Some(_) => {}
            None if wants => {
                let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
                let free = |number: &u32| {
                    let port = *number as u16;
                    !given.contains(&port) && call.server.store.get(&key::node_port(port)).is_none()
                };
                match free_from(call, first, last, free) {
                    Some(number) => {
                        given.insert(number as u16);
                        port["nodePort"] = json!(number);
                    }
                    None => errors.invalid(&path, 0, "failed to allocate a nodePort: range is full"),
                }
            }
            None => {}
        }
    }
}

/// R1 and R2 for the port at which load balancers ask a node whether it has an endpoint of the service.
fn give_health_port(call: Call<'_>, held_before: &BTreeSet<String>, service: &mut Value, errors: &mut Errors) {
    let spec = &mut service["spec"];
    if text(spec, "type") != "LoadBalancer" || text(spec, "externalTrafficPolicy") != "Local" {
        return;
    }
    let path = Path::new("spec").child("healthCheckNodePort");
    let range = call.server.config.node_ports.clone();
    let given: BTreeSet<u16> = ports(spec).iter().filter_map(node_port).collect();
    let is_free = |port: u16| {
        let key = key::node_port(port);
        !given.contains(&port) && (held_before.contains(&key) || call.server.store.get(&key).is_none())
    };
    match health_port(spec) {
        Some(wished) if !range.contains(&wished) => {
            let (first, last) = (range.start(), range.end());
            let detail = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            errors.invalid(&path, wished, &detail);
        }
        Some(wished) if !is_free(wished) => errors.invalid(&path, wished, "provided port is already allocated"),
        Some(_) => {}
        None => {
            let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
            match free_from(call, first, last, |number| is_free(*number as u16)) {
                Some(number) => spec["healthCheckNodePort"] = json!(number),
                None => errors.invalid(&path, 0, "failed to allocate a nodePort: range is full"),
            }
        }
    }
}

/// R3, and what a change of type makes superfluous.
fn keep(old: &Value, service: &mut Value) {
    let old_spec = &old["spec"];
    let spec = &mut service["spec"];
    if !spec.is_object() {
        return;
    }
    let old_address = text(old_spec, "clusterIP");
    if text(spec, "type") == "ExternalName" {
        if text(spec, "clusterIP") == old_address {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                spec.as_object_mut().expect("checked above").remove(field);
            }
        }
    } else if text(spec, "clusterIP").is_empty() && !old_address.is_empty() {
        spec["clusterIP"] = json!(old_address);
        spec["clusterIPs"] = json!([old_address]);
    }
    let identity = |port: &Value| (port["port"].as_u64(), text(port, "protocol").to_owned());
    let old_ports: BTreeMap<_, u16> =
        ports(old_spec).iter().filter_map(|port| Some((identity(port), node_port(port)?))).collect();
    let has_node_ports = matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    let used: BTreeSet<u16> = ports(spec).iter().filter_map(node_port).collect();
    let Some(list) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    for port in list {
        let before = old_ports.get(&identity(port)).copied();
        match (has_node_ports, node_port(port), before) {
            (true, None, Some(before)) if !used.contains(&before) => port["nodePort"] = json!(before),
            (false, Some(now), Some(before)) if now == before => {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
            _ => {}
        }
    }
}

fn ports(spec: &Value) -> &[Value] {
    spec.get("ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn node_port(port: &Value) -> Option<u16> {
    number(port, "nodePort")
}

fn health_port(spec: &Value) -> Option<u16> {
    number(spec, "healthCheckNodePort")
}

fn number(object: &Value, field: &str) -> Option<u16> {
    object.get(field).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}
