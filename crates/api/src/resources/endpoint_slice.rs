//! EndpointSlice: addresses behind a Service.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of EndpointSlice.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("AddressType", "string", "IPv4, IPv6 or FQDN"),
        column("Ports", "string", "the ports that every endpoint has"),
        column("Endpoints", "string", "the addresses"),
        age_column(),
    ];
    row(&kinds::ENDPOINT_SLICE, columns, EndpointSlice)
}

struct EndpointSlice;

impl Rules for EndpointSlice {
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
