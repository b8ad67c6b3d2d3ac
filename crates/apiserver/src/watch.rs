//! `watch`: every change of the objects a client asks for, in order, as lines of JSON that do not end by themselves.
//!
//! Rules
//!   R1 start        from the `resourceVersion` asked for; without one (or 0) the present objects come first as ADDED;
//!                   with `sendInitialEvents` they come first, then (where allowed) a BOOKMARK that says that this was all
//!   R2 selectors    an object that begins to match is ADDED, one that ceases to is DELETED as it last matched
//!   R3 shared       an event is encoded once for each form, by the first watcher that needs it, and kept with it
//!   R4 slow         nobody waits for a slow watcher: it gets a 410 ERROR event and has to list again
//!   R5 end          after `timeoutSeconds` (or 30 to 60 minutes), or when the server closes
//!   R6 bookmarks    where allowed, a quiet watch learns every minute how far it is
//!
//! Source: API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming lists"; KEP-3157.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::time::{Instant, Sleep};
use windlass_api::table::Include;
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Body, BoxError};
use windlass_store::{Entry, Event, Range, ReadError, Revision, Watch, WatchError};

use crate::answer::{Answer, json_response};
use crate::config::{BOOKMARK_INTERVAL, CHUNK_BYTES, WATCH_TIME_DEFAULT_MIN, WATCH_TIME_MAX};
use crate::convert;
use crate::failure::{commit_failed, error_event, later, read_failed};
use crate::form::{Form, Show};
use crate::lanes::WatchPermit;
use crate::list::{asked_revision, wait_for};
use crate::request::{Query, Target};
use crate::select::Selection;
use crate::server::{Call, Server};

/// Tells clients that the present objects have all been sent (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(crate) async fn watch(call: Call<'_>, form: Form) -> Result<Answer, ApiError> {
    let Call { server, target, query, .. } = call;
    let selection = Selection::parse(target, query)?;
    let time = time_to_serve(server, query)?;
    let start = Start::parse(query)?;
    let allows_bookmarks = query.flag("allowWatchBookmarks")?;
    let permit = server.lanes.watch()?;
    if let Some(revision) = start.revision {
        wait_for(server, revision).await?;
    } else {
        server.store.read_barrier().await.map_err(commit_failed)?;
    }
    let prefix = selection.prefix(target);
    let (initial, after) = if start.with_state {
        let page = server.store.range(&Range::prefix(prefix.clone())).map_err(read_failed)?;
        (convert::entries(&target.resource, page.entries).await?, page.revision)
    } else {
        (Vec::new(), start.revision.unwrap_or_else(|| server.store.revision()))
    };
    let body = match server.store.watch(&prefix, after) {
        Ok(events) => {
            let now = Instant::now();
            let first_bookmark = if allows_bookmarks { server.world.jitter(BOOKMARK_INTERVAL) } else { time };
            let flow = Flow {
                server: server.clone(),
                target: target.clone(),
                form,
                selection,
                events,
                initial: initial.into_iter(),
                says_end_of_initial: (start.says_end_of_initial && allows_bookmarks).then_some(after),
                closing: server.closing.subscribe(),
                timer: Box::pin(tokio::time::sleep_until(now + first_bookmark.min(time))),
                deadline: now + time,
                is_over: false,
                _permit: permit,
            };
            flow.into_body()
        }
        // The client's answer to both is the same: list again. It expects to read that inside the stream.
        Err(error @ ReadError::Compacted { .. }) => windlass_stdx::body_from(error_event(&read_failed(error))),
        Err(error) => return Err(read_failed(error)),
    };
    Ok(Answer::ready(json_response(StatusCode::OK, body)))
}

/// Where a watch begins (R1).
struct Start {
    revision: Option<Revision>,
    with_state: bool,
    says_end_of_initial: bool,
}

impl Start {
    fn parse(query: &Query) -> Result<Start, ApiError> {
        let asked = asked_revision(query)?;
        let revision = asked.filter(|revision| *revision > 0);
        let send_initial = query.flag_if_set("sendInitialEvents")?;
        match (send_initial, query.get("resourceVersionMatch")) {
            (Some(_), Some("NotOlderThan")) => {}
            (Some(_), _) => {
                let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(ApiError::bad_request(message));
            }
            (None, Some(_)) => {
                let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(ApiError::bad_request(message));
            }
            (None, None) => {}
        }
        Ok(Start {
            revision,
            with_state: send_initial.unwrap_or(revision.is_none()),
            says_end_of_initial: send_initial == Some(true),
        })
    }
}

fn time_to_serve(server: &Server, query: &Query) -> Result<Duration, ApiError> {
    match query.number("timeoutSeconds")? {
        Some(seconds) if seconds < 0 => {
            Err(ApiError::bad_request(format!("expected timeoutSeconds of at least 0, found {seconds}")))
        }
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds as u64).min(WATCH_TIME_MAX)),
        _ => {
            let spread_ms = (WATCH_TIME_MAX - WATCH_TIME_DEFAULT_MIN).as_millis() as u64;
            Ok(WATCH_TIME_DEFAULT_MIN + Duration::from_millis(server.world.random_below(spread_ms)))
        }
    }
}

/// A watch while it is served.
struct Flow {
    server: Arc<Server>,
    target: Target,
    form: Form,
    selection: Selection,
    events: Watch,
    /// The objects present at the start that have not been sent.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The revision of the bookmark that is due after them.
    says_end_of_initial: Option<Revision>,
    closing: tokio::sync::watch::Receiver<bool>,
    /// Fires at the next bookmark, or at the deadline where there are none.
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
    is_over: bool,
    _permit: WatchPermit,
}

enum Woken {
    Event(Result<Arc<Event>, WatchError>),
    Bookmark,
    Over,
}

impl Flow {
    fn into_body(self) -> Body {
        let chunks = futures::stream::unfold(self, |mut flow| async move {
            let chunk = flow.next_chunk().await?;
            Some((Ok::<_, BoxError>(Frame::data(chunk)), flow))
        });
        BodyExt::boxed_unsync(StreamBody::new(chunks.boxed()))
    }

    /// The next bytes to send; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        if let Some(chunk) = self.initial_chunk() {
            return Some(chunk);
        }
        while !self.is_over {
            match self.wake().await {
                Woken::Over => return None,
                Woken::Event(event) => {
                    if let Some(chunk) = self.events_chunk(event).await {
                        return Some(chunk);
                    }
                }
                Woken::Bookmark => return Some(self.bookmark(self.events.progress(), false)),
            }
        }
        None
    }

    async fn wake(&mut self) -> Woken {
        let woken = tokio::select! {
            biased;
            // An error means that the server itself is gone.
            _ = self.closing.wait_for(|closing| *closing) => Woken::Over,
            () = &mut self.timer => Woken::Bookmark,
            event = self.events.next() => Woken::Event(event),
        };
        if !matches!(woken, Woken::Bookmark) {
            return woken;
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Woken::Over;
        }
        let next = now + self.server.world.jitter(BOOKMARK_INTERVAL);
        self.timer.as_mut().reset(next.min(self.deadline));
        woken
    }

    fn initial_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES {
            let Some(entry) = self.initial.next() else { break };
            if self.selection.matches(&entry) {
                let show = Show { form: self.form, resource: &self.target.resource, now: self.server.world.now() };
                chunk.put_slice(&frame(What::Added, &show.object(&entry.value)));
            }
        }
        if self.initial.as_slice().is_empty()
            && let Some(revision) = self.says_end_of_initial.take()
        {
            chunk.put_slice(&self.bookmark(revision, true));
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// The event just received and those that are there already, joined. One alone is sent without a copy.
    async fn events_chunk(&mut self, first: Result<Arc<Event>, WatchError>) -> Option<Bytes> {
        let mut only: Option<Bytes> = None;
        let mut joined = BytesMut::new();
        let mut count = 0;
        let mut next = first.map(Some).map_err(|error| watch_failed(&error));
        loop {
            match next {
                Ok(None) => break,
                Ok(Some(event)) => {
                    let event = match convert::event(&self.target.resource, event).await {
                        Ok(event) => event,
                        Err(error) => {
                            next = Err(error);
                            continue;
                        }
                    };
                    if let Some(frame) = self.event_frame(&event) {
                        count += 1;
                        if let Some(before) = only.replace(frame) {
                            joined.put_slice(&before);
                        }
                    }
                }
                Err(error) => {
                    self.is_over = true;
                    let last = Bytes::from(error_event(&error));
                    if let Some(before) = only.replace(last) {
                        joined.put_slice(&before);
                    }
                    break;
                }
            }
            if joined.len() + only.as_ref().map_or(0, Bytes::len) >= CHUNK_BYTES {
                break;
            }
            next = self.events.try_next().map_err(|error| watch_failed(&error));
        }
        let only = only?;
        let chunk = if joined.is_empty() {
            only
        } else {
            joined.put_slice(&only);
            joined.freeze()
        };
        self.server.metrics.watch_events(&self.target.resource.kind, count, chunk.len());
        Some(chunk)
    }

    /// What this watcher is told of an event (R2).
    fn event_frame(&self, event: &Event) -> Option<Bytes> {
        let matched = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| self.selection.matches(entry));
        let what = match (matched(&event.previous), matched(&event.entry)) {
            (false, false) => return None,
            (false, true) => What::Added,
            (true, true) => What::Modified,
            (true, false) => What::Deleted,
        };
        Some(self.shared_frame(event, what))
    }

    /// R3. A watcher shows the entry before the event only where there is none after it that matches.
    fn shared_frame(&self, event: &Event, what: What) -> Bytes {
        let encode = || {
            let object = match what {
                What::Deleted => event.previous.as_ref().map(|entry| entry.value_at(event.revision)),
                _ => event.entry.as_ref().map(|entry| entry.value.clone()),
            };
            let object = object.expect("an event has the object that its kind of change shows");
            let show = Show { form: self.form, resource: &self.target.resource, now: self.server.world.now() };
            frame(what, &show.object(&object))
        };
        let slot = what as usize;
        match self.form {
            Form::Json => event.memo(|_| JsonFrames::default()).0[slot].get_or_init(encode).clone(),
            Form::Metadata => event.memo(|_| MetadataFrames::default()).0[slot].get_or_init(encode).clone(),
            Form::Table(include) => {
                let frames = event.memo(|_| TableFrames::default());
                frames.0[include_slot(include)][slot].get_or_init(encode).clone()
            }
        }
    }

    fn bookmark(&self, revision: Revision, ends_initial: bool) -> Bytes {
        let kind = &self.target.resource.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.form {
            Form::Json => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table(_) => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": [], "rows": [],
            }),
        };
        frame(What::Bookmark, object.to_string().as_bytes())
    }
}

/// The kinds of watch events that show an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

type Slots = [OnceLock<Bytes>; 3];

/// The frames of an event as JSON, by [`What`].
#[derive(Default)]
struct JsonFrames(Slots);
#[derive(Default)]
struct MetadataFrames(Slots);
#[derive(Default)]
struct TableFrames([Slots; 3]);

fn include_slot(include: Include) -> usize {
    match include {
        Include::None => 0,
        Include::Metadata => 1,
        Include::Object => 2,
    }
}

fn frame(what: What, object: &[u8]) -> Bytes {
    let head: &[u8] = match what {
        What::Added => b"{\"type\":\"ADDED\",\"object\":",
        What::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
        What::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        What::Bookmark => b"{\"type\":\"BOOKMARK\",\"object\":",
    };
    let mut frame = BytesMut::with_capacity(head.len() + object.len() + 2);
    frame.put_slice(head);
    frame.put_slice(object);
    frame.put_slice(b"}\n");
    frame.freeze()
}

fn watch_failed(error: &WatchError) -> ApiError {
    match error {
        WatchError::Lagged { .. } | WatchError::Compacted { .. } => {
            ApiError::expired(format!("too old resource version: {error}"))
        }
        WatchError::Closed(_) => later(Reason::ServiceUnavailable, error.to_string()),
    }
}
