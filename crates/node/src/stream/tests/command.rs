//! Exec over SPDY and over WebSocket channels.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::spdy::client::Client;
use super::{NoSession, Protocol, serve_shell};

const PATIENCE: Duration = Duration::from_secs(20);

/// Opens the streams of an exec, the error stream first.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>, names: &[&str]) -> Vec<u32> {
    let mut streams = Vec::new();
    for name in names {
        streams.push(client.open(&[("streamtype", name)]).await);
    }
    streams
}

#[tokio::test]
async fn spdy_carries_input_output_and_success() {
    let (io, served) = serve_shell(Protocol::Spdy, "stdin,stdout", "cat; echo over");
    let mut client = Client::new(io);
    let [error, stdin, stdout] = open(&mut client, &["error", "stdin", "stdout"]).await[..] else { panic!("three") };
    client.send(stdin, b"hello ", false).await;
    client.until("an echo", |client| client.streams.get(&stdout).is_some_and(|found| found.bytes == b"hello ")).await;
    client.send(stdin, b"there\n", true).await;
    assert_eq!(client.until_ended(stdout).await, "hello there\nover\n");
    assert_eq!(client.until_ended(error).await, r#"{"metadata":{},"status":"Success"}"#);
    client.until("goodbye", |client| client.goaway == Some(0)).await;
    drop(client);
    served.task.await.expect("no panic").expect("a session");
}

#[tokio::test]
async fn spdy_tells_the_exit_code_and_keeps_the_outputs_apart() {
    let (io, _served) = serve_shell(Protocol::Spdy, "stdout,stderr", "echo out; echo err >&2; exit 42");
    let mut client = Client::new(io);
    let [error, stdout, stderr] = open(&mut client, &["error", "stdout", "stderr"]).await[..] else { panic!("three") };
    // kubectl closes its side of these at once; that ends nothing of ours.
    for stream in [error, stdout, stderr] {
        client.send(stream, b"", true).await;
    }
    assert_eq!(client.until_ended(stdout).await, "out\n");
    assert_eq!(client.until_ended(stderr).await, "err\n");
    let status: serde_json::Value = serde_json::from_str(&client.until_ended(error).await).expect("JSON");
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "42");
}

#[tokio::test]
async fn spdy_carries_much_in_both_directions_and_gives_credit_back() {
    let (io, _served) = serve_shell(Protocol::Spdy, "stdin,stdout", "wc -c; seq 200000");
    let mut client = Client::new(io);
    let [_, stdin, stdout] = open(&mut client, &["error", "stdin", "stdout"]).await[..] else { panic!("three") };
    for _ in 0..100 {
        client.send(stdin, &[b'x'; 100_000], false).await;
    }
    client.send(stdin, b"", true).await;
    let output = client.until_ended(stdout).await;
    assert_eq!(output.lines().next(), Some("10000000"));
    assert_eq!(output.lines().last(), Some("200000"));
    assert!(client.streams[&0].credit > 9_900_000, "{}", client.streams[&0].credit);
}

#[tokio::test]
async fn spdy_resizes_a_terminal_and_answers_pings() {
    let (io, served) = serve_shell(Protocol::Spdy, "stdin,stdout,stderr,tty", "head -n1");
    let mut client = Client::new(io);
    let streams = open(&mut client, &["error", "stdin", "stdout", "resize"]).await;
    client.send(streams[3], b"{\"Width\":120,\"Height\":40}\n{\"Width\":80,", false).await;
    client.send(streams[3], b"\"Height\":24}", false).await;
    client.ping(7).await;
    client.until("a ping's answer", |client| client.pings == [7]).await;
    let sizes = served.sizes;
    let seen = async {
        while sizes.lock().expect("not poisoned").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("both sizes are set");
    client.send(streams[1], b"bye\n", false).await;
    assert_eq!(client.until_ended(streams[2]).await, "bye\n");
    let sizes: Vec<_> = sizes.lock().expect("not poisoned").iter().map(|size| (size.columns, size.rows)).collect();
    assert_eq!(sizes, [(120, 40), (80, 24)]);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let task = tokio::spawn(async move {
        let start = async { Err::<super::Shell, String>("no such file".to_owned()) };
        super::serve(theirs, Protocol::Spdy, &super::options("stdout"), start).await
    });
    let mut client = Client::new(ours);
    let streams = open(&mut client, &["error", "stdout"]).await;
    let status = client.until_ended(streams[0]).await;
    assert!(status.contains("Internal error occurred: no such file"), "{status}");
    drop(client);
    task.await.expect("no panic").expect("a session, though a short one");
}

#[tokio::test]
async fn a_client_that_goes_ends_what_was_run_for_it() {
    for protocol in [Protocol::Spdy, Protocol::ChannelsV5] {
        let (io, mut served) = serve_shell(protocol, "stdout", "echo ready; exec sleep 1000");
        if protocol == Protocol::Spdy {
            let mut client = Client::new(io);
            let streams = open(&mut client, &["error", "stdout"]).await;
            client
                .until("it runs", |client| client.streams.get(&streams[1]).is_some_and(|s| s.bytes == b"ready\n"))
                .await;
        } else {
            let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
            assert_eq!(messages(&mut socket, 2).await, ["1:", "1:ready\n"]);
        }
        let ended = tokio::time::timeout(PATIENCE, served.abandoned.recv()).await;
        assert_eq!(ended, Ok(Some(())), "{protocol:?}");
        served.task.await.expect("no panic").expect("a session");
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_the_session() {
    let (io, served) = serve_shell(Protocol::Spdy, "stdout", "sleep 30 & echo over");
    let mut client = Client::new(io);
    let streams = open(&mut client, &["error", "stdout"]).await;
    assert_eq!(client.until_ended(streams[1]).await, "over\n");
    client.until_ended(streams[0]).await;
    drop(client);
    served.task.await.expect("no panic").expect("a session");
}

#[tokio::test(start_paused = true)]
async fn streams_that_do_not_come_are_not_waited_for_long() {
    let (io, served) = serve_shell(Protocol::Spdy, "stdin,stdout", "true");
    let mut client = Client::new(io);
    open(&mut client, &["error", "unheard-of", "stdout"]).await;
    client
        .until("a strange stream is reset", |client| client.streams.get(&3).is_some_and(|s| s.reset == Some(5)))
        .await;
    let why = served.task.await.expect("no panic").expect_err("a stream is missing");
    let NoSession::Missing { expected, found } = why else { panic!("{why}") };
    assert_eq!((expected, found), (vec!["error", "stdin", "stdout"], vec!["error".to_owned(), "stdout".to_owned()]));
}

/// The next messages as `channel:text`, `ping` or `close`.
async fn messages(socket: &mut WebSocketStream<DuplexStream>, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message comes");
        seen.push(match next.expect("no end yet").expect("a good message") {
            Message::Binary(bytes) => format!("{}:{}", bytes[0], String::from_utf8_lossy(&bytes[1..])),
            Message::Close(_) => "close".to_owned(),
            other => format!("{other:?}"),
        });
    }
    seen
}

#[tokio::test]
async fn websocket_v5_closes_the_input_alone() {
    let (io, served) = serve_shell(Protocol::ChannelsV5, "stdin,stdout,stderr,tty", "cat; exit 3");
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    for message in
        [&b"\x04{\"Width\":100,\"Height\":50}"[..], b"\x00hello", b"\x00", b"\x09nobody", b"\xff\x00", b"\x00late"]
    {
        socket.send(Message::Binary(message.to_vec().into())).await.expect("it listens");
    }
    let seen = messages(&mut socket, 4).await;
    assert_eq!(&seen[..2], ["1:", "1:hello"]);
    assert!(seen[2].starts_with("3:") && seen[2].contains("NonZeroExitCode"), "{seen:?}");
    assert_eq!(seen[3], "close");
    assert!(socket.next().await.is_none(), "the close was answered and the connection ended");
    served.task.await.expect("no panic").expect("a session");
    assert_eq!(served.sizes.lock().expect("not poisoned").len(), 1);
}

#[tokio::test]
async fn websocket_v4_takes_text_and_older_ones_get_sentences() {
    for (protocol, ending) in
        [(Protocol::ChannelsV4, "\"message\":\"7\""), (Protocol::Channels, "3:command terminated with exit code 7")]
    {
        let (io, served) = serve_shell(protocol, "stdin,stdout,stderr", "head -n1 >&2; exit 7");
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        socket.send(Message::Text("\u{0}line\n".into())).await.expect("it listens");
        let seen = messages(&mut socket, 4).await;
        assert_eq!(&seen[..2], ["1:", "2:line\n"]);
        assert!(seen[2].contains(ending), "{seen:?}");
        assert_eq!(seen[3], "close");
        drop(socket);
        served.task.await.expect("no panic").expect("a session");
    }
}

#[tokio::test]
async fn a_large_message_is_input_like_any_other() {
    let (io, _served) = serve_shell(Protocol::ChannelsV5, "stdin,stdout", "wc -c");
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    let mut message = vec![0; 3_000_001];
    message[0] = 0;
    socket.send(Message::Binary(message.into())).await.expect("it listens");
    socket.send(Message::Binary(vec![255, 0].into())).await.expect("it listens");
    assert_eq!(messages(&mut socket, 2).await[1], "1:3000000\n");
}
