//! Connection: reads and writes frames on any two-way stream of bytes, and hands out the streams that the client opens; or,
//! the other way about, is the client and opens them.
//!
//! Guarantees  nothing of a frame is kept that has not been read; a frame's length alone reserves nothing
//!             a client that breaks the protocol is told so (GOAWAY) and hung up on

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at};

use super::flow::{Order, STREAMS_MAX, Shared};
use super::frame::{Control, FrameError, HEAD_BYTES, Head};
use super::headers::{Deflater, HeaderError, Headers, Inflater};
use crate::stream::channel::{
    CHUNK_BYTES_MAX, Chunk, IDLE_MAX, INCOMING_MAX, KEEPALIVE_INTERVAL, LINGER_MAX, Link, OUTGOING_MAX, Outgoing,
    Reader, Turns, Writer,
};

/// Status codes of GOAWAY.
const GOAWAY_OK: u32 = 0;
const GOAWAY_PROTOCOL_ERROR: u32 = 1;
/// How long telling a client what it did wrong may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("{0}")]
    Rule(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A stream that the client has opened. It has been accepted.
#[derive(Debug)]
pub(in crate::stream) struct Stream {
    pub id: u32,
    pub headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
}

/// A connection with a client. Dropping it ends it.
#[derive(Debug)]
pub(in crate::stream) struct Connection {
    opened: mpsc::Receiver<Stream>,
    link: Link,
}

impl Connection {
    /// Begins to serve a connection whose HTTP request has been answered.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Connection {
        let (queue, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (opening, opened) = mpsc::channel(STREAMS_MAX);
        let (gone_sender, gone) = watch::channel(false);
        let shared = Arc::new(Shared::new(gone_sender));
        let door = Door { shared: Arc::clone(&shared), opening, queue: queue.clone(), role: Role::Server };
        let task = tokio::spawn(serve(io, shared, door, outgoing));
        Connection { opened, link: Link::new(queue, gone, task) }
    }

    /// Begins to use a connection whose HTTP request has been answered by a server. What opens streams is the answer.
    pub fn dial(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Dialled {
        let (queue, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (opening, _) = mpsc::channel(1);
        let (gone_sender, gone) = watch::channel(false);
        let shared = Arc::new(Shared::new(gone_sender));
        let door = Door { shared: Arc::clone(&shared), opening, queue: queue.clone(), role: Role::Client };
        let task = tokio::spawn(serve(io, Arc::clone(&shared), door, outgoing));
        Dialled { shared, queue: queue.clone(), link: Link::new(queue, gone, task) }
    }

    /// The next stream that the client opens; `None` when it is gone. Cancel safe.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// No more streams are wanted; those that come all the same are reset.
    pub fn into_link(self) -> Link {
        self.link
    }
}

/// A connection with a server. Dropping it ends it.
#[derive(Debug)]
pub(in crate::stream) struct Dialled {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
    link: Link,
}

impl Dialled {
    /// Opens a stream; `None` when the server is gone.
    pub fn open(&self, headers: Headers) -> Option<(Reader, Writer)> {
        let (sender, chunks) = mpsc::channel(INCOMING_MAX);
        let (id, lease) = self.shared.dial(headers, sender)?;
        let reader = Reader::new(chunks, Some(Arc::clone(&lease)));
        Some((reader, Writer::new(id, self.queue.clone(), Some(lease))))
    }

    /// All streams are open.
    pub fn into_link(self) -> Link {
        self.link
    }
}

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

impl Role {
    /// Whether a ping of this number is the other side's, and to be answered: clients' are odd.
    fn answers(self, ping: u32) -> bool {
        (self == Role::Server) == (ping % 2 == 1)
    }
}

/// Says that a connection is over, however its task ends.
struct OverWhenDropped(Arc<Shared>);

impl Drop for OverWhenDropped {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    shared: Arc<Shared>,
    door: Door,
    outgoing: mpsc::Receiver<Outgoing>,
) {
    let _over = OverWhenDropped(Arc::clone(&shared));
    let (from_client, to_client) = tokio::io::split(io);
    let outgoing = (outgoing, door.role);
    let mut read = pin!(read(BufReader::with_capacity(CHUNK_BYTES_MAX, from_client), &shared, door));
    let mut write = pin!(write(BufWriter::with_capacity(CHUNK_BYTES_MAX + 64, to_client), &shared, outgoing));
    tokio::select! {
        biased;
        read = &mut read => match read {
            // The client has hung up; there is no one left to say anything to.
            Ok(()) | Err(Broken::Io(_)) => {}
            Err(broken) => {
                tracing::debug!(%broken, "a client broke the rules of SPDY");
                shared.order(Control::GoAway { last_stream: shared.last_stream(), status: GOAWAY_PROTOCOL_ERROR });
                // It need not listen.
                let _ = tokio::time::timeout(FAREWELL_MAX, write).await;
            }
        },
        written = &mut write => match written {
            // The client hangs up when it has read everything; who does it first loses what is on its way.
            Ok(()) => drop(tokio::time::timeout(LINGER_MAX, read).await),
            Err(broken) => tracing::debug!(%broken, "a client does not take what it is sent"),
        },
        () = shared.activity.idle(IDLE_MAX) => tracing::info!("a stream was idle for {IDLE_MAX:?} and is closed"),
    }
}

/// Reads frames until the client hangs up.
async fn read(mut io: impl AsyncBufRead + Unpin, shared: &Arc<Shared>, door: Door) -> Result<(), Broken> {
    let mut inflater = Inflater::new();
    let mut turns = Turns::default();
    loop {
        turns.take().await;
        if io.fill_buf().await?.is_empty() {
            return Ok(());
        }
        let mut head = [0; HEAD_BYTES];
        io.read_exact(&mut head).await?;
        match Head::read(head)? {
            Head::Data { stream, fin, length } => {
                read_data(&mut io, shared, &mut turns, (stream, length)).await?;
                if fin {
                    shared.ended_by_client(stream);
                }
            }
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length];
                io.read_exact(&mut payload).await?;
                if let Some(control) = Control::read(kind, flags, payload.into())? {
                    obey(control, shared, &door, &mut inflater)?;
                    if shared.is_flooded() {
                        return Err(Broken::Rule("more control frames are asked for than are read"));
                    }
                }
            }
        }
    }
}

async fn read_data(
    io: &mut (impl AsyncBufRead + Unpin),
    shared: &Arc<Shared>,
    turns: &mut Turns,
    (stream, mut left): (u32, usize),
) -> Result<(), Broken> {
    let inbound = shared.inbound(stream);
    while left > 0 {
        turns.take().await;
        let found = io.fill_buf().await?;
        if found.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let count = found.len().min(left).min(CHUNK_BYTES_MAX);
        let bytes = Bytes::copy_from_slice(&found[..count]);
        io.consume(count);
        left -= count;
        shared.activity.touch();
        let credit = shared.credit(stream, u32::try_from(count).expect("a chunk is small")).await;
        if let Some(inbound) = &inbound {
            // Who does not listen any more does not mind.
            let _ = inbound.send(Chunk { bytes, credit: Some(credit) }).await;
        }
    }
    Ok(())
}

fn obey(control: Control, shared: &Arc<Shared>, door: &Door, inflater: &mut Inflater) -> Result<(), Broken> {
    match control {
        // Nothing of ours asks a server to open any.
        Control::SynStream { .. } if door.role == Role::Client => {
            return Err(Broken::Rule("the server opens a stream"));
        }
        Control::SynStream { stream, fin, unidirectional, block } => {
            door.open(stream, fin, unidirectional, inflater.read(&block)?)?;
        }
        // Headers that come later mean nothing to us, but all blocks belong to one compression.
        Control::SynReply { stream, fin, block } | Control::Headers { stream, fin, block } => {
            inflater.read(&block)?;
            if fin {
                shared.ended_by_client(stream);
            }
        }
        Control::Reset { stream, .. } => shared.reset_by_client(stream),
        Control::Settings { initial_window } => {
            if let Some(bytes) = initial_window {
                shared.set_initial_window(bytes);
            }
        }
        // The others answer ours.
        Control::Ping { id } if door.role.answers(id) => shared.order(Control::Ping { id }),
        // It opens no more streams, and hangs up when it is done.
        Control::Ping { .. } | Control::GoAway { .. } => {}
        Control::WindowUpdate { stream, delta } => shared.widen(stream, delta),
    }
    Ok(())
}

/// Where new streams go.
struct Door {
    shared: Arc<Shared>,
    opening: mpsc::Sender<Stream>,
    queue: mpsc::Sender<Outgoing>,
    role: Role,
}

impl Door {
    fn open(&self, id: u32, fin: bool, unidirectional: bool, headers: Headers) -> Result<(), Broken> {
        let (sender, chunks) = mpsc::channel(INCOMING_MAX);
        let lease = self.shared.open(id, (!fin).then_some(sender), unidirectional).map_err(Broken::Rule)?;
        if let Some(lease) = lease {
            let reader = Reader::new(chunks, Some(Arc::clone(&lease)));
            let writer = Writer::new(id, self.queue.clone(), Some(lease));
            // Refused by being dropped: nobody waits for streams any more, or too many wait.
            let _ = self.opening.try_send(Stream { id, headers, reader, writer });
        }
        Ok(())
    }
}

/// Writes what waits, control frames first, until goodbye has been said.
async fn write(
    mut io: impl AsyncWrite + Unpin,
    shared: &Shared,
    (mut outgoing, role): (mpsc::Receiver<Outgoing>, Role),
) -> Result<(), Broken> {
    let mut deflater = Deflater::new();
    let mut pings = interval_at(Instant::now() + KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL);
    let mut ping = 0;
    loop {
        if write_orders(&mut io, shared, &mut deflater).await? {
            return Ok(());
        }
        let next = match outgoing.try_recv() {
            Ok(next) => next,
            Err(_) => {
                io.flush().await?;
                tokio::select! {
                    biased;
                    () = shared.ordered() => continue,
                    next = outgoing.recv() => next.unwrap_or(Outgoing::Goodbye),
                    _ = pings.tick() => {
                        ping = (ping + 2) & 0x7fff_fffe;
                        let id = if role == Role::Server { ping.max(2) } else { ping | 1 };
                        shared.order(Control::Ping { id });
                        continue;
                    }
                }
            }
        };
        match next {
            Outgoing::Bytes { channel, bytes, last } if shared.is_writable(channel) => {
                io.write_all(&Head::data(channel, last, bytes.len())).await?;
                io.write_all(&bytes).await?;
                shared.activity.touch();
                if last {
                    shared.ended(channel);
                }
            }
            Outgoing::Goodbye => {
                // What has been ordered before comes first.
                shared.order(Control::GoAway { last_stream: shared.last_stream(), status: GOAWAY_OK });
            }
            Outgoing::Bytes { .. } => {}
        }
    }
}

/// Returns whether goodbye has been said.
async fn write_orders(
    io: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    deflater: &mut Deflater,
) -> Result<bool, Broken> {
    let mut frames = BytesMut::new();
    let mut is_last = false;
    for order in shared.take_orders() {
        let control = match order {
            Order::Reply { stream, headers } => {
                Control::SynReply { stream, fin: false, block: deflater.write(&headers) }
            }
            Order::Open { stream, headers } => {
                let block = deflater.write(&headers);
                Control::SynStream { stream, fin: false, unidirectional: false, block }
            }
            Order::Frame(control) => control,
        };
        control.write(&mut frames);
        if matches!(control, Control::GoAway { .. }) {
            is_last = true;
            break;
        }
    }
    if !frames.is_empty() {
        io.write_all(&frames).await?;
    }
    if is_last {
        io.flush().await?;
    }
    Ok(is_last)
}

#[cfg(test)]
mod tests {
    use super::Connection;
    use crate::stream::spdy::Headers;

    #[tokio::test]
    async fn a_client_of_ours_and_a_server_of_ours_understand_each_other() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (client, mut server) = (Connection::dial(near), Connection::start(far));
        for name in ["error", "stdin", "stdout"] {
            let headers = Headers::from([("streamtype".to_owned(), name.to_owned())]);
            let (mut reader, writer) = client.open(headers).expect("the connection lasts");
            let mut stream = server.accept().await.expect("a stream");
            assert_eq!(stream.headers["streamtype"], name);
            writer.write("question".into()).await.expect("there is room");
            writer.finish().await.expect("the server is there");
            assert_eq!(stream.reader.next().await.as_deref(), Some(b"question".as_slice()));
            assert_eq!(stream.reader.next().await, None, "the client's end is seen");
            stream.writer.write("answer".into()).await.expect("there is room");
            stream.writer.finish().await.expect("the client is there");
            assert_eq!(reader.next().await.as_deref(), Some(b"answer".as_slice()));
            assert_eq!(reader.next().await, None, "the server's end is seen");
        }
        drop(server);
        client.into_link().gone().await;
    }
}
