//! What a job's status may say, and the one word for it.
//!
//! Source: API reference, batch/v1 JobStatus; KEP-4368.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::check::not_negative;
use super::super::tree::Tree;
use crate::field::{Errors, Path};

/// Conditions in the order in which the first that is true gives the word; a deletion comes after the final two.
const FINAL: [(&str, &str); 2] = [("Complete", "Complete"), ("Failed", "Failed")];
const PASSING: [(&str, &str); 3] =
    [("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"), ("SuccessCriteriaMet", "SuccessCriteriaMet")];

/// The word of the printed row.
pub(super) fn word(job: &Value) -> &'static str {
    let first = |words: &[(&str, &'static str)]| {
        words.iter().find(|(kind, _)| is_true(&job["status"], kind)).map(|(_, word)| *word)
    };
    if let Some(word) = first(&FINAL) {
        return word;
    }
    if job["metadata"].is_set("deletionTimestamp") {
        return "Terminating";
    }
    first(&PASSING).unwrap_or("Running")
}

fn is_true(status: &Value, kind: &str) -> bool {
    let mut conditions = status.items("conditions").iter();
    conditions.any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

/// J7.
pub(super) fn validate(job: &Value, old: &Value, errors: &mut Errors) {
    let (status, at) = (&job["status"], Path::new("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(status, field, &at, errors);
    }
    validate_uncounted(&status["uncountedTerminatedPods"], &at.child("uncountedTerminatedPods"), errors);
    let (ready, active) = (status.int("ready").unwrap_or(0), status.int("active").unwrap_or(0));
    if ready > active {
        errors.invalid(&at.child("ready"), ready, "cannot set more ready pods than active");
    }
    if job["spec"].text("completionMode") != "Indexed" && !status.text("completedIndexes").is_empty() {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(&at.child("completedIndexes"), status.text("completedIndexes"), detail);
    }
    let (was, is) = (&old["status"], status);
    for kind in ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"] {
        if is_true(was, kind) && !is_true(is, kind) {
            let detail = format!("cannot disable the terminal {kind} condition");
            errors.invalid(&at.child("conditions"), is["conditions"].clone(), &detail);
        }
    }
    validate_end(status, &at, errors);
}

fn validate_uncounted(uncounted: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for (index, uid) in uncounted.items(list).iter().enumerate() {
            let (uid, path) = (uid.as_str().unwrap_or_default(), at.child(list).index(index));
            if uid.is_empty() {
                errors.invalid(&path, uid, "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&path, uid);
            }
        }
    }
}

fn validate_end(status: &Value, at: &Path, errors: &mut Errors) {
    let conditions = at.child("conditions");
    let (complete, failed) = (is_true(status, "Complete"), is_true(status, "Failed"));
    for (one, other, detail) in [
        ("Complete", "Failed", "cannot set Complete=True and Failed=True conditions"),
        ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
        ("FailureTarget", "SuccessCriteriaMet", "cannot set FailureTarget=True and SuccessCriteriaMet=True conditions"),
    ] {
        if is_true(status, one) && is_true(status, other) {
            errors.invalid(&conditions, status["conditions"].clone(), detail);
        }
    }
    let ended = status.text("completionTime").parse::<jiff::Timestamp>();
    let started = status.text("startTime").parse::<jiff::Timestamp>();
    let path = at.child("completionTime");
    match &ended {
        Ok(_) if !complete => {
            let detail = "completionTime cannot be set when there is no Complete=True condition";
            errors.invalid(&path, status.text("completionTime"), detail);
        }
        Ok(ended) if started.as_ref().is_ok_and(|started| ended < started) => {
            errors.invalid(&path, status.text("completionTime"), "completionTime cannot be set before startTime");
        }
        Err(_) if complete => errors.required(&path, "completionTime is required for Complete jobs"),
        _ => {}
    }
    if !complete && !failed {
        return;
    }
    if started.is_err() {
        errors.required(&at.child("startTime"), "startTime is required for finished job");
    }
    for field in ["active", "terminating"] {
        if let Some(count) = status.int(field).filter(|count| *count > 0) {
            errors.invalid(&at.child(field), count, &format!("{field}>0 is invalid for finished job"));
        }
    }
    let uncounted = &status["uncountedTerminatedPods"];
    if !uncounted.items("succeeded").is_empty() || !uncounted.items("failed").is_empty() {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        errors.invalid(&at.child("uncountedTerminatedPods"), uncounted.clone(), detail);
    }
}
