//! `pods/eviction`: a deletion that disruption budgets may refuse.
//!
//! Rules
//!   E1 running     only pods that run are budgeted: one that has ended, has not begun or is ending already goes at once
//!   E2 one budget  a pod that several budgets cover cannot be evicted
//!   E3 unhealthy   a pod that is not ready goes where its budget is met without it, or always if the budget says so
//!   E4 allowed     a budget that allows no disruption, or is not counted yet, refuses with 429
//!   E5 together    the budget is charged in the transaction that ends the pod: no race evicts one pod too many
//!   E6 told        an evicted pod carries the condition DisruptionTarget while it ends
//! Not here         counting pods and giving back what was charged (the budgets' controller)
//!
//! Source: API reference, policy/v1 Eviction; "API-initiated eviction"; KEP-3017 on unhealthy pods.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::error::Cause;
use windlass_api::field::{Errors, Path};
use windlass_api::selector::LabelSelector;
use windlass_api::{ApiError, Reason, kinds};
use windlass_store::{Entry, Expect, Op, Range};

use crate::admit;
use crate::answer::Answer;
use crate::decode;
use crate::delete::{DeleteOptions, remove_beside};
use crate::failure::read_failed;
use crate::key;
use crate::server::Call;
use crate::write::{self, WriteOptions, text};

const MESSAGE: &str = "k8s.io.api.policy.v1.Eviction";
const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Evictions of one budget that its controller has not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;
/// When to ask again while a budget is being counted.
const RETRY_SECONDS: u32 = 10;

pub(crate) async fn create(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let message = decode::message_named(MESSAGE)?;
    let (mut eviction, warnings) = decode::decode(call.headers, body, message, decode::validation(call.query)?)?;
    let name = text(&eviction["metadata"], "name");
    if !name.is_empty() && name != call.target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    write::complete(call, &mut eviction, ("policy/v1", "Eviction"));
    admit::part(call, "CREATE", &mut eviction).await?;
    let mut options = DeleteOptions::from_value(&eviction["deleteOptions"])?;
    options.dry_run |= WriteOptions::parse(call.query)?.dry_run;
    remove_beside(call, &options, |pod| charge(call, pod)).await?;
    Ok(Answer::tree(write::success(Value::Null)).code(StatusCode::CREATED).warn(warnings))
}

/// What is written beside the end of the pod; the pod learns why it ends.
fn charge(call: Call<'_>, pod: &mut Value) -> Result<Vec<Op>, ApiError> {
    if is_free(pod) {
        return Ok(Vec::new());
    }
    let mut covering = budgets(call, pod)?;
    let now = call.server.world.now_rfc3339();
    let ops = match (covering.pop(), covering.is_empty()) {
        (None, _) => Vec::new(),
        (Some(_), false) => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(Reason::InternalError, why));
        }
        (Some(budget), true) => charge_budget(call, pod, budget, &now)?,
    };
    tell(pod, &now);
    Ok(ops)
}

/// E1.
fn is_free(pod: &Value) -> bool {
    let is_ending = pod["metadata"].get("deletionTimestamp").is_some_and(Value::is_string);
    is_ending || matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed" | "Pending")
}

/// A stored budget.
struct Budget {
    key: String,
    entry: std::sync::Arc<Entry>,
    object: Value,
}

/// E2: the budgets that cover a pod.
fn budgets(call: Call<'_>, pod: &Value) -> Result<Vec<Budget>, ApiError> {
    let prefix = key::prefix(&kinds::POD_DISRUPTION_BUDGET, &call.target.namespace);
    let page = call.server.store.range(&Range::prefix(prefix)).map_err(read_failed)?;
    let mut covering = Vec::new();
    for entry in page.entries {
        let object = write::tree(&entry);
        let mut errors = Errors::new();
        let selector = LabelSelector::from_json(&object["spec"]["selector"], &Path::root(), &mut errors);
        if errors.is_empty() && selector.matches_json(&pod["metadata"]["labels"]) {
            let key =
                key::object(&kinds::POD_DISRUPTION_BUDGET, &call.target.namespace, text(&object["metadata"], "name"));
            covering.push(Budget { key, entry, object });
        }
    }
    Ok(covering)
}

/// E3 to E5.
fn charge_budget(call: Call<'_>, pod: &Value, budget: Budget, now: &str) -> Result<Vec<Op>, ApiError> {
    let unchanged = || Op::check(budget.key.as_str(), Expect::Revision(budget.entry.revision));
    let status = &budget.object["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if !is_ready(pod) {
        let met_without = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
        if text(&budget.object["spec"], "unhealthyPodEvictionPolicy") == "AlwaysAllow" || met_without {
            return Ok(vec![unchanged()]);
        }
    }
    check_budget(&budget.object)?;
    let mut charged = budget.object.clone();
    let left = count("disruptionsAllowed") - 1;
    charged["status"]["disruptionsAllowed"] = json!(left);
    let disrupted = &mut charged["status"]["disruptedPods"];
    if !disrupted.is_object() {
        *disrupted = json!({});
    }
    disrupted[call.target.name.as_str()] = json!(now);
    if left == 0 {
        disallow(&mut charged, now);
    }
    let template = write::template(&charged)?;
    Ok(vec![Op::put(budget.key.as_str(), template, Expect::Revision(budget.entry.revision))])
}

/// E4.
fn check_budget(budget: &Value) -> Result<(), ApiError> {
    let (metadata, status) = (&budget["metadata"], &budget["status"]);
    let name = text(metadata, "name");
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") < metadata["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refusal(why, RETRY_SECONDS));
    }
    let forbid = |why: &str| ApiError::forbidden(&kinds::POD_DISRUPTION_BUDGET, name, why);
    if count("disruptionsAllowed") < 0 {
        return Err(forbid("pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().map_or(0, serde_json::Map::len) > DISRUPTED_PODS_MAX {
        return Err(forbid("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if count("disruptionsAllowed") == 0 {
        return Err(refusal(why_not(name, status), 0));
    }
    Ok(())
}

fn why_not(name: &str, status: &Value) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let failed = conditions
        .into_iter()
        .find(|condition| text(condition, "type") == "DisruptionAllowed" && text(condition, "reason") == "SyncFailed");
    match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            text(condition, "message")
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status["desiredHealthy"].as_i64().unwrap_or(0),
            status["currentHealthy"].as_i64().unwrap_or(0)
        ),
    }
}

fn refusal(why: String, retry_after_seconds: u32) -> ApiError {
    let mut error = ApiError::new(Reason::TooManyRequests, REFUSAL);
    error.details.retry_after_seconds = retry_after_seconds;
    error.details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() });
    error
}

/// The condition that says so as soon as nothing more may go.
fn disallow(budget: &mut Value, now: &str) {
    let generation = budget["metadata"]["generation"].clone();
    set_condition(
        budget,
        json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "lastTransitionTime": now, "observedGeneration": generation,
        }),
    );
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| text(condition, "type") == "Ready" && text(condition, "status") == "True")
}

/// E6.
fn tell(pod: &mut Value, now: &str) {
    set_condition(
        pod,
        json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now,
        }),
    );
}

fn set_condition(object: &mut Value, condition: Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    conditions.retain(|found| found["type"] != condition["type"]);
    conditions.push(condition);
}
