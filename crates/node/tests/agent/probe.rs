//! Probes and hooks of every kind against real servers: what they see is what there is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use windlass_node::Machine;
use windlass_node::grpc::Io;
use windlass_node::machine::HealthCheck;

use crate::stage::{Cluster, condition, on_a_node, shell};

/// A server that answers every GET by TLS with a status that can be changed, and notes what it was asked.
struct Web {
    status: Arc<AtomicU16>,
    asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Web {
    async fn start(cluster: &Cluster, port: u16) -> Web {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the namespace is ours");
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(Mutex::new(Vec::new())));
        let (tls, now, seen) = (TlsAcceptor::from(cluster.tls()), Arc::clone(&status), Arc::clone(&asked));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                let (tls, now, seen) = (tls.clone(), Arc::clone(&now), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                        seen.lock().expect("nobody panics").push(request.uri().path().to_owned());
                        let answer = http::Response::builder().status(now.load(Ordering::Relaxed));
                        let answer = answer.body(Full::<Bytes>::default()).expect("a response");
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // Who has enough hangs up.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Web { status, asked, server }
    }
}

/// Says by gRPC that everything serves; by TLS if there is something to speak it with.
async fn start_health(port: u16, tls: Option<TlsAcceptor>) -> JoinHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the namespace is ours");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream: Box<dyn Io> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        // Who does not speak it is not answered.
                        Err(_) => return,
                    },
                };
                let service = service_fn(|_: http::Request<hyper::body::Incoming>| async {
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    // A message of two bytes: the status is 1, serving.
                    let message = Bytes::from_static(&[0, 0, 0, 0, 2, 0x08, 1]);
                    let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
                    let mut answer = http::Response::new(StreamBody::new(futures::stream::iter(frames)));
                    let kind = http::HeaderValue::from_static("application/grpc");
                    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                    Ok::<_, Infallible>(answer)
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // Who has enough hangs up.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// The names of the containers that are ready.
fn ready(pod: &Value) -> String {
    let all = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let ready = all.filter(|status| status["ready"] == true).filter_map(|status| status["name"].as_str());
    ready.collect::<Vec<_>>().join(" ")
}

#[test]
fn tcp_https_and_grpc_are_seen_when_they_are_there_and_when_they_are_not() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let container = |name: &str, mut probe: Value| {
            let mut container = shell(name, "while true; do sleep 0.1; done");
            (probe["periodSeconds"], probe["failureThreshold"]) = (json!(1), json!(1));
            container["readinessProbe"] = probe;
            container
        };
        let containers = [
            container("g", json!({"grpc": {"port": 7003}})),
            container("h", json!({"httpGet": {"port": 7002, "scheme": "HTTPS", "path": "/well"}})),
            container("t", json!({"tcpSocket": {"port": 7001}})),
        ];
        let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": containers});
        cluster.pod("a", spec).await;
        let begun = cluster.until("a", |pod| pod["status"]["phase"] == "Running").await;
        assert_eq!(ready(&begun), "");
        let listener = TcpListener::bind("127.0.0.1:7001").await.expect("the namespace is ours");
        cluster.until("a", |pod| ready(pod) == "t").await;
        let web = Web::start(&cluster, 7002).await;
        cluster.until("a", |pod| ready(pod) == "h t").await;
        let health = start_health(7003, None).await;
        cluster.until("a", |pod| ready(pod) == "g h t" && condition(pod, "Ready")).await;
        web.status.store(503, Ordering::Relaxed);
        cluster.until("a", |pod| ready(pod) == "g t").await;
        drop(listener);
        cluster.until("a", |pod| ready(pod) == "g").await;
        health.abort();
        cluster.until("a", |pod| ready(pod).is_empty()).await;
        cluster.delete("a").await;
        web.server.abort();
    });
}

/// The API of Kubernetes 1.37 drops the field that asks for TLS; a static pod's file may have it.
#[test]
fn a_grpc_probe_by_tls_is_answered_by_who_speaks_it_and_by_nobody_else() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let by_tls = start_health(7003, Some(TlsAcceptor::from(cluster.tls()))).await;
        let plain = start_health(7004, None).await;
        let kernel = cluster.kernel();
        let ask = |port: u16, tls: bool| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let check = HealthCheck { address, service: String::new(), tls, timeout: Duration::from_secs(5) };
            let kernel = Arc::clone(&kernel);
            async move { kernel.check_health(&check).await.map_err(|error| error.to_string()) }
        };
        assert_eq!(ask(7003, true).await, Ok(()));
        assert_eq!(ask(7004, false).await, Ok(()));
        assert!(ask(7003, false).await.is_err() && ask(7004, true).await.is_err());
        by_tls.abort();
        plain.abort();
    });
}

#[test]
fn a_hook_tells_by_tls_and_what_is_answered_does_not_matter() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let web = Web::start(&cluster, 7002).await;
        web.status.store(500, Ordering::Relaxed);
        let mut container = shell("a", "while true; do sleep 0.1; done");
        let tells = |path: &str| json!({"httpGet": {"port": 7002, "scheme": "HTTPS", "path": path}});
        container["lifecycle"] = json!({"postStart": tells("/begins"), "preStop": tells("/ends")});
        let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 5, "containers": [container]});
        cluster.pod("a", spec).await;
        cluster.until("a", |pod| condition(pod, "Ready")).await;
        cluster.delete("a").await;
        assert_eq!(*web.asked.lock().expect("nobody panics"), ["/begins", "/ends"]);
        web.server.abort();
    });
}
