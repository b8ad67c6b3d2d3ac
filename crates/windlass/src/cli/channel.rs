//! The streams of a pod as channels of one WebSocket: exec and port-forward.
//!
//! Rules
//!   R1 proof   the server shows that it has read our handshake, and speaks a protocol that we named
//!   R2 bound   what waits to be sent and what waits to be taken are a few chunks; a message has a largest size
//! Not here     SPDY: servers have spoken WebSocket since Kubernetes 1.29
//! Source: KEP-4006, subprotocols v5.channel.k8s.io and v4.channel.k8s.io

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Method, header};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use windlass_api::{Reason, kinds};
use windlass_client::{Call, ClientError, Upgraded, with_query};

use super::describe::sheet::{items, text};
use super::session::{Session, object_path};

/// The channels of a command.
pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const STATUS: u8 = 3;
pub const RESIZE: u8 = 4;
/// Says which channel is closed; v5 only.
pub const CLOSE: u8 = 255;
/// Channels that can be closed apart.
pub const V5: &str = "v5.channel.k8s.io";
/// Channels.
pub const V4: &str = "v4.channel.k8s.io";
/// Bytes that are sent at once.
pub const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Chunks that wait to be sent.
const WAITING_MAX: usize = 4;
/// A message that is longer is none of a server that means well.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A WebSocket to a pod.
pub type Socket = WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>;

/// What of a command is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Begins a command in a container.
pub async fn exec(
    session: &Session,
    pod: &Value,
    container: &str,
    command: &[&str],
    streams: Streams,
) -> Result<Socket> {
    let said = |flag: bool| if flag { "true" } else { "" };
    let mut query: Vec<(&str, &str)> = command.iter().map(|word| ("command", *word)).collect();
    query.extend([
        ("container", container),
        ("stdin", said(streams.stdin)),
        ("stdout", said(streams.stdout)),
        ("stderr", said(streams.stderr)),
        ("tty", said(streams.tty)),
    ]);
    Ok(connect(session, pod, "exec", &query, &[V5]).await?.0)
}

/// Opens a WebSocket to a subresource of a pod; gives the protocol that the server chose of those offered.
pub async fn connect(
    session: &Session,
    pod: &Value,
    sub: &str,
    query: &[(&str, &str)],
    offered: &[&'static str],
) -> Result<(Socket, &'static str)> {
    let metadata = &pod["metadata"];
    let path = format!("{}/{sub}", object_path(&kinds::POD, text(metadata, "namespace"), text(metadata, "name")));
    let mut key = [0; 16];
    session.client.world().fill_random(&mut key);
    let key = BASE64.encode(key);
    let mut request = session.client.request(Call::new(Method::GET, with_query(&path, query)).accept("*/*"))?;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let protocols = HeaderValue::from_str(&offered.join(", ")).context("names of protocols are plain text")?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).context("base64 is a header value")?);
    let upgraded = session.transport.upgrade(request).await.map_err(refused)?;
    let chosen = chosen(&upgraded, &key, offered)?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    Ok((WebSocketStream::from_raw_socket(upgraded.io, Role::Client, Some(config)).await, chosen))
}

/// What the node says why it does not begin; a pod that is not there is said as everywhere.
fn refused(error: ClientError) -> anyhow::Error {
    match &error {
        ClientError::Api(refusal) if matches!(refusal.reason, Reason::BadRequest | Reason::InternalError) => {
            anyhow!("unable to upgrade connection: {}", refusal.message)
        }
        _ => error.into(),
    }
}

/// R1.
fn chosen(upgraded: &Upgraded, key: &str, offered: &[&'static str]) -> Result<&'static str> {
    let accept = derive_accept_key(key.as_bytes());
    if upgraded.accept.as_ref().is_none_or(|found| found.as_bytes() != accept.as_bytes()) {
        bail!("the server's WebSocket handshake does not answer ours");
    }
    let chosen = offered.iter().find(|offer| upgraded.protocol.as_ref().is_some_and(|found| found == **offer));
    chosen
        .copied()
        .ok_or_else(|| anyhow!("expected a server that speaks {} (Kubernetes 1.29 or later)", offered.join(" or ")))
}

/// A message: its first byte is the channel.
pub fn on_channel(channel: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(channel);
    message.put_slice(content);
    message.freeze()
}

/// Carries the streams of a command until it has ended; gives its status. `feed` gets the queue of messages to send,
/// `take` what comes on the other channels.
pub async fn carry(
    socket: Socket,
    feed: impl FnOnce(mpsc::Sender<Bytes>),
    take: impl AsyncFnMut(u8, Bytes) -> Result<()>,
) -> Result<Value> {
    let (sink, source) = socket.split();
    let (queue, waiting) = mpsc::channel(WAITING_MAX);
    let sending = tokio::spawn(send(sink, waiting));
    feed(queue.clone());
    let status = receive(source, take).await;
    drop(queue);
    // Nobody waits for input that the command will not read.
    sending.abort();
    status
}

/// Sends what is queued, until there is no more or the other side is gone.
async fn send(mut sink: SplitSink<Socket, Message>, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(message) = waiting.recv().await {
        if sink.send(Message::Binary(message)).await.is_err() {
            // The other half of the stream tells why.
            return;
        }
    }
}

async fn receive(mut source: SplitStream<Socket>, mut take: impl AsyncFnMut(u8, Bytes) -> Result<()>) -> Result<Value> {
    let mut status = None;
    while let Some(message) = source.next().await {
        let mut content = match message {
            Ok(Message::Close(_)) => break,
            Ok(message) => match payload(message) {
                Some(content) => content,
                None => continue,
            },
            // Once the status is here the rest of the goodbye does not matter.
            Err(_) if status.is_some() => break,
            Err(error) => return Err(error).context("the stream broke off"),
        };
        if content.is_empty() {
            continue;
        }
        let rest = content.split_off(1);
        match content[0] {
            STATUS => status = Some(serde_json::from_slice(&rest).context("the command's status is not JSON")?),
            channel => take(channel, rest).await?,
        }
    }
    status.context("the stream ended without saying how the command ended")
}

/// What a message carries, if it carries anything.
pub fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(content) => Some(content),
        Message::Text(content) => Some(content.into()),
        _ => None,
    }
}

/// The exit code that a command's status tells; an error if it has none.
pub fn code(status: &Value) -> Result<i32> {
    if text(status, "status") == "Success" {
        return Ok(0);
    }
    let cause = items(&status["details"], "causes").iter().find(|cause| text(cause, "reason") == "ExitCode");
    match cause.and_then(|cause| text(cause, "message").parse().ok()) {
        Some(code) => Ok(code),
        None => bail!("{}", text(status, "message")),
    }
}

#[cfg(test)]
mod tests {
    use super::on_channel;

    #[test]
    fn a_messages_first_byte_is_its_channel() {
        assert_eq!(&on_channel(4, b"x")[..], b"\x04x");
    }
}
