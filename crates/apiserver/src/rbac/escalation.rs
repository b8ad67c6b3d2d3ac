//! Who may write roles and bindings: nobody gives what they do not have.
//!
//! Rules
//!   E1 roles        what a role would allow, its writer must hold in the same place, or be allowed to `escalate` it
//!   E2 aggregation  a role that is made of others may come to hold anything: only who holds everything writes one
//!   E3 bindings     what a bound role allows, the binding's writer must hold, or be allowed to `bind` the role
//!   E4 unchanged    a write that leaves rights as they are needs none
//!   E5 masters      hold everything
//!
//! Source: authorization reference, "Restrictions on role creation or update", "… on role binding creation or update".

use serde_json::Value;
use windlass_api::{ApiError, Kind, kinds};

use crate::authorize::{Asked, AskedObject, may};
use crate::identity::GROUP_MASTERS;
use crate::rbac::rule::{Rule, missing, quoted};
use crate::server::Call;
use crate::write::text;

/// Whether `call` may write this Role or ClusterRole; `old` is null for a new one.
pub(crate) fn check_role(call: Call<'_>, old: &Value, role: &Value) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    let name = text(&role["metadata"], "name");
    let namespace = call.target.namespace.as_str();
    let keeps = !old.is_null() && old["rules"] == role["rules"] && old["aggregationRule"] == role["aggregationRule"];
    if keeps || call.who.is_in(GROUP_MASTERS) || is_allowed(call, "escalate", kind, namespace, name) {
        return Ok(());
    }
    check_held(call, namespace, &read_rules(&role["rules"])?, name)?;
    let aggregates = |role: &Value| role["aggregationRule"].is_object();
    if aggregates(role) || aggregates(old) {
        let everything = [Rule::about(&["*"], "*", &["*"]), Rule::about_paths(&["*"], &["*"])];
        if check_held(call, "", &everything, name).is_err() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(ApiError::forbidden(kind, name, why));
        }
    }
    Ok(())
}

/// Whether `call` may write this RoleBinding or ClusterRoleBinding; `old` is null for a new one.
pub(crate) fn check_binding(call: Call<'_>, old: &Value, binding: &Value) -> Result<(), ApiError> {
    let keeps = !old.is_null() && old["subjects"] == binding["subjects"] && old["roleRef"] == binding["roleRef"];
    if keeps || call.who.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    let role = &binding["roleRef"];
    let (kind, name, namespace) = (text(role, "kind"), text(role, "name"), call.target.namespace.as_str());
    let bound = match kind {
        "ClusterRole" => &kinds::CLUSTER_ROLE,
        "Role" if !namespace.is_empty() => &kinds::ROLE,
        _ => return Ok(()), // validation says what is wrong
    };
    if name.contains('/') || is_allowed(call, "bind", bound, namespace, name) {
        return Ok(());
    }
    let server = call.server;
    let rules = server.policy.look(&server.store, |policy| policy.rules_of_role(kind, name, namespace));
    let rules = rules.ok_or_else(|| ApiError::not_found(bound, name))?;
    check_held(call, namespace, &rules, text(&binding["metadata"], "name"))
}

fn is_allowed(call: Call<'_>, verb: &str, kind: &Kind, namespace: &str, name: &str) -> bool {
    let asked = AskedObject { verb, group: &kind.group, resource: &kind.plural, sub: "", namespace, name };
    may(call.server, call.who, &Asked::Object(asked)).is_ok()
}

/// Whether who asks holds all that `wanted` allows.
fn check_held(call: Call<'_>, namespace: &str, wanted: &[Rule], name: &str) -> Result<(), ApiError> {
    let Call { server, who, target, .. } = call;
    let (held, unread) = server.policy.look(&server.store, |policy| policy.rules_of(who, namespace));
    let mut lacking: Vec<String> = missing(&held, wanted).iter().map(Rule::shown).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    lacking.sort();
    lacking.dedup();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        who.name,
        quoted(&who.groups),
        lacking.join("\n")
    );
    if !unread.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", unread.join(", ")));
    }
    Err(ApiError::forbidden(&target.resource.kind, name, &why))
}

fn read_rules(rules: &Value) -> Result<Vec<Rule>, ApiError> {
    let rules: Option<Vec<Rule>> = serde_json::from_value(rules.clone())
        .map_err(|error| ApiError::bad_request(format!("expected a list of rules: {error}")))?;
    Ok(rules.unwrap_or_default())
}
