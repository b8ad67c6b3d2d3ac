//! The listener: TLS connections in, requests to the pipeline, every step of a connection bounded in time and number.
//!
//! Rules
//!   R1 handshake    TLS is done within 10 s or the connection is dropped
//!   R2 headers      arrive within 32 s and are at most 1 MiB
//!   R3 connections  at most so many at one time; further ones wait in the kernel's backlog
//!   R4 http2        bounded streams, resets and buffers (CVE-2023-44487); dead peers are found by pings
//!   R5 end          when the server closes, connections on which nothing is under way end at once, and the others when
//!                   they are done, at the latest after a grace period
//!   R6 stalled      a connection whose client does not read its answers is cut (`flow`)

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::audit::Peer;
use crate::authenticate::authenticate;
use crate::flow::Flow;
use crate::pipeline;
use crate::server::Server;

/// Connections served at one time.
const CONNECTIONS_MAX: usize = 20_000;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
const HEADERS_TIME_MAX: Duration = Duration::from_secs(32);
const HEADERS_BYTES_MAX: usize = 1024 * 1024;
/// Streams of one HTTP/2 connection: what Kubernetes allows, so that its clients' watches fit.
const STREAMS_MAX: u32 = 250;
/// Streams that a peer may have reset before we have looked at them.
const PENDING_RESETS_MAX: usize = 50;
/// Streams that we may have reset because the peer broke the rules.
const LOCAL_RESETS_MAX: usize = 128;
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// How long connections may go on after the server closes.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// How long a connection on which nothing is under way is kept, so that its client hears that the server closes.
const GOODBYE_TIME: Duration = Duration::from_millis(100);
/// Pause after a failed accept, such as no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until the server closes.
pub(crate) async fn serve(server: Arc<Server>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.closed() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                connections.spawn(async move {
                    serve_connection(server, acceptor, stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_GRACE, all_done).await.is_err() {
        tracing::info!(left = connections.len(), "cutting connections that did not end by themselves");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve_connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) {
    let ready = stream.set_nodelay(true).and_then(|()| windlass_stdx::expect_life(&stream));
    if let Err(error) = ready {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let peer = stream.peer_addr().ok().map(|address| Peer(address.ip()));
    let shaken = tokio::select! {
        biased;
        () = server.closed() => return,
        shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)) => shaken,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!("a TLS handshake was not finished within {HANDSHAKE_TIME_MAX:?}");
            return;
        }
    };
    let who = Arc::new(authenticate(stream.get_ref().1.peer_certificates()));
    let flow = Flow::new();
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let (server, who, busy) = (server.clone(), who.clone(), flow.begin());
        async move {
            let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            Ok::<_, std::convert::Infallible>(busy.with(pipeline::answer(&server, &who, request).await))
        }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = flow.stalled(server.config.stall_time_max) => {
            tracing::info!(who = who.name, "cutting a connection whose client does not read its answers");
            Ok(())
        }
        () = server.closed() => {
            connection.as_mut().graceful_shutdown();
            let idle = async {
                flow.idle().await;
                tokio::time::sleep(GOODBYE_TIME).await;
            };
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = idle => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended early");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX as u32)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIME_MAX);
    builder
}
