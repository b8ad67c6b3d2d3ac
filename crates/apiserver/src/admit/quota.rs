//! Quotas: what all objects of a namespace use together stays within what may be used.
//!
//! Rules
//!   Q1 together   `status.used` grows in the transaction that makes an object or makes it use more; it expects the
//!                 quota as it was read, so that no race lets the sum exceed the bound
//!   Q2 bound      a write that would exceed `status.hard` is refused; using less is always allowed
//!   Q3 said       a pod says how much it uses of what is bounded
//!   Q4 unknown    a quota that was not counted yet bounds what its spec bounds to nothing
//!   Q5 counted    who writes a quota's status says what the bounds are; what is used the server counts itself, and again
//!                 if anything was added meanwhile
//!   Q6 from now   the transaction that makes a quota writes its namespace anew, so that none that began without the
//!                 quota ends beside it
//!
//! What is given back is counted by the controller's next write of the status, not here: until then a quota counts too
//! much, never too little.
//! Source: admission controllers reference, ResourceQuota; "Resource Quotas".

use serde_json::{Value, json};
use windlass_api::quantity::Quantity;
use windlass_api::quota::{self, Amounts};
use windlass_api::{ApiError, Kind, Verbs, kinds};
use windlass_store::{Entry, Expect, Op, Range};

use crate::failure::read_failed;
use crate::key;
use crate::server::Call;
use crate::write::{self, text};

/// Kinds whose objects use more than their number.
const WEIGHED: [&str; 3] = ["persistentvolumeclaims", "pods", "services"];

/// Charges a new object.
pub(super) fn create(call: Call<'_>, object: &Value) -> Result<Vec<Op>, ApiError> {
    charge(call, &Value::Null, object)
}

/// Charges what a changed object uses more.
pub(super) fn update(call: Call<'_>, old: &Value, object: &Value) -> Result<Vec<Op>, ApiError> {
    charge(call, old, object)
}

/// Q1 to Q4.
fn charge(call: Call<'_>, old: &Value, object: &Value) -> Result<Vec<Op>, ApiError> {
    let target = call.target;
    let kind = &target.resource.kind;
    // Events tell of refusals, among others: they are never refused themselves.
    if !kind.namespaced || kind.plural == "events" {
        return Ok(Vec::new());
    }
    let range = Range::prefix(key::prefix(&kinds::RESOURCE_QUOTA, &target.namespace));
    let quotas = call.server.store.range(&range).map_err(read_failed)?.entries;
    let mut ops = Vec::new();
    for entry in &quotas {
        let mut quota = write::tree(entry);
        match add(&mut quota, kind, old, object) {
            Ok(false) => {}
            Ok(true) => ops.push(Op::put(entry.key(), write::template(&quota)?, Expect::Revision(entry.revision))),
            Err(why) => return Err(ApiError::forbidden(kind, text(&object["metadata"], "name"), &why)),
        }
    }
    Ok(ops)
}

/// Adds what an object uses more than before to a quota; whether there was anything to add, or why it may not be.
fn add(quota: &mut Value, kind: &Kind, old: &Value, object: &Value) -> Result<bool, String> {
    let name = text(&quota["metadata"], "name").to_owned();
    let uses = |quota: &Value, object: &Value| {
        let is_counted = !object.is_null() && quota::counts(quota, kind, object);
        if is_counted { quota::usage(kind, object) } else { Amounts::new() }
    };
    let (before, after) = (uses(quota, old), uses(quota, object));
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
    let is_more = |name: &&String| of(&after, name) > of(&before, name);
    let wanted = read(&quota["spec"]["hard"]);
    let bounds = read(&quota["status"]["hard"]);
    let unknown: Vec<&str> =
        wanted.keys().filter(is_more).filter(|name| !bounds.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let is_new_pod = *kind == kinds::POD && old.is_null() && !after.is_empty();
    if let Some(unsaid) = quota::unsaid(object, bounds.keys().map(String::as_str)).filter(|_| is_new_pod) {
        return Err(format!("failed quota: {name}: {unsaid}"));
    }
    let mut used = read(&quota["status"]["used"]);
    let (mut is_changed, mut exceeded) = (false, [Vec::new(), Vec::new(), Vec::new()]);
    for (resource, bound) in bounds.iter().filter(|(resource, _)| is_more(resource)) {
        let more = of(&after, resource) - of(&before, resource);
        let slot = used.entry(resource.clone()).or_insert(Quantity::ZERO);
        if *slot + more > *bound {
            for (list, amount) in exceeded.iter_mut().zip([more, *slot, *bound]) {
                list.push(format!("{resource}={amount}"));
            }
        }
        *slot = *slot + more;
        is_changed = true;
    }
    let [requested, had, limited] = exceeded.map(|list| list.join(","));
    if !requested.is_empty() {
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {had}, limited: {limited}"));
    }
    if is_changed {
        quota["status"]["used"] = show(&used);
    }
    Ok(is_changed)
}

/// Q5: counts what is used of each bound in a quota's new status.
pub(super) fn count(call: Call<'_>, quota: &mut Value) -> Result<(), ApiError> {
    let bounds = read(&quota["status"]["hard"]);
    if !quota["status"].is_object() {
        return Ok(());
    }
    let mut used: Amounts = bounds.keys().map(|resource| (resource.clone(), Quantity::ZERO)).collect();
    let served = call.server.served();
    let counted = served
        .registry
        .iter()
        .filter(|resource| resource.kind.namespaced && resource.verbs == Verbs::All && resource.stored.is_none());
    for resource in counted {
        let kind = &resource.kind;
        let is_weighed = kind.group.is_empty() && WEIGHED.contains(&kind.plural.as_ref());
        let number = quota::usage(kind, &Value::Null);
        if !is_weighed && !number.keys().any(|name| bounds.contains_key(name)) {
            continue;
        }
        let range = Range::prefix(key::prefix(kind, &call.target.namespace));
        for entry in call.server.store.range(&range).map_err(read_failed)?.entries {
            for (resource, amount) in uses(quota, kind, &entry) {
                if let Some(slot) = used.get_mut(&resource) {
                    *slot = *slot + amount;
                }
            }
        }
    }
    quota["status"]["used"] = show(&used);
    Ok(())
}

fn uses(quota: &Value, kind: &Kind, entry: &Entry) -> Amounts {
    let object = write::tree(entry);
    if quota::counts(quota, kind, &object) { quota::usage(kind, &object) } else { Amounts::new() }
}

fn read(amounts: &Value) -> Amounts {
    let amounts = amounts.as_object().into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount).ok()?))).collect()
}

fn show(amounts: &Amounts) -> Value {
    Value::Object(amounts.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))).collect())
}

#[cfg(test)]
mod tests {
    use super::add;
    use serde_json::{Value, json};
    use windlass_api::kinds;

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    #[test]
    fn q2_the_sum_stays_within_the_bound() {
        let mut bounded =
            quota(json!({"requests.cpu": "2", "pods": "5"}), json!({"requests.cpu": "1500m", "pods": "1"}));
        assert_eq!(add(&mut bounded, &kinds::POD, &Value::Null, &pod("500m")), Ok(true));
        assert_eq!(bounded["status"]["used"], json!({"requests.cpu": "2", "pods": "2"}));
        let expected = "exceeded quota: q, requested: requests.cpu=100m, used: requests.cpu=2, limited: requests.cpu=2";
        assert_eq!(add(&mut bounded, &kinds::POD, &Value::Null, &pod("100m")), Err(expected.to_owned()));
        assert_eq!(add(&mut bounded, &kinds::POD, &pod("500m"), &pod("100m")), Ok(false), "less is always allowed");
    }

    #[test]
    fn q3_and_q4_what_is_bounded_is_said_and_counted() {
        let mut bounded = quota(json!({"limits.cpu": "2"}), json!({}));
        let expected = "failed quota: q: must specify limits.cpu for: c";
        assert_eq!(add(&mut bounded, &kinds::POD, &Value::Null, &pod("1")), Err(expected.to_owned()));
        let mut new = quota(json!({"pods": "2"}), json!({}));
        new["status"] = json!({});
        let expected = "status unknown for quota: q, resources: pods";
        assert_eq!(add(&mut new, &kinds::POD, &Value::Null, &pod("1")), Err(expected.to_owned()));
        assert_eq!(
            add(&mut new, &kinds::SECRET, &Value::Null, &json!({})),
            Ok(false),
            "what it does not bound is free"
        );
    }
}
