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
use super::tree::{Tree, fill, fill_text, part_mut};
use super::{pod, wide};
use crate::field::{Errors, Path};
use crate::resource::Column;
use crate::selector::LabelSelector;

/// Old templates kept, to go back to, where a workload keeps them.
pub(super) const HISTORY_DEFAULT: i64 = 10;

/// A workload's columns: its `own`, and of its template what only `-o wide` shows.
pub(super) fn columns(mut own: Vec<Column>) -> Vec<Column> {
    own.push(wide("Containers", "string", "the names of the template's containers"));
    own.push(wide("Images", "string", "the images of the template's containers"));
    own
}

/// The columns of a workload that also shows its selector.
pub(super) fn columns_selected(own: Vec<Column>) -> Vec<Column> {
    let mut all = columns(own);
    all.push(wide("Selector", "string", "which pods belong to it"));
    all
}

/// The cells of [`columns`].
pub(super) fn cells(mut own: Vec<Value>, spec: &Value) -> Vec<Value> {
    let (names, images) = pod::template_columns(&spec["template"]);
    own.extend([Value::from(names), Value::from(images)]);
    own
}

/// The cells of [`columns_selected`].
pub(super) fn cells_selected(own: Vec<Value>, spec: &Value, selector: String) -> Vec<Value> {
    let mut all = cells(own, spec);
    all.push(Value::from(selector));
    all
}

/// Fills in that pods are replaced by rolling. Answers what says how, when they are.
pub(super) fn fill_strategy<'a>(spec: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let strategy = part_mut(spec, field)?;
    fill_text(strategy, "type", "RollingUpdate");
    if strategy.text("type") != "RollingUpdate" {
        return None;
    }
    part_mut(strategy, "rollingUpdate")
}

/// Fills in what workloads with a number of pods have in common.
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
    start_counting(object, &[]);
}

/// The same, with the counts that clients expect whatever they are.
pub(super) fn start_counting(object: &mut Value, counts: &[&str]) {
    if object.is_object() {
        object["status"] = counts.iter().map(|count| ((*count).to_owned(), Value::from(0))).collect();
    }
}
