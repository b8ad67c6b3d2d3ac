//! Request in, response out: the one shape in which parts talk to the API, over whatever lies between.
//!
//! In the server process the transport is the API pipeline itself; on a node it is HTTPS; in the simulator it is a
//! link that delays and loses messages.

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// Any error that a body may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request or response body: a stream of byte chunks. A watch is a body that does not end by itself.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// An HTTP request as the API sees it.
pub type Request = http::Request<Body>;
/// An HTTP response as the API gives it.
pub type Response = http::Response<Body>;

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The other side could not be reached; the request was not sent, so it is safe to send again.
    #[error("could not reach {address}")]
    Unreachable {
        /// Where the request should have gone.
        address: String,
        /// What went wrong.
        #[source]
        source: BoxError,
    },
    /// The link broke after the request may have been sent: it may or may not have been carried out.
    #[error("connection lost while waiting for the response")]
    Broken(#[source] BoxError),
    /// No response came in time: the request may or may not have been carried out.
    #[error("no response within {0:?}")]
    TimedOut(std::time::Duration),
}

/// Something that carries a request to the API and brings the response back.
///
/// Guarantees  an `Ok` is the server's own answer, whatever its status code
pub trait Transport: Send + Sync + 'static {
    /// Sends one request.
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>>;
}

/// A body without content.
pub fn body_empty() -> Body {
    body_from(Bytes::new())
}

/// A body that is these bytes.
pub fn body_from(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole body of at most `bytes_max` bytes; `Ok(None)` when it is longer. What lies past the limit is not read.
pub async fn read_body(mut body: Body, bytes_max: usize) -> Result<Option<Bytes>, BoxError> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else { continue };
        let length = rest.as_ref().map_or(first.len(), BytesMut::len) + chunk.len();
        if length > bytes_max {
            return Ok(None);
        }
        // A body of one chunk, the usual case, is handed on without a copy.
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&chunk),
            None if first.is_empty() => first = chunk,
            None => {
                let mut all = BytesMut::with_capacity(length);
                all.extend_from_slice(&first);
                all.extend_from_slice(&chunk);
                rest = Some(all);
            }
        }
    }
    Ok(Some(rest.map_or(first, BytesMut::freeze)))
}

#[cfg(test)]
mod tests {
    use super::{body_from, read_body};

    #[tokio::test]
    async fn chunks_are_joined_in_order() {
        let chunks =
            ["ab", "cd", "e"].map(|text| Ok::<_, super::BoxError>(http_body::Frame::data(bytes::Bytes::from(text))));
        let stream = http_body_util::StreamBody::new(futures::stream::iter(chunks));
        let body = http_body_util::BodyExt::boxed_unsync(stream);
        let whole = read_body(body, 5).await.expect("an in-memory body does not fail");
        assert_eq!(whole.as_deref(), Some(&b"abcde"[..]));
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_none_and_at_its_limit_is_whole() {
        let whole = read_body(body_from("12345"), 5).await.expect("an in-memory body does not fail");
        assert_eq!(whole.as_deref(), Some(&b"12345"[..]));
        let over = read_body(body_from("123456"), 5).await.expect("an in-memory body does not fail");
        assert!(over.is_none());
    }
}
