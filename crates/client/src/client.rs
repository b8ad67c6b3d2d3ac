//! One request, one answer: the verbs of the API.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use windlass_api::handover::{ListedObjects, WatchedObjects};
use windlass_api::{ApiError, Kind, Object, Reason, Subresource};
use windlass_stdx::{Body, Request, Response, Transport, World, body_from};

use crate::call::{Answer, Call, warnings};
use crate::error::ClientError;
use crate::options::{DeleteOptions, ListOptions, Patch, WatchOptions, segment};
use crate::watch::Watch;

/// How long a call waits for its answer unless told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// Bytes of an answer that is one object: the API takes bodies up to 3 MiB and adds little.
const OBJECT_BYTES_MAX: usize = 16 << 20;
/// Bytes of an answer that is a list page.
const PAGE_BYTES_MAX: usize = 512 << 20;

/// Speaks to the API. Cheap to clone.
///
/// Guarantees  every call ends by its deadline; an `Err(Api)` is the API's own answer
/// Caveats     nothing is retried here: whether a write may be sent again is the caller's knowledge
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    world: World,
    deadline: Duration,
    user_agent: Arc<str>,
    /// What the header `Authorization` says; nobody has one who proves himself by a certificate.
    authorization: Option<HeaderValue>,
}

/// One page (or all) of a kind's objects.
#[derive(Debug, Clone)]
pub struct List {
    /// In the server's order: by namespace and name.
    pub items: Vec<Arc<Object>>,
    /// The revision of the list: watch from here.
    pub revision: u64,
    /// Pass on as `continue_from` for the next page; empty after the last.
    pub continue_from: String,
}

impl Client {
    /// A client over this link.
    pub fn new(transport: Arc<dyn Transport>, world: World) -> Client {
        let user_agent = concat!("windlass/", env!("CARGO_PKG_VERSION")).into();
        Client { transport, world, deadline: DEADLINE_DEFAULT, user_agent, authorization: None }
    }

    /// The same link, another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client { deadline, ..self.clone() }
    }

    /// The same link, telling the server which part asks: the manager of the fields it writes.
    #[must_use]
    pub fn named(&self, part: &str) -> Client {
        let user_agent = format!("windlass-{part}/{}", env!("CARGO_PKG_VERSION")).into();
        Client { user_agent, ..self.clone() }
    }

    /// The same link, saying this in the header `Authorization`: `Bearer …`.
    #[must_use]
    pub fn authorized(&self, authorization: HeaderValue) -> Client {
        Client { authorization: Some(authorization), ..self.clone() }
    }

    /// The clock and randomness of this process.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// One object; `None` when there is none of this name. That its kind is not served says nothing of the object, so
    /// then this is an error.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Object>, ClientError> {
        match self.object(kind, Call::new(Method::GET, path(kind, namespace, name, None))).await {
            Ok(object) => Ok(Some(object)),
            Err(ClientError::Api(refusal))
                if refusal.reason == Reason::NotFound && !refusal.details.name.is_empty() =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The objects of one namespace or all, as far as `options.limit` goes.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, options: &ListOptions) -> Result<List, ClientError> {
        let path = collection(kind, namespace) + &options.query();
        let call = Call::new(Method::GET, path);
        let what = call.what();
        let whole = async {
            let mut response = self.exchange(call.for_objects(options.linked_only)).await?;
            if let Some(ListedObjects { items, revision, continue_from }) = response.extensions_mut().remove() {
                return Ok(List { items, revision, continue_from });
            }
            let body = read_whole(response, &what, PAGE_BYTES_MAX).await?;
            let expected = "a list of objects";
            read_list(kind, &body).map_err(|source| ClientError::Decode { what: what.clone(), expected, source })
        };
        match tokio::time::timeout(self.deadline, whole).await {
            Ok(list) => list,
            Err(_) => Err(ClientError::TimedOut { what, after: self.deadline }),
        }
    }

    /// A new object.
    pub async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        object: &(impl Serialize + ?Sized),
    ) -> Result<Object, ClientError> {
        self.object(kind, Call::with_json(Method::POST, collection(kind, Some(namespace)), object)).await
    }

    /// Replaces an object. With a `metadata.resourceVersion` only if it is still at that revision.
    pub async fn update(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: &(impl Serialize + ?Sized),
    ) -> Result<Object, ClientError> {
        self.object(kind, Call::with_json(Method::PUT, path(kind, namespace, name, None), object)).await
    }

    /// Replaces an object's status; the rest of `object` is not looked at.
    pub async fn update_status(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: &(impl Serialize + ?Sized),
    ) -> Result<Object, ClientError> {
        let path = path(kind, namespace, name, Some(Subresource::Status.as_str()));
        self.object(kind, Call::with_json(Method::PUT, path, object)).await
    }

    /// Changes a part of an object or of its subresource.
    pub async fn patch(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: &Patch,
        subresource: Option<Subresource>,
    ) -> Result<Object, ClientError> {
        let path = path(kind, namespace, name, subresource.map(Subresource::as_str));
        self.object(kind, Call::with_patch(path, patch)).await
    }

    /// Deletes an object. `Some` is the object as the API left it: ending, or as it was when it went.
    pub async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<Object>, ClientError> {
        let call = Call::with_json(Method::DELETE, path(kind, namespace, name, None), &options.body());
        let what = call.what();
        let body = self.answer(call, OBJECT_BYTES_MAX).await?.body;
        let object = read_object(kind, body).map_err(|source| ClientError::Decode {
            what,
            expected: "the object or a Status",
            source: source.into(),
        })?;
        Ok(Some(object).filter(|object| object.header.kind() != "Status"))
    }

    /// Posts to a subresource (`binding`, `eviction`, `token`, …) and gives its answer.
    pub async fn create_sub(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let call = Call::with_json(Method::POST, path(kind, namespace, name, Some(subresource)), body);
        self.tree(call).await
    }

    /// Replaces a subresource (`finalize`, `scale`, …) and gives its answer.
    pub async fn update_sub(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let call = Call::with_json(Method::PUT, path(kind, namespace, name, Some(subresource)), body);
        self.tree(call).await
    }

    /// Any path of the API, answered in JSON; `body` is posted as JSON.
    pub async fn raw(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let call = match body {
            Some(body) => Call::with_json(method, path.to_owned(), body),
            None => Call::new(method, path.to_owned()),
        };
        self.tree(call).await
    }

    /// The changes of a kind after a revision.
    pub async fn watch(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<Watch, ClientError> {
        let call = Call::new(Method::GET, collection(kind, namespace) + &options.query());
        let what = call.what();
        let mut response = self.begin(call.for_objects(options.linked_only)).await?;
        let watched: Option<WatchedObjects> = response.extensions_mut().remove();
        Ok(match watched.and_then(|watched| watched.take()) {
            Some(events) => Watch::of_objects(events, options.idle, what),
            None => Watch::new(kind.clone(), response.into_body(), options.idle, what),
        })
    }

    /// Any request, answered in the form it asks for.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        self.answer(call, PAGE_BYTES_MAX).await
    }

    /// Any request whose answer is a stream: it must begin before the deadline and may last.
    pub async fn open(&self, call: Call) -> Result<Body, ClientError> {
        Ok(self.begin(call).await?.into_body())
    }

    async fn object(&self, kind: &Kind, call: Call) -> Result<Object, ClientError> {
        let what = call.what();
        let body = self.answer(call, OBJECT_BYTES_MAX).await?.body;
        read_object(kind, body).map_err(|source| ClientError::Decode {
            what,
            expected: "an object",
            source: source.into(),
        })
    }

    async fn tree(&self, call: Call) -> Result<Value, ClientError> {
        let what = call.what();
        let body = self.answer(call, OBJECT_BYTES_MAX).await?.body;
        serde_json::from_slice(&body).map_err(|source| ClientError::Decode {
            what,
            expected: "JSON",
            source: source.into(),
        })
    }

    /// Sends a request and reads its whole answer before the deadline.
    async fn answer(&self, call: Call, bytes_max: usize) -> Result<Answer, ClientError> {
        let what = call.what();
        let whole = async {
            let response = self.exchange(call).await?;
            let warnings = warnings(response.headers());
            Ok(Answer { body: read_whole(response, &what, bytes_max).await?, warnings })
        };
        match tokio::time::timeout(self.deadline, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut { what, after: self.deadline }),
        }
    }

    /// Sends a request; its answer must begin before the deadline and may last longer.
    async fn begin(&self, call: Call) -> Result<Response, ClientError> {
        let what = call.what();
        match tokio::time::timeout(self.deadline, self.exchange(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut { what, after: self.deadline }),
        }
    }

    /// Sends a request; an answer that is a refusal becomes an error.
    async fn exchange(&self, call: Call) -> Result<Response, ClientError> {
        let what = call.what();
        let request = self.request(call)?;
        let sent = self.transport.call(request).await;
        let response = sent.map_err(|source| ClientError::Transport { what: what.clone(), source })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read_whole(response, &what, OBJECT_BYTES_MAX).await?;
        Err(ClientError::Api(read_refusal(status, &body)))
    }

    /// The request as it goes out; whoever opens a stream of his own sends the same.
    pub fn request(&self, call: Call) -> Result<Request, ClientError> {
        let what = call.what();
        let mut request = http::Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::ACCEPT, &*call.accept)
            .header(header::USER_AGENT, &*self.user_agent);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(content_type) = call.content_type {
            request = request.header(header::CONTENT_TYPE, &*content_type);
        }
        if let Some(as_objects) = call.as_objects {
            request = request.extension(as_objects);
        }
        request.body(body_from(call.body)).map_err(|source| ClientError::Request { what, source: source.into() })
    }
}

fn collection(kind: &Kind, namespace: Option<&str>) -> String {
    kind.collection_path(namespace.map(segment).as_deref())
}

fn path(kind: &Kind, namespace: &str, name: &str, subresource: Option<&str>) -> String {
    let path = kind.object_path(&segment(namespace), &segment(name));
    match subresource {
        Some(subresource) => format!("{path}/{subresource}"),
        None => path,
    }
}

async fn read_whole(response: Response, what: &str, bytes_max: usize) -> Result<Bytes, ClientError> {
    let mut body = response.into_body();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| ClientError::Body { what: what.to_owned(), source })?;
        let Ok(chunk) = frame.into_data() else { continue };
        if first.len() + whole.len() + chunk.len() > bytes_max {
            return Err(ClientError::TooLarge { what: what.to_owned(), bytes_max });
        }
        // An answer of one chunk, the usual one, is not copied.
        if first.is_empty() && whole.is_empty() {
            first = chunk;
            continue;
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&chunk);
    }
    Ok(if first.is_empty() { whole.freeze() } else { first })
}

/// The refusal in an answer; a body that is no Status (a proxy's page) is quoted.
pub(crate) fn read_refusal(status: StatusCode, body: &[u8]) -> ApiError {
    const QUOTED_CHARS_MAX: usize = 256;
    let found = serde_json::from_slice::<Value>(body).ok().and_then(|status| ApiError::from_status(&status));
    found.unwrap_or_else(|| {
        let quoted: String = String::from_utf8_lossy(body).chars().take(QUOTED_CHARS_MAX).collect();
        let reason = match status.as_u16() {
            401 => Reason::Unauthorized,
            403 => Reason::Forbidden,
            404 => Reason::NotFound,
            409 => Reason::Conflict,
            410 => Reason::Gone,
            429 => Reason::TooManyRequests,
            503 => Reason::ServiceUnavailable,
            504 => Reason::Timeout,
            400..=499 => Reason::BadRequest,
            _ => Reason::InternalError,
        };
        ApiError::new(reason, format!("expected a Status, found {status}: {quoted}"))
    })
}

#[derive(Deserialize)]
struct WireList<'a> {
    metadata: WireListMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireListMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_from: Option<String>,
}

fn read_list(kind: &Kind, body: &[u8]) -> Result<List, windlass_stdx::BoxError> {
    let wire: WireList = serde_json::from_slice(body)?;
    let items = wire.items.unwrap_or_default();
    let items =
        items.into_iter().map(|raw| read_object(kind, Bytes::copy_from_slice(raw.get().as_bytes())).map(Arc::new));
    Ok(List {
        items: items.collect::<Result<_, _>>()?,
        revision: wire.metadata.resource_version.parse().unwrap_or(0),
        continue_from: wire.metadata.continue_from.unwrap_or_default(),
    })
}

/// Reads an object; one that does not say its kind (an item of a list need not) gets it from the request.
pub(crate) fn read_object(kind: &Kind, json: Bytes) -> Result<Object, windlass_api::object::ObjectError> {
    let object = Object::parse(json)?;
    if !object.header.kind().is_empty() {
        return Ok(object);
    }
    let start = object.json.iter().position(|byte| *byte == b'{').expect("an object begins with a brace") + 1;
    let mut named = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", kind.api_version(), kind.kind).into_bytes();
    named.extend_from_slice(&object.json[start..]);
    Object::parse(named.into())
}

#[cfg(test)]
mod tests {
    use super::{path, read_list, read_refusal};
    use http::StatusCode;
    use windlass_api::{Reason, kinds};

    #[test]
    fn an_item_without_kind_gets_it_from_the_list() {
        let body = br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"next"},
            "items":[{"metadata":{"name":"p","namespace":"a"},"spec":{"nodeName":"n"}}]}"#;
        let list = read_list(&kinds::POD, body).expect("a list");
        let header = &list.items[0].header;
        assert_eq!((list.revision, list.continue_from.as_str()), (7, "next"));
        assert_eq!((header.kind(), header.api_version(), header.node_name()), ("Pod", "v1", "n"));
    }

    #[test]
    fn a_list_may_have_null_items() {
        let list = read_list(&kinds::POD, br#"{"metadata":{"resourceVersion":"1"},"items":null}"#);
        assert!(list.expect("null is an empty list in Go").items.is_empty());
    }

    #[test]
    fn a_refusal_that_is_no_status_is_quoted() {
        let refusal = read_refusal(StatusCode::SERVICE_UNAVAILABLE, b"<html>busy");
        assert_eq!(refusal.reason, Reason::ServiceUnavailable);
        assert!(refusal.message.contains("<html>busy"), "{}", refusal.message);
    }

    #[test]
    fn a_hostile_name_stays_in_its_place() {
        let found = path(&kinds::POD, "a", "../../nodes/n?x", None);
        assert_eq!(found, "/api/v1/namespaces/a/pods/..%2F..%2Fnodes%2Fn%3Fx");
    }
}
