//! Clients that break the rules, do not read, or say nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::exit::Ending;
use super::super::negotiate::Protocol;
use super::super::session::{Program, Streams};
use super::super::spdy::Connection;
use super::super::spdy::client::{Client, STREAMS_MAX};
use super::{NoSession, options, serve};

/// A program that never ends to speak; it is counted how much of it is read.
struct Talker(Arc<AtomicUsize>);

impl AsyncRead for Talker {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let count = buffer.remaining();
        buffer.initialize_unfilled().fill(b'x');
        buffer.advance(count);
        self.0.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl Program for Talker {
    fn streams(&mut self) -> Result<Streams, String> {
        Ok(Streams { stdout: Some(Box::new(Talker(Arc::clone(&self.0)))), ..Streams::default() })
    }

    async fn wait(&mut self) -> Ending {
        std::future::pending().await
    }

    fn patience(&self) -> Option<(Duration, &'static str)> {
        None
    }

    async fn abandon(self) {}
}

fn serve_talker(protocol: Protocol) -> (tokio::io::DuplexStream, Arc<AtomicUsize>, JoinHandle<Result<(), NoSession>>) {
    let (ours, theirs) = tokio::io::duplex(super::PIPE_BYTES);
    let count = Arc::new(AtomicUsize::new(0));
    let talker = Talker(Arc::clone(&count));
    let task =
        tokio::spawn(async move { serve(theirs, protocol, &options("stdin,stdout"), async { Ok(talker) }).await });
    (ours, count, task)
}

/// With the clock paused, time passes only when nobody has anything to do.
async fn all_is_quiet() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_makes_the_program_wait() {
    let (io, count, _task) = serve_talker(Protocol::Spdy);
    let mut client = Client::new(io);
    for name in ["error", "stdin", "stdout"] {
        client.open(&[("streamtype", name)]).await;
    }
    all_is_quiet().await;
    let over_spdy = count.load(Ordering::Relaxed);
    assert!((1..1 << 20).contains(&over_spdy), "{over_spdy} bytes");

    let (io, count, _task) = serve_talker(Protocol::ChannelsV5);
    let _socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    all_is_quiet().await;
    let over_websocket = count.load(Ordering::Relaxed);
    assert!((1..1 << 20).contains(&over_websocket), "{over_websocket} bytes");
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_is_hung_up_on_after_four_hours() {
    for protocol in [Protocol::Spdy, Protocol::ChannelsV5] {
        let (io, _count, task) = serve_talker(protocol);
        let begin = tokio::time::Instant::now();
        if protocol == Protocol::Spdy {
            let mut client = Client::new(io);
            for name in ["error", "stdin", "stdout"] {
                client.open(&[("streamtype", name)]).await;
            }
            task.await.expect("no panic").expect("a session");
        } else {
            let _socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
            task.await.expect("no panic").expect("a session");
        }
        assert_eq!(begin.elapsed().as_secs() / 60, 240, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_windows_gets_no_more_than_they_hold() {
    let (io, _count, _task) = serve_talker(Protocol::Spdy);
    let mut client = Client::new(io);
    client.set_initial_window(10).await;
    for name in ["error", "stdin", "stdout"] {
        client.open(&[("streamtype", name)]).await;
    }
    let stdout = 5;
    for (more, expected) in [(0, 10), (5, 15), (100_000, 64 << 10)] {
        client.widen(stdout, more).await;
        client.until("what fits", |c| c.streams.get(&stdout).is_some_and(|s| s.bytes.len() >= expected)).await;
        let nothing = tokio::time::timeout(
            Duration::from_secs(1),
            client.until("more", |c| c.streams[&stdout].bytes.len() > expected),
        );
        assert!(nothing.await.is_err(), "only {expected} fit");
    }
    // The last limit was the connection's own window.
    client.widen(0, 1).await;
    client.until("one more", |client| client.streams[&stdout].bytes.len() == (64 << 10) + 1).await;
}

#[tokio::test]
async fn broken_rules_end_the_connection_with_a_word() {
    let http = &b"GET / HTTP/1.1\r\n\r\n\r\n\r\n"[..];
    for (name, bytes) in [
        ("another version", &[0x80, 2, 0, 1, 0, 0, 0, 0][..]),
        ("a control frame of 16 MiB", &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
        ("data for stream 0", &[0; 8]),
        ("a stream with an even number", &[0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]),
        ("headers that are not compressed", &[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, b'h', b'i']),
        ("a ping that is too short", &[0x80, 3, 0, 6, 0, 0, 0, 0]),
    ] {
        let (ours, theirs) = tokio::io::duplex(super::PIPE_BYTES);
        let mut connection = Connection::start(theirs);
        let mut client = Client::new(ours);
        client.raw(bytes).await;
        client.until(name, |client| client.goaway == Some(1)).await;
        client.until(name, |client| client.is_closed).await;
        assert!(connection.accept().await.is_none(), "{name}");
    }
    // Plain HTTP looks like a very long data frame; nothing is kept of it, and its end is the end.
    let (ours, theirs) = tokio::io::duplex(super::PIPE_BYTES);
    let mut connection = Connection::start(theirs);
    let mut client = Client::new(ours);
    client.raw(http).await;
    drop(client);
    assert!(connection.accept().await.is_none());
}

#[tokio::test]
async fn numbers_that_go_back_end_the_connection() {
    let (ours, theirs) = tokio::io::duplex(super::PIPE_BYTES);
    let _connection = Connection::start(theirs);
    let mut client = Client::new(ours);
    client.open_as(5, &[]).await;
    client.open_as(3, &[]).await;
    client.until("goodbye", |client| client.goaway == Some(1)).await;
}

#[tokio::test]
async fn streams_are_counted_and_forgotten() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut connection = Connection::start(theirs);
    let mut client = Client::new(ours);
    for _ in 0..=STREAMS_MAX {
        client.open(&[("streamtype", "data")]).await;
    }
    let beyond = u32::try_from(2 * STREAMS_MAX + 1).expect("small");
    client.until("one too many", |client| client.streams.get(&beyond).is_some_and(|s| s.reset == Some(3))).await;
    // Letting go of one makes room for another.
    drop(connection.accept().await.expect("the first"));
    client.until("the first is reset", |client| client.streams[&1].reset == Some(5)).await;
    let next = client.open(&[("streamtype", "data")]).await;
    client.until("room", |client| client.streams.get(&next).is_some_and(|s| s.is_replied)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_and_does_not_read_is_given_up() {
    let (mut ours, theirs) = tokio::io::duplex(super::PIPE_BYTES);
    let mut connection = Connection::start(theirs);
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    let mut count = 0;
    while ours.write_all(&ping).await.is_ok() {
        count += 1;
        assert!(count < 100_000, "nobody stops it");
    }
    assert!(connection.accept().await.is_none());
}
