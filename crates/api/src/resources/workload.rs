//! What workloads share: a selector, a template of pods, and a number of them.
//!
//! Rules
//!   W1 selector   there, not empty, matches the template's labels, never changes
//!   W2 template   a valid pod that is restarted whenever it ends
//!   W3 numbers    not negative
//!   W4 warnings   are said of the template when it changes, and of a new name that pods are called after
//! Source: API reference, apps/v1.

use serde_json::Value;

use super::check::not_negative;
use super::pod;
use super::tree::{Tree, fill, part_mut};
use crate::field::{Errors, Path};
use crate::selector::LabelSelector;

/// Fills in what both kinds have in common.
pub(super) fn fill_spec(spec: &mut Value) {
    fill(spec, "replicas", 1);
    if let Some(template) = part_mut(spec, "template") {
        pod::fill_template(template);
    }
}

/// W3 for the numbers that most workloads have.
pub(super) fn validate_replicas(spec: &Value, errors: &mut Errors) {
    let at = Path::new("spec");
    not_negative(spec, "replicas", &at, errors);
    not_negative(spec, "minReadySeconds", &at, errors);
}

/// W1 and W2. `selector_of` and `template_of` are what refusals call the workload.
pub(super) fn validate_pods(spec: &Value, (selector_of, template_of): (&str, &str), errors: &mut Errors) {
    let at = Path::new("spec");
    validate_selector(spec, selector_of, &at, errors);
    validate_lasting_template(&spec["template"], template_of, &at.child("template"), errors);
}

/// W2.
pub(super) fn validate_lasting_template(template: &Value, of: &str, at: &Path, errors: &mut Errors) {
    pod::validate_template(template, at, errors);
    let path = at.child("spec");
    let policy = template["spec"].text("restartPolicy");
    if !policy.is_empty() && policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if template["spec"].is_set("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {of} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &detail);
    }
}

/// W1.
fn validate_selector(spec: &Value, of: &str, at: &Path, errors: &mut Errors) {
    let path = at.child("selector");
    if !spec["selector"].is_object() {
        errors.required(&path, "");
        return;
    }
    let before = errors.len();
    let selector = LabelSelector::from_json(&spec["selector"], &path, errors);
    if errors.len() > before {
        return;
    }
    if selector.is_everything() {
        errors.invalid(&path, spec["selector"].clone(), &format!("empty selector is invalid for {of}"));
        return;
    }
    validate_selected(&selector, &spec["template"], &at.child("template"), errors);
}

/// W1: a workload finds the pods that it makes.
pub(super) fn validate_selected(selector: &LabelSelector, template: &Value, at: &Path, errors: &mut Errors) {
    let labels = &template["metadata"]["labels"];
    if !selector.matches_json(labels) {
        let path = at.child("metadata").child("labels");
        errors.invalid(&path, labels.clone(), "`selector` does not match template `labels`");
    }
}

/// W1: pods that were selected once stay selected.
pub(super) fn validate_update(object: &Value, old: &Value, errors: &mut Errors) {
    let (now, then) = (&object["spec"]["selector"], &old["spec"]["selector"]);
    if !super::same::same(now, then) {
        errors.immutable(&Path::new("spec").child("selector"), now.clone());
    }
}

/// W3 for a status: none of these is negative.
pub(super) fn validate_not_negative(object: &Value, counts: &[&str], errors: &mut Errors) {
    let (status, at) = (&object["status"], Path::new("status"));
    for field in counts {
        not_negative(status, field, &at, errors);
    }
}

/// W3 for a status: its counts are not negative, and none is more than the first of them.
pub(super) fn validate_counts(object: &Value, counts: &[&str], errors: &mut Errors) {
    let (status, at) = (&object["status"], Path::new("status"));
    not_negative(status, "observedGeneration", &at, errors);
    for field in counts {
        not_negative(status, field, &at, errors);
    }
    let all = status.int(counts[0]).unwrap_or(0);
    for field in &counts[1..] {
        if let Some(count) = status.int(field).filter(|&count| count > all) {
            errors.invalid(&at.child(field), count, &format!("cannot be greater than status.{}", counts[0]));
        }
    }
    let available = status.int("availableReplicas").unwrap_or(0);
    if available > status.int("readyReplicas").unwrap_or(0) {
        errors.invalid(&at.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}

/// W4: what whoever writes a workload is told of: its template, and, where pods are called after it, its name.
pub(super) fn warnings(object: &Value, old: Option<&Value>, names_pods: bool) -> Vec<String> {
    warnings_at(object, old, &["spec", "template"], names_pods)
}

/// W4 of a workload whose template is elsewhere.
pub(super) fn warnings_at(object: &Value, old: Option<&Value>, template: &[&str], names_pods: bool) -> Vec<String> {
    let mut all = Vec::new();
    if old.is_none() && names_pods {
        all.extend(pod::warning::of_name(object, "this is used in Pod names and hostnames"));
    }
    let template_of = |object| template.iter().fold(object, |part: &Value, field| &part[*field]);
    if old.is_none_or(|old| template_of(old) != template_of(object)) {
        let path = template.iter().fold(Path::root(), |path, field| path.child(field));
        all.extend(pod::warning::warnings(template_of(object), &path));
    }
    all
}

/// The status that a workload starts with: nothing is known yet.
pub(super) fn start(object: &mut Value) {
    if object.is_object() {
        object["status"] = Value::Object(serde_json::Map::new());
    }
}
