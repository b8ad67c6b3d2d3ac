//! The way from this server to a Service: the one place where a Service becomes addresses.
//!
//! Rules
//!   R1 ready      the ready endpoints of the Service's EndpointSlices, in an order that differs from call to call
//!   R2 external   a Service of type ExternalName is the host that it names
//!   R3 refused    an address of the machine itself or of its link is no endpoint, whoever wrote it there
//!
//! Why endpoints and not the ClusterIP: a Service without any is told at once and not after a time-out, and a headless one
//! is reached too. Hosts that URLs and ExternalNames give are looked up by the machine's own resolver.
//!
//! Source: kube-apiserver's endpoint routing of webhooks and aggregated APIs (`ResolveEndpoint`).

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use windlass_api::kinds;
use windlass_store::Range;

use crate::key;
use crate::server::{Server, header};
use crate::write::{text, tree};

/// Says which Service an EndpointSlice is of.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Addresses of a host or Service that are looked at.
const ADDRESSES_MAX: usize = 1_000;

/// Why there is no way to a Service or host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    /// There is no such Service.
    #[error("service {name:?} not found")]
    NotFound {
        /// The Service.
        name: String,
    },
    /// It has no such port.
    #[error("no service port {port:?} found for service {name:?}")]
    NoPort {
        /// The Service.
        name: String,
        /// The port's number or name.
        port: String,
    },
    /// Nothing is ready behind it.
    #[error("no endpoints available for service {name:?}")]
    NoEndpoints {
        /// The Service.
        name: String,
    },
    /// The host's name leads nowhere.
    #[error("lookup {host}: {why}")]
    NoHost {
        /// The host.
        host: String,
        /// What the resolver said.
        why: String,
    },
}

/// Which port of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port<'a> {
    Number(u16),
    /// Empty for the only one.
    Name(&'a str),
}

impl std::fmt::Display for Port<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Port::Number(number) => write!(out, "{number}"),
            Port::Name(name) => out.write_str(name),
        }
    }
}

/// The addresses behind a port of a Service that this server itself was told to call.
pub(crate) async fn service(
    server: &Server,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, RouteError> {
    let found = find(server, namespace, name)?;
    if text(&found["spec"], "type") == "ExternalName" {
        return host(text(&found["spec"], "externalName"), port).await;
    }
    endpoints(server, namespace, (name, &found), Port::Number(port))
}

/// R1: the ready addresses behind a port of a Service, whoever asked for it.
pub(crate) fn ready(
    server: &Server,
    namespace: &str,
    name: &str,
    port: Port<'_>,
) -> Result<Vec<SocketAddr>, RouteError> {
    let found = find(server, namespace, name)?;
    endpoints(server, namespace, (name, &found), port)
}

fn find(server: &Server, namespace: &str, name: &str) -> Result<Value, RouteError> {
    let entry = server.store.get(&key::object(&kinds::SERVICE, namespace, name));
    entry.map(|entry| tree(&entry)).ok_or_else(|| RouteError::NotFound { name: name.to_owned() })
}

fn endpoints(
    server: &Server,
    namespace: &str,
    (name, found): (&str, &Value),
    port: Port<'_>,
) -> Result<Vec<SocketAddr>, RouteError> {
    let port_name = port_name(found, port);
    let port_name = port_name.ok_or_else(|| RouteError::NoPort { name: name.to_owned(), port: port.to_string() })?;
    let none = || RouteError::NoEndpoints { name: name.to_owned() };
    let range = Range::prefix(key::prefix(&kinds::ENDPOINT_SLICE, namespace));
    let page = server.store.range(&range).map_err(|_| none())?;
    let own = page.entries.iter().filter(|entry| header(entry).labels().get(SERVICE_LABEL) == Some(name));
    let mut addresses: Vec<SocketAddr> =
        own.flat_map(|entry| of_slice(&tree(entry), port_name)).take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(none());
    }
    let first = server.world.random_below(addresses.len() as u64) as usize;
    addresses.rotate_left(first);
    Ok(addresses)
}

/// The name that a port of a Service has in its slices.
fn port_name<'a>(service: &'a Value, port: Port<'_>) -> Option<&'a str> {
    let ports = service["spec"]["ports"].as_array()?;
    let is_asked = |own: &&Value| match port {
        Port::Number(number) => own["port"] == number,
        Port::Name("") => ports.len() == 1 || text(own, "name").is_empty(),
        Port::Name(name) => text(own, "name") == name,
    };
    ports.iter().find(is_asked).map(|own| text(own, "name"))
}

/// The ready addresses of one slice at the port of this name.
fn of_slice(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.filter(|port| text(port, "name") == port_name).find_map(|port| port["port"].as_u64());
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse::<IpAddr>().ok());
    addresses.filter(|address| !is_of_machine(*address)).map(|address| SocketAddr::new(address, port)).collect()
}

/// R3: whether an address means the machine itself, its link, or nobody in particular.
pub(crate) fn is_of_machine(address: IpAddr) -> bool {
    let of_link = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some_and(|v4| is_of_machine(IpAddr::V4(v4)))
        }
    };
    of_link || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

/// The addresses of a host.
pub(crate) async fn host(host: &str, port: u16) -> Result<Vec<SocketAddr>, RouteError> {
    let wrong = |why: String| RouteError::NoHost { host: host.to_owned(), why };
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| wrong(error.to_string()))?;
    let found: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
    if found.is_empty() { Err(wrong("no address".to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::{Port, is_of_machine, of_slice, port_name};
    use serde_json::json;

    #[test]
    fn r1_a_port_has_the_name_that_its_slices_know_it_by() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]}});
        assert_eq!(port_name(&service, Port::Number(443)), Some("https"));
        assert_eq!(port_name(&service, Port::Name("http")), Some("http"));
        assert_eq!((port_name(&service, Port::Number(81)), port_name(&service, Port::Name(""))), (None, None));
        let only = json!({"spec": {"ports": [{"name": "web", "port": 80}]}});
        assert_eq!(port_name(&only, Port::Name("")), Some("web"));
    }

    #[test]
    fn r1_and_r3_only_ready_endpoints_that_are_elsewhere() {
        let slice = json!({
            "ports": [{"name": "https", "port": 8443}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"]},
                {"addresses": ["127.0.0.1"]},
                {"addresses": ["169.254.169.254"]},
            ],
        });
        let shown: Vec<String> = of_slice(&slice, "https").iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:8443", "10.0.0.3:8443"]);
        assert!(of_slice(&slice, "http").is_empty());
    }

    #[test]
    fn r3_addresses_of_the_machine_in_every_spelling() {
        for text in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "::1", "::", "fe80::1", "::ffff:127.0.0.1"] {
            assert!(is_of_machine(text.parse().expect("an address")), "{text}");
        }
        assert!(!is_of_machine("10.1.2.3".parse().expect("an address")));
    }
}
