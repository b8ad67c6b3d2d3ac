//! A watch: an answer that goes on, one JSON event a line.
//!
//! Source: API concepts, "Efficient detection of changes": `{"type": "ADDED", "object": {…}}` lines, bookmarks, and an
//! ERROR event with a Status (410 when the revision is no longer kept).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
pub use windlass_api::handover::ObjectEvent as WatchEvent;
use windlass_api::handover::ObjectEvents;
use windlass_api::{ApiError, Kind, Reason};
use windlass_stdx::Body;

use crate::client::read_object;
use crate::error::ClientError;
use crate::lines::Lines;

/// Bytes of one event: an object of 3 MiB, both escaped and wrapped.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The changes of a kind, in order.
pub struct Watch {
    idle: Duration,
    what: String,
    source: Source,
}

/// Where the changes come from.
enum Source {
    /// Lines of JSON.
    Body { kind: Kind, body: Body, lines: Lines },
    /// The server of this process.
    Objects(Box<dyn ObjectEvents>),
}

impl Watch {
    pub(crate) fn new(kind: Kind, body: Body, idle: Duration, what: String) -> Watch {
        Watch { idle, what, source: Source::Body { kind, body, lines: Lines::default() } }
    }

    pub(crate) fn of_objects(events: Box<dyn ObjectEvents>, idle: Duration, what: String) -> Watch {
        Watch { idle, what, source: Source::Objects(events) }
    }

    /// The next change; `Ok(None)` when the server ended the watch, as it does after the timeout asked for.
    ///
    /// Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ClientError> {
        let what = &self.what;
        let late = |_| ClientError::TimedOut { what: what.clone(), after: self.idle };
        let (kind, body, lines) = match &mut self.source {
            Source::Body { kind, body, lines } => (kind, body, lines),
            Source::Objects(events) => {
                let next = std::future::poll_fn(|context| events.poll_event(context));
                let next = tokio::time::timeout(self.idle, next).await.map_err(late)?;
                return next.transpose().map_err(ClientError::Api);
            }
        };
        loop {
            if let Some(line) = lines.take() {
                return read_event(kind, &line, what).map(Some);
            }
            if lines.buffered() > LINE_BYTES_MAX {
                return Err(ClientError::TooLarge { what: what.clone(), bytes_max: LINE_BYTES_MAX });
            }
            let frame = match tokio::time::timeout(self.idle, body.frame()).await.map_err(late)? {
                None => return Ok(None),
                Some(Err(source)) => return Err(ClientError::Body { what: what.clone(), source }),
                Some(Ok(frame)) => frame,
            };
            if let Ok(chunk) = frame.into_data() {
                lines.push(chunk);
            }
        }
    }
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn read_event(kind: &Kind, line: &[u8], what: &str) -> Result<WatchEvent, ClientError> {
    let decode = |source: windlass_stdx::BoxError| ClientError::Decode {
        what: what.to_owned(),
        expected: "a watch event",
        source,
    };
    let event: WireEvent = serde_json::from_slice(line).map_err(|source| decode(source.into()))?;
    if event.kind == "ERROR" {
        let status: Value = serde_json::from_str(event.object.get()).map_err(|source| decode(source.into()))?;
        let unreadable = || ApiError::new(Reason::InternalError, "the watch ended with an error that is no Status");
        return Err(ClientError::Api(ApiError::from_status(&status).unwrap_or_else(unreadable)));
    }
    let json = Bytes::copy_from_slice(event.object.get().as_bytes());
    let object = Arc::new(read_object(kind, json).map_err(|source| decode(source.into()))?);
    match event.kind {
        "ADDED" => Ok(WatchEvent::Added(object)),
        "MODIFIED" => Ok(WatchEvent::Modified(object)),
        "DELETED" => Ok(WatchEvent::Deleted(object)),
        "BOOKMARK" => Ok(WatchEvent::Bookmark(object.header.revision)),
        other => Err(decode(format!("unknown event type {other:?}").into())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Watch, WatchEvent};
    use crate::error::ClientError;
    use bytes::Bytes;
    use futures::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use std::time::Duration;
    use windlass_api::kinds;
    use windlass_stdx::BoxError;

    fn watch(chunks: &[&'static str]) -> Watch {
        let frames: Vec<Result<Frame<Bytes>, BoxError>> =
            chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))).collect();
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        Watch::new(kinds::POD.clone(), body, Duration::from_secs(60), "GET /api/v1/pods".to_owned())
    }

    #[tokio::test]
    async fn events_are_cut_at_line_ends_wherever_chunks_end() {
        let mut watch = watch(&[
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resour",
            "ceVersion\":\"3\"}}}\n\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}",
            "\n",
        ]);
        let first = watch.next().await.expect("a whole event");
        assert!(matches!(first, Some(WatchEvent::Added(pod)) if pod.header.name() == "a" && pod.header.revision == 3));
        assert!(matches!(watch.next().await, Ok(Some(WatchEvent::Bookmark(9)))));
        assert!(matches!(watch.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn an_error_event_is_the_apis_refusal() {
        let mut watch = watch(&[
            "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410,\"message\":\"too old\",\"metadata\":{}}}\n",
        ]);
        let error = watch.next().await.expect_err("an ERROR event");
        assert!(error.is_expired(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_watch_is_broken_after_its_idle_time() {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>().boxed()).boxed_unsync();
        let mut watch = Watch::new(kinds::POD.clone(), body, Duration::from_secs(60), "GET /".to_owned());
        assert!(matches!(watch.next().await, Err(ClientError::TimedOut { .. })));
    }
}
