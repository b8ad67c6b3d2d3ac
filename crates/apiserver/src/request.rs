//! Path and verb become a request: which resource, which object, what to do.
//!
//! Rules
//!   R1 segments     each path segment is decoded once and must be a plain name: no `.`/`..`, no `/`, `%` or control
//!                   characters in any spelling, no empty segment; nothing else ever becomes part of a store key (A13)
//!   R2 verbs        the method and the shape of the path give the verb; exec, attach and port-forward are `create`
//!                   whatever the method, because they run things (KEP-2862)
//!   R3 unknown      a path that no kind and no endpoint has is 404, a known one with a wrong method 405
//!   R5 proxied      what follows `proxy` is not looked at: it is another server's path
//!   R4 old watches  `/api/v1/watch/…` watches what the path without `watch` names, a collection or one object
//!
//! Source: API concepts reference (resource URIs), apimachinery's rule for path segment names.

use std::sync::Arc;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use windlass_api::{ApiError, Reason, Registry, Resource, Subresource};

/// Longest query in bytes; selectors are the only long part (A10). Below the 64 KiB at which the HTTP library itself
/// refuses a whole URL.
pub const QUERY_BYTES_MAX: usize = 48 * 1024;
/// Most parameters in one query.
pub const QUERY_PARAMETERS_MAX: usize = 512;
/// Longest path segment: a name has at most 253 characters.
const SEGMENT_BYTES_MAX: usize = 253;
/// Most segments of a path that anything here is served under.
const SEGMENTS_MAX: usize = 12;

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The word authorization and its refusals use.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// A request about objects of a kind.
#[derive(Clone)]
pub(crate) struct Target {
    pub resource: Arc<Resource>,
    pub verb: Verb,
    /// Empty for cluster-scoped kinds and for all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    pub sub: Option<Subresource>,
}

/// A path that is served and is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Root,
    Livez(Option<String>),
    Readyz(Option<String>),
    Healthz(Option<String>),
    Version,
    Metrics,
    /// `/debug/starts/UID`
    Starts(String),
    Api,
    Apis,
    Group(String),
    GroupVersion(String, String),
    OpenApi,
    OpenApiV2,
    OpenApiGroup(String, String),
    /// `/.well-known/openid-configuration`
    OpenIdConfiguration,
    /// `/openid/v1/jwks`
    OpenIdKeys,
    Join,
    Backup,
}

/// What a path leads to.
pub(crate) enum Route {
    Target(Target),
    Endpoint(Endpoint),
}

/// The parameters of a query, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query. Kubernetes takes the first of repeated parameters.
    pub fn parse(uri: &Uri) -> Result<Query, ApiError> {
        let Some(text) = uri.query() else { return Ok(Query::default()) };
        if text.len() > QUERY_BYTES_MAX {
            let message = format!("expected a query of at most {QUERY_BYTES_MAX} bytes, found {}", text.len());
            return Err(ApiError::bad_request(message));
        }
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| ApiError::bad_request("the query is not percent-encoded UTF-8"))
        };
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if pairs.len() == QUERY_PARAMETERS_MAX {
                let message = format!("expected at most {QUERY_PARAMETERS_MAX} query parameters");
                return Err(ApiError::bad_request(message));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Query(pairs))
    }

    /// The first value of this parameter; empty values count as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// All values of this parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is there at all, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A flag: `true` or `1`; a flag without value is set.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.flag_if_set(name)?.unwrap_or(false))
    }

    /// A flag that may also be unsaid.
    pub fn flag_if_set(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some((_, value)) = self.0.iter().find(|(key, _)| key == name) else { return Ok(None) };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Some(false)),
            other => Err(ApiError::bad_request(format!("expected true or false for {name}, found {}", short(other)))),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("expected a whole number for {name}, found {}", short(text)))
                })
            })
            .transpose()
    }
}

/// A parameter as an error quotes it.
pub(crate) fn short(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a request line asks for.
pub(crate) fn parse(registry: &Registry, method: &Method, uri: &Uri, query: &Query) -> Result<Route, ApiError> {
    let segments = segments(split_proxied(uri.path()).0)?;
    let texts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match texts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        other => return endpoint(registry, method, other).map(Route::Endpoint),
    };
    target(registry, method, query, (group, version), rest).map(Route::Target)
}

/// R5: a path up to and with `proxy` of a pod, a service or a node, and the rest of it as it was sent.
pub(crate) fn split_proxied(path: &str) -> (&str, &str) {
    let Some(rest) = path.strip_prefix("/api/v1/") else { return (path, "") };
    let words: Vec<&str> = rest.splitn(6, '/').collect();
    let head = match words.as_slice() {
        ["namespaces", namespace, kind @ ("pods" | "services"), name, "proxy", ..] => {
            ["namespaces", namespace, kind, name, "proxy"].map(str::len).iter().sum::<usize>() + 4
        }
        ["nodes", name, "proxy", ..] => ["nodes", name, "proxy"].map(str::len).iter().sum::<usize>() + 2,
        _ => return (path, ""),
    };
    path.split_at_checked(path.len() - rest.len() + head).unwrap_or((path, ""))
}

/// R1: the words of a path.
pub(crate) fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    let path = path.strip_prefix('/').ok_or_else(not_found)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments = Vec::new();
    for raw in path.split('/') {
        if segments.len() == SEGMENTS_MAX {
            return Err(not_found());
        }
        segments.push(segment(raw)?);
    }
    Ok(segments)
}

fn segment(raw: &str) -> Result<String, ApiError> {
    let wrong =
        |why: &str| ApiError::bad_request(format!("expected a plain name in the path, found {}: {why}", short(raw)));
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| wrong("it is not UTF-8"))?;
    if decoded.is_empty() {
        return Err(not_found());
    }
    if decoded.len() > SEGMENT_BYTES_MAX {
        return Err(wrong("it is longer than 253 bytes"));
    }
    if decoded == "." || decoded == ".." {
        return Err(wrong("it leads to another directory"));
    }
    if decoded.chars().any(|character| character.is_control() || matches!(character, '/' | '\\' | '%' | ';')) {
        return Err(wrong("it holds a character that no name has"));
    }
    Ok(decoded.into_owned())
}

fn endpoint(registry: &Registry, method: &Method, segments: &[&str]) -> Result<Endpoint, ApiError> {
    let serves = |group: &str| registry.iter().any(|resource| resource.kind.group == group);
    let serves_version =
        |group: &str, version: &str| registry.iter().any(|r| r.kind.group == group && r.kind.version == version);
    let found = match segments {
        [] => Endpoint::Root,
        ["livez"] => Endpoint::Livez(None),
        ["livez", check] => Endpoint::Livez(Some((*check).to_owned())),
        ["readyz"] => Endpoint::Readyz(None),
        ["readyz", check] => Endpoint::Readyz(Some((*check).to_owned())),
        ["healthz"] => Endpoint::Healthz(None),
        ["healthz", check] => Endpoint::Healthz(Some((*check).to_owned())),
        ["version"] => Endpoint::Version,
        ["metrics"] => Endpoint::Metrics,
        ["debug", "starts", uid] => Endpoint::Starts((*uid).to_owned()),
        ["api"] => Endpoint::Api,
        ["apis"] => Endpoint::Apis,
        ["api", version] if serves_version("", version) => Endpoint::GroupVersion(String::new(), (*version).to_owned()),
        ["apis", group] if !group.is_empty() && serves(group) => Endpoint::Group((*group).to_owned()),
        ["apis", group, version] if serves_version(group, version) => {
            Endpoint::GroupVersion((*group).to_owned(), (*version).to_owned())
        }
        ["openapi", "v2"] => Endpoint::OpenApiV2,
        ["openapi", "v3"] => Endpoint::OpenApi,
        ["openapi", "v3", "api", version] if serves_version("", version) => {
            Endpoint::OpenApiGroup(String::new(), (*version).to_owned())
        }
        ["openapi", "v3", "apis", group, version] if serves_version(group, version) => {
            Endpoint::OpenApiGroup((*group).to_owned(), (*version).to_owned())
        }
        [".well-known", "openid-configuration"] => Endpoint::OpenIdConfiguration,
        ["openid", "v1", "jwks"] => Endpoint::OpenIdKeys,
        ["windlass", "v1", "join"] => Endpoint::Join,
        ["windlass", "v1", "backup"] => Endpoint::Backup,
        _ => return Err(not_found()),
    };
    let is_allowed = match found {
        Endpoint::Join => *method == Method::POST,
        _ => *method == Method::GET || *method == Method::HEAD,
    };
    if is_allowed { Ok(found) } else { Err(method_not_allowed(method)) }
}

fn target(
    registry: &Registry,
    method: &Method,
    query: &Query,
    (group, version): (&str, &str),
    rest: &[&str],
) -> Result<Target, ApiError> {
    let (only_watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // A namespace itself and its own subresources, not something in it.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (*plural, "", None),
        [plural, name] => (*plural, *name, None),
        [plural, name, sub] => (*plural, *name, Some(*sub)),
        _ => return Err(not_found()),
    };
    let resource = registry.get(group, version, plural).ok_or_else(not_found)?.clone();
    if !resource.kind.namespaced && !namespace.is_empty() {
        return Err(not_found());
    }
    if resource.kind.namespaced && namespace.is_empty() && !name.is_empty() {
        return Err(not_found());
    }
    let sub = match sub {
        None => None,
        Some(text) => {
            let found = resource.subresources.iter().copied().find(|own| own.as_str() == text);
            Some(found.ok_or_else(not_found)?)
        }
    };
    let across_namespaces = resource.kind.namespaced && namespace.is_empty();
    if only_watch {
        let verb = match sub {
            None if *method == Method::GET => Verb::Watch,
            None => return Err(method_not_allowed(method)),
            Some(_) => return Err(not_found()),
        };
        return Ok(Target { resource, verb, namespace: namespace.to_owned(), name: name.to_owned(), sub });
    }
    let verb = verb(method, query, name.is_empty(), across_namespaces, sub)?;
    if sub.is_none() && !resource.verbs.words().contains(&verb.as_str()) {
        return Err(method_not_allowed(method));
    }
    Ok(Target { resource, verb, namespace: namespace.to_owned(), name: name.to_owned(), sub })
}

fn verb(
    method: &Method,
    query: &Query,
    is_collection: bool,
    across_namespaces: bool,
    sub: Option<Subresource>,
) -> Result<Verb, ApiError> {
    if let Some(sub) = sub {
        return sub_verb(method, sub);
    }
    let watch = *method == Method::GET && query.flag("watch")?;
    match (method.as_str(), is_collection) {
        ("GET", true) if watch => Ok(Verb::Watch),
        ("GET", true) => Ok(Verb::List),
        ("GET", false) => Ok(Verb::Get),
        ("POST", true) if !across_namespaces => Ok(Verb::Create),
        ("DELETE", true) if !across_namespaces => Ok(Verb::DeleteCollection),
        ("PUT", false) => Ok(Verb::Update),
        ("PATCH", false) => Ok(Verb::Patch),
        ("DELETE", false) => Ok(Verb::Delete),
        _ => Err(method_not_allowed(method)),
    }
}

fn sub_verb(method: &Method, sub: Subresource) -> Result<Verb, ApiError> {
    use Subresource::{
        Approval, Attach, Binding, EphemeralContainers, Eviction, Exec, Finalize, Log, PortForward, Proxy, Resize,
        Scale, Status, Token,
    };
    match (method.as_str(), sub) {
        ("GET", Status | Scale | Log | EphemeralContainers | Resize | Approval) => Ok(Verb::Get),
        ("PUT", Status | Scale | Finalize | EphemeralContainers | Resize | Approval) => Ok(Verb::Update),
        ("PATCH", Status | Scale | EphemeralContainers | Resize | Approval) => Ok(Verb::Patch),
        ("GET" | "HEAD" | "OPTIONS", Proxy) => Ok(Verb::Get),
        ("POST", Proxy) => Ok(Verb::Create),
        ("PUT", Proxy) => Ok(Verb::Update),
        ("PATCH", Proxy) => Ok(Verb::Patch),
        ("DELETE", Proxy) => Ok(Verb::Delete),
        ("POST", Binding | Eviction | Token) | ("GET" | "POST", Exec | Attach | PortForward) => Ok(Verb::Create),
        _ => Err(method_not_allowed(method)),
    }
}

/// The 404 of a path that leads nowhere.
pub(crate) fn not_found() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

fn method_not_allowed(method: &Method) -> ApiError {
    ApiError::new(
        Reason::MethodNotAllowed,
        format!("the server does not allow this method on the requested resource: {method}"),
    )
}
