//! Job: pods that run until enough of them have succeeded.
//!
//! Rules
//!   J1 numbers    not negative, and within what an indexed job can keep track of
//!   J2 pods       end: they are restarted on failure or never; the selector finds them and nobody else's
//!   J3 mode       what counts indexes is only said of an indexed job
//!   J4 failure    a policy's rules can be evaluated (`policy`)
//!   J5 success    a policy's rules can be met (`policy`)
//!   J6 constant   selector, mode, policies and manager never change; the template only where it is run, before it first ran
//!   J7 status     a finished job has ended in one way and has no pods left (`status`)
//! Source: API reference, batch/v1 Job; KEP-2307, KEP-2214, KEP-3329, KEP-3998.

mod policy;
mod status;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{named, not_negative};
use super::same::same;
use super::tree::{Tree, carry_over, fill, map_mut, part_mut};
use super::{age, age_column, column, label_selector, name_column, pod, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};
use crate::selector::LabelSelector;

/// Failures after which a job has failed.
const BACKOFF_DEFAULT: i64 = 6;
/// Bounds of what an indexed job keeps track of.
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// From here on a job with a limit per index may do less at a time.
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_OF_MANY_MAX: i64 = 10_000;
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;
const MANAGER_BYTES_MAX: usize = 63;

/// Labels by which a job finds its pods; the short forms are from before they had a domain.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// The row of Job.
pub(super) fn resource() -> Resource {
    let columns = workload::columns_selected(vec![
        name_column(),
        column("Status", "string", "whether it runs, or how it ended"),
        column("Completions", "string", "successes of those wanted"),
        column("Duration", "string", "how long it ran, or has run"),
        age_column(),
    ]);
    row(&kinds::JOB, columns, Job)
        .in_all()
        .subresources(&[Subresource::Status])
        .selectable(&["status.successful"])
        .counts_generations()
}

struct Job;

impl Rules for Job {
    fn selected(&self, object: &Value, path: &str) -> Option<String> {
        (path == "status.successful").then(|| object["status"].int("succeeded").unwrap_or(0).to_string())
    }

    fn default(&self, object: &mut Value) {
        fill_labels(object);
        let Some(spec) = part_mut(object, "spec") else { return };
        if !spec.is_set("completions") && !spec.is_set("parallelism") {
            fill(spec, "completions", 1);
        }
        fill(spec, "parallelism", 1);
        let per_index = spec.is_set("backoffLimitPerIndex");
        fill(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { BACKOFF_DEFAULT });
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        fill(spec, "manualSelector", false);
        let replaced = if spec.is_set("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        fill(spec, "podReplacementPolicy", replaced);
        fill_template(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        workload::start(object);
        if !object["spec"].flag("manualSelector") {
            label_pods(object);
            fill_labels(object);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
        let Some(spec) = part_mut(object, "spec") else { return };
        // What was generated need not be said again.
        if !spec.is_set("selector") {
            carry_over(spec, &old["spec"], "selector");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_selector(object, &at, errors);
        validate_spec(spec, &at, errors);
    }

    /// J6.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (spec, before, at) = (&object["spec"], &old["spec"], Path::new("spec"));
        validate_completions(spec, before, &at, errors);
        for field in
            ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            if !same(&spec[field], &before[field]) {
                errors.immutable(&at.child(field), spec[field].clone());
            }
        }
        validate_template_change(spec, old, &at.child("template"), errors);
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        status::validate(object, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old, true)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let own = vec![
            json!(object["metadata"].text("name")),
            json!(status::word(object)),
            json!(completions(object)),
            json!(duration(&object["status"], now)),
            age::of(object, now),
        ];
        workload::cells_selected(own, spec, label_selector::shown(&spec["selector"]))
    }
}

/// A job without labels has those of its pods.
fn fill_labels(job: &mut Value) {
    let labels = job["spec"]["template"]["metadata"].entries("labels").clone();
    if let Some(metadata) = part_mut(job, "metadata").filter(|metadata| metadata.entries("labels").is_empty())
        && !labels.is_empty()
    {
        metadata["labels"] = Value::Object(labels);
    }
}

/// What also the template of a CronJob's jobs gets.
pub(super) fn fill_template(spec: &mut Value) {
    if let Some(template) = part_mut(spec, "template") {
        pod::fill_template(template);
    }
    policy::fill(spec);
}

/// J2: labels the pods with the job's name and uid, and selects them by the uid, where the author did not.
fn label_pods(job: &mut Value) {
    let metadata = &job["metadata"];
    let (name, uid) = (metadata["name"].clone(), metadata["uid"].clone());
    if !name.is_string() || !uid.is_string() {
        return;
    }
    let Some(spec) = part_mut(job, "spec") else { return };
    let template = part_mut(spec, "template").and_then(|template| part_mut(template, "metadata"));
    if let Some(labels) = template.and_then(|metadata| map_mut(metadata, "labels")) {
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                labels.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
    if let Some(labels) = part_mut(spec, "selector").and_then(|selector| map_mut(selector, "matchLabels")) {
        labels.entry(UID_LABELS[0]).or_insert(uid);
    }
}

/// J2.
fn validate_selector(job: &Value, at: &Path, errors: &mut Errors) {
    let (spec, path) = (&job["spec"], at.child("selector"));
    if !spec["selector"].is_object() {
        errors.required(&path, "");
        return;
    }
    let before = errors.len();
    let selector = LabelSelector::from_json(&spec["selector"], &path, errors);
    if errors.len() > before {
        return;
    }
    workload::validate_selected(&selector, &spec["template"], &at.child("template"), errors);
    let uid = job["metadata"].text("uid");
    if spec.flag("manualSelector") || uid.is_empty() {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let path_of_labels = at.child("template").child("metadata").child("labels");
    for (keys, value) in [(NAME_LABELS, job["metadata"].text("name")), (UID_LABELS, uid)] {
        for key in keys.iter().filter(|key| labels.text(key) != value) {
            let detail = format!("must be '{value}'");
            errors.invalid(&path_of_labels.key(key), labels.text(key), &detail);
        }
    }
    if spec["selector"]["matchLabels"].text(UID_LABELS[0]) != uid {
        errors.invalid(&path, spec["selector"].clone(), "`selector` not auto-generated");
    }
}

/// J1 to J5, of a job or of the template of a CronJob's.
pub(super) fn validate_spec(spec: &Value, at: &Path, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(spec, field, at, errors);
    }
    if spec.is_set("maxFailedIndexes") && !spec.is_set("backoffLimitPerIndex") {
        errors.required(&at.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    validate_manager(spec, at, errors);
    match spec.text("completionMode") {
        "Indexed" => validate_indexed(spec, at, errors),
        "" | "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if spec.is_set(field) {
                    errors.invalid(&at.child(field), spec[field].clone(), "requires indexed completion mode");
                }
            }
        }
        other => errors.not_supported(&at.child("completionMode"), other, &["NonIndexed", "Indexed"]),
    }
    policy::validate(spec, at, errors);
    pod::validate_template(&spec["template"], &at.child("template"), errors);
    validate_restarts(spec, at, errors);
}

fn validate_manager(spec: &Value, at: &Path, errors: &mut Errors) {
    if !spec.is_set("managedBy") {
        return;
    }
    let (manager, path) = (spec.text("managedBy"), at.child("managedBy"));
    if manager.contains('/') {
        named(name::label_key, manager, &path, errors);
    } else {
        errors.invalid(&path, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    if manager.len() > MANAGER_BYTES_MAX {
        errors.too_long(&path, MANAGER_BYTES_MAX);
    }
}

/// J1 and J3 of an indexed job.
fn validate_indexed(spec: &Value, at: &Path, errors: &mut Errors) {
    let Some(completions) = spec.int("completions") else {
        errors.required(&at.child("completions"), "when completion mode is Indexed");
        return;
    };
    let mut at_most = |field: &str, most: i64, detail: &str| {
        if let Some(found) = spec.int(field).filter(|found| *found > most) {
            errors.invalid(&at.child(field), found, &format!("must be less than or equal to {detail}"));
        }
    };
    at_most("parallelism", PARALLELISM_MAX, "100000 when completion mode is Indexed");
    at_most("maxFailedIndexes", completions, "completions");
    at_most("maxFailedIndexes", FAILED_INDEXES_MAX, "100000");
    if completions <= COMPLETIONS_MANY || !spec.is_set("backoffLimitPerIndex") {
        return;
    }
    let detail = "10000 when completions are above 100000 and used with backoff limit per index";
    at_most("parallelism", PARALLELISM_OF_MANY_MAX, detail);
    at_most("maxFailedIndexes", FAILED_INDEXES_OF_MANY_MAX, detail);
    if !spec.is_set("maxFailedIndexes") {
        let detail = "must be specified when completions is above 100000";
        errors.required(&at.child("maxFailedIndexes"), detail);
    }
}

/// J2.
fn validate_restarts(spec: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("template").child("spec").child("restartPolicy");
    let policy = spec["template"]["spec"].text("restartPolicy");
    match policy {
        "OnFailure" | "Never" => {}
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
    if spec.is_set("podFailurePolicy") && policy != "Never" {
        errors.invalid(&path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

/// J6: the number of an indexed job's completions may change with its parallelism.
fn validate_completions(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let (now, then) = (spec.int("completions"), before.int("completions"));
    if now == then {
        return;
    }
    let path = at.child("completions");
    if spec.text("completionMode") != "Indexed" {
        errors.immutable(&path, spec["completions"].clone());
    } else if now.is_some() && now != spec.int("parallelism") {
        errors.invalid(&path, spec["completions"].clone(), "can only be modified in tandem with spec.parallelism");
    }
}

/// J6: of a job that is held back and never ran, what its pods say about their place may change.
fn validate_template_change(spec: &Value, old: &Value, at: &Path, errors: &mut Errors) {
    let (template, before) = (&spec["template"], &old["spec"]["template"]);
    let mut then = before.clone();
    let never_ran = old["spec"].flag("suspend") && !old["status"].is_set("startTime");
    if never_ran {
        if let Some(metadata) = part_mut(&mut then, "metadata") {
            for field in ["labels", "annotations"] {
                carry_over(metadata, &template["metadata"], field);
            }
        }
        if let Some(pod) = part_mut(&mut then, "spec") {
            for field in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                carry_over(pod, &template["spec"], field);
            }
        }
    }
    if !same(template, &then) {
        errors.immutable(at, template.clone());
    }
}

/// `2/5`, or `2/1 of 3` where any of several pods will do.
fn completions(job: &Value) -> String {
    let (spec, succeeded) = (&job["spec"], job["status"].int("succeeded").unwrap_or(0));
    match (spec.int("completions"), spec.int("parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    match (status.text("startTime").parse(), status.text("completionTime").parse()) {
        (Ok(start), Ok(end)) => age::between(start, end),
        (Ok(start), Err(_)) => age::between(start, now),
        (Err(_), _) => String::new(),
    }
}

#[cfg(test)]
mod tests;
