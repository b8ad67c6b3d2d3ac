//! Who may do what: a small closed set of rules, asked once per request with the attributes RBAC will be asked with.
//!
//! Rules, first match decides
//!   R1 everybody     reads /livez, /readyz, /healthz and /version, and may knock at the join endpoint (its token decides)
//!   R2 masters       `system:masters` may do everything
//!   R3 nodes         a node's agent may do what [`node_may`] lists; what it may write in its own objects is
//!                    narrowed further when the object is known (`admit`)
//!   R4 known users   who proved a name reads discovery and the OpenAPI documents
//!   R5 nobody else   403 with Kubernetes' sentence; 401 is for proofs that fail, not for absent ones
//!
//! Not here    roles: RBAC replaces R3–R5 and is asked through the same function

use windlass_api::{ApiError, Reason, Subresource};

use crate::identity::{GROUP_AUTHENTICATED, GROUP_MASTERS, Identity};
use crate::request::{Endpoint, Route, Target, Verb};

/// Whether `who` may do this; the refusal names what was asked for.
pub(crate) fn authorize(who: &Identity, route: &Route, path: &str) -> Result<(), ApiError> {
    if is_public(route) || who.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    match route {
        Route::Target(target) => match who.node_name() {
            Some(node) if node_may(node, target) => Ok(()),
            _ => Err(refuse_target(who, target)),
        },
        Route::Endpoint(endpoint) if who.is_in(GROUP_AUTHENTICATED) && is_discovery(endpoint) => Ok(()),
        Route::Endpoint(_) => Err(refuse_path(who, "get", path)),
    }
}

/// Whether `who` may know that this path exists at all: strangers get 403 for every other path, so that 404s do not
/// tell them what is served.
pub(crate) fn may_see_unknown_paths(who: &Identity) -> bool {
    who.is_in(GROUP_AUTHENTICATED)
}

fn is_public(route: &Route) -> bool {
    use Endpoint::{Healthz, Join, Livez, Readyz, Version};
    matches!(route, Route::Endpoint(Livez(_) | Readyz(_) | Healthz(_) | Version | Join))
}

fn is_discovery(endpoint: &Endpoint) -> bool {
    use Endpoint::{Api, Apis, Group, GroupVersion, OpenApi, OpenApiGroup, Root};
    matches!(endpoint, Root | Api | Apis | Group(_) | GroupVersion(..) | OpenApi | OpenApiGroup(..))
}

/// What a node's agent needs.
fn node_may(node: &str, target: &Target) -> bool {
    use Verb::{Create, Delete, Get, List, Patch, Update, Watch};
    let kind = &target.resource.kind;
    let own = target.name == node;
    let write = matches!(target.verb, Update | Patch);
    match (kind.group.as_ref(), kind.plural.as_ref(), target.sub) {
        // Its own Node: registers itself, keeps its labels and status. The name of a created one is checked in `admit`.
        ("", "nodes", None) => matches!(target.verb, Get | List | Watch | Create) || (own && write),
        ("", "nodes", Some(Subresource::Status)) => own && (write || target.verb == Get),
        // Its lease.
        ("coordination.k8s.io", "leases", None) => {
            target.namespace == "kube-node-lease"
                && (target.verb == Create || (own && (write || matches!(target.verb, Get | Delete))))
        }
        // Pods: reads them; whether one is bound to this node is checked in `admit` before it is changed.
        ("", "pods", None) => matches!(target.verb, Get | List | Watch | Delete),
        ("", "pods", Some(Subresource::Status)) => write || target.verb == Get,
        ("", "events", None) => matches!(target.verb, Create | Patch | Update),
        // What pods are made of and where traffic goes.
        ("", "configmaps" | "secrets" | "services" | "namespaces" | "serviceaccounts", None)
        | ("discovery.k8s.io", "endpointslices", None) => matches!(target.verb, Get | List | Watch),
        _ => false,
    }
}

fn refuse_target(who: &Identity, target: &Target) -> ApiError {
    let kind = &target.resource.kind;
    let resource = match target.sub {
        Some(sub) => format!("{}/{}", kind.plural, sub.as_str()),
        None => kind.plural.to_string(),
    };
    let place = if target.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", target.namespace)
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        who.name,
        target.verb.as_str(),
        kind.group,
    );
    let mut refusal = ApiError::forbidden(kind, &target.name, &why);
    if target.name.is_empty() {
        refusal.message = format!("{} is forbidden: {why}", kind.qualified_plural());
    }
    refusal
}

/// The 403 of a path that is no object.
pub(crate) fn refuse_path(who: &Identity, method: &str, path: &str) -> ApiError {
    let shown: String = path.chars().take(256).collect();
    ApiError::new(
        Reason::Forbidden,
        format!("forbidden: User {:?} cannot {} path {shown:?}", who.name, method.to_lowercase()),
    )
}
