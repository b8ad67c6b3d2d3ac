//! `pods/log`, `exec`, `attach` and `portforward`: carried to the agent of the pod's node, byte for byte.
//!
//! Rules
//!   R1 address      the agent is where its own Node object says (InternalIP and kubelet port), never where a request says;
//!                   it must prove by its certificate that it is that node, and we prove who we are (A41)
//!   R2 container    named, or the only one; otherwise the client is told which there are
//!   R3 upgrade      exec, attach and port-forward need an upgraded connection; the upgraded bytes are not looked at
//!   R4 end          when either side ends, or the server closes
//!   R5 admitted     policies and webhooks are asked about exec, attach and port-forward; what webhooks make of the options
//!                   is what is done
//!
//! Source: API reference, Pod proxy operations; the kubelet's paths for the same.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use windlass_api::{ApiError, Reason, Subresource, kinds};
use windlass_stdx::{Response, body_empty};

use crate::admit;
use crate::answer::Answer;
use crate::failure::{commit_failed, later};
use crate::flow::Unhurried;
use crate::key;
use crate::request::Query;
use crate::server::{Call, Server};
use crate::write::{self, text};

/// How long the way to an agent may take: connection and TLS.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an agent may take to begin its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an agent's refusal that are passed on.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// Where a node says that its agent listens, if it does not.
const AGENT_PORT_DEFAULT: u64 = 10_250;
/// Commands and ports passed on with one request.
const REPEATED_MAX: usize = 256;

/// What is passed on of a request and of its answer: what the two ends agree about the stream with.
const PASSED: [&str; 8] = [
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
    "x-stream-protocol-version",
];

/// What a query value may hold as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(crate) async fn stream(call: Call<'_>, sub: Subresource, upgrade: Option<OnUpgrade>) -> Result<Answer, ApiError> {
    let permit = call.server.lanes.watch(call.who)?;
    call.server.store.read_barrier().await.map_err(commit_failed)?;
    let pod = find_pod(call)?;
    let node = text(&pod["spec"], "nodeName");
    let is_log = sub == Subresource::Log;
    let mut options = options(call, sub)?;
    if !is_log {
        admit::part(call, "CONNECT", &mut options).await?;
    }
    let path = path(call, sub, &pod, &options)?;
    if node.is_empty() {
        if is_log {
            return Ok(Answer::ready(text_response(body_empty())));
        }
        let message = format!("pod {} does not have a host assigned", call.target.name);
        return Err(ApiError::bad_request(message));
    }
    if !is_log && upgrade.is_none() {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let mut sender = connect(call.server, node).await?;
    let method = if is_log { Method::GET } else { method_of(call) };
    let mut request = Request::new(body_empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(ApiError::internal)?;
    pass(call.headers, request.headers_mut());
    request.headers_mut().insert(HOST, HeaderValue::from_str(node).map_err(ApiError::internal)?);
    let response = match tokio::time::timeout(ANSWER_TIME_MAX, sender.send_request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(unreachable(node, &error)),
        Err(_) => return Err(unreachable(node, &format!("no answer within {ANSWER_TIME_MAX:?}"))),
    };
    match (response.status(), upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => {
            let mut answer = Response::new(body_empty());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            pass(response.headers(), answer.headers_mut());
            let closing = call.server.clone();
            tokio::spawn(async move {
                tunnel(upgrade, hyper::upgrade::on(response), closing).await;
                drop(permit);
            });
            Ok(Answer::ready(answer))
        }
        (StatusCode::OK, _) => {
            let body = response.into_body().map_err(Into::into).map_frame(move |frame| {
                let _held_while_sent = &permit;
                frame
            });
            let mut answer = text_response(BodyExt::boxed_unsync(body));
            answer.extensions_mut().insert(Unhurried);
            Ok(Answer::ready(answer))
        }
        (code, _) => Err(refusal(code, response.into_body()).await),
    }
}

fn method_of(call: Call<'_>) -> Method {
    // WebSocket begins with GET, SPDY with POST; the handshake header tells them apart.
    if call.headers.contains_key("sec-websocket-key") { Method::GET } else { Method::POST }
}

fn text_response(body: windlass_stdx::Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn find_pod(call: Call<'_>) -> Result<Value, ApiError> {
    let entry = call.server.store.get(&key::object(&kinds::POD, &call.target.namespace, &call.target.name));
    let entry = entry.ok_or_else(|| ApiError::not_found(&kinds::POD, &call.target.name))?;
    Ok(write::tree(&entry))
}

/// What is asked, as an object.
fn options(call: Call<'_>, sub: Subresource) -> Result<Value, ApiError> {
    let texts = |key| call.query.all(key).map(str::to_owned).collect::<Vec<_>>();
    let mut options = json!({"apiVersion": "v1"});
    match sub {
        Subresource::PortForward => {
            options["kind"] = json!("PodPortForwardOptions");
            options["ports"] = [texts("ports"), texts("port")]
                .concat()
                .iter()
                .flat_map(|text| text.split(','))
                .filter_map(|port| port.parse::<u16>().ok())
                .collect();
            return Ok(options);
        }
        Subresource::Log => options["kind"] = json!("PodLogOptions"),
        other => {
            let is_exec = other == Subresource::Exec;
            options["kind"] = json!(if is_exec { "PodExecOptions" } else { "PodAttachOptions" });
            if is_exec {
                options["command"] = json!(texts("command"));
            }
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                options[flag] = json!(call.query.flag(flag)?);
            }
        }
    }
    if let Some(container) = call.query.get("container") {
        options["container"] = json!(container);
    }
    Ok(options)
}

/// The path at the agent.
fn path(call: Call<'_>, sub: Subresource, pod: &Value, options: &Value) -> Result<String, ApiError> {
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let mut query = Vec::new();
    let path = match sub {
        Subresource::PortForward => {
            for key in ["port", "ports"] {
                repeat(call.query.all(key), key, &mut query)?;
            }
            format!("/portForward/{namespace}/{name}")
        }
        Subresource::Log => {
            const PARAMETERS: [&str; 7] =
                ["follow", "previous", "timestamps", "tailLines", "sinceSeconds", "sinceTime", "limitBytes"];
            check_log_options(call.query)?;
            for key in PARAMETERS {
                query.extend(call.query.get(key).map(|value| pair(key, value)));
            }
            format!("/containerLogs/{namespace}/{name}/{}", container(call, pod, options)?)
        }
        other => {
            if other == Subresource::Exec {
                let command = options["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
                repeat(command, "command", &mut query)?;
                if query.is_empty() {
                    return Err(ApiError::bad_request("you must specify at least one command for the container"));
                }
            }
            for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
                if options[ours] == true {
                    query.push(pair(theirs, "1"));
                }
            }
            let verb = if other == Subresource::Exec { "exec" } else { "attach" };
            format!("/{verb}/{namespace}/{name}/{}", container(call, pod, options)?)
        }
    };
    Ok(if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) })
}

fn check_log_options(query: &Query) -> Result<(), ApiError> {
    for name in ["tailLines", "sinceSeconds", "limitBytes"] {
        if query.number(name)?.is_some_and(|number| number < 0) {
            return Err(ApiError::bad_request(format!("expected {name} of at least 0")));
        }
    }
    for name in ["follow", "previous", "timestamps"] {
        query.flag(name)?;
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        return Err(ApiError::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    Ok(())
}

fn pair(key: &str, value: &str) -> String {
    format!("{key}={}", utf8_percent_encode(value, QUERY))
}

fn repeat<'a>(values: impl Iterator<Item = &'a str>, key: &str, into: &mut Vec<String>) -> Result<(), ApiError> {
    for value in values {
        if into.len() == REPEATED_MAX {
            return Err(ApiError::bad_request(format!("expected at most {REPEATED_MAX} values of {key}")));
        }
        into.push(pair(key, value));
    }
    Ok(())
}

/// R2.
fn container(call: Call<'_>, pod: &Value, options: &Value) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(|container| text(container, "name").to_owned()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = &call.target.name;
    match Some(text(options, "container")).filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if main.iter().chain(&init).chain(&ephemeral).any(|name| name == wanted) => Ok(wanted.to_owned()),
        Some(wanted) => {
            let message = format!("container {} is not valid for pod {pod_name}", wanted.escape_debug());
            Err(ApiError::bad_request(message))
        }
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let mut message =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn pass(from: &HeaderMap, into: &mut HeaderMap) {
    for name in PASSED.map(HeaderName::from_static) {
        for value in from.get_all(&name) {
            into.append(name.clone(), value.clone());
        }
    }
    // A connection without upgrade keeps its own options.
    if !into.contains_key(UPGRADE) {
        into.remove(CONNECTION);
    }
}

/// R1.
pub(crate) async fn connect(
    server: &Server,
    node: &str,
) -> Result<hyper::client::conn::http1::SendRequest<windlass_stdx::Body>, ApiError> {
    let Some(link) = &server.config.node_link else {
        return Err(later(Reason::ServiceUnavailable, "this server has no way to reach node agents"));
    };
    let address = agent_address(server, node)?;
    let connector = tokio_rustls::TlsConnector::from(link.tls.clone());
    let name = ServerName::try_from(node.to_owned()).map_err(|error| unreachable(node, &error))?;
    let connected = tokio::time::timeout(CONNECT_TIME_MAX, async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        windlass_stdx::expect_life(&tcp)?;
        connector.connect(name, tcp).await
    });
    let tls = match connected.await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return Err(unreachable(node, &format!("{address}: {error}"))),
        Err(_) => return Err(unreachable(node, &format!("{address}: no connection within {CONNECT_TIME_MAX:?}"))),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await;
    let (sender, connection) = handshake.map_err(|error| unreachable(node, &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the connection to a node agent ended");
        }
    });
    Ok(sender)
}

pub(super) fn agent_address(server: &Server, node: &str) -> Result<SocketAddr, ApiError> {
    let entry = server.store.get(&key::object(&kinds::NODE, "", node));
    let entry = entry.ok_or_else(|| unreachable(node, &"there is no such node"))?;
    let object = write::tree(&entry);
    let status = &object["status"];
    let addresses = status["addresses"].as_array().into_iter().flatten();
    let internal = addresses.filter(|address| address["type"] == "InternalIP").map(|address| text(address, "address"));
    let address: IpAddr = internal
        .filter_map(|address| address.parse().ok())
        .next()
        .ok_or_else(|| unreachable(node, &"it names no InternalIP"))?;
    let is_link_local = matches!(address, IpAddr::V4(v4) if v4.is_link_local() || v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_link_local {
        return Err(unreachable(node, &format!("{address} is not an address of a node")));
    }
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(AGENT_PORT_DEFAULT);
    let port = u16::try_from(port).map_err(|_| unreachable(node, &format!("{port} is not a port")))?;
    Ok(SocketAddr::new(address, port))
}

pub(crate) fn unreachable(node: &str, why: &dyn std::fmt::Display) -> ApiError {
    later(Reason::ServiceUnavailable, format!("cannot reach the agent of node {node:?}: {why}"))
}

/// What the agent refused with.
async fn refusal(code: StatusCode, body: hyper::body::Incoming) -> ApiError {
    let body = BodyExt::boxed_unsync(body.map_err(Into::into));
    let read = tokio::time::timeout(CONNECT_TIME_MAX, windlass_stdx::read_body(body, REFUSAL_BYTES_MAX)).await;
    let bytes = match read {
        Ok(Ok(Some(bytes))) => bytes,
        _ => bytes::Bytes::new(),
    };
    if let Ok(status) = serde_json::from_slice::<Value>(&bytes)
        && let Some(error) = ApiError::from_status(&status)
    {
        return error;
    }
    let reason = match code.as_u16() {
        400 => Reason::BadRequest,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        _ => Reason::InternalError,
    };
    let message = String::from_utf8_lossy(&bytes);
    let message =
        if message.trim().is_empty() { format!("the node agent answered {code}") } else { message.trim().to_owned() };
    ApiError::new(reason, message)
}

/// R3 and R4.
pub(crate) async fn tunnel(client: OnUpgrade, agent: OnUpgrade, server: Arc<Server>) {
    let (client, agent) = match tokio::try_join!(client, agent) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "a stream ended before both sides were upgraded");
            return;
        }
    };
    let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
    tokio::select! {
        biased;
        () = server.closed() => {}
        copied = tokio::io::copy_bidirectional(&mut client, &mut agent) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a stream between client and node agent broke");
            }
        }
    }
}
