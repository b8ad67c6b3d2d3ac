//! The node agent's HTTP server: logs, pods, figures, health; and the doors for exec, attach and port-forward.
//!
//! Rules
//!   R1 who       the API server (a client certificate of the cluster's CA, CN `system:apiserver` or group `system:masters`); other
//!                nodes of the cluster (group `system:nodes`) for layers of images and nothing else
//!   R2 where     a path names a pod and a container that this node has; nothing of it becomes part of a file name unchecked
//!   R3 bounded   handshakes, headers and connections have limits; a follower costs a look every 100 ms and nothing else
//!
//! Not here       who may read which pod's logs: the API server has decided that before it asks

mod checkpoint;
mod identity;
mod layers;
mod logs;
mod query;
mod stats;
mod target;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use windlass_stdx::{Body, body_from};

use identity::Caller;
pub use identity::{ServerError, ServerIdentity};
pub(crate) use layers::layer_body;
pub use query::Query;
pub use target::{Refusal, StreamOptions, Target};

use crate::agent::PodDirectory;
use crate::kernel::Kernel;
use crate::starts::Starts;
use crate::stream;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's headers may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system could not give another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every request needs.
pub struct Site {
    /// This computer.
    pub kernel: Arc<Kernel>,
    /// The pods of this node.
    pub pods: PodDirectory,
    /// How the last of them came up.
    pub starts: Arc<Starts>,
    /// The Node's name.
    node: String,
    stats: stats::Sampler,
    checkpointing: checkpoint::Turn,
}

impl Site {
    /// The site of the node of this name.
    pub fn new(kernel: Arc<Kernel>, pods: PodDirectory, starts: Arc<Starts>, node: &str) -> Site {
        let (stats, checkpointing) = (stats::Sampler::default(), checkpoint::Turn::default());
        Site { kernel, pods, starts, node: node.to_owned(), stats, checkpointing }
    }
}

/// Serves until `shutdown` is true.
pub async fn serve(
    listener: TcpListener,
    identity: &ServerIdentity,
    site: Site,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ServerError> {
    let tls = TlsAcceptor::from(identity.to_tls()?);
    let site = Arc::new(site);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, site, shutdown) = (tls.clone(), Arc::clone(&site), shutdown.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, tls, site, shutdown).await {
                tracing::debug!(error, "a connection to the node agent ended");
            }
            drop(slot);
        });
    }
}

async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    site: Arc<Site>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), windlass_stdx::BoxError> {
    stream.set_nodelay(true)?;
    windlass_stdx::expect_life(&stream)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
    // R1
    let caller = identity::caller(stream.get_ref().1.peer_certificates());
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move {
            let response = match caller {
                Caller::ApiServer => route(&site, request).await,
                Caller::Node if request.uri().path().starts_with("/v2/") => route(&site, request).await,
                Caller::Node | Caller::Stranger => {
                    refused(&Refusal::forbidden("only the API server may ask a node agent"))
                }
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => Ok(()),
        served = served => Ok(served?),
    }
}

/// One line for each path.
async fn route(site: &Arc<Site>, request: hyper::Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let answer = match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => Ok(text("ok")),
        (&Method::GET, ["metrics"]) => Ok(text(&metrics(site))),
        (&Method::GET, ["v2", "layers", "blobs", digest]) => layers::answer(site, digest).await,
        (&Method::GET, ["metrics", "resource"]) => Ok(text(&stats::metrics(site).await)),
        (&Method::GET, ["stats", "summary"]) => {
            stats::summary(site, &Query::parse(request.uri().query())).await.map(|summary| json_answer(&summary))
        }
        (&Method::GET, ["pods"]) => Ok(json_answer(&pods(site))),
        (&Method::GET, ["starts", namespace, pod]) => Target::find_pod(site, namespace, pod)
            .map(|target| json_answer(&json!({"spans": site.starts.of(&target.pod.uid)}))),
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            match Target::find(site, namespace, pod, container) {
                Ok(target) => logs::answer(request, target).await,
                Err(refusal) => Err(refusal),
            }
        }
        (&Method::POST, ["checkpoint", namespace, pod, container]) => {
            match Target::find(site, namespace, pod, container) {
                Ok(target) => checkpoint::answer(site, &Query::parse(request.uri().query()), target).await,
                Err(refusal) => Err(refusal),
            }
        }
        (&Method::GET | &Method::POST, ["exec", namespace, pod, container]) => {
            match Target::find(site, namespace, pod, container) {
                Ok(target) => {
                    let options = StreamOptions::parse(&Query::parse(request.uri().query()));
                    Ok(stream::exec(request, target, options).await)
                }
                Err(refusal) => Err(refusal),
            }
        }
        (&Method::GET | &Method::POST, ["attach", namespace, pod, container]) => {
            match Target::find(site, namespace, pod, container) {
                Ok(target) => {
                    let options = StreamOptions::parse(&Query::parse(request.uri().query()));
                    Ok(stream::attach(request, target, options).await)
                }
                Err(refusal) => Err(refusal),
            }
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, pod]) => match Target::find_pod(site, namespace, pod)
        {
            Ok(target) => Ok(stream::port_forward(request, target).await),
            Err(refusal) => Err(refusal),
        },
        _ => Err(Refusal::not_found(format!("the node agent has no {path}"))),
    };
    answer.unwrap_or_else(|refusal| refused(&refusal))
}

/// Every pod of this node as a PodList.
fn pods(site: &Site) -> Value {
    let items =
        site.pods.list().into_iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.shown.json).ok());
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items.collect::<Vec<_>>()})
}

fn metrics(site: &Site) -> String {
    let pods = site.pods.list();
    let running = pods.iter().flat_map(|entry| entry.shown.containers.values()).flatten().filter(|(_, runs)| *runs);
    let mut out = String::new();
    for (name, help, value) in [
        ("kubelet_running_pods", "Pods this node has.", pods.len()),
        ("kubelet_running_containers", "Containers that run.", running.count()),
    ] {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    out
}

fn text(text: &str) -> Response<Body> {
    with_type("text/plain; charset=utf-8", body_from(text.to_owned()))
}

fn json_answer(value: &Value) -> Response<Body> {
    with_type("application/json", body_from(value.to_string()))
}

fn with_type(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let value = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    response
}

/// The one place where a refusal becomes an answer.
pub fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = json_answer(&refusal.error.to_status());
    *response.status_mut() = StatusCode::from_u16(refusal.error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
