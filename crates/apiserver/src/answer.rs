//! What a verb gives back, and how it becomes a response: objects in the negotiated form, lists joined chunk by chunk.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::Value;
use windlass_api::handover::ListedObjects;
use windlass_stdx::{Body, BoxError, Response, World, body_empty, body_from};

use crate::compress::{Compressed, LIST_COMPRESS_BYTES_MIN, accepts_gzip};
use crate::config::{CHUNK_BYTES, WARNINGS_MAX};
use crate::form::{self, Form, Show};
use crate::listed::Listed;
use crate::request::Target;
use crate::server::object;
use crate::write::text;

/// What a verb gives back.
pub(crate) struct Answer {
    pub code: StatusCode,
    pub payload: Payload,
    /// What the client should know although it was served.
    pub warnings: Vec<String>,
}

pub(crate) enum Payload {
    /// An object of the target's kind, as stored.
    Object(Bytes),
    /// Objects of the target's kind and the list's metadata.
    List { objects: Listed, metadata: Value },
    /// Something else that is JSON in every form: a Status, a Scale.
    Tree(Value),
    /// A response that is already complete: a watch, a stream.
    Ready(Response),
}

impl Answer {
    /// 200 with an object.
    pub fn object(object: Bytes) -> Answer {
        Answer { code: StatusCode::OK, payload: Payload::Object(object), warnings: Vec::new() }
    }

    /// 200 with a tree.
    pub fn tree(tree: Value) -> Answer {
        Answer { code: StatusCode::OK, payload: Payload::Tree(tree), warnings: Vec::new() }
    }

    /// A complete response.
    pub fn ready(response: Response) -> Answer {
        Answer { code: response.status(), payload: Payload::Ready(response), warnings: Vec::new() }
    }

    /// With another code.
    #[must_use]
    pub fn code(mut self, code: StatusCode) -> Answer {
        self.code = code;
        self
    }

    /// With warnings.
    #[must_use]
    pub fn warn(mut self, warnings: Vec<String>) -> Answer {
        self.warnings = warnings;
        self
    }

    /// The response in this form.
    pub fn into_response(self, form: Form, target: &Target, world: &World, headers: &HeaderMap) -> Response {
        let show = Show { form, resource: &target.resource, now: world.now() };
        let mut encoding = None;
        let mut media = form.media();
        let body = match self.payload {
            Payload::Ready(mut response) => {
                add_warnings(&mut response, &self.warnings);
                return response;
            }
            Payload::Object(object) => body_from(show.object(&object)),
            Payload::Tree(tree) => {
                let (bytes, form) = form::tree(form, &tree);
                media = form.media();
                body_from(bytes)
            }
            Payload::List { objects, metadata } if matches!(form, Form::Objects { .. }) => {
                let mut response = Response::new(body_empty());
                response.extensions_mut().insert(listed(objects, &metadata));
                return response;
            }
            Payload::List { mut objects, metadata } => {
                let bytes = objects.look_ahead(LIST_COMPRESS_BYTES_MIN);
                let body = list_body(form, target, objects, bytes, &metadata, world);
                if bytes.is_none_or(|bytes| bytes >= LIST_COMPRESS_BYTES_MIN) && accepts_gzip(headers) {
                    encoding = Some(HeaderValue::from_static("gzip"));
                    BodyExt::boxed_unsync(Compressed::new(body))
                } else {
                    body
                }
            }
        };
        let mut response = json_response(self.code, body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(encoding) = encoding {
            response.headers_mut().insert(CONTENT_ENCODING, encoding);
        }
        add_warnings(&mut response, &self.warnings);
        response
    }
}

fn listed(objects: Listed, metadata: &Value) -> ListedObjects {
    ListedObjects {
        items: objects.map(|entry| Arc::clone(object(&entry))).collect(),
        revision: text(metadata, "resourceVersion").parse().expect("a list says its revision"),
        continue_from: text(metadata, "continue").to_owned(),
    }
}

/// A JSON response with this body.
pub(crate) fn json_response(code: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds `Warning: 299` headers (RFC 7234 §5.5, as Kubernetes uses them).
fn add_warnings(response: &mut Response, warnings: &[String]) {
    const WARNING: HeaderName = HeaderName::from_static("warning");
    const WARNING_CHARS_MAX: usize = 512;
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let plain: String = warning.chars().filter(|c| !c.is_control()).take(WARNING_CHARS_MAX).collect();
        let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// The body of a list; `bytes` are those of its objects, where all of them are known.
fn list_body(
    form: Form,
    target: &Target,
    objects: Listed,
    bytes: Option<usize>,
    metadata: &Value,
    world: &World,
) -> Body {
    let show = Show { form, resource: &target.resource, now: world.now() };
    let head = show.list_head(metadata);
    let exact = bytes.filter(|_| form == Form::Json).map(|bytes| {
        let commas = objects.size_hint().0.saturating_sub(1);
        (head.len() + bytes + commas + show.list_tail(metadata).len()) as u64
    });
    let body = ListBody {
        form,
        target: target.clone(),
        now: show.now,
        head: Some(head),
        measure: form.is_protobuf().then(|| Measure { objects: objects.clone(), bytes: 0 }),
        metadata: metadata.clone(),
        objects,
        is_first: true,
        is_done: false,
        left: exact,
    };
    BodyExt::boxed_unsync(body)
}

/// A list that is joined from its entries while it is sent, so that a large one never lies in memory twice.
struct ListBody {
    form: Form,
    target: Target,
    now: jiff::Timestamp,
    head: Option<Vec<u8>>,
    /// What must be known before the head.
    measure: Option<Measure>,
    metadata: Value,
    objects: Listed,
    is_first: bool,
    is_done: bool,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
}

/// The bytes of a list's items in protobuf, which its head says. They are encoded twice rather than kept.
struct Measure {
    objects: Listed,
    bytes: usize,
}

impl Measure {
    /// Goes on for as much as one chunk; whether all is measured.
    fn go_on(&mut self, show: &Show<'_>) -> bool {
        let until = self.bytes + CHUNK_BYTES;
        while self.bytes < until {
            let Some(entry) = self.objects.next() else { return true };
            self.bytes += show.item(entry.value()).len();
        }
        false
    }
}

impl ListBody {
    /// Whether the head is known.
    fn is_measured(&mut self) -> bool {
        let Some(mut measure) = self.measure.take() else { return true };
        let show = Show { form: self.form, resource: &self.target.resource, now: self.now };
        let is_whole = measure.go_on(&show);
        if is_whole {
            self.head = Some(show.protobuf_list_head(&self.metadata, measure.bytes));
        } else {
            self.measure = Some(measure);
        }
        is_whole
    }

    fn next_chunk(&mut self) -> Bytes {
        let show = Show { form: self.form, resource: &self.target.resource, now: self.now };
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES.min(self.left.unwrap_or(u64::MAX) as usize));
        if let Some(head) = self.head.take() {
            chunk.put_slice(&head);
        }
        while chunk.len() < CHUNK_BYTES {
            let (between, none) = show.list_joints();
            let Some(entry) = self.objects.next() else {
                if self.is_first {
                    chunk.put_slice(none);
                }
                chunk.put_slice(&show.list_tail(&self.metadata));
                self.is_done = true;
                break;
            };
            let is_first = std::mem::take(&mut self.is_first);
            chunk.put_slice(if is_first { show.list_opening() } else { between });
            chunk.put_slice(&show.item(entry.value()));
        }
        self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
        chunk.freeze()
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        if !self.is_measured() {
            // Others come between.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_chunk()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
