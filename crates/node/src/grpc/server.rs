//! gRPC as its servers speak it: calls with one answer, on a socket of this machine. Who calls is hostile.
//!
//! Source: gRPC documentation, "gRPC over HTTP2".

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use windlass_stdx::{Body, BoxError};

use super::{Io, MESSAGE_BYTES_MAX, PREFIX_BYTES};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last: nobody who calls here stays.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long to wait after the system could not give another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Printable ASCII but the percent sign goes as it is ("Status-Message").
const SPOKEN: &AsciiSet = &CONTROLS.add(b'%');

/// Why a call is not answered: a code, and words.
pub type Refusal = (u32, String);

/// Answers a call: the method's path, the message, the answer.
pub type Answerer = Arc<dyn Fn(String, Bytes) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> + Send + Sync>;

/// Binds the socket of this name in a directory, however long the directory's name. One that is there is taken away.
pub fn bind(directory: &Path, name: &str) -> std::io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    match std::fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let held = std::fs::File::open(directory)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()))
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, answerer: Answerer) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection to a socket of the node could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answerer = Arc::clone(&answerer);
        tokio::spawn(async move {
            let served = tokio::time::timeout(CONNECTION_TIME_MAX, connection(Box::new(stream), answerer)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(error, "a connection to a socket of the node ended");
            }
            drop(slot);
        });
    }
}

async fn connection(io: Box<dyn Io>, answerer: Answerer) -> Result<(), BoxError> {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let answerer = Arc::clone(&answerer);
        async move {
            let path = request.uri().path().to_owned();
            let answer = match read(request.into_body()).await {
                Ok(message) => answerer(path, message).await,
                Err(refusal) => Err(refusal),
            };
            Ok::<_, Infallible>(response(answer))
        }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    Ok(builder.serve_connection(TokioIo::new(io), service).await?)
}

/// The one message of a call.
async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let refuse = |why: &str| (super::code::INVALID_ARGUMENT, why.to_owned());
    let body = BodyExt::boxed_unsync(body.map_err(Into::into));
    let read = windlass_stdx::read_body(body, MESSAGE_BYTES_MAX + PREFIX_BYTES).await;
    let mut bytes =
        read.map_err(|error| refuse(&error.to_string()))?.ok_or_else(|| refuse("the message is too long"))?;
    let prefix = bytes.split_to(PREFIX_BYTES.min(bytes.len()));
    match prefix[..] {
        [0, a, b, c, d] if u32::from_be_bytes([a, b, c, d]) as usize == bytes.len() => Ok(bytes),
        _ => Err(refuse("expected one message that is not compressed, found something else")),
    }
}

fn response(answer: Result<Vec<u8>, Refusal>) -> Response<Body> {
    let (message, (code, words)) = match answer {
        Ok(message) => (Some(message), (0, String::new())),
        Err(refusal) => (None, refusal),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    let words = utf8_percent_encode(&words, SPOKEN).to_string();
    if let Some(words) = HeaderValue::from_str(&words).ok().filter(|words| !words.is_empty()) {
        trailers.insert("grpc-message", words);
    }
    let message = message.map(|message| {
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        out.put_u8(0);
        out.put_u32(u32::try_from(message.len()).expect("an answer of ours is short"));
        out.put_slice(&message);
        Frame::data(out.freeze())
    });
    let frames = message.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, BoxError>);
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::{Answerer, bind, serve};
    use crate::grpc::{Call, CallError, call, code};
    use futures::FutureExt;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_call_gets_its_answer_or_the_reason() {
        let directory = std::env::temp_dir().join(format!("windlass-grpc-server-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let answerer: Answerer = Arc::new(|path, message| {
            async move {
                match path.as_str() {
                    "/test.Test/Echo" => Ok(message.to_vec()),
                    other => Err((code::UNIMPLEMENTED, format!("no {other}: 100 % näh"))),
                }
            }
            .boxed()
        });
        let server = tokio::spawn(serve(bind(&directory, "a.sock").expect("it can listen"), answerer));
        let socket = directory.join("a.sock");
        let ask = |method: &str, message: Vec<u8>| {
            let (socket, asked) = (socket.clone(), Call::new(method, message, Duration::from_secs(10)));
            async move { call(&socket, &asked).await }
        };
        for message in [vec![], vec![7; 100_000]] {
            assert_eq!(ask("/test.Test/Echo", message.clone()).await.expect("an answer"), message);
        }
        let words = "no /test.Test/Other: 100 % näh".to_owned();
        let refused = ask("/test.Test/Other", b"x".to_vec()).await;
        assert_eq!(refused, Err(CallError::Refused { code: code::UNIMPLEMENTED, words }));
        server.abort();
        std::fs::remove_dir_all(&directory).expect("the test's own directory");
    }
}
