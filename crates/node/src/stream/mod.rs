//! Streams: exec, attach and port-forward, and logs over WebSocket, as kubectl and the client libraries speak them.
//!
//! Flow        the request is answered with an upgrade (`negotiate`) → the connection becomes channels (`websocket`, `spdy`,
//!             found by `command`) → a session copies between them and a process (`session`, `program`) or connections to
//!             the pod (`port_forward`, `dial`) → the client is told how it ended (`exit`)
//! Guarantees  every buffer is bounded and every wait ends: with the client, with the process, or after four idle hours
//!             a process that was run for a client ends with it (one that another runtime runs: see `foreign`); one that was attached to does not notice
//! Not here    who may do this: the API server has decided before it asks

mod channel;
mod command;
mod dial;
mod exit;
mod foreign;
mod log;
mod negotiate;
mod port_forward;
mod program;
mod session;
mod spdy;
#[cfg(test)]
mod tests;
mod websocket;

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Body, BoxError};

use crate::server::{Query, Refusal, StreamOptions, Target, refused};
use command::NoSession;
use dial::Dialer;
use foreign::Foreign;
use negotiate::{COMMAND, LOG, Offer, PORT_FORWARD};
use port_forward::{Goal, PORTS_MAX};
use program::{Attached, Exec};

/// Streams of this process that are open at a time. Each may hold some of a client's bytes.
const SESSIONS_MAX: usize = 512;
/// How long the connection may take to be ours after the answer.
const UPGRADE_TIME_MAX: Duration = Duration::from_secs(30);

static SESSIONS: Semaphore = Semaphore::const_new(SESSIONS_MAX);

/// Runs a command in a running container; its streams travel on the upgraded connection.
///
/// Assumes     the connection is served as HTTP/1.1 with upgrades
/// Errors      400 for what is no upgrade or a container that does not run; whatever goes wrong after the upgrade is told
///             on the error channel
pub async fn exec(request: Request<Incoming>, target: Target, options: StreamOptions) -> Response<Body> {
    let begin = || {
        if options.command.is_empty() {
            return Err(Refusal::bad_request("you must specify at least one command for the container"));
        }
        check(&options)?;
        let (container, sandbox) = (target.running()?, target.sandbox()?);
        begin(request, &COMMAND, async move |io, protocol| {
            let served = match sandbox {
                Some(sandbox) => {
                    let start = Exec::start(sandbox, container, options.clone());
                    command::serve(io, protocol, &options, start).await
                }
                None => {
                    let start = Foreign::start(target, container, options.clone());
                    command::serve(io, protocol, &options, start).await
                }
            };
            note(served);
        })
    };
    begin().unwrap_or_else(|refusal| refused(&refusal))
}

/// Shares the input and output of a running container; its end, or the client's, is the end of the sharing.
///
/// Assumes     the connection is served as HTTP/1.1 with upgrades
/// Errors      as for [`exec`]
pub async fn attach(request: Request<Incoming>, target: Target, options: StreamOptions) -> Response<Body> {
    let begin = || {
        check(&options)?;
        let (container, sandbox) = (target.running()?, target.sandbox()?);
        begin(request, &COMMAND, async move |io, protocol| {
            let served = match sandbox {
                Some(sandbox) => {
                    let start = Attached::start(sandbox, container, options.clone());
                    command::serve(io, protocol, &options, start).await
                }
                None => {
                    let start = Foreign::start(target, container, options.clone());
                    command::serve(io, protocol, &options, start).await
                }
            };
            note(served);
        })
    };
    begin().unwrap_or_else(|refusal| refused(&refusal))
}

/// Carries connections to ports of a pod: its loopback first, then its addresses.
///
/// Assumes     the connection is served as HTTP/1.1 with upgrades
/// Errors      400 for what is no upgrade or names no port; a port that does not answer is told on its error stream
pub async fn port_forward(request: Request<Incoming>, target: Target) -> Response<Body> {
    let begin = || {
        let ports = ports(&Query::parse(request.uri().query()))?;
        let dialer = Dialer { namespace: target.network_namespace(), addresses: target.addresses() };
        let goal = Goal { dialer, title: target.title };
        begin(request, &PORT_FORWARD, async move |io, protocol| {
            if let Err(gone) = port_forward::serve(io, protocol, goal, ports).await {
                tracing::debug!(%gone, "a port-forward ended");
            }
        })
    };
    begin().unwrap_or_else(|refusal| refused(&refusal))
}

/// Sends a log as the messages of a WebSocket.
///
/// Assumes     the connection is served as HTTP/1.1 with upgrades
/// Errors      400 for what is no upgrade to a WebSocket
pub fn log<S>(request: Request<Incoming>, chunks: S) -> Result<Response<Body>, Refusal>
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    begin(request, &LOG, async move |io, form| log::serve(io, form, chunks).await)
}

fn check(options: &StreamOptions) -> Result<(), Refusal> {
    match options.stdin || options.stdout || options.stderr {
        true => Ok(()),
        false => Err(Refusal::bad_request("you must specify at least one of stdin, stdout, stderr")),
    }
}

/// The ports named in the request; over SPDY, each stream names its own.
fn ports(query: &Query) -> Result<Vec<u16>, Refusal> {
    let lists = query.all("port").into_iter().chain(query.all("ports"));
    let texts: Vec<String> = lists.flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    if texts.len() > PORTS_MAX {
        return Err(Refusal::bad_request(format!("expected at most {PORTS_MAX} ports, found {}", texts.len())));
    }
    let port = |text: String| match text.trim().parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Refusal::bad_request(format!("expected ports from 1 to 65535, found {text:?}"))),
    };
    texts.into_iter().map(port).collect()
}

fn note(served: Result<(), NoSession>) {
    if let Err(why) = served {
        tracing::debug!(%why, "a client opened no session");
    }
}

/// Answers with the upgrade and lets the session run on what the connection becomes.
fn begin<P, S, F>(request: Request<Incoming>, offer: &Offer<P>, session: S) -> Result<Response<Body>, Refusal>
where
    P: Copy + Send + 'static,
    S: FnOnce(TokioIo<Upgraded>, P) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let (protocol, response) = negotiate::agree(request.headers(), offer)?;
    let Ok(slot) = SESSIONS.try_acquire() else {
        let message = format!("this node serves {SESSIONS_MAX} streams already; close one or try again later");
        return Err(Refusal { error: ApiError::new(Reason::TooManyRequests, message) });
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match tokio::time::timeout(UPGRADE_TIME_MAX, upgrade).await {
            Ok(Ok(upgraded)) => session(TokioIo::new(upgraded), protocol).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client did not wait for its upgrade"),
            Err(_) => tracing::debug!("a connection was not upgraded within {UPGRADE_TIME_MAX:?}"),
        }
        drop(slot);
    });
    Ok(response)
}
