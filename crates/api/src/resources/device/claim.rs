//! What a claim asks for, whether written as one or as a template.
//!
//! Rules
//!   Q1 requests      have names of their own; each says what it wants in one way, or a few ways in order
//!   Q2 amounts       all that there are, or so many
//!   Q3 constraints   hold between requests that exist, by an attribute with a domain
//!   Q4 config        is for requests that exist
//! Source: API reference, resource.k8s.io/v1 ResourceClaimSpec; KEP-4381, KEP-4816.

use serde_json::{Value, json};

use super::super::check::{named, required_name};
use super::super::pod;
use super::super::tree::{Tree, fill_number, fill_text, items_mut};
use super::{CONFIGS_MAX, validate_attribute_name, validate_opaque, validate_selectors};
use crate::field::{Errors, Path};
use crate::name;

const REQUESTS_MAX: usize = 32;
/// Ways to meet one request.
const WAYS_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;
const ONE_WAY: &str = "exactly one of `exactly` or `firstAvailable` is required";
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Fills in a claim: a request is for one device unless it says otherwise.
pub(super) fn fill(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            fill_way(exactly);
        }
        items_mut(request, "firstAvailable").iter_mut().for_each(fill_way);
    }
}

fn fill_way(way: &mut Value) {
    fill_text(way, "allocationMode", "ExactCount");
    if way.text("allocationMode") == "ExactCount" {
        fill_number(way, "count", 1);
    }
    for toleration in items_mut(way, "tolerations") {
        fill_text(toleration, "operator", "Equal");
    }
}

/// Q1 to Q4.
pub(super) fn validate(spec: &Value, at: &Path, errors: &mut Errors) {
    let (devices, at) = (&spec["devices"], at.child("devices"));
    let (requests, path) = (devices.items("requests"), at.child("requests"));
    if requests.len() > REQUESTS_MAX {
        errors.too_many(&path, requests.len(), REQUESTS_MAX);
        return;
    }
    for (index, request) in requests.iter().enumerate() {
        let at = path.index(index);
        validate_name(request, &requests[..index], &at, errors);
        validate_request(request, &at, errors);
    }
    let (constraints, path) = (devices.items("constraints"), at.child("constraints"));
    if constraints.len() > CONSTRAINTS_MAX {
        errors.too_many(&path, constraints.len(), CONSTRAINTS_MAX);
    }
    for (index, constraint) in constraints.iter().enumerate().take(CONSTRAINTS_MAX) {
        let at = path.index(index);
        validate_names(constraint, requests, &at, errors);
        validate_constraint(constraint, &at, errors);
    }
    let (configs, path) = (devices.items("config"), at.child("config"));
    if configs.len() > CONFIGS_MAX {
        errors.too_many(&path, configs.len(), CONFIGS_MAX);
    }
    for (index, config) in configs.iter().enumerate().take(CONFIGS_MAX) {
        let at = path.index(index);
        validate_names(config, requests, &at, errors);
        validate_opaque(config, &at, errors);
    }
}

/// Q1.
fn validate_name(named: &Value, before: &[Value], at: &Path, errors: &mut Errors) {
    required_name(named, "name", name::label, at, errors);
    let text = named.text("name");
    if !text.is_empty() && before.iter().any(|before| before.text("name") == text) {
        errors.duplicate(&at.child("name"), text);
    }
}

/// Q1.
fn validate_request(request: &Value, at: &Path, errors: &mut Errors) {
    let (ways, path) = (request.items("firstAvailable"), at.child("firstAvailable"));
    match (request.is_set("exactly"), !ways.is_empty()) {
        (false, false) => errors.required(at, ONE_WAY),
        (true, true) => errors.invalid(at, Value::Null, &format!("{ONE_WAY}, but multiple fields are set")),
        (true, false) => validate_way(&request["exactly"], &at.child("exactly"), errors),
        (false, true) if ways.len() > WAYS_MAX => errors.too_many(&path, ways.len(), WAYS_MAX),
        (false, true) => {
            for (index, way) in ways.iter().enumerate() {
                let at = path.index(index);
                validate_name(way, &ways[..index], &at, errors);
                validate_way(way, &at, errors);
            }
        }
    }
}

/// Q2.
fn validate_way(way: &Value, at: &Path, errors: &mut Errors) {
    required_name(way, "deviceClassName", name::subdomain, at, errors);
    validate_selectors(way, at, errors);
    let (count, path) = (way.int("count").unwrap_or(0), at.child("count"));
    match way.text("allocationMode") {
        "All" if count != 0 => errors.invalid(&path, count, "must not be specified when allocationMode is 'All'"),
        "ExactCount" if count <= 0 => errors.invalid(&path, count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&at.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let tolerations = way.items("tolerations").len();
    if tolerations > TOLERATIONS_MAX {
        errors.too_many(&at.child("tolerations"), tolerations, TOLERATIONS_MAX);
    } else {
        pod::validate_tolerations(way, at, errors);
    }
}

/// Q3 and Q4: what is said of requests is said of those there are.
fn validate_names(owner: &Value, requests: &[Value], at: &Path, errors: &mut Errors) {
    let (names, path) = (owner.items("requests"), at.child("requests"));
    if names.len() > REQUESTS_MAX {
        errors.too_many(&path, names.len(), REQUESTS_MAX);
        return;
    }
    for (index, found) in names.iter().enumerate() {
        let (text, path) = (found.as_str().unwrap_or_default(), path.index(index));
        let (outer, inner) = text.split_once('/').map_or((text, None), |(outer, inner)| (outer, Some(inner)));
        named(name::label, outer, &path, errors);
        let request = requests.iter().find(|request| request.text("name") == outer);
        let has = |inner: &str| {
            request.is_some_and(|request| request.items("firstAvailable").iter().any(|way| way.text("name") == inner))
        };
        if request.is_none() || inner.is_some_and(|inner| !has(inner)) {
            errors.invalid(&path, text, NO_REQUEST);
        }
        if names[..index].contains(found) {
            errors.duplicate(&path, text);
        }
    }
}

/// Q3.
fn validate_constraint(constraint: &Value, at: &Path, errors: &mut Errors) {
    match (constraint.is_set("matchAttribute"), constraint.is_set("distinctAttribute")) {
        (false, false) => errors.required(at, "exactly one of matchAttribute or distinctAttribute must be set"),
        (true, true) => {
            let detail = "matchAttribute and distinctAttribute cannot be set simultaneously";
            errors.invalid(at, json!(constraint), detail);
        }
        (is_match, _) => {
            let field = if is_match { "matchAttribute" } else { "distinctAttribute" };
            validate_attribute_name(constraint.text(field), true, &at.child(field), errors);
        }
    }
}
