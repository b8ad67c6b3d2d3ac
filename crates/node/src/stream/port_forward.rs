//! Port-forward: each connection that a client accepts becomes one connection to a port of the pod.
//!
//! Rules
//!   R1 pair      a data and an error stream with the same request id are one connection; a half one is given up after a while
//!   R2 dial      a port nobody listens on is told on the error stream, in words
//!   R3 ends      each side's end is passed on and the other direction goes on; when the pod has ended, the error stream
//!                ends too, because clients wait for that; a reset ends both
//!   R4 apart     connections do not wait for each other, as long as what the client sends is taken
//!
//! Source: Kubernetes' port-forward over SPDY (`portforward.k8s.io`), over WebSocket channels (2n data, 2n+1 error; the first
//! message is the port), KEP-4006; `v5.channel.k8s.io`, where a client can close a channel, is asked for by `windlass` only

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channel::{CHUNK_BYTES_MAX, Gone, Reader, Writer};
use super::dial::Dialer;
use super::negotiate::Protocol;
use super::spdy;
use super::websocket::{self, Tunnel};

/// How long the other half of a pair may take to come.
const PAIR_TIME_MAX: Duration = Duration::from_secs(30);
/// Ports that one WebSocket forwards: channels are bytes, two a port, and 255 has a meaning of its own.
pub(super) const PORTS_MAX: usize = 127;

/// What connections are made to.
#[derive(Debug)]
pub(super) struct Goal {
    pub dialer: Dialer,
    /// `namespace/name` of the pod.
    pub title: String,
}

/// Serves a port-forward on an upgraded connection until the client hangs up.
pub(super) async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    protocol: Protocol,
    goal: Goal,
    ports: Vec<u16>,
) -> Result<(), Gone> {
    let goal = Arc::new(goal);
    match protocol {
        Protocol::Spdy => over_spdy(spdy::Connection::start(io), goal).await,
        Protocol::SpdyInWebSocket => {
            over_spdy(spdy::Connection::start(Tunnel::new(websocket::open(io).await)), goal).await;
        }
        Protocol::Channels | Protocol::ChannelsV4 | Protocol::ChannelsV5 => {
            over_websocket(io, goal, &ports, protocol == Protocol::ChannelsV5).await?;
        }
    }
    Ok(())
}

/// One half of a pair.
struct Half {
    port: u16,
    reader: Reader,
    writer: Writer,
}

/// A half that waits for the other.
struct Waiting {
    half: Half,
    is_data: bool,
    until: Instant,
}

/// R1 and R4. Those still open when the client hangs up are dropped with it.
async fn over_spdy(mut connection: spdy::Connection, goal: Arc<Goal>) {
    let mut waiting: BTreeMap<String, Waiting> = BTreeMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let next_until = waiting.values().map(|half| half.until).min();
        tokio::select! {
            biased;
            stream = connection.accept() => match stream {
                Some(stream) => if let Some((data, error)) = pair(&mut waiting, stream) {
                    forwards.spawn(forward(Arc::clone(&goal), data, error));
                },
                None => break,
            },
            Some(ended) = forwards.join_next(), if !forwards.is_empty() => if let Err(error) = ended {
                tracing::error!(%error, "a forwarded connection did not end in order");
            },
            () = sleep_until(next_until), if next_until.is_some() => {
                // Dropped, both its sides are reset.
                waiting.retain(|_, half| half.until > Instant::now());
            }
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

/// R1. A stream without a port or with an unknown type is reset by being dropped.
fn pair(waiting: &mut BTreeMap<String, Waiting>, stream: spdy::Stream) -> Option<(Half, Half)> {
    let spdy::Stream { id, headers, reader, writer } = stream;
    let port = headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
    let is_data = match headers.get("streamtype")?.as_str() {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    // Clients from before request ids open the error stream, then at once the data stream.
    let of_old = || if is_data { id.saturating_sub(2) } else { id }.to_string();
    let request = headers.get("requestid").cloned().unwrap_or_else(of_old);
    let half = Half { port, reader, writer };
    match waiting.remove(&request) {
        Some(other) if other.is_data != is_data && other.half.port == port => {
            Some(if is_data { (half, other.half) } else { (other.half, half) })
        }
        // Of two alike the later one counts.
        _ => {
            waiting.insert(request, Waiting { half, is_data, until: Instant::now() + PAIR_TIME_MAX });
            None
        }
    }
}

async fn over_websocket(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    goal: Arc<Goal>,
    ports: &[u16],
    closes: bool,
) -> Result<(), Gone> {
    let channels = |index: usize| u8::try_from(2 * index).ok().zip(u8::try_from(2 * index + 1).ok());
    let pairs: Vec<(u16, u8, u8)> = ports
        .iter()
        .enumerate()
        .filter_map(|(index, port)| channels(index).map(|(data, error)| (*port, data, error)))
        .collect();
    let inputs: Vec<u8> = pairs.iter().map(|(_, data, _)| *data).collect();
    let mut connection = websocket::Connection::start(websocket::open(io).await, inputs, closes);
    let mut forwards = JoinSet::new();
    for (port, data_channel, error_channel) in pairs {
        let (data, error) = (connection.writer(data_channel), connection.writer(error_channel));
        for writer in [&data, &error] {
            writer.write(Bytes::copy_from_slice(&port.to_le_bytes())).await?;
        }
        let reader = connection.take_reader(data_channel).ok_or(Gone)?;
        let goal = Arc::clone(&goal);
        forwards.spawn(async move {
            if let Some((from_pod, to_pod)) = dial(&goal, port, &error).await {
                // No channel can be closed from our side, so the pod's end is all of it.
                tokio::select! {
                    biased;
                    () = to_client(from_pod, &data) => {}
                    () = async {
                        to_pod_from(reader, to_pod).await;
                        std::future::pending::<()>().await
                    } => {}
                }
            }
        });
    }
    let link = connection.into_link();
    let all = async { while forwards.join_next().await.is_some() {} };
    let is_done = tokio::select! {
        biased;
        () = all => true,
        () = link.gone() => false,
    };
    if is_done {
        link.close().await;
    }
    Ok(())
}

/// One forwarded connection.
async fn forward(goal: Arc<Goal>, data: Half, error: Half) {
    let Half { port, reader, writer } = data;
    let Some((from_pod, to_pod)) = dial(&goal, port, &error.writer).await else {
        // The client may be gone by now.
        let _ = error.writer.finish().await;
        let _ = writer.finish().await;
        return;
    };
    let down = async {
        to_client(from_pod, &writer).await;
        // R3; a client that is gone is noticed below.
        let _ = writer.finish().await;
        let _ = error.writer.finish().await;
    };
    let both = async { tokio::join!(down, to_pod_from(reader, to_pod)) };
    tokio::select! {
        biased;
        () = writer.gone() => {}
        _ = both => {}
    }
}

/// R2.
async fn dial(goal: &Goal, port: u16, error: &Writer) -> Option<(OwnedReadHalf, OwnedWriteHalf)> {
    match goal.dialer.connect(port).await {
        Ok(stream) => Some(TcpStream::into_split(stream)),
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {}: {why}", goal.title);
            tracing::debug!("{text}");
            // The client may be gone by now.
            let _ = error.write(text.into()).await;
            None
        }
    }
}

async fn to_client(mut from_pod: OwnedReadHalf, writer: &Writer) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES_MAX);
        match from_pod.read_buf(&mut (&mut buffer).limit(CHUNK_BYTES_MAX)).await {
            Ok(0) => return,
            Ok(_) if writer.write(buffer.split().freeze()).await.is_err() => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a pod has broken a forwarded connection");
                return;
            }
        }
    }
}

async fn to_pod_from(mut reader: Reader, mut to_pod: OwnedWriteHalf) {
    while let Some(bytes) = reader.next().await {
        if let Err(error) = to_pod.write_all(&bytes).await {
            tracing::debug!(%error, "a pod takes no more of a forwarded connection");
            return;
        }
    }
    if let Err(error) = to_pod.shutdown().await {
        tracing::debug!(%error, "a pod has closed a forwarded connection before its client");
    }
}
