//! Command: the channels of exec and attach, found in what a client's protocol has.
//!
//! Source: the remote command protocol of Kubernetes, WebSocket channels 0 to 4 and SPDY `streamType`s

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::channel::{Channels, Gone};
use super::exit::{Ending, Wording};
use super::negotiate::Protocol;
use super::session::{self, Program};
use super::{spdy, websocket};
use crate::server::StreamOptions;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// How long a client may take to open its streams (the kubelet's stream creation timeout).
const STREAMS_TIME_MAX: Duration = Duration::from_secs(30);
/// The header that says what a stream is for.
const STREAM_TYPE: &str = "streamtype";

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    #[error("expected the streams {expected:?} within {STREAMS_TIME_MAX:?}, found {found:?}")]
    Missing { expected: Vec<&'static str>, found: Vec<String> },
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// Serves an exec or attach on an upgraded connection until it is over. `start` is told of a client that is ready.
pub(super) async fn serve<P: Program>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    protocol: Protocol,
    options: &StreamOptions,
    start: impl Future<Output = Result<P, String>>,
) -> Result<(), NoSession> {
    let channels = match protocol {
        Protocol::Spdy | Protocol::SpdyInWebSocket => over_spdy(spdy::Connection::start(io), options).await?,
        Protocol::Channels => over_websocket(io, options, Wording::Sentence, false).await?,
        Protocol::ChannelsV4 => over_websocket(io, options, Wording::Status, false).await?,
        Protocol::ChannelsV5 => over_websocket(io, options, Wording::Status, true).await?,
    };
    // Not given up half-way when the client goes: then nobody would know what has been started.
    match start.await {
        Ok(program) => session::run(program, channels).await,
        Err(why) => Channels::end(channels.error, channels.wording, channels.link, &Ending::Failed(why)).await,
    }
    Ok(())
}

/// A terminal has one output.
fn has_stderr(options: &StreamOptions) -> bool {
    options.stderr && !options.tty
}

async fn over_websocket(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    options: &StreamOptions,
    wording: Wording,
    closes: bool,
) -> Result<Channels, NoSession> {
    let inputs = [(STDIN, options.stdin), (RESIZE, options.tty)];
    let inputs = inputs.into_iter().filter(|(_, wanted)| *wanted).map(|(channel, _)| channel);
    let mut connection = websocket::Connection::start(websocket::open(io).await, inputs, closes);
    let stdout = options.stdout.then(|| connection.writer(STDOUT));
    let stderr = has_stderr(options).then(|| connection.writer(STDERR));
    let error = connection.writer(ERROR);
    // Clients wait for a first, empty message on the lowest channel.
    stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error).greet().await?;
    Ok(Channels {
        stdin: connection.take_reader(STDIN),
        stdout,
        stderr,
        resize: connection.take_reader(RESIZE),
        error,
        wording,
        link: connection.into_link(),
    })
}

async fn over_spdy(mut connection: spdy::Connection, options: &StreamOptions) -> Result<Channels, NoSession> {
    let wanted = [
        ("error", true),
        ("stdin", options.stdin),
        ("stdout", options.stdout),
        ("stderr", has_stderr(options)),
        ("resize", options.tty),
    ];
    let expected: Vec<&'static str> = wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect();
    let mut found: BTreeMap<String, spdy::Stream> = BTreeMap::new();
    let all = async {
        while found.len() < expected.len() {
            let stream = connection.accept().await.ok_or(Gone)?;
            let name = stream.headers.get(STREAM_TYPE).cloned().unwrap_or_default();
            // One that is not expected is reset by being dropped.
            if expected.contains(&name.as_str()) {
                found.entry(name).or_insert(stream);
            }
        }
        Ok::<(), Gone>(())
    };
    match tokio::time::timeout(STREAMS_TIME_MAX, all).await {
        Ok(all) => all?,
        Err(_) => return Err(NoSession::Missing { expected, found: found.into_keys().collect() }),
    }
    let mut take = |name: &str| found.remove(name).map(|stream| (stream.reader, stream.writer));
    let (_, error) = take("error").ok_or(Gone)?;
    Ok(Channels {
        stdin: take("stdin").map(|(reader, _)| reader),
        stdout: take("stdout").map(|(_, writer)| writer),
        stderr: take("stderr").map(|(_, writer)| writer),
        resize: take("resize").map(|(reader, _)| reader),
        error,
        wording: Wording::Status,
        link: connection.into_link(),
    })
}
