//! Aggregated APIs: versions of groups that another server serves, behind this one's address and permissions.
//!
//! Rules
//!   A1 named       an APIService with a service hands its group and version over; what this server serves itself it keeps
//!   A2 allowed     this server decides who may, by the same roles; the other one is told who asks, in `X-Remote-*` headers
//!                  that it trusts because of our certificate, and that nobody else can send through us
//!   A3 available   what is not available is 503 at once (`availability` says when it is)
//!   A4 found       its groups, resources and OpenAPI are in this server's own documents (`documents`)
//!   A5 carried     requests, streams and watches, as `remote::forward` carries them
//!
//! Not here         connections kept between requests · objects in the audit log, which tells
//!                  of these requests by their path
//! Source: API reference, apiregistration.k8s.io/v1 APIService; Kubernetes "Configure the Aggregation Layer".

pub(crate) mod availability;
pub(crate) mod documents;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use http::header::{HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Body, Response};
use windlass_store::Entry;

use crate::authorize::{Asked, AskedObject, may, refusal, refuse_path};
use crate::failure::later;
use crate::follow::Picture;
use crate::identity::Identity;
use crate::remote::forward::{Sent, forward, passed, unreachable};
use crate::remote::{Remote, Trust};
use crate::request::{self, Query};
use crate::server::Server;
use crate::write::{text, tree};
use documents::Found;

/// What of an extra field's name a header's name may hold as it is.
const HEADER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Starts the names of headers that say who asks.
const WHO: &str = "x-remote-";

/// One aggregated API.
pub(crate) struct Aggregated {
    pub name: String,
    pub group: String,
    pub version: String,
    pub is_available: bool,
    /// The condition `Available`, or null.
    condition: Value,
    link: Arc<Link>,
}

/// How one is reached; kept as long as its spec is the same.
struct Link {
    spec: Value,
    remote: OnceLock<Remote>,
    /// What it said of itself when it was last asked.
    found: Mutex<Option<Arc<Found>>>,
}

impl Aggregated {
    fn read(entry: &Entry, before: Option<&Arc<Aggregated>>) -> Option<Aggregated> {
        let object = tree(entry);
        let spec = object["spec"].clone();
        if !spec["service"].is_object() {
            return None;
        }
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let condition = conditions.find(|condition| condition["type"] == "Available").cloned().unwrap_or_default();
        let kept = before.map(|before| before.link.clone()).filter(|link| link.spec == spec);
        let link = || Arc::new(Link { spec: spec.clone(), remote: OnceLock::new(), found: Mutex::default() });
        Some(Aggregated {
            name: text(&object["metadata"], "name").to_owned(),
            group: text(&spec, "group").to_owned(),
            version: text(&spec, "version").to_owned(),
            is_available: condition["status"] == "True",
            condition,
            link: kept.unwrap_or_else(link),
        })
    }

    /// The other server. We prove to it who we are.
    fn remote(&self, server: &Server) -> &Remote {
        self.link.remote.get_or_init(|| {
            let spec = &self.link.spec;
            let trust = match spec["insecureSkipTLSVerify"] == true {
                true => Trust::Anyone,
                false => Trust::of_bundle(text(spec, "caBundle")),
            };
            let credential = server.config.pki.as_ref().map(|pki| pki.front_proxy());
            let credential = credential.and_then(|made| {
                made.inspect_err(|error| tracing::warn!(%error, "aggregated APIs cannot be told who asks")).ok()
            });
            Remote::of_service(&spec["service"], trust).proving(credential.map(Arc::new))
        })
    }

    /// What it said of itself.
    fn found(&self) -> Option<Arc<Found>> {
        self.link.found.lock().expect("nothing panics while holding what was found").clone()
    }
}

/// All that there are, by the key of their APIService.
#[derive(Default)]
pub(crate) struct All(BTreeMap<String, Arc<Aggregated>>);

impl Picture for All {
    fn prefixes() -> &'static [&'static str] {
        &["o/apiservices.apiregistration.k8s.io/"]
    }

    fn put(&mut self, entry: &Entry) {
        let read = Aggregated::read(entry, self.0.get(entry.key()));
        match read {
            Some(read) => self.0.insert(entry.key().to_owned(), Arc::new(read)),
            None => self.0.remove(entry.key()),
        };
    }

    fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// Those that there are now, by name; A1.
pub(crate) fn all(server: &Server) -> Vec<Arc<Aggregated>> {
    let all: Vec<Arc<Aggregated>> =
        server.aggregated.look(&server.store, |all| all.0.values().cloned().collect::<Vec<_>>());
    if all.is_empty() {
        return all;
    }
    let served = server.served();
    let is_own = |api: &Arc<Aggregated>| {
        served.registry.iter().any(|row| row.kind.group == api.group && row.kind.version == api.version)
    };
    all.into_iter().filter(|api| !is_own(api)).collect()
}

/// The aggregated API that a path is about.
pub(crate) fn of_path(server: &Server, path: &str) -> Option<Arc<Aggregated>> {
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, version) = match words.as_slice() {
        ["apis", group, version, ..] | ["openapi", "v3", "apis", group, version] => (*group, *version),
        _ => return None,
    };
    all(server).into_iter().find(|api| api.group == group && api.version == version)
}

/// Answers a request for an aggregated API.
pub(crate) async fn serve(
    server: &Arc<Server>,
    who: &Identity,
    (api, parts): (&Aggregated, &Parts),
    (body, upgrade): (Body, Option<OnUpgrade>),
) -> Result<Response, ApiError> {
    let query = Query::parse(&parts.uri)?;
    authorize(server, who, parts, &query)?;
    if !api.is_available {
        return Err(later(Reason::ServiceUnavailable, "service unavailable"));
    }
    let permit = server.lanes.watch(who)?;
    let remote = api.remote(server);
    let mut told = parts.clone();
    // What the client calls of one hop goes first: it must not take away who it is.
    told.headers = passed(&parts.headers);
    if let Some(protocol) = parts.headers.get(UPGRADE) {
        told.headers.insert(UPGRADE, protocol.clone());
    }
    tell(&mut told.headers, who)?;
    let sender = remote.connect(server).await.map_err(|error| unreachable(&error))?;
    let host = remote.host();
    let sent = Sent { parts: &told, path: parts.uri.path(), host: &host, prefix: "" };
    forward(server, sent, (sender, permit), (body, upgrade)).await
}

/// A2: may `who` do what the path and method say.
fn authorize(server: &Server, who: &Identity, parts: &Parts, query: &Query) -> Result<(), ApiError> {
    let path = parts.uri.path();
    let segments = request::segments(path)?;
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["apis", group, _, rest @ ..] = words.as_slice() else { return by_path(server, who, &parts.method, path) };
    let (is_watched, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let [resource, rest @ ..] = rest else { return by_path(server, who, &parts.method, path) };
    let (name, sub) = (rest.first().copied().unwrap_or_default(), rest.get(1).copied().unwrap_or_default());
    let is_watched = is_watched || query.flag("watch")?;
    let verb = match (parts.method.as_str(), name.is_empty()) {
        ("GET" | "HEAD", true) if is_watched => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    };
    let asked = AskedObject { verb, group, resource, sub, namespace, name };
    may(server, who, &Asked::Object(asked)).map(|_| ()).map_err(|_| {
        let shown = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{resource}.{group}{shown} is forbidden: {}", refusal(who, &asked));
        ApiError::new(Reason::Forbidden, message)
    })
}

/// The same for a path that is no object.
pub(crate) fn by_path(server: &Server, who: &Identity, method: &Method, path: &str) -> Result<(), ApiError> {
    let verb = method.as_str().to_lowercase();
    let allowed = may(server, who, &Asked::Path { verb: &verb, path });
    allowed.map(|_| ()).map_err(|_| refuse_path(who, method.as_str(), path))
}

/// A2: says who asks, and takes out what anybody else said of that.
fn tell(headers: &mut HeaderMap, who: &Identity) -> Result<(), ApiError> {
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(WHO)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| ApiError::bad_request("the user's name does not fit into a header"))
    };
    headers.insert(HeaderName::from_static("x-remote-user"), value(&who.name)?);
    if !who.uid.is_empty() {
        headers.insert(HeaderName::from_static("x-remote-uid"), value(&who.uid)?);
    }
    for group in &who.groups {
        headers.append(HeaderName::from_static("x-remote-group"), value(group)?);
    }
    for (key, values) in &who.extra {
        let name = format!("{WHO}extra-{}", utf8_percent_encode(key, HEADER)).to_lowercase();
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(ApiError::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::tell;
    use crate::identity::Identity;
    use http::HeaderMap;
    use http::header::HeaderName;

    #[test]
    fn a2_nobody_but_this_server_says_who_asks() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-extra-scopes", "accept"] {
            headers.append(HeaderName::from_static(name), "root".parse().expect("a header value"));
        }
        let mut who = Identity::new("eve", ["dev".to_owned()]);
        who.extra.insert("example.com/Scope".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        tell(&mut headers, &who).expect("a plain name");
        let all = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("accept")), (vec!["eve"], vec!["root"]));
        assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fscope"), ["a", "b"]);
        assert!(all("x-remote-extra-scopes").is_empty());
    }
}
