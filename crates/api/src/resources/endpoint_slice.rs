//! EndpointSlice: addresses behind a Service.
//!
//! Rules
//!   A1 family      every address is of the slice's type, which never changes
//!   A2 addresses   1 to 100 an endpoint, 1,000 endpoints a slice; none that means the machine itself or its link: whoever
//!                  may write a slice must not reach through a node what only the node may reach
//!   A3 ports       named once
//! Source: API reference, discovery.k8s.io/v1 EndpointSlice.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{self, named, optional_name, required_word};
use super::tree::{Tree, fill, items_mut};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// Endpoints of one slice.
pub const ENDPOINTS_MAX: usize = 1000;
/// Addresses of one endpoint.
pub const ADDRESSES_MAX: usize = 100;
/// Ports of one slice.
pub const PORTS_MAX: usize = 20_000;
/// Zones one endpoint is recommended to.
const HINTS_MAX: usize = 8;

/// The row of EndpointSlice.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("AddressType", "string", "IPv4, IPv6 or FQDN"),
        column("Ports", "string", "the ports that every endpoint has"),
        column("Endpoints", "string", "the addresses"),
        age_column(),
    ];
    row(&kinds::ENDPOINT_SLICE, columns, EndpointSlice).counts_generations()
}

struct EndpointSlice;

impl Rules for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in items_mut(object, "ports") {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        required_word(object, "addressType", &["FQDN", "IPv4", "IPv6"], &Path::root(), errors);
        let (endpoints, at) = (object.items("endpoints"), Path::new("endpoints"));
        if endpoints.len() > ENDPOINTS_MAX {
            errors.too_many(&at, endpoints.len(), ENDPOINTS_MAX);
            return;
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(endpoint, object.text("addressType"), &at.index(index), errors);
        }
        validate_ports(object.items("ports"), &Path::new("ports"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object.text("addressType") != old.text("addressType") {
            errors.immutable(&Path::new("addressType"), object.text("addressType"));
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            json!(object["metadata"].text("name")),
            json!(object.text("addressType")),
            json!(first_few(object.items("ports").iter().map(port))),
            json!(first_few(object.items("endpoints").iter().flat_map(addresses))),
            age::of(object, now),
        ]
    }
}

/// A1 and A2.
fn validate_endpoint(endpoint: &Value, address_type: &str, at: &Path, errors: &mut Errors) {
    let (addresses, path) = (endpoint.items("addresses"), at.child("addresses"));
    if addresses.is_empty() {
        errors.required(&path, "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        errors.too_many(&path, addresses.len(), ADDRESSES_MAX);
        return;
    }
    for (index, address) in addresses.iter().enumerate() {
        validate_address(address.as_str().unwrap_or_default(), address_type, &path.index(index), errors);
    }
    optional_name(endpoint, "hostname", name::label, at, errors);
    optional_name(endpoint, "nodeName", name::subdomain, at, errors);
    for list in ["forZones", "forNodes"] {
        let (hints, path) = (endpoint["hints"].items(list), at.child("hints").child(list));
        if hints.len() > HINTS_MAX {
            errors.too_many(&path, hints.len(), HINTS_MAX);
        }
        let mut seen = std::collections::BTreeSet::new();
        for (index, hint) in hints.iter().enumerate() {
            let path = path.index(index).child("name");
            if !seen.insert(hint.text("name")) {
                errors.duplicate(&path, hint.text("name"));
            }
            named(name::label_value, hint.text("name"), &path, errors);
        }
    }
}

fn validate_address(text: &str, address_type: &str, path: &Path, errors: &mut Errors) {
    match address_type {
        "IPv4" | "IPv6" => {
            let Some(address) = check::address(text, path, errors) else { return };
            if address.is_ipv4() != (address_type == "IPv4") {
                errors.invalid(path, text, &format!("must be an {address_type} address"));
            }
            check::ordinary_address(address, path, errors);
        }
        "FQDN" => {
            named(name::subdomain, text.strip_suffix('.').unwrap_or(text), path, errors);
            if !text.trim_end_matches('.').contains('.') {
                errors.invalid(path, text, "should be a domain with at least two segments separated by dots");
            }
        }
        _ => {}
    }
}

/// A3.
fn validate_ports(ports: &[Value], at: &Path, errors: &mut Errors) {
    if ports.len() > PORTS_MAX {
        errors.too_many(at, ports.len(), PORTS_MAX);
        return;
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = at.index(index);
        optional_name(port, "name", name::label, &path, errors);
        if !names.insert(port.text("name")) {
            errors.duplicate(&path.child("name"), port.text("name"));
        }
        required_word(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        check::within(port, "port", check::PORTS, &path, errors);
        optional_name(port, "appProtocol", name::label_key, &path, errors);
    }
}

fn port(port: &Value) -> String {
    match (port.int("port"), port.get("name").and_then(Value::as_str)) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    }
}

fn addresses(endpoint: &Value) -> impl Iterator<Item = String> {
    endpoint.items("addresses").iter().map(|address| address.as_str().unwrap_or_default().to_owned())
}

fn first_few(texts: impl Iterator<Item = String>) -> String {
    const SHOWN_MAX: usize = 3;
    let texts: Vec<String> = texts.collect();
    match texts.len() {
        0 => "<unset>".to_owned(),
        found if found > SHOWN_MAX => format!("{} + {} more...", texts[..SHOWN_MAX].join(","), found - SHOWN_MAX),
        _ => texts.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::EndpointSlice;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn check(slice: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        EndpointSlice.validate(&slice, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    fn of(kind: &str, addresses: &[&str]) -> Value {
        let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        json!({"addressType": kind, "endpoints": endpoints})
    }

    #[test]
    fn a1_addresses_are_of_the_type() {
        check(of("IPv4", &["10.0.0.1"]), &[]);
        check(of("FQDN", &["a.example.com"]), &[]);
        check(
            of("IPv4", &["fd00::1", "x"]),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address",
                "endpoints[1].addresses[0]: Invalid value: \"x\": must be a valid IP address",
            ],
        );
        check(of("", &[]), &["addressType: Required value"]);
        let mut errors = Errors::new();
        EndpointSlice.validate_update(&of("IPv6", &[]), &of("IPv4", &[]), &mut errors);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a2_a97_no_address_means_the_machine_itself() {
        check(
            of("IPv4", &["127.0.0.1", "127.9.9.9", "169.254.169.254", "224.0.0.5", "0.0.0.0"]),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "endpoints[1].addresses[0]: Invalid value: \"127.9.9.9\": may not be in the loopback range",
                "endpoints[2].addresses[0]: Invalid value: \"169.254.169.254\": may not be in the link-local range",
                "endpoints[3].addresses[0]: Invalid value: \"224.0.0.5\": may not be in the link-local multicast",
                "endpoints[4].addresses[0]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
            ],
        );
        check(
            of("IPv6", &["::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1"]),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"::1\": may not be in the loopback",
                "endpoints[1].addresses[0]: Invalid value: \"fe80::1\": may not be in the link-local range",
                "endpoints[2].addresses[0]: Invalid value: \"ff02::1\": may not be in the link-local multicast",
                "endpoints[3].addresses[0]: Invalid value: \"::ffff:127.0.0.1\": must not be an IPv4-mapped",
            ],
        );
        check(json!({"addressType": "IPv4", "endpoints": [{}]}), &["endpoints[0].addresses: Required value"]);
        let many = vec!["10.0.0.1"; 1001];
        check(of("IPv4", &many), &["endpoints: Too many: 1001: must have at most 1000 items"]);
    }

    #[test]
    fn a3_ports_are_named_once() {
        let mut slice =
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {"port": 70000}, {"name": "A", "protocol": "X"}]});
        EndpointSlice.default(&mut slice);
        assert_eq!(slice["ports"][0], json!({"name": "", "port": 80, "protocol": "TCP"}));
        check(
            slice,
            &[
                "ports[1].name: Duplicate value: \"\"",
                "ports[1].port: Invalid value: 70000",
                "ports[2].name: Invalid value: \"A\"",
                "ports[2].protocol: Unsupported value: \"X\"",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let mut slice = of("IPv4", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        slice["ports"] = json!([{"port": 80}, {"name": "http"}, {}]);
        let cells = EndpointSlice.cells(&slice, now);
        assert_eq!(cells[1..4], ["IPv4", "80,http,*", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."].map(Value::from));
        assert_eq!(EndpointSlice.cells(&json!({}), now)[2..4], ["<unset>", "<unset>"].map(Value::from));
    }
}
