//! WebSocket: the channel protocols of Kubernetes, one message a chunk, its first byte the channel; and a tunnel that
//! makes the messages one stream of bytes, for SPDY inside WebSocket.
//!
//! Guarantees  a message is at most [`MESSAGE_BYTES_MAX`]; while a session does not take what a client sends, the client is
//!             read no further but still told that we are alive
//! Source: RFC 6455; KEP-4006 (v5 and the tunnel)

use std::collections::BTreeMap;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::channel::{
    Activity, CHUNK_BYTES_MAX, Chunk, IDLE_MAX, KEEPALIVE_INTERVAL, LINGER_MAX, Link, OUTGOING_MAX, Outgoing, Reader,
    Turns, Writer,
};

/// The longest message that is read. Some clients send all of their standard input as one.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What waits in the connection itself to be written, beyond which it is broken: more than the largest of our messages.
const WRITE_BYTES_MAX: usize = 4 * CHUNK_BYTES_MAX;
/// Messages of one channel that wait to be read; they may be large.
const INCOMING_MESSAGES_MAX: usize = 1;
/// The channel on which v5 clients say which channel they have closed.
const CLOSE_CHANNEL: u8 = 255;

/// A WebSocket on an upgraded connection.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES_MAX);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The channels of one WebSocket.
#[derive(Debug)]
pub(super) struct Connection {
    queue: mpsc::Sender<Outgoing>,
    readers: BTreeMap<u8, Reader>,
    link: Link,
}

impl Connection {
    /// Begins to serve a WebSocket; what comes on other channels than `inputs` is dropped. `closes`: the client can
    /// close one channel.
    pub fn start<S>(socket: WebSocketStream<S>, inputs: impl IntoIterator<Item = u8>, closes: bool) -> Connection
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (queue, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (gone_sender, gone) = watch::channel(false);
        let (mut senders, mut readers) = (BTreeMap::new(), BTreeMap::new());
        for channel in inputs {
            let (sender, chunks) = mpsc::channel(INCOMING_MESSAGES_MAX);
            senders.insert(channel, sender);
            readers.insert(channel, Reader::new(chunks, None));
        }
        let shared = Arc::new(Shared { activity: Activity::new(), is_waiting: AtomicBool::new(false) });
        let inbox = Inbox { senders, closes, shared };
        let task = tokio::spawn(async move {
            serve(socket, inbox, outgoing).await;
            gone_sender.send_replace(true);
        });
        Connection { queue: queue.clone(), readers, link: Link::new(queue, gone, task) }
    }

    /// The reading side of a channel, if it is an input and has not been taken.
    pub fn take_reader(&mut self, channel: u8) -> Option<Reader> {
        self.readers.remove(&channel)
    }

    /// The writing side of a channel.
    pub fn writer(&self, channel: u8) -> Writer {
        Writer::new(u32::from(channel), self.queue.clone(), None)
    }

    /// All is taken that is wanted; the rest of the inputs is dropped.
    pub fn into_link(self) -> Link {
        self.link
    }
}

struct Shared {
    activity: Activity,
    /// The client is not read because a session has not taken what it sent.
    is_waiting: AtomicBool,
}

/// Where messages go.
struct Inbox {
    senders: BTreeMap<u8, mpsc::Sender<Chunk>>,
    closes: bool,
    shared: Arc<Shared>,
}

async fn serve<S>(socket: WebSocketStream<S>, inbox: Inbox, outgoing: mpsc::Receiver<Outgoing>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let shared = Arc::clone(&inbox.shared);
    let (sink, stream) = socket.split();
    let mut read = pin!(inbox.fill(stream));
    let mut write = pin!(write(sink, &shared, outgoing));
    tokio::select! {
        biased;
        read = &mut read => if let Err(error) = read {
            tracing::debug!(%error, "a WebSocket broke");
        },
        written = &mut write => match written {
            // The client answers our close; then the connection has carried everything.
            Ok(()) => drop(tokio::time::timeout(LINGER_MAX, read).await),
            Err(error) => tracing::debug!(%error, "a client does not take what it is sent"),
        },
        () = shared.activity.idle(IDLE_MAX) => tracing::info!("a stream was idle for {IDLE_MAX:?} and is closed"),
    }
}

impl Inbox {
    /// Reads until the client hangs up. Pings are answered by the WebSocket itself.
    async fn fill<S>(mut self, mut stream: SplitStream<WebSocketStream<S>>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut turns = Turns::default();
        while let Some(message) = stream.next().await {
            turns.take().await;
            let Some(bytes) = payload(message?) else { continue };
            self.shared.activity.touch();
            self.deliver(bytes).await;
        }
        Ok(())
    }

    async fn deliver(&mut self, mut bytes: Bytes) {
        let Ok(channel) = bytes.try_get_u8() else { return };
        if channel == CLOSE_CHANNEL && self.closes {
            if let Some(closed) = bytes.first() {
                self.senders.remove(closed);
            }
            return;
        }
        // An empty message is no end: some clients open a channel with one.
        if let Some(sender) = self.senders.get(&channel)
            && !bytes.is_empty()
        {
            self.shared.is_waiting.store(true, Ordering::Relaxed);
            if sender.send(Chunk { bytes, credit: None }).await.is_err() {
                self.senders.remove(&channel);
            }
            self.shared.is_waiting.store(false, Ordering::Relaxed);
        }
    }
}

/// What a message carries. Text is taken as its bytes: older clients send it.
fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        // A close is answered while the next message is waited for, which does not come.
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    shared: &Shared,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = interval_at(Instant::now() + KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL);
    loop {
        let next = tokio::select! {
            biased;
            _ = pings.tick() => None,
            next = outgoing.recv() => Some(next.unwrap_or(Outgoing::Goodbye)),
        };
        match next {
            // The protocol has no end of a channel from our side.
            Some(Outgoing::Bytes { bytes, last: true, .. }) if bytes.is_empty() => {}
            Some(Outgoing::Bytes { channel, bytes, .. }) => {
                let mut message = BytesMut::with_capacity(1 + bytes.len());
                message.put_u8(u8::try_from(channel).expect("channels of a WebSocket are bytes"));
                message.put_slice(&bytes);
                sink.send(Message::Binary(message.freeze())).await?;
                shared.activity.touch();
            }
            Some(Outgoing::Goodbye) => {
                let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                return sink.send(Message::Close(Some(close))).await;
            }
            None => {
                sink.send(Message::Ping(Bytes::new())).await?;
                if shared.is_waiting.load(Ordering::Relaxed) {
                    // Its own pings are not read now; without a sign of life it would give us up.
                    sink.send(Message::Pong(Bytes::new())).await?;
                }
            }
        }
    }
}

/// The messages of a WebSocket as one stream of bytes.
#[derive(Debug)]
pub(super) struct Tunnel<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
}

impl<S> Tunnel<S> {
    pub fn new(socket: WebSocketStream<S>) -> Tunnel<S> {
        Tunnel { socket, rest: Bytes::new() }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(message) => self.rest = payload(message.map_err(io_error)?).unwrap_or_default(),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io_error)?;
        let count = bytes.len().min(CHUNK_BYTES_MAX);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        socket.start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io_error)
    }
}
