//! `windlass exec`: a command in a running container.
//!
//! Rules
//!   R1 words     what follows `--` is the command, word for word
//!   R2 streams   output and errors come apart; `-i` passes our input on and closes it where it ends
//!   R3 terminal  `-t` only where our input is one: it is raw while the command runs, is put back whatever happens, and
//!                its size is passed on as it changes
//!   R4 code      the command's exit code is ours
//! Not here       SPDY: servers have spoken WebSocket since Kubernetes 1.29
//! Source: KEP-4006, subprotocol v5.channel.k8s.io

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Method, header};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use windlass_api::{Reason, kinds};
use windlass_client::{Call, ClientError, Upgraded, with_query};

use super::describe::sheet::{items, text};
use super::failure::Exit;
use super::podset::{container, pods};
use super::session::{Session, SessionFlags, object_path};

const PROTOCOL: &str = "v5.channel.k8s.io";
/// The channels of a stream.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of our input that are sent at once.
const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Chunks of our input that wait to be sent.
const WAITING_MAX: usize = 4;

/// `windlass exec`.
#[derive(Args)]
pub struct ExecFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// POD or KIND/NAME
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass our input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Our input is a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Only the command's own output
    #[arg(short, long)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

type Socket = WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>;

/// Does it.
pub async fn run(session: &Session, flags: &ExecFlags) -> Result<()> {
    if flags.command.is_empty() {
        bail!("you must specify at least one command for the container");
    }
    let pod = pods(session, &flags.what).await?.swap_remove(0);
    let phase = text(&pod["status"], "phase");
    if matches!(phase, "Succeeded" | "Failed") {
        bail!("cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let container = container(&pod, flags.container.as_deref())?;
    let tty = flags.tty && flags.stdin && std::io::stdin().is_terminal();
    if flags.tty && !tty {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let socket = connect(session, flags, &pod, &container, tty).await?;
    let raw = if tty { Some(RawTerminal::enter()?) } else { None };
    let status = pump(socket, flags.stdin, tty).await;
    drop(raw);
    finish(&status?, flags.quiet)
}

async fn connect(session: &Session, flags: &ExecFlags, pod: &Value, container: &str, tty: bool) -> Result<Socket> {
    let said = |flag: bool| if flag { "true" } else { "" };
    let mut query: Vec<(&str, &str)> = flags.command.iter().map(|word| ("command", word.as_str())).collect();
    // A terminal has one output.
    query.extend([
        ("container", container),
        ("stdin", said(flags.stdin)),
        ("stdout", "true"),
        ("stderr", said(!tty)),
        ("tty", said(tty)),
    ]);
    let path = format!(
        "{}/exec",
        object_path(&kinds::POD, text(&pod["metadata"], "namespace"), text(&pod["metadata"], "name"))
    );
    let mut key = [0; 16];
    session.client.world().fill_random(&mut key);
    let key = BASE64.encode(key);
    let mut request = session.client.request(Call::new(Method::GET, with_query(&path, &query)).accept("*/*"))?;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).context("base64 is a header value")?);
    let upgraded = session.transport.upgrade(request).await.map_err(refused)?;
    expect_ours(&upgraded, &key)?;
    Ok(WebSocketStream::from_raw_socket(upgraded.io, Role::Client, None).await)
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

/// The server proves that it has read our request and speaks what we asked for.
fn expect_ours(upgraded: &Upgraded, key: &str) -> Result<()> {
    let accept = derive_accept_key(key.as_bytes());
    if upgraded.accept.as_ref().is_none_or(|found| found.as_bytes() != accept.as_bytes()) {
        bail!("the server's WebSocket handshake does not answer ours");
    }
    if upgraded.protocol.as_ref().is_none_or(|found| found != PROTOCOL) {
        bail!("expected a server that speaks {PROTOCOL} (Kubernetes 1.29 or later)");
    }
    Ok(())
}

/// Carries the streams until the command has ended; gives its status.
async fn pump(socket: Socket, with_input: bool, tty: bool) -> Result<Value> {
    let (sink, source) = socket.split();
    let (queue, waiting) = mpsc::channel(WAITING_MAX);
    let sending = tokio::spawn(send(sink, waiting));
    if with_input {
        tokio::spawn(read_input(queue.clone()));
    }
    if tty {
        tokio::spawn(follow_size(queue.clone()));
    }
    let status = receive(source).await;
    drop(queue);
    // Nobody waits for input that the command will not read.
    sending.abort();
    status
}

async fn send(mut sink: SplitSink<Socket, Message>, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(message) = waiting.recv().await {
        if sink.send(Message::Binary(message)).await.is_err() {
            // The other half of the stream tells why.
            return;
        }
    }
}

fn on_channel(channel: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(channel);
    message.put_slice(content);
    message.freeze()
}

/// R2: at its end the channel is closed, so that the command sees the end too.
async fn read_input(queue: mpsc::Sender<Bytes>) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        let message = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => on_channel(STDIN, &buffer[..count]),
        };
        if queue.send(message).await.is_err() {
            return;
        }
    }
    queue.send(on_channel(CLOSE, &[STDIN])).await.ok();
}

/// R3: the size now, and whenever it changes.
async fn follow_size(queue: mpsc::Sender<Bytes>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let size = json!({"Width": size.ws_col, "Height": size.ws_row}).to_string();
            if queue.send(on_channel(RESIZE, size.as_bytes())).await.is_err() {
                return;
            }
        }
        changed.recv().await;
    }
}

async fn receive(mut source: SplitStream<Socket>) -> Result<Value> {
    let mut status = None;
    while let Some(message) = source.next().await {
        let content = match message {
            Ok(Message::Binary(content)) => content,
            Ok(Message::Text(text)) => Bytes::copy_from_slice(text.as_bytes()),
            Ok(Message::Close(_)) => break,
            Ok(_) => continue,
            // Once the status is here the rest of the goodbye does not matter.
            Err(_) if status.is_some() => break,
            Err(error) => return Err(error).context("the stream broke off"),
        };
        match content.split_first() {
            Some((&STDOUT, text)) => write_all(std::io::stdout().lock(), text)?,
            Some((&STDERR, text)) => write_all(std::io::stderr().lock(), text)?,
            Some((&STATUS, text)) => {
                status = Some(serde_json::from_slice(text).context("the command's status is not JSON")?)
            }
            _ => {}
        }
    }
    status.context("the stream ended without saying how the command ended")
}

fn write_all(mut out: impl Write, text: &[u8]) -> Result<()> {
    out.write_all(text)?;
    Ok(out.flush()?)
}

/// R4.
fn finish(status: &Value, quiet: bool) -> Result<()> {
    if text(status, "status") == "Success" {
        return Ok(());
    }
    let cause = items(&status["details"], "causes").iter().find(|cause| text(cause, "reason") == "ExitCode");
    match cause.and_then(|cause| text(cause, "message").parse::<i32>().ok()) {
        Some(code) => {
            if !quiet {
                eprintln!("command terminated with exit code {code}");
            }
            Err(Exit(u8::try_from(code).unwrap_or(1)).into())
        }
        None => bail!("{}", text(status, "message")),
    }
}

/// A terminal that passes every key on, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<RawTerminal> {
        let before = tcgetattr(std::io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is nobody left to tell.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::{finish, on_channel};
    use crate::cli::failure::Exit;
    use serde_json::json;

    #[test]
    fn r4_the_commands_code_is_ours() {
        assert!(finish(&json!({"status": "Success"}), false).is_ok());
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "m",
            "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}});
        let error = finish(&failed, true).expect_err("42");
        assert_eq!(error.downcast_ref::<Exit>().map(|exit| exit.0), Some(42));
        let broken = finish(&json!({"status": "Failure", "message": "no such program"}), true).expect_err("broken");
        assert_eq!(broken.to_string(), "no such program");
    }

    #[test]
    fn a_messages_first_byte_is_its_channel() {
        assert_eq!(&on_channel(4, b"x")[..], b"\x04x");
    }
}
