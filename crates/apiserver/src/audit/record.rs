//! What is noted of one request on its way, and told at each stage.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, Uri, request::Parts};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use windlass_api::codec::{self, Media, Validation};
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Body, BoxError, Response, World};

use super::Audit;
use super::event::{self, Facts, Peer};
use super::policy::{About, Asked, Level, Stage, Verdict};
use crate::answer::Payload;
use crate::decode;
use crate::identity::Identity;
use crate::request::{Route, Target};
use crate::write::text;

/// A request's identifier that a client gives; ours are as long as a uuid.
const ID_HEADER: &str = "audit-id";
const ID_CHARS_MAX: usize = 64;

/// The record of one request; without a log it notes nothing.
pub(crate) struct Record(Option<Box<Open>>);

struct Open {
    audit: Audit,
    world: World,
    state: Mutex<State>,
}

struct State {
    facts: Facts,
    verdict: Verdict,
    /// Whether it is known who asks for what.
    is_known: bool,
    is_done: bool,
}

impl Record {
    /// A record that notes nothing.
    pub fn off() -> Record {
        Record(None)
    }

    /// A request has come.
    pub fn begin(audit: Option<&Audit>, world: &World, parts: &Parts) -> Record {
        let Some(audit) = audit else { return Record::off() };
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let is_id =
            |id: &&str| !id.is_empty() && id.len() <= ID_CHARS_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
        let source: Option<IpAddr> = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let facts = Facts {
            id: header(ID_HEADER).filter(is_id).map_or_else(|| world.uuid(), str::to_owned),
            received: world.now(),
            uri: event::short(&parts.uri.to_string()),
            source,
            user_agent: event::short(header(USER_AGENT.as_str()).unwrap_or_default()),
            user: json!({}),
            ..Facts::default()
        };
        let state = State { facts, verdict: Verdict::default(), is_known: false, is_done: false };
        Record(Some(Box::new(Open { audit: audit.clone(), world: world.clone(), state: Mutex::new(state) })))
    }

    fn with(&self, note: impl FnOnce(&Open, &mut State)) {
        if let Some(open) = &self.0 {
            note(open, &mut open.state.lock().expect("nothing panics while holding a record"));
        }
    }

    /// Whether there is anything to note from this level on.
    fn wants(&self, level: Level) -> bool {
        let Some(open) = &self.0 else { return false };
        open.state.lock().expect("nothing panics while holding a record").verdict.level >= level
    }

    /// It is known who asks.
    pub fn proven(&self, who: &Identity) {
        self.with(|_, state| state.facts.user = event::user(who));
    }

    /// It is known who asks for what: the policy decides, and the first stage is told.
    pub fn about(&self, (proven, acting): (&Identity, Option<&Identity>), route: &Route, method: &Method, path: &str) {
        self.with(|open, state| {
            let who = acting.unwrap_or(proven);
            let verb = match route {
                Route::Target(target) => target.verb.as_str().to_owned(),
                Route::Endpoint(_) => method.as_str().to_lowercase(),
            };
            let about = match route {
                Route::Target(target) => about(target),
                Route::Endpoint(_) => About::Path(path),
            };
            let asked = Asked { user: &who.name, groups: &who.groups, verb: &verb, about };
            state.verdict = open.audit.policy().decide(&asked);
            state.facts.user = event::user(proven);
            state.facts.impersonated = acting.map_or(Value::Null, event::user);
            if let Route::Target(target) = route {
                state.facts.object = object(target);
            }
            state.facts.verb = verb;
            state.is_known = true;
            tell(open, state, Stage::RequestReceived);
        });
    }

    /// Whether the request was allowed, and why.
    pub fn decided(&self, is_allowed: bool, why: &dyn std::fmt::Display) {
        self.with(|_, state| {
            let decision = if is_allowed { "allow" } else { "forbid" };
            let annotations = &mut state.facts.annotations;
            annotations.insert("authorization.k8s.io/decision".to_owned(), json!(decision));
            annotations.insert("authorization.k8s.io/reason".to_owned(), json!(event::short(&why.to_string())));
        });
    }

    /// Something that the log is to hold about the request.
    pub fn noted(&self, key: &str, what: &str) {
        self.with(|_, state| {
            state.facts.annotations.insert(key.to_owned(), json!(event::short(what)));
        });
    }

    /// What was sent. A body that cannot be read is refused later, and is not told.
    pub fn sent(&self, target: &Target, headers: &HeaderMap, bytes: &Bytes) {
        if bytes.is_empty() || !self.wants(Level::Request) {
            return;
        }
        let media = decode::content_type(headers).ok().flatten();
        let tree = match Media::of_content_type(media) {
            Some(media) => {
                let decoded = codec::decode(media, bytes, target.resource.message.get(), Validation::Ignore);
                decoded.map(|decoded| decoded.value).ok()
            }
            // A patch in JSON.
            None => serde_json::from_slice(bytes).ok(),
        };
        self.with(|_, state| {
            let tree = tree.unwrap_or_default();
            state.facts.request = kept(&state.verdict, tree);
            if text(&state.facts.object, "name").is_empty() {
                let name = text(&state.facts.request["metadata"], "name").to_owned();
                if !name.is_empty() && state.facts.object.is_object() {
                    state.facts.object["name"] = json!(name);
                }
            }
        });
    }

    /// What comes back, where it is an object or a list of them.
    pub fn answered(&self, payload: &Payload) {
        if !self.wants(Level::RequestResponse) {
            return;
        }
        let tree = match payload {
            Payload::Object(object) => serde_json::from_slice(object).unwrap_or_default(),
            Payload::Tree(tree) => tree.clone(),
            Payload::List { objects, metadata } => {
                let items: Vec<Value> =
                    objects.clone().filter_map(|entry| serde_json::from_slice(entry.value()).ok()).collect();
                json!({"metadata": metadata, "items": items})
            }
            Payload::Ready(_) => return,
        };
        self.with(|_, state| state.facts.response = kept(&state.verdict, tree));
    }

    /// The request was refused.
    pub fn failed(&self, error: &ApiError, method: &Method, uri: &Uri) {
        self.with(|open, state| {
            state.facts.status = event::failure(error);
            if !state.is_known {
                // Nobody is proven, or the path is nothing: what is known decides.
                let verb = method.as_str().to_lowercase();
                let user = text(&state.facts.user, "username").to_owned();
                let groups = state.facts.user["groups"].as_array().into_iter().flatten();
                let groups: Vec<String> = groups.filter_map(|group| group.as_str().map(str::to_owned)).collect();
                let asked = Asked { user: &user, groups: &groups, verb: &verb, about: About::Path(uri.path()) };
                state.verdict = open.audit.policy().decide(&asked);
                // Who fails to prove who he is, is always told where anything is.
                if error.reason == Reason::Unauthorized && state.verdict.level == Level::None {
                    state.verdict.level = Level::Metadata;
                }
                state.facts.verb = verb;
                state.is_known = true;
                tell(open, state, Stage::RequestReceived);
            }
        });
    }

    /// The request panicked.
    pub fn panicked(&self) {
        self.with(|open, state| {
            tell(open, state, Stage::Panic);
            state.is_done = true;
        });
    }

    /// The answer is there. Of one that goes on, its beginning is told now and its end when it ends.
    pub fn complete(self, response: Response, goes_on: bool) -> Response {
        if self.0.is_none() {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        self.with(|open, state| {
            if let Ok(id) = HeaderValue::from_str(&state.facts.id) {
                parts.headers.insert(ID_HEADER, id);
            }
            if state.facts.status.is_null() {
                state.facts.status = json!({"metadata": {}, "code": parts.status.as_u16()});
            }
            if !state.is_done {
                tell(open, state, if goes_on { Stage::ResponseStarted } else { Stage::ResponseComplete });
            }
            state.is_done |= !goes_on;
        });
        let body = if goes_on { BodyExt::boxed_unsync(Audited { body, _record: self }) } else { body };
        Response::from_parts(parts, body)
    }
}

impl Drop for Record {
    /// The end of an answer that went on, however it ends.
    fn drop(&mut self) {
        self.with(|open, state| {
            if !std::mem::replace(&mut state.is_done, true) && state.is_known {
                tell(open, state, Stage::ResponseComplete);
            }
        });
    }
}

fn tell(open: &Open, state: &State, stage: Stage) {
    let verdict = &state.verdict;
    if verdict.level != Level::None && !verdict.omitted.contains(&stage) {
        open.audit.send(state.facts.line(verdict.level, stage, open.world.now()));
    }
}

fn kept(verdict: &Verdict, tree: Value) -> Value {
    if verdict.omits_managed_fields { event::without_managed_fields(tree) } else { tree }
}

fn about(target: &Target) -> About<'_> {
    let kind = &target.resource.kind;
    About::Object {
        group: &kind.group,
        resource: &kind.plural,
        sub: target.sub.map_or("", |sub| sub.as_str()),
        namespace: &target.namespace,
        name: &target.name,
    }
}

fn object(target: &Target) -> Value {
    let kind = &target.resource.kind;
    let mut object = json!({"resource": kind.plural, "apiVersion": kind.version});
    let sub = target.sub.map_or("", |sub| sub.as_str());
    let parts =
        [("apiGroup", &*kind.group), ("namespace", &target.namespace), ("name", &target.name), ("subresource", sub)];
    for (field, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
        object[field] = json!(value);
    }
    object
}

/// A body that goes on, with the record that ends with it.
pub(crate) struct Audited {
    body: Body,
    _record: Record,
}

impl http_body::Body for Audited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
