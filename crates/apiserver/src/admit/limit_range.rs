//! LimitRanges: how much one container, pod or claim of a namespace asks for, where it says nothing and at the extremes.
//!
//! Rules
//!   L1 defaults   a container that does not say what it requests or is limited to gets the range's defaults; the pod
//!                 notes that in an annotation
//!   L2 least      what is requested, and limited to, is at least the least
//!   L3 most       what is limited to, and requested, is at most the most
//!   L4 ratio      a limit is at most so many times its request
//!   L5 claims     a claim requests storage between least and most
//!
//! Source: admission controllers reference, LimitRanger; "Limit Ranges".

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_api::quantity::Quantity;
use windlass_api::resources::pod;
use windlass_api::{ApiError, kinds};
use windlass_store::Range;

use crate::failure::read_failed;
use crate::key;
use crate::server::Call;
use crate::write::{self, text};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

/// L1 to L4 for a new pod.
pub(super) fn admit_pod(call: Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    let limits = items(call)?;
    if limits.is_empty() {
        return Ok(());
    }
    give_defaults(&limits, object);
    check_pod(call, &limits, object)
}

/// L2 to L4 for a pod whose resources change.
pub(super) fn admit_resize(call: Call<'_>, object: &Value) -> Result<(), ApiError> {
    check_pod(call, &items(call)?, object)
}

fn check_pod(call: Call<'_>, limits: &[Value], object: &Value) -> Result<(), ApiError> {
    let mut wrong = Vec::new();
    for limit in limits {
        let spec = &object["spec"];
        match text(limit, "type") {
            "Container" => {
                for container in containers(spec) {
                    let of = |field: &str| pod::amounts(&container["resources"][field]);
                    check(limit, ("Container", &of("requests"), &of("limits")), &mut wrong);
                }
            }
            "Pod" => {
                let (requests, limits) = (pod::together(spec, "requests"), pod::together(spec, "limits"));
                check(limit, ("Pod", &requests, &limits), &mut wrong);
            }
            _ => {}
        }
    }
    refuse(call, object, wrong)
}

/// L5 for a new or changed claim.
pub(super) fn admit_claim(call: Call<'_>, object: &Value) -> Result<(), ApiError> {
    let requests = pod::amounts(&object["spec"]["resources"]["requests"]);
    let mut wrong = Vec::new();
    for limit in items(call)?.iter().filter(|limit| text(limit, "type") == "PersistentVolumeClaim") {
        for (word, field) in [("minimum", "min"), ("maximum", "max")] {
            for (name, bound) in pod::amounts(&limit[field]) {
                let Some(asked) = requests.get(&name) else { continue };
                let is_beyond = if field == "min" { *asked < bound } else { *asked > bound };
                if is_beyond {
                    wrong.push(format!(
                        "{word} {name} usage per PersistentVolumeClaim is {bound}, but request is {asked}"
                    ));
                }
            }
        }
    }
    refuse(call, object, wrong)
}

/// What all ranges of the namespace say.
fn items(call: Call<'_>) -> Result<Vec<Value>, ApiError> {
    let range = Range::prefix(key::prefix(&kinds::LIMIT_RANGE, &call.target.namespace));
    let entries = call.server.store.range(&range).map_err(read_failed)?.entries;
    let limits = entries.iter().map(|entry| write::tree(entry)["spec"]["limits"].take());
    Ok(limits.filter_map(|limits| limits.as_array().cloned()).flatten().collect())
}

fn refuse(call: Call<'_>, object: &Value, mut wrong: Vec<String>) -> Result<(), ApiError> {
    let why = match wrong.len() {
        0 => return Ok(()),
        1 => wrong.remove(0),
        _ => format!("[{}]", wrong.join(", ")),
    };
    Err(ApiError::forbidden(&call.target.resource.kind, text(&object["metadata"], "name"), &why))
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// L1.
fn give_defaults(limits: &[Value], object: &mut Value) {
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        let found = object.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in found.into_iter().flatten().filter(|container| container.is_object()) {
            let name = text(container, "name").to_owned();
            for (field, source, what) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                let mut given = Vec::new();
                for limit in limits.iter().filter(|limit| text(limit, "type") == "Container") {
                    given.extend(fill(container, field, &limit[source]));
                }
                given.sort();
                if !given.is_empty() {
                    notes.push(format!("{} {what} for {word} {name}", given.join(", ")));
                }
            }
        }
    }
    if notes.is_empty() {
        return;
    }
    let metadata = write::metadata_mut(object);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(ANNOTATION.to_owned(), json!(format!("LimitRanger plugin set: {}", notes.join("; "))));
    }
}

/// Fills in amounts that a container does not say; gives their names.
fn fill(container: &mut Value, field: &str, defaults: &Value) -> Vec<String> {
    let mut given = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        if container["resources"][field].get(name).is_none() {
            container["resources"][field][name] = amount.clone();
            given.push(name.clone());
        }
    }
    given
}

/// L2 to L4.
fn check(limit: &Value, (kind, requests, limits): (&str, &Amounts, &Amounts), wrong: &mut Vec<String>) {
    for (name, least) in pod::amounts(&limit["min"]) {
        let head = format!("minimum {name} usage per {kind} is {least}, but");
        match requests.get(&name) {
            None => wrong.push(format!("{head} no request is specified")),
            Some(request) if *request < least => wrong.push(format!("{head} request is {request}")),
            Some(_) => {}
        }
        if let Some(limited) = limits.get(&name).filter(|limited| **limited < least) {
            wrong.push(format!("{head} limit is {limited}"));
        }
    }
    for (name, most) in pod::amounts(&limit["max"]) {
        let head = format!("maximum {name} usage per {kind} is {most}, but");
        match limits.get(&name) {
            None => wrong.push(format!("{head} no limit is specified")),
            Some(limited) if *limited > most => wrong.push(format!("{head} limit is {limited}")),
            Some(_) => {}
        }
        if let Some(request) = requests.get(&name).filter(|request| **request > most) {
            wrong.push(format!("{head} request is {request}"));
        }
    }
    for (name, most) in pod::amounts(&limit["maxLimitRequestRatio"]) {
        let head = format!("{name} max limit to request ratio per {kind} is {most}, but");
        let amount = |amounts: &Amounts| amounts.get(&name).map_or(0, |amount| amount.millis());
        match (amount(requests), amount(limits)) {
            (0, _) => wrong.push(format!("{head} no request is specified or request is 0")),
            (_, 0) => wrong.push(format!("{head} no limit is specified or limit is 0")),
            (request, limited) => {
                let ratio = limited as f64 / request as f64;
                if ratio > most.millis() as f64 / 1000.0 {
                    wrong.push(format!("{head} provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{check, give_defaults};
    use serde_json::{Value, json};
    use windlass_api::resources::pod;

    fn check_one(limit: Value, resources: Value, expected: &[&str]) {
        let mut wrong = Vec::new();
        let of = |field: &str| pod::amounts(&resources[field]);
        check(&limit, ("Container", &of("requests"), &of("limits")), &mut wrong);
        assert_eq!(wrong, expected);
    }

    #[test]
    fn l1_what_is_not_said_is_given_and_noted() {
        let limit =
            json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}});
        let mut pod =
            json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}});
        give_defaults(&[limit], &mut pod);
        let expected = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}});
        assert_eq!(pod["spec"]["containers"][0]["resources"], expected);
        assert_eq!(
            pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
    }

    #[test]
    fn l2_to_l4_neither_too_little_nor_too_much() {
        let limit = json!({"min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}});
        check_one(limit.clone(), json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "1"}}), &[]);
        check_one(
            limit.clone(),
            json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}}),
            &[
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2",
                "cpu max limit to request ratio per Container is 4, but provided ratio is 40.000000",
            ],
        );
        check_one(
            limit,
            json!({}),
            &[
                "minimum cpu usage per Container is 100m, but no request is specified",
                "maximum cpu usage per Container is 1, but no limit is specified",
                "cpu max limit to request ratio per Container is 4, but no request is specified or request is 0",
            ],
        );
    }
}
