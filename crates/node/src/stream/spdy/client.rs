//! A SPDY client for tests: it keeps everything the server says, by stream.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(in crate::stream) use super::flow::STREAMS_MAX;
use super::frame::{Control, HEAD_BYTES, Head};
use super::headers::{Deflater, Headers, Inflater};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has come of one stream.
#[derive(Debug, Default)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub is_replied: bool,
    pub is_ended: bool,
    pub reset: Option<u32>,
    pub credit: u64,
}

impl Received {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// One connection with a server.
#[derive(Debug)]
pub struct Client<S> {
    io: S,
    deflater: Deflater,
    inflater: Inflater,
    next: u32,
    pub streams: BTreeMap<u32, Received>,
    pub pings: Vec<u32>,
    pub goaway: Option<u32>,
    pub is_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(io: S) -> Client<S> {
        Client {
            io,
            deflater: Deflater::new(),
            inflater: Inflater::new(),
            next: 1,
            streams: BTreeMap::new(),
            pings: Vec::new(),
            goaway: None,
            is_closed: false,
        }
    }

    pub async fn open(&mut self, pairs: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.open_as(stream, pairs).await
    }

    pub async fn open_as(&mut self, stream: u32, pairs: &[(&str, &str)]) -> u32 {
        self.next = stream + 2;
        let headers: Headers = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let block = self.deflater.write(&headers);
        self.control(&Control::SynStream { stream, fin: false, unidirectional: false, block }).await;
        stream
    }

    pub async fn send(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let mut frame = BytesMut::from(&Head::data(stream, fin, bytes.len())[..]);
        frame.extend_from_slice(bytes);
        self.raw(&frame).await;
    }

    pub async fn reset(&mut self, stream: u32) {
        self.control(&Control::Reset { stream, status: 5 }).await;
    }

    pub async fn ping(&mut self, id: u32) {
        self.control(&Control::Ping { id }).await;
    }

    pub async fn widen(&mut self, stream: u32, delta: u32) {
        self.control(&Control::WindowUpdate { stream, delta }).await;
    }

    pub async fn set_initial_window(&mut self, bytes: u32) {
        self.control(&Control::Settings { initial_window: Some(bytes) }).await;
    }

    async fn control(&mut self, control: &Control) {
        let mut frame = BytesMut::new();
        control.write(&mut frame);
        self.raw(&frame).await;
    }

    /// Any bytes at all. A server that has hung up is noticed when reading.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let written = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        let _ = tokio::time::timeout(PATIENCE, written).await.expect("the server takes what it is sent");
    }

    /// Reads until the condition holds.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&Client<S>) -> bool) {
        while !condition(self) {
            assert!(!self.is_closed, "{what}: the server has hung up: {:?}", self.streams);
            let next = tokio::time::timeout(PATIENCE, self.next_frame()).await;
            next.unwrap_or_else(|_| panic!("{what}: nothing comes: {:?}", self.streams));
        }
    }

    pub async fn until_ended(&mut self, stream: u32) -> String {
        let is_ended = |client: &Client<S>| client.streams.get(&stream).is_some_and(|found| found.is_ended);
        self.until("the end of a stream", is_ended).await;
        self.streams[&stream].text()
    }

    async fn next_frame(&mut self) {
        let mut head = [0; HEAD_BYTES];
        if self.io.read_exact(&mut head).await.is_err() {
            self.is_closed = true;
            return;
        }
        match Head::read(head).expect("a good head") {
            Head::Data { stream, fin, length } => {
                let mut bytes = vec![0; length];
                self.io.read_exact(&mut bytes).await.expect("the whole frame");
                let found = self.streams.entry(stream).or_default();
                assert!(found.is_replied && !found.is_ended, "data in its place on stream {stream}");
                found.bytes.extend(bytes);
                found.is_ended |= fin;
            }
            Head::Control { kind, flags, length } => {
                let mut bytes = vec![0; length];
                self.io.read_exact(&mut bytes).await.expect("the whole frame");
                let control = Control::read(kind, flags, Bytes::from(bytes)).expect("a good frame");
                self.note(control.expect("a known frame"));
            }
        }
    }

    fn note(&mut self, control: Control) {
        match control {
            Control::SynReply { stream, block, .. } => {
                self.inflater.read(&block).expect("good headers");
                self.streams.entry(stream).or_default().is_replied = true;
            }
            Control::Reset { stream, status } => self.streams.entry(stream).or_default().reset = Some(status),
            Control::Ping { id } => self.pings.push(id),
            Control::GoAway { status, .. } => self.goaway = Some(status),
            Control::WindowUpdate { stream, delta } => {
                self.streams.entry(stream).or_default().credit += u64::from(delta);
            }
            other => panic!("a server does not send {other:?}"),
        }
    }
}
