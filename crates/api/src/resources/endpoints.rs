//! Endpoints: the addresses behind a service, as one object. EndpointSlices have replaced it; clients still read it.
//!
//! Rules
//!   E1 subsets     each has addresses, ready or not
//!   E2 addresses   ordinary ones, neither of the machine itself nor of its link
//!   E3 ports       named if several
//! Not here        putting subsets into one canonical order
//! Source: API reference, core/v1 Endpoints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{self, PORTS, optional_name, required_word};
use super::tree::{Tree, items_mut};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// Addresses that a column shows.
const SHOWN_MAX: usize = 3;

/// The row of Endpoints.
pub(super) fn resource() -> Resource {
    let columns =
        vec![name_column(), column("Endpoints", "string", "addresses and ports, the first few"), age_column()];
    row(&kinds::ENDPOINTS, columns, Endpoints)
        .created_by_update()
        .short_names(&["ep"])
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
}

struct Endpoints;

impl Rules for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                super::tree::fill_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        for (index, subset) in object.items("subsets").iter().enumerate() {
            let path = Path::new("subsets").index(index);
            if subset.items("addresses").is_empty() && subset.items("notReadyAddresses").is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (index, address) in subset.items(list).iter().enumerate() {
                    validate_address(address, &path.child(list).index(index), errors);
                }
            }
            let ports = subset.items("ports");
            for (index, port) in ports.iter().enumerate() {
                validate_port(port, ports.len() > 1, &path.child("ports").index(index), errors);
            }
        }
    }

    /// What was accepted stays so: an update that leaves the addresses alone is not held against newer rules.
    fn validate_changed(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object["subsets"] != old["subsets"] {
            self.validate(object, errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), json!(shown(object)), age::of(object, now)]
    }
}

/// E2.
fn validate_address(address: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("ip");
    if let Some(found) = check::address(address.text("ip"), &path, errors) {
        check::ordinary_address(found, &path, errors);
    }
    optional_name(address, "hostname", name::label, at, errors);
    optional_name(address, "nodeName", name::subdomain, at, errors);
}

/// E3.
fn validate_port(port: &Value, needs_name: bool, at: &Path, errors: &mut Errors) {
    if needs_name {
        check::required_name(port, "name", name::label, at, errors);
    } else {
        optional_name(port, "name", name::label, at, errors);
    }
    let number = port.int("port").unwrap_or(0);
    if !(PORTS.0..=PORTS.1).contains(&number) {
        errors.invalid(&at.child("port"), number, "must be between 1 and 65535, inclusive");
    }
    required_word(port, "protocol", &["SCTP", "TCP", "UDP"], at, errors);
    optional_name(port, "appProtocol", name::label_key, at, errors);
}

/// `10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 4 more...`
fn shown(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in endpoints.items("subsets") {
        let addresses = subset.items("addresses").iter().map(|address| address.text("ip"));
        if subset.items("ports").is_empty() {
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in subset.items("ports") {
            let number = port.int("port").unwrap_or(0);
            all.extend(addresses.clone().map(|address| match address.contains(':') {
                true => format!("[{address}]:{number}"),
                false => format!("{address}:{number}"),
            }));
        }
    }
    let first = all[..all.len().min(SHOWN_MAX)].join(",");
    match all.len() {
        0 => "<none>".to_owned(),
        count if count > SHOWN_MAX => format!("{first} + {} more...", count - SHOWN_MAX),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoints, shown};
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(subset: Value, expected: &[&str]) {
        let mut endpoints = json!({"subsets": [subset]});
        Endpoints.default(&mut endpoints);
        let mut errors = Errors::new();
        Endpoints.validate(&endpoints, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn e1_to_e3_every_endpoint_can_be_reached() {
        check(
            json!({"addresses": [{"ip": "10.0.0.1", "hostname": "a", "nodeName": "n"}], "ports": [{"port": 80}]}),
            &[],
        );
        check(json!({"ports": [{"port": 80}]}), &["subsets[0]: Required value: must specify `addresses`"]);
        check(
            json!({"notReadyAddresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 0}, {"name": "a_", "port": 1, "protocol": "X"}]}),
            &[
                "subsets[0].notReadyAddresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "subsets[0].notReadyAddresses[1].ip: Invalid value: \"x\": must be a valid IP address",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[0].ports[1].name: Invalid value: \"a_\"",
                "subsets[0].ports[1].protocol: Unsupported value: \"X\"",
            ],
        );
    }

    #[test]
    fn the_printed_row_shows_a_few() {
        let of = |addresses: &[&str], ports: Value| {
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
            shown(&json!({"subsets": [{"addresses": addresses, "ports": ports}]}))
        };
        assert_eq!(of(&["1.1.1.1", "fd00::1"], json!([{"port": 80}])), "1.1.1.1:80,[fd00::1]:80");
        assert_eq!(of(&["1.1.1.1"], json!([])), "1.1.1.1");
        assert_eq!(of(&[], json!([{"port": 80}])), "<none>");
        let many = of(&["1.1.1.1", "1.1.1.2"], json!([{"port": 80}, {"port": 81}]));
        assert_eq!(many, "1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...");
    }
}
