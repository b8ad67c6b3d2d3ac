//! `watch`: every change of the objects a client asks for, in order, as lines of JSON that do not end by themselves.
//!
//! Rules
//!   R1 start        where the parameters say (`options`); with `sendInitialEvents` the present objects are followed,
//!                   where bookmarks are allowed, by one that says that this was all
//!   R2 selectors    an object that begins to match is ADDED, one that ceases to is DELETED as it last matched, at the
//!                   revision of the change
//!   R3 shared       an event is encoded once for each form, by the first watcher that needs it, and kept with it
//!   R4 slow         nobody waits for a slow watcher: it gets a 410 ERROR event and has to list again
//!   R5 end          after `timeoutSeconds` (or 30 to 60 minutes), or when the server closes
//!   R6 bookmarks    where allowed, a quiet watch learns every minute how far it is, in the form of its events
//!   R7 joined       what is there when a watcher wakes goes out in one piece
//!   R8 replaced     of a custom kind, when its schema changes or it goes, after all that happened before
//!
//! Source: API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming lists"; KEP-3157.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::{Instant, Sleep};
use windlass_api::table::Include;
use windlass_api::{ApiError, Reason, Resource};
use windlass_stdx::BoxError;
use windlass_store::{Entry, Event, Range, ReadError, Revision, Watch, WatchError};

use crate::answer::{Answer, json_response};
use crate::config::{BOOKMARK_INTERVAL, CHUNK_BYTES, WATCH_TIME_DEFAULT_MIN, WATCH_TIME_MAX};
use crate::convert;
use crate::definitions;
use crate::failure::{commit_failed, error_event, later, read_failed};
use crate::form::{Form, Show};
use crate::lanes::Permit;
use crate::list::wait_for;
use crate::metrics::Watcher;
use crate::options::WatchStart;
use crate::request::{Query, Target};
use crate::select::Selection;
use crate::server::{Call, Server};

/// Tells clients that the present objects have all been sent (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// An empty list in the form of the watch, base64, from which clients make the list that they were sent as events.
const LIST_BLUEPRINT: &str = "kubernetes.io/initial-events-list-blueprint";

pub(crate) async fn watch(call: Call<'_>, form: Form) -> Result<Answer, ApiError> {
    let Call { server, target, query, .. } = call;
    let selection = Selection::parse(target, query)?;
    let time = time_to_serve(server, query)?;
    let start = WatchStart::parse(query)?;
    let allows_bookmarks = query.flag("allowWatchBookmarks")?;
    let permit = server.lanes.watch(call.who)?;
    match start.revision {
        None => server.store.read_barrier().await.map_err(commit_failed)?,
        Some(revision) => wait_for(server, revision).await?,
    }
    let prefix = selection.prefix(target);
    let (initial, after) = if start.with_state {
        let page = server.store.range(&Range::prefix(prefix.clone())).map_err(read_failed)?;
        (convert::entries(&target.resource, page.entries).await?, page.revision)
    } else {
        (Vec::new(), start.revision.filter(|revision| *revision > 0).unwrap_or_else(|| server.store.revision()))
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
                converting: None,
                initial: initial.into_iter(),
                says_end_of_initial: (start.says_end_of_state && allows_bookmarks).then_some(after),
                closing: closing(server),
                replaced: replaced(server, &target.resource),
                is_replaced: false,
                timer: Box::pin(tokio::time::sleep_until(now + first_bookmark.min(time))),
                deadline: now + time,
                is_over: false,
                watcher: server.metrics.watcher(target),
                _permit: permit,
            };
            BodyExt::boxed_unsync(flow)
        }
        // The client's answer to both is the same: list again. It expects to read that inside the stream.
        Err(error @ ReadError::Compacted { .. }) => windlass_stdx::body_from(error_event(&read_failed(error))),
        Err(error) => return Err(read_failed(error)),
    };
    Ok(Answer::ready(json_response(StatusCode::OK, body)))
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

/// Waits until the server closes; registered once, not with every event.
/// R8.
fn replaced(server: &Arc<Server>, resource: &Arc<Resource>) -> BoxFuture<'static, ()> {
    if resource.custom.is_none() {
        return futures::future::pending().boxed();
    }
    let (server, resource) = (Arc::downgrade(server), resource.clone());
    async move { definitions::replaced(server, &resource).await }.boxed()
}

fn closing(server: &Server) -> BoxFuture<'static, ()> {
    let mut closing = server.closing.subscribe();
    async move {
        // An error means that the server itself is gone, which is closed too.
        let _gone = closing.wait_for(|closing| *closing).await;
    }
    .boxed()
}

/// A watch while it is served: the body of its response.
struct Flow {
    server: Arc<Server>,
    target: Target,
    form: Form,
    selection: Selection,
    events: Watch,
    /// The event just received, on its way to the version that is served.
    converting: Option<BoxFuture<'static, Result<Arc<Event>, ApiError>>>,
    /// The objects present at the start that have not been sent.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The revision of the bookmark that is due after them.
    says_end_of_initial: Option<Revision>,
    closing: BoxFuture<'static, ()>,
    /// When the schema of a custom kind is no longer the one that is watched.
    replaced: BoxFuture<'static, ()>,
    is_replaced: bool,
    /// Fires at the next bookmark, or at the deadline where there are none.
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
    is_over: bool,
    watcher: Watcher,
    _permit: Permit,
}

impl http_body::Body for Flow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.poll_chunk(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

impl Flow {
    /// The next bytes to send; `None` at the end.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(chunk) = self.initial_chunk() {
            return Poll::Ready(Some(chunk));
        }
        if self.is_over || self.closing.poll_unpin(context).is_ready() {
            self.is_over = true;
            return Poll::Ready(None);
        }
        // Before the events: a watch that is never quiet has an end too.
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if now >= self.deadline {
                self.is_over = true;
                return Poll::Ready(None);
            }
            let next = now + self.server.world.jitter(BOOKMARK_INTERVAL);
            self.timer.as_mut().reset(next.min(self.deadline));
            // An event that is being converted has been given out by the store, but not to the client.
            if self.converting.is_none() {
                return Poll::Ready(Some(self.bookmark(self.events.progress(), false)));
            }
        }
        loop {
            match self.events_chunk(context) {
                Some(chunk) => return Poll::Ready(Some(chunk)),
                None if self.is_replaced && self.converting.is_none() => {
                    self.is_over = true;
                    return Poll::Ready(None);
                }
                // What happened before goes out first.
                None if !self.is_replaced && self.replaced.poll_unpin(context).is_ready() => self.is_replaced = true,
                None => return Poll::Pending,
            }
        }
    }

    fn initial_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES {
            let Some(entry) = self.initial.next() else { break };
            if self.selection.matches(&entry) {
                chunk.put_slice(&frame(What::Added, &self.show().object(&entry.value)));
            }
        }
        if self.initial.as_slice().is_empty()
            && let Some(revision) = self.says_end_of_initial.take()
        {
            chunk.put_slice(&self.bookmark(revision, true));
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// The events that are there, joined (R7).
    fn events_chunk(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        let mut frames = Frames::default();
        while frames.len() < CHUNK_BYTES {
            match self.poll_event(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(event)) => {
                    if let Some(frame) = self.event_frame(&event) {
                        self.watcher.told(frame.len());
                        frames.push(frame);
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.is_over = true;
                    frames.push(Bytes::from(error_event(&error)));
                    break;
                }
            }
        }
        frames.into_bytes()
    }

    /// The next event as it is served.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Arc<Event>, ApiError>> {
        let converting = match &mut self.converting {
            Some(converting) => converting,
            none => {
                let event = ready!(self.events.poll_next(context)).map_err(|error| watch_failed(&error))?;
                if self.target.resource.stored.is_none() {
                    return Poll::Ready(Ok(event));
                }
                let resource = self.target.resource.clone();
                none.insert(async move { convert::event(&resource, event).await }.boxed())
            }
        };
        let event = ready!(converting.poll_unpin(context));
        self.converting = None;
        Poll::Ready(event)
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
            frame(what, &self.show().object(&object))
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

    /// R6: an object of the kind that holds nothing but a revision.
    fn bookmark(&self, revision: Revision, ends_initial: bool) -> Bytes {
        let kind = &self.target.resource.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            let mut list = self.show().list_head(&json!({}));
            list.extend_from_slice(self.show().list_tail());
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true", LIST_BLUEPRINT: BASE64.encode(list)});
        }
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        frame(What::Bookmark, &self.show().object(&Bytes::from(object.to_string())))
    }

    fn show(&self) -> Show<'_> {
        Show { form: self.form, resource: &self.target.resource, now: self.server.world.now() }
    }
}

/// Frames on their way out together. One alone is sent without a copy.
#[derive(Default)]
struct Frames {
    only: Option<Bytes>,
    joined: BytesMut,
}

impl Frames {
    fn push(&mut self, frame: Bytes) {
        match self.only.take() {
            None if self.joined.is_empty() => self.only = Some(frame),
            before => {
                if let Some(before) = before {
                    self.joined.put_slice(&before);
                }
                self.joined.put_slice(&frame);
            }
        }
    }

    fn len(&self) -> usize {
        self.joined.len() + self.only.as_ref().map_or(0, Bytes::len)
    }

    fn into_bytes(self) -> Option<Bytes> {
        self.only.or_else(|| (!self.joined.is_empty()).then(|| self.joined.freeze()))
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
