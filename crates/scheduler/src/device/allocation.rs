//! What a claim is given, as its status says it.
//!
//! Source: API reference, AllocationResult.

use serde_json::{Value, json};
use windlass_api::device::DeviceId;
use windlass_client::Key;

use super::AskedClaim;
use super::search::Pick;
use super::stock::Place;

/// What one claim is given.
#[derive(Debug, Clone)]
pub(crate) struct Allocation {
    /// The claim.
    pub(crate) key: Key,
    /// Its uid.
    pub(crate) uid: String,
    /// As it was seen.
    pub(crate) revision: u64,
    /// As they were seen.
    pub(crate) finalizers: Vec<String>,
    /// What its status will say.
    pub(crate) result: Value,
    /// The devices that it has for itself.
    pub(crate) devices: Vec<DeviceId>,
}

/// What a claim is given by these picks.
pub(super) fn of(asked: &AskedClaim, picks: &[Pick], node: &str) -> Allocation {
    let way = |pick: &Pick| &asked.spec.requests[pick.request].ways[pick.way];
    let results: Vec<Value> = picks
        .iter()
        .map(|pick| {
            let (id, way) = (pick.id(), way(pick));
            let mut result =
                json!({"request": way.full_name, "driver": id.driver, "pool": id.pool, "device": id.device});
            if way.is_admin {
                result["adminAccess"] = json!(true);
            }
            if !way.tolerations.is_empty() {
                result["tolerations"] = json!(way.tolerations);
            }
            result
        })
        .collect();
    let mut result = json!({"devices": {"results": results}});
    let config = config(asked, picks);
    if !config.is_empty() {
        result["devices"]["config"] = json!(config);
    }
    if let Some(selector) = selector(picks, node) {
        result["nodeSelector"] = selector;
    }
    Allocation {
        key: asked.key.clone(),
        uid: asked.claim.uid.clone(),
        revision: asked.claim.revision,
        finalizers: asked.claim.finalizers.clone(),
        result,
        devices: picks.iter().filter(|pick| !way(pick).is_admin).map(|pick| pick.id().clone()).collect(),
    }
}

/// What drivers are told: what the classes say, then what the claim does. Where a class is every request's, none is named.
fn config(asked: &AskedClaim, picks: &[Pick]) -> Vec<Value> {
    let requests = &asked.spec.requests;
    // The ways that were taken; a way that took nothing is none.
    let taken: Vec<_> = requests
        .iter()
        .enumerate()
        .filter_map(|(at, request)| Some(&request.ways[picks.iter().find(|pick| pick.request == at)?.way]))
        .collect();
    let mut out: Vec<Value> = Vec::new();
    for (at, way) in taken.iter().enumerate() {
        if taken[..at].iter().any(|before| before.class == way.class) {
            continue;
        }
        let of_class: Vec<&String> =
            taken.iter().filter(|other| other.class == way.class).map(|other| &other.full_name).collect();
        for config in &asked.classes[&way.class].config {
            let mut told = config.clone();
            told["source"] = json!("FromClass");
            if of_class.len() < requests.len() {
                told["requests"] = json!(of_class);
            }
            out.push(told);
        }
    }
    for config in &asked.spec.config {
        let named = config["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_about = |name: &str| named.iter().any(|found| *found == *name);
        let is_taken = requests.iter().any(|request| is_about(&request.name));
        if !named.is_empty() && !is_taken && !taken.iter().any(|way| is_about(&way.full_name)) {
            continue;
        }
        let mut told = config.clone();
        told["source"] = json!("FromClaim");
        out.push(told);
    }
    out
}

/// From which nodes all of it can be used; `None` is from everywhere.
fn selector(picks: &[Pick], node: &str) -> Option<Value> {
    let (mut labels, mut fields): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for pick in picks {
        match &pick.slice().place {
            Place::Node(_) => {
                let name = json!({"key": "metadata.name", "operator": "In", "values": [node]});
                return Some(json!({"nodeSelectorTerms": [{"matchFields": [name]}]}));
            }
            Place::Selected(_, written) => {
                // A slice has one term.
                let term = &written["nodeSelectorTerms"][0];
                for (all, field) in [(&mut labels, "matchExpressions"), (&mut fields, "matchFields")] {
                    let more = term[field].as_array().into_iter().flatten();
                    let more: Vec<Value> = more.filter(|found| !all.contains(found)).cloned().collect();
                    all.extend(more);
                }
            }
            Place::Everywhere | Place::Unknown => {}
        }
    }
    let mut term = json!({});
    for (all, field) in [(labels, "matchExpressions"), (fields, "matchFields")] {
        if !all.is_empty() {
            term[field] = json!(all);
        }
    }
    (term != json!({})).then(|| json!({"nodeSelectorTerms": [term]}))
}
