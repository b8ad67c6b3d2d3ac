//! The client against a server over a socket: whole answers, refusals, hostile ones, and none.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

use super::{Call, CallError, call, listen};

struct Server {
    socket: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_file(&self.socket).expect("the test's own socket");
    }
}

/// Answers `/echo` with what it is asked, `/no` with a refusal, `/many` with two messages, `/cut` with half of one, and
/// never anything else.
fn serve(name: &str) -> Server {
    let socket = std::env::temp_dir().join(format!("windlass-grpc-{name}-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&socket).expect("a free name");
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            let service = hyper::service::service_fn(answer);
            tokio::spawn(async move {
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // A client that has enough hangs up.
                let _ = served.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { socket, task }
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: http::Request<hyper::body::Incoming>) -> Result<http::Response<Frames>, Infallible> {
    let path = request.uri().path().to_owned();
    let asked = request.into_body().collect().await.expect("a whole request").to_bytes();
    let trailers = |status: &'static str, words: &'static str| {
        let mut map = http::HeaderMap::new();
        map.insert("grpc-status", http::HeaderValue::from_static(status));
        map.insert("grpc-message", http::HeaderValue::from_static(words));
        Frame::trailers(map)
    };
    let frames = match path.as_str() {
        "/t.T/echo" => vec![Frame::data(asked.slice(..3)), Frame::data(asked.slice(3..)), trailers("0", "")],
        "/t.T/no" => vec![trailers("5", "not %22here%22")],
        "/t.T/many" => vec![Frame::data([&asked[..], &asked[..]].concat().into()), trailers("0", "")],
        "/t.T/cut" => vec![Frame::data(asked.slice(..asked.len() - 1)), trailers("0", "")],
        "/t.T/untrue" => vec![Frame::data(asked)],
        _ => std::future::pending().await,
    };
    let frames: Vec<Result<_, Infallible>> = frames.into_iter().map(Ok).collect();
    Ok(http::Response::new(StreamBody::new(stream::iter(frames))))
}

fn of(method: &str) -> Call {
    Call::new(&format!("/t.T/{method}"), b"hello".to_vec(), Duration::from_secs(10))
}

#[tokio::test]
async fn g3_an_answer_counts_with_the_servers_word() {
    let server = serve("word");
    assert_eq!(call(&server.socket, &of("echo")).await, Ok(Bytes::from_static(b"hello")));
    let refused = call(&server.socket, &of("no")).await;
    assert_eq!(refused, Err(CallError::Refused { code: 5, words: "not \"here\"".to_owned() }));
    assert!(matches!(call(&server.socket, &of("many")).await, Err(CallError::Malformed(_))));
    assert!(matches!(call(&server.socket, &of("cut")).await, Err(CallError::Malformed(_))));
    assert!(matches!(call(&server.socket, &of("untrue")).await, Err(CallError::Broken(_))));
    let mut messages = listen(&server.socket, &of("many")).await.expect("it begins");
    for expected in [Some(&b"hello"[..]), Some(b"hello"), None] {
        assert_eq!(messages.next().await.expect("it goes on").as_deref(), expected);
    }
}

#[tokio::test]
async fn g1_a_server_that_hangs_or_says_too_much_is_given_up() {
    let server = serve("hang");
    let hanging = Call { timeout: Duration::from_millis(50), ..of("hang") };
    assert_eq!(call(&server.socket, &hanging).await, Err(CallError::TimedOut(hanging.timeout)));
    let long = Call { bytes_max: 4, ..of("echo") };
    assert!(matches!(call(&server.socket, &long).await, Err(CallError::Malformed(_))));
}

#[tokio::test]
async fn g2_a_server_that_comes_back_is_reached_at_once() {
    let server = serve("again");
    call(&server.socket, &of("echo")).await.expect("it answers");
    drop(server);
    let missing = std::env::temp_dir().join(format!("windlass-grpc-again-{}.sock", std::process::id()));
    assert!(matches!(call(&missing, &of("echo")).await, Err(CallError::Unreachable { .. })));
    let server = serve("again");
    call(&server.socket, &of("echo")).await.expect("it answers again");
}
