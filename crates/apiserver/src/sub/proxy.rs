//! `proxy` of pods, services and nodes: any HTTP request, carried to what serves there.
//!
//! Rules
//!   X1 name        `[scheme:]name[:port]`; http unless https is said, and then no certificate is looked at: pods have none
//!                  that anybody vouches for
//!   X2 pod         its own address, at the port named or else the first that a container names
//!   X3 service     a ready endpoint behind the port named, by number or by name
//!   X4 node        its agent, mutually proven, unless another port is named
//!   X5 elsewhere   addresses of the machine itself and of its link are never called for a pod, a service or a node's other
//!                  ports, whoever wrote them there
//!   X6 redirects   are the client's to follow: those within what is proxied lead through the proxy again; an empty path is
//!                  redirected to `/`
//! Relies on        `remote::forward` for carrying what was asked and what is answered
//!
//! Not here         rewriting links inside HTML · websockets over HTTP/2
//! Source: API reference, Pod/Service/Node "Proxy operations"; RFC 9110 on hop-by-hop headers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use windlass_api::{ApiError, Reason, kinds};
use windlass_stdx::{Body, Response, body_empty};

use super::stream;
use crate::admit;
use crate::failure::{commit_failed, later};
use crate::key;
use crate::remote::forward::{Sent, forward, unreachable};
use crate::remote::route::{self, Port, RouteError};
use crate::remote::{self, Secured, Sender, Trust};
use crate::server::Call;
use crate::write::{self, text};

/// What a request names: `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    is_https: bool,
    name: &'a str,
    /// Empty where none is named.
    port: &'a str,
}

impl<'a> Named<'a> {
    /// X1.
    fn parse(text: &'a str) -> Option<Named<'a>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let is_known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        is_known.then_some(Named { is_https: scheme == "https", name, port })
    }

    fn number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port > 0)
    }
}

/// Where a request is carried: a connection, and what it is called there.
struct Way {
    sender: Sender,
    host: String,
}

/// Carries a request; `(parts, tail)` is the request and its path behind `proxy`.
pub(crate) async fn carry(
    call: Call<'_>,
    (parts, tail): (&Parts, &str),
    body: Body,
    upgrade: Option<OnUpgrade>,
) -> Result<Response, ApiError> {
    let permit = call.server.lanes.watch(call.who)?;
    call.server.store.read_barrier().await.map_err(commit_failed)?;
    let named = Named::parse(&call.target.name)
        .ok_or_else(|| ApiError::bad_request(format!("invalid {} request", call.target.resource.singular)))?;
    let kind = &call.target.resource.kind;
    let options = format!("{}ProxyOptions", kind.kind);
    let mut options = json!({"apiVersion": "v1", "kind": options, "path": tail});
    admit::part(call, "CONNECT", &mut options).await?;
    let tail = text(&options, "path");
    if tail.is_empty() && upgrade.is_none() && matches!(parts.method, Method::GET | Method::HEAD) {
        return redirect(&parts.uri);
    }
    let Way { sender, host } = match kind {
        kind if *kind == kinds::POD => to_pod(call, &named).await?,
        kind if *kind == kinds::SERVICE => to_service(call, &named).await?,
        _ => to_node(call, &named).await?,
    };
    let prefix = prefix(&parts.uri, tail);
    let sent = Sent { parts, path: if tail.is_empty() { "/" } else { tail }, host: &host, prefix };
    let mut answer = forward(call.server, sent, (sender, permit), (body, upgrade)).await?;
    relocate(answer.headers_mut(), &host, prefix);
    Ok(answer)
}

/// X6: what has no path is at `/`.
fn redirect(uri: &Uri) -> Result<Response, ApiError> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(ApiError::internal)?;
    let mut response = http::Response::new(body_empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The path up to and with `proxy`.
fn prefix<'a>(uri: &'a Uri, tail: &str) -> &'a str {
    uri.path().strip_suffix(tail).unwrap_or(uri.path())
}

/// X2.
async fn to_pod(call: Call<'_>, named: &Named<'_>) -> Result<Way, ApiError> {
    let pod = find(call, &kinds::POD, named.name)?;
    let containers = || pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = || containers().flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number = |port: &Value| port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = match named.port {
        "" => Some(ports().find_map(number).unwrap_or(if named.is_https { 443 } else { 80 })),
        name => named.number().or_else(|| ports().find(|port| text(port, "name") == name).and_then(number)),
    };
    let port =
        port.ok_or_else(|| ApiError::bad_request(format!("no port {:?} in pod {:?}", named.port, named.name)))?;
    let address: Option<IpAddr> = text(&pod["status"], "podIP").parse().ok();
    to_addresses(&[proxyable(address, port)?], named).await
}

/// X3.
async fn to_service(call: Call<'_>, named: &Named<'_>) -> Result<Way, ApiError> {
    let port = named.number().map_or(Port::Name(named.port), Port::Number);
    let found = route::ready(call.server, &call.target.namespace, named.name, port);
    let addresses = found.map_err(|error| match error {
        RouteError::NotFound { name } => ApiError::not_found(&kinds::SERVICE, &name),
        other => later(Reason::ServiceUnavailable, other.to_string()),
    })?;
    to_addresses(&addresses, named).await
}

/// X4.
async fn to_node(call: Call<'_>, named: &Named<'_>) -> Result<Way, ApiError> {
    find(call, &kinds::NODE, named.name)?;
    let agent = stream::agent_address(call.server, named.name)?;
    if named.port.is_empty() || named.number() == Some(agent.port()) {
        let sender = stream::connect(call.server, named.name).await?;
        return Ok(Way { sender, host: named.name.to_owned() });
    }
    let port = named.number().ok_or_else(|| ApiError::bad_request(format!("{:?} is not a port", named.port)))?;
    to_addresses(&[proxyable(Some(agent.ip()), port)?], named).await
}

fn find(call: Call<'_>, kind: &windlass_api::Kind, name: &str) -> Result<Value, ApiError> {
    let entry = call.server.store.get(&key::object(kind, &call.target.namespace, name));
    entry.map(|entry| write::tree(&entry)).ok_or_else(|| ApiError::not_found(kind, name))
}

/// X5.
fn proxyable(address: Option<IpAddr>, port: u16) -> Result<SocketAddr, ApiError> {
    let address = address.filter(|address| !route::is_of_machine(*address));
    address.map(|address| SocketAddr::new(address, port)).ok_or_else(|| ApiError::bad_request("address not allowed"))
}

async fn to_addresses(addresses: &[SocketAddr], named: &Named<'_>) -> Result<Way, ApiError> {
    let Some(first) = addresses.first() else { return Err(unreachable(&"no address")) };
    let secured = if named.is_https { Some(unproven(first.ip())?) } else { None };
    let (address, sender) = remote::connect(addresses, secured).await.map_err(|error| unreachable(&error))?;
    Ok(Way { sender, host: address.to_string() })
}

/// X1.
fn unproven(address: IpAddr) -> Result<Secured, ApiError> {
    static ANYONE: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
    let tls = ANYONE.get_or_init(|| Trust::Anyone.client_config(None).map(Arc::new));
    Ok((tls.clone().map_err(ApiError::internal)?, ServerName::IpAddress(address.into())))
}

/// X6.
fn relocate(headers: &mut HeaderMap, host: &str, prefix: &str) {
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let Some(within) = within(location, host).filter(|within| !within.starts_with(prefix)) else { return };
    if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{within}")) {
        headers.insert(LOCATION, value);
    }
}

/// Path and query of a location, if it is within what was called.
fn within<'a>(location: &'a str, host: &str) -> Option<&'a str> {
    if location.starts_with("//") {
        return None;
    }
    if location.starts_with('/') {
        return Some(location);
    }
    let (_, rest) = location.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    (authority == host || host.rsplit_once(':').is_some_and(|(host, _)| host == authority)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::{Named, relocate, within};
    use http::HeaderMap;
    use http::header::LOCATION;

    #[test]
    fn x1_a_name_may_say_scheme_and_port() {
        let parse = |text| Named::parse(text).map(|named| (named.is_https, named.name, named.port));
        assert_eq!(parse("a"), Some((false, "a", "")));
        assert_eq!(parse("a:80"), Some((false, "a", "80")));
        assert_eq!(parse("https:a:web"), Some((true, "a", "web")));
        assert_eq!(parse("https:a:"), Some((true, "a", "")));
        assert_eq!((parse("ftp:a:21"), parse("http::80"), parse("a:b:c:d")), (None, None, None));
    }

    #[test]
    fn x6_locations_within_lead_through_the_proxy() {
        let mut headers = HeaderMap::new();
        let mut through = |location: &str| {
            headers.insert(LOCATION, location.parse().expect("a header value"));
            relocate(&mut headers, "10.0.0.1:80", "/api/v1/x/proxy");
            headers[LOCATION].to_str().expect("text").to_owned()
        };
        assert_eq!(through("/a?b=c"), "/api/v1/x/proxy/a?b=c");
        assert_eq!(through("http://10.0.0.1:80/a"), "/api/v1/x/proxy/a");
        assert_eq!(through("/api/v1/x/proxy/a"), "/api/v1/x/proxy/a");
        for elsewhere in ["https://example.com/a", "//example.com/a", "a/b"] {
            assert_eq!(through(elsewhere), elsewhere);
        }
        assert_eq!(within("http://10.0.0.1", "10.0.0.1:80"), Some("/"));
    }
}
