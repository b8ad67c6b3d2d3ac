//! `watch`: every change of the objects a client asks for, in order, as lines of JSON that do not end by themselves.
//!
//! Rules
//!   R1 start        where the parameters say (`options`); with `sendInitialEvents` the present objects are followed,
//!                   where bookmarks are allowed, by one that says that this was all
//!   R2 selectors    an object that begins to match is ADDED, one that ceases to is DELETED as it last matched, at the
//!                   revision of the change
//!   R3 shared       an event is encoded once for each form, by the first watcher that needs it (`frames`)
//!   R4 slow         nobody waits for a slow watcher: it gets a 410 ERROR event and has to list again
//!   R5 end          after `timeoutSeconds` (or 30 to 60 minutes), or when the server closes
//!   R6 bookmarks    where allowed, a quiet watch learns every minute how far it is, in the form of its events
//!   R7 joined       what is there when a watcher wakes goes out in one piece
//!   R8 replaced     of a custom kind, when its schema changes or it goes, after all that happened before
//!
//! Source: API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming lists"; KEP-3157.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::{Instant, Sleep};
use windlass_api::handover::{ObjectEvent, ObjectEvents, WatchedObjects};
use windlass_api::{ApiError, Object, Reason, Resource};
use windlass_stdx::{BoxError, Response, body_empty};
use windlass_store::{Entry, Event, Range, ReadError, Revision, Watch, WatchError};

use crate::answer::{Answer, json_response};
use crate::config::{BOOKMARK_INTERVAL, CHUNK_BYTES, WATCH_TIME_DEFAULT_MIN, WATCH_TIME_MAX};
use crate::convert;
use crate::definitions;
use crate::failure::{commit_failed, error_event, later, read_failed};
use crate::form::{Form, Show};
use crate::lanes::Permit;
use crate::list::wait_for;
use crate::listed::Listed;
use crate::metrics::Watcher;
use crate::options::WatchStart;
use crate::request::{Query, Target};
use crate::select::Selection;
use crate::server::{Call, Server, object, read_back};

/// Tells clients that the present objects have all been sent (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// An empty list in the form of the watch, base64, from which clients make the list that they were sent as events.
const LIST_BLUEPRINT: &str = "kubernetes.io/initial-events-list-blueprint";

pub(crate) async fn watch(call: Call<'_>, form: Form) -> Result<Answer, ApiError> {
    let Call { server, target, query, .. } = call;
    let selection = Arc::new(Selection::parse(target, query)?.of_form(form));
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
        let mut scan = server.store.scan(&Range::prefix(prefix.clone())).map_err(read_failed)?;
        let revision = scan.revision();
        let initial = match target.resource.stored {
            None => Listed::of(scan, selection.clone()),
            Some(_) => selected(server, target, &selection, scan.read(usize::MAX)).await?,
        };
        (initial, revision)
    } else {
        (Listed::default(), start.revision.filter(|revision| *revision > 0).unwrap_or_else(|| server.store.revision()))
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
                initial,
                says_end_of_initial: (start.says_end_of_state && allows_bookmarks).then_some(after),
                closing: closing(server),
                replaced: replaced(server, &target.resource),
                is_replaced: false,
                timer: Box::pin(tokio::time::sleep_until(now + first_bookmark.min(time))),
                deadline: now + time,
                is_over: false,
                has_skipped: false,
                watcher: server.metrics.watcher(target),
                _permit: permit,
            };
            if matches!(form, Form::Objects { .. }) {
                let mut response = Response::new(body_empty());
                response.extensions_mut().insert(WatchedObjects::new(flow));
                return Ok(Answer::ready(response));
            }
            BodyExt::boxed_unsync(flow)
        }
        // The client's answer to both is the same: list again. It expects to read that inside the stream.
        Err(error @ ReadError::Compacted { .. }) => windlass_stdx::body_from(error_event(&read_failed(error), form)),
        Err(error) => return Err(read_failed(error)),
    };
    let mut response = json_response(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.watch_media()));
    Ok(Answer::ready(response))
}

/// What matches of these entries, as it is served.
async fn selected(
    server: &Server,
    target: &Target,
    selection: &Selection,
    entries: Vec<Arc<Entry>>,
) -> Result<Listed, ApiError> {
    let mut served = convert::entries(server, &target.resource, entries).await?;
    served.retain(|entry| selection.matches(entry));
    Ok(served.into())
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

/// R8.
fn replaced(server: &Arc<Server>, resource: &Arc<Resource>) -> BoxFuture<'static, ()> {
    if resource.custom.is_none() {
        return futures::future::pending().boxed();
    }
    let (server, resource) = (Arc::downgrade(server), resource.clone());
    async move { definitions::replaced(server, &resource).await }.boxed()
}

/// Waits until the server closes; registered once, not with every event.
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
    selection: Arc<Selection>,
    events: Watch,
    /// The event just received, on its way to the version that is served.
    converting: Option<BoxFuture<'static, Result<Arc<Event>, ApiError>>>,
    /// The objects present at the start that have not been sent.
    initial: Listed,
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
    /// Whether an event was left out since the last bookmark or event.
    has_skipped: bool,
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

impl ObjectEvents for Flow {
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ObjectEvent, ApiError>>> {
        let step = match self.poll_due(context) {
            Poll::Ready(step) => step,
            Poll::Pending => match self.poll_step(context) {
                Poll::Ready(step) => step,
                // It costs nothing here, and who waits for a revision need not wait for the next object.
                // But what is being converted has been given out by the store, and not to the client.
                Poll::Pending if self.converting.is_none() && std::mem::take(&mut self.has_skipped) => {
                    Some(Step::Bookmark { revision: self.events.progress(), ends_initial: false })
                }
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(step.map(|step| match step {
            Step::Present(entry) => Ok(ObjectEvent::Added(Arc::clone(object(&entry)))),
            Step::Event(What::Deleted, event) => Ok(ObjectEvent::Deleted(last_state(&event))),
            Step::Event(what, event) => {
                let entry = event.entry.as_ref().expect("an event that shows an object has one");
                let object = Arc::clone(object(entry));
                Ok(if what == What::Added { ObjectEvent::Added(object) } else { ObjectEvent::Modified(object) })
            }
            Step::Bookmark { revision, .. } => Ok(ObjectEvent::Bookmark(revision)),
            Step::Failed(error) => Err(error),
        }))
    }
}

/// The object of an event that ends it, at the revision of its end.
fn last_state(event: &Event) -> Arc<Object> {
    let last = event.memo(|event| {
        let entry = event.previous.as_ref().expect("what ends has been there");
        LastState(Arc::new(read_back(entry.value_at(event.revision))))
    });
    Arc::clone(&last.0)
}

struct LastState(Arc<Object>);

/// What a watcher is told next.
enum Step {
    /// An object that was there at the start.
    Present(Arc<Entry>),
    Event(What, Arc<Event>),
    Bookmark {
        revision: Revision,
        ends_initial: bool,
    },
    /// The watch cannot go on.
    Failed(ApiError),
}

impl Flow {
    /// The next bytes to send; `None` at the end. What is there is joined (R7).
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Poll::Ready(step) = self.poll_due(context) {
            return Poll::Ready(step.map(|step| self.encode(step)));
        }
        let mut frames = Frames::default();
        while frames.len() < CHUNK_BYTES {
            match self.poll_step(context) {
                Poll::Ready(Some(step)) => frames.push(self.encode(step)),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        match frames.into_bytes() {
            Some(bytes) => Poll::Ready(Some(bytes)),
            None if self.is_over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// What time or the server's end make due, once the objects of the start are out.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Option<Step>> {
        if !self.initial.is_done() || self.says_end_of_initial.is_some() {
            return Poll::Pending;
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
                return Poll::Ready(Some(Step::Bookmark { revision: self.events.progress(), ends_initial: false }));
            }
        }
        Poll::Pending
    }

    /// The next object, bookmark of the start or event; `None` at the end.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Option<Step>> {
        if let Some(entry) = self.initial.next() {
            return Poll::Ready(Some(Step::Present(entry)));
        }
        if let Some(revision) = self.says_end_of_initial.take() {
            return Poll::Ready(Some(Step::Bookmark { revision, ends_initial: true }));
        }
        while !self.is_over {
            match self.poll_served(context) {
                Poll::Ready(Ok(event)) => {
                    if let Some(what) = self.what(&event) {
                        return Poll::Ready(Some(Step::Event(what, event)));
                    }
                    self.has_skipped = true;
                }
                Poll::Ready(Err(error)) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Step::Failed(error)));
                }
                Poll::Pending if self.is_replaced && self.converting.is_none() => self.is_over = true,
                // What happened before goes out first.
                Poll::Pending if !self.is_replaced && self.replaced.poll_unpin(context).is_ready() => {
                    self.is_replaced = true;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(None)
    }

    fn encode(&self, step: Step) -> Bytes {
        match step {
            Step::Present(entry) => self.show().event(What::Added.as_str(), &entry.shared()),
            Step::Event(what, event) => {
                let frame = self.shared_frame(&event, what);
                self.watcher.told(frame.len());
                frame
            }
            Step::Bookmark { revision, ends_initial } => self.bookmark(revision, ends_initial),
            Step::Failed(error) => Bytes::from(error_event(&error, self.form)),
        }
    }

    /// The next event as it is served.
    fn poll_served(&mut self, context: &mut Context<'_>) -> Poll<Result<Arc<Event>, ApiError>> {
        let converting = match &mut self.converting {
            Some(converting) => converting,
            none => {
                let event = ready!(self.events.poll_next(context)).map_err(|error| watch_failed(&error))?;
                if self.target.resource.stored.is_none() {
                    return Poll::Ready(Ok(event));
                }
                let (server, resource) = (self.server.clone(), self.target.resource.clone());
                none.insert(async move { convert::event(&server, &resource, event).await }.boxed())
            }
        };
        let event = ready!(converting.poll_unpin(context));
        self.converting = None;
        Poll::Ready(event)
    }

    /// What this watcher is told of an event (R2).
    fn what(&self, event: &Event) -> Option<What> {
        let matched = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| self.selection.matches(entry));
        match (matched(&event.previous), matched(&event.entry)) {
            (false, false) => None,
            (false, true) => Some(What::Added),
            (true, true) => Some(What::Modified),
            (true, false) => Some(What::Deleted),
        }
    }

    /// R3. A watcher shows the entry before the event only where there is none after it that matches.
    fn shared_frame(&self, event: &Arc<Event>, what: What) -> Bytes {
        self.server.frames.of(event, self.form, what, || {
            let object = match what {
                What::Deleted => event.previous.as_ref().map(|entry| entry.value_at(event.revision)),
                _ => event.entry.as_ref().map(|entry| entry.shared()),
            };
            let object = object.expect("an event has the object that its kind of change shows");
            self.show().event(what.as_str(), &object)
        })
    }

    /// R6: an object of the kind that holds nothing but a revision.
    fn bookmark(&self, revision: Revision, ends_initial: bool) -> Bytes {
        let kind = &self.target.resource.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            let list = self.show().empty_list();
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true", LIST_BLUEPRINT: BASE64.encode(list)});
        }
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        self.show().event(What::Bookmark.as_str(), &Bytes::from(object.to_string()))
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
pub(crate) enum What {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

impl What {
    /// The event's `type`.
    fn as_str(self) -> &'static str {
        match self {
            What::Added => "ADDED",
            What::Modified => "MODIFIED",
            What::Deleted => "DELETED",
            What::Bookmark => "BOOKMARK",
        }
    }
}

fn watch_failed(error: &WatchError) -> ApiError {
    match error {
        WatchError::Lagged { .. } | WatchError::Compacted { .. } => {
            ApiError::expired(format!("too old resource version: {error}"))
        }
        WatchError::Closed(_) => later(Reason::ServiceUnavailable, error.to_string()),
    }
}
