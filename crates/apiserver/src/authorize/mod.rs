//! Who may do what, asked once per request, and by reviews and impersonation for others.
//!
//! Rules, first match decides
//!   R1 everybody     reads /livez, /readyz, /healthz and /version, and may knock at the join endpoint (its token decides)
//!   R2 masters       `system:masters` may do everything
//!   R3 nodes         a node's agent may do what it needs for the pods bound to it (`node`); what it may write in its own
//!                    objects is narrowed further when the object is known (`admit`)
//!   R4 roles         what roles and bindings allow (`rbac`)
//!   R5 nobody else   403 with Kubernetes' sentence; 401 is for proofs that fail, not for absent ones
//!
//! Source: authorization reference, "Determine the request verb" and the request attributes.

mod graph;
mod node;

use std::fmt;

use windlass_api::selector::FieldSelector;
use windlass_api::{ApiError, Reason, kinds};

pub(crate) use graph::{Graph, names_objects};

use crate::identity::{GROUP_AUTHENTICATED, GROUP_MASTERS, Identity};
use crate::rbac::{Grant, Verdict};
use crate::request::{Endpoint, Query, Route, Target, Verb};
use crate::server::Server;

/// What somebody wants to do.
pub(crate) enum Asked<'a> {
    /// Something with objects.
    Object(AskedObject<'a>),
    /// Something with a path that is no object; the verb is the method in lower case.
    Path { verb: &'a str, path: &'a str },
}

/// What somebody wants to do with objects. Texts are empty where the request does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedObject<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// The plural.
    pub resource: &'a str,
    pub sub: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Why something is allowed.
pub(crate) enum Grounds {
    Everybody,
    Masters,
    Node,
    Role(Grant),
}

impl fmt::Display for Grounds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grounds::Everybody | Grounds::Masters | Grounds::Node => Ok(()),
            Grounds::Role(grant) => write!(out, "{grant}"),
        }
    }
}

impl Asked<'_> {
    /// The namespace that it happens in; empty for what is in none.
    pub fn namespace(&self) -> &str {
        match self {
            Asked::Object(object) => object.namespace,
            Asked::Path { .. } => "",
        }
    }
}

/// Whether `who` may do what the request asks for, and why; the refusal names it.
pub(crate) fn authorize(
    server: &Server,
    who: &Identity,
    route: &Route,
    query: &Query,
    (method, path): (&str, &str),
) -> Result<Grounds, ApiError> {
    match route {
        Route::Endpoint(endpoint) => {
            if is_public(endpoint) {
                return Ok(Grounds::Everybody);
            }
            let verb = method.to_lowercase();
            let allowed = may(server, who, &Asked::Path { verb: &verb, path });
            allowed.map_err(|_| refuse_path(who, method, path))
        }
        Route::Target(target) => {
            let selected = selected_name(who, target, query);
            let asked = asked_of(target, selected.as_deref().unwrap_or(&target.name));
            match may(server, who, &Asked::Object(asked)) {
                Ok(grounds) => Ok(grounds),
                Err(why) => Err(refuse_target(who, target, &asked, &why)),
            }
        }
    }
}

/// Whether `who` may do this, and why; or what could not be looked at.
pub(crate) fn may(server: &Server, who: &Identity, asked: &Asked<'_>) -> Result<Grounds, String> {
    if who.is_in(GROUP_MASTERS) {
        return Ok(Grounds::Masters);
    }
    if let (Some(node), Asked::Object(object)) = (who.node_name(), asked)
        && node::may(server, node, object)
    {
        return Ok(Grounds::Node);
    }
    match server.policy.look(&server.store, |policy| policy.decide(who, asked)) {
        Verdict::Allowed(grant) => Ok(Grounds::Role(grant)),
        Verdict::Denied(missing) if missing.is_empty() => Err(String::new()),
        Verdict::Denied(missing) => Err(format!("RBAC: {}", missing.join(", "))),
    }
}

/// Whether `who` may know that this path exists at all: strangers get 403 for every other path, so that 404s do not
/// tell them what is served.
pub(crate) fn may_see_unknown_paths(who: &Identity) -> bool {
    who.is_in(GROUP_AUTHENTICATED)
}

fn is_public(endpoint: &Endpoint) -> bool {
    use Endpoint::{Healthz, Join, Livez, Readyz, Version};
    matches!(endpoint, Livez(_) | Readyz(_) | Healthz(_) | Version | Join)
}

/// The name that a list or watch of one object selects: it is asked for like that object. A node's agent that lists what is
/// offered on one node asks for it by that node's name.
fn selected_name(who: &Identity, target: &Target, query: &Query) -> Option<String> {
    if !matches!(target.verb, Verb::List | Verb::Watch) || target.sub.is_some() {
        return None;
    }
    let fields = FieldSelector::parse(query.get("fieldSelector")?).ok()?;
    let by_node = who.node_name().is_some() && target.resource.kind == kinds::RESOURCE_SLICE;
    fields.required(if by_node { "spec.nodeName" } else { "metadata.name" }).map(str::to_owned)
}

fn asked_of<'a>(target: &'a Target, name: &'a str) -> AskedObject<'a> {
    let kind = &target.resource.kind;
    // A namespace itself counts as being in it, so that a role in it may be about it.
    let namespace = if *kind == kinds::NAMESPACE { &target.name } else { &target.namespace };
    AskedObject {
        verb: target.verb.as_str(),
        group: &kind.group,
        resource: &kind.plural,
        sub: target.sub.map_or("", |sub| sub.as_str()),
        namespace,
        name,
    }
}

fn refuse_target(who: &Identity, target: &Target, asked: &AskedObject<'_>, unread: &str) -> ApiError {
    let kind = &target.resource.kind;
    let mut why = refusal(who, asked);
    if !unread.is_empty() {
        why = format!("{why}: {unread}");
    }
    let mut refusal = ApiError::forbidden(kind, &target.name, &why);
    if target.name.is_empty() {
        refusal.message = format!("{} is forbidden: {why}", kind.qualified_plural());
    }
    refusal
}

/// The sentence of a 403 about objects.
pub(crate) fn refusal(who: &Identity, asked: &AskedObject<'_>) -> String {
    let resource = match asked.sub {
        "" => asked.resource.to_owned(),
        sub => format!("{}/{sub}", asked.resource),
    };
    let place = match asked.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let (user, verb, group) = (&who.name, asked.verb, asked.group);
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
}

/// The 403 of a path that is no object.
pub(crate) fn refuse_path(who: &Identity, method: &str, path: &str) -> ApiError {
    let shown: String = path.chars().take(256).collect();
    ApiError::new(
        Reason::Forbidden,
        format!("forbidden: User {:?} cannot {} path {shown:?}", who.name, method.to_lowercase()),
    )
}
