//! Port-forward to real listeners.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::channel::Gone;
use super::super::dial::Dialer;
use super::super::negotiate::Protocol;
use super::super::port_forward::{Goal, serve};
use super::super::spdy::client::Client;
use super::super::websocket::Tunnel;

/// A server that reads until the end, then answers with what it has read, reversed, and closes.
async fn reverser() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await?;
                text.reverse();
                stream.write_all(&text).await
            });
        }
    });
    port
}

async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn serve_on(protocol: Protocol, ports: Vec<u16>) -> (DuplexStream, JoinHandle<Result<(), Gone>>) {
    let (ours, theirs) = tokio::io::duplex(super::PIPE_BYTES);
    let dialer = Dialer { namespace: None, addresses: Vec::new() };
    let goal = Goal { dialer, title: "default/web".to_owned() };
    (ours, tokio::spawn(serve(theirs, protocol, goal, ports)))
}

/// Opens a pair as kubectl does; the error stream is closed at once. Returns error and data stream.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>, port: u16, request: &str) -> (u32, u32) {
    let port = port.to_string();
    let error = client.open(&[("streamtype", "error"), ("port", &port), ("requestid", request)]).await;
    client.send(error, b"", true).await;
    let data = client.open(&[("streamtype", "data"), ("port", &port), ("requestid", request)]).await;
    (error, data)
}

#[tokio::test]
async fn connections_are_carried_at_once_and_half_closed() {
    let port = reverser().await;
    let (io, task) = serve_on(Protocol::Spdy, Vec::new());
    let mut client = Client::new(io);
    let mut pairs = Vec::new();
    for request in 0..20 {
        pairs.push(open(&mut client, port, &request.to_string()).await);
    }
    for (index, (_, data)) in pairs.iter().enumerate() {
        client.send(*data, format!("request {index:02}").as_bytes(), false).await;
    }
    for (_, data) in pairs.iter().rev() {
        client.send(*data, b"!", true).await;
    }
    for (index, (error, data)) in pairs.into_iter().enumerate() {
        let expected: String = format!("request {index:02}!").chars().rev().collect();
        assert_eq!(client.until_ended(data).await, expected);
        assert_eq!(client.until_ended(error).await, "");
    }
    drop(client);
    assert_eq!(task.await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn many_connections_come_and_go_on_one_link() {
    let port = reverser().await;
    let (io, _task) = serve_on(Protocol::Spdy, Vec::new());
    let mut client = Client::new(io);
    // More streams in all than may be open at a time.
    for request in 0..600 {
        let (error, data) = open(&mut client, port, &request.to_string()).await;
        client.send(data, b"ab", true).await;
        assert_eq!(client.until_ended(data).await, "ba");
        client.until_ended(error).await;
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_in_words() {
    let port = closed_port().await;
    let (io, _task) = serve_on(Protocol::Spdy, Vec::new());
    let mut client = Client::new(io);
    let (error, data) = open(&mut client, port, "0").await;
    let text = client.until_ended(error).await;
    assert!(
        text.starts_with(&format!("error forwarding port {port} to pod default/web: connect to 127.0.0.1:")),
        "{text}"
    );
    assert!(text.contains("Connection refused"), "{text}");
    assert_eq!(client.until_ended(data).await, "");
}

#[tokio::test]
async fn a_reset_ends_the_connection_to_the_pod() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (io, _task) = serve_on(Protocol::Spdy, Vec::new());
    let mut client = Client::new(io);
    let (_, data) = open(&mut client, port, "0").await;
    client.send(data, b"x", false).await;
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert_eq!(stream.read_u8().await.expect("a byte"), b'x');
    client.reset(data).await;
    assert_eq!(stream.read(&mut [0; 8]).await.expect("an orderly end"), 0);
    // And the whole link with all that is on it.
    let (_, data) = open(&mut client, port, "1").await;
    client.send(data, b"y", false).await;
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert_eq!(stream.read_u8().await.expect("a byte"), b'y');
    drop(client);
    assert_eq!(stream.read(&mut [0; 8]).await.expect("an orderly end"), 0);
}

#[tokio::test(start_paused = true)]
async fn strange_and_single_streams_are_reset() {
    let (io, _task) = serve_on(Protocol::Spdy, Vec::new());
    let mut client = Client::new(io);
    for headers in [
        &[("streamtype", "data")][..],
        &[("streamtype", "data"), ("port", "0"), ("requestid", "1")],
        &[("streamtype", "data"), ("port", "70000"), ("requestid", "1")],
        &[("streamtype", "other"), ("port", "80"), ("requestid", "1")],
        // This one waits for its other half, in vain.
        &[("streamtype", "data"), ("port", "80"), ("requestid", "1")],
    ] {
        let stream = client.open(headers).await;
        client.until("its reset", |client| client.streams.get(&stream).is_some_and(|s| s.reset == Some(5))).await;
    }
}

#[tokio::test]
async fn spdy_inside_websocket_is_the_same() {
    let port = reverser().await;
    let (io, task) = serve_on(Protocol::SpdyInWebSocket, Vec::new());
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    let mut client = Client::new(Tunnel::new(socket));
    let (error, data) = open(&mut client, port, "0").await;
    let long = vec![b'z'; 300_000];
    client.send(data, &long, false).await;
    client.send(data, b"a", true).await;
    let answer = client.until_ended(data).await;
    assert!(answer.starts_with("azz") && answer.len() == 300_001, "{} bytes", answer.len());
    assert_eq!(client.until_ended(error).await, "");
    drop(client);
    assert_eq!(task.await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn websocket_channels_begin_with_their_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (open, closed) = (listener.local_addr().expect("bound").port(), closed_port().await);
    let (io, task) = serve_on(Protocol::ChannelsV4, vec![open, closed]);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    for (channel, port) in [(0, open), (1, open), (2, closed), (3, closed)] {
        let [low, high] = port.to_le_bytes();
        let message = socket.next().await.expect("a message").expect("a good one");
        assert_eq!(message, Message::Binary(vec![channel, low, high].into()));
    }
    socket.send(Message::Binary(b"\x00hi".to_vec().into())).await.expect("it listens");
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut text = [0; 2];
    stream.read_exact(&mut text).await.expect("two bytes");
    let message = socket.next().await.expect("a message").expect("a good one").into_data();
    assert!(message[0] == 3 && message.ends_with(b"(os error 111)"), "{message:?}");
    stream.write_all(b"ho").await.expect("it listens");
    drop(stream);
    let message = socket.next().await.expect("a message").expect("a good one");
    assert_eq!((&text, message.into_data().as_ref()), (b"hi", &b"\x00ho"[..]));
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    drop(socket);
    assert_eq!(task.await.expect("no panic"), Ok(()));
}
