//! When a job counts a pod's failure, and when it has succeeded before all of its pods have.
//!
//! Source: API reference, batch/v1 PodFailurePolicy, SuccessPolicy, podReplacementPolicy.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::check::{named, not_negative};
use super::super::tree::{Tree, fill_text, items_mut};
use crate::field::{Errors, Path};
use crate::name;

const RULES_MAX: usize = 20;
const PATTERNS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

/// A condition is met when it is true, unless said otherwise.
pub(super) fn fill(spec: &mut Value) {
    let Some(policy) = spec.get_mut("podFailurePolicy") else { return };
    for rule in items_mut(policy, "rules") {
        for pattern in items_mut(rule, "onPodConditions") {
            fill_text(pattern, "status", "True");
        }
    }
}

/// J4 and J5.
pub(super) fn validate(spec: &Value, at: &Path, errors: &mut Errors) {
    if spec.is_set("podFailurePolicy") {
        validate_failure(spec, &at.child("podFailurePolicy").child("rules"), errors);
    }
    if spec.is_set("successPolicy") {
        let path = at.child("successPolicy");
        if spec.text("completionMode") == "Indexed" {
            validate_success(spec, &path.child("rules"), errors);
        } else {
            errors.invalid(&path, spec["successPolicy"].clone(), "requires indexed completion mode");
        }
    }
    let allowed: &[&str] =
        if spec.is_set("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    let replaced = spec.text("podReplacementPolicy");
    if spec.is_set("podReplacementPolicy") && !allowed.contains(&replaced) {
        errors.not_supported(&at.child("podReplacementPolicy"), replaced, allowed);
    }
}

/// J4.
fn validate_failure(spec: &Value, path: &Path, errors: &mut Errors) {
    let rules = spec["podFailurePolicy"].items("rules");
    if rules.len() > RULES_MAX {
        errors.too_many(path, rules.len(), RULES_MAX);
    }
    let pod = &spec["template"]["spec"];
    let containers: BTreeSet<&str> = pod
        .items("containers")
        .iter()
        .chain(pod.items("initContainers"))
        .map(|container| container.text("name"))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        match rule.text("action") {
            "FailIndex" if !spec.is_set("backoffLimitPerIndex") => {
                errors.invalid(&path.child("action"), "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
            action => known_word(action, ACTIONS, &path.child("action"), errors),
        }
        let (by_code, patterns) = (rule.is_set("onExitCodes"), rule.items("onPodConditions"));
        if by_code {
            validate_exit_codes(&rule["onExitCodes"], &containers, &path.child("onExitCodes"), errors);
        }
        validate_patterns(patterns, &path.child("onPodConditions"), errors);
        match (by_code, !patterns.is_empty()) {
            (true, true) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.invalid(&path, rule.clone(), detail);
            }
            (false, false) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.invalid(&path, rule.clone(), detail);
            }
            _ => {}
        }
    }
}

fn known_word(word: &str, words: &[&str], path: &Path, errors: &mut Errors) {
    if word.is_empty() {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        errors.required(path, &format!("valid values: [{}]", quoted.join(" ")));
    } else if !words.contains(&word) {
        errors.not_supported(path, word, words);
    }
}

fn validate_exit_codes(codes: &Value, containers: &BTreeSet<&str>, at: &Path, errors: &mut Errors) {
    let operator = codes.text("operator");
    known_word(operator, &["In", "NotIn"], &at.child("operator"), errors);
    let container = codes.text("containerName");
    if codes.is_set("containerName") && !containers.contains(container) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&at.child("containerName"), container, detail);
    }
    let (values, path) = (codes.items("values"), at.child("values"));
    if values.is_empty() {
        errors.invalid(&path, codes["values"].clone(), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many(&path, values.len(), EXIT_CODES_MAX);
    }
    let numbers: Vec<i64> = values.iter().map(|value| value.as_i64().unwrap_or(0)).collect();
    let mut seen = BTreeSet::new();
    for (index, number) in numbers.iter().enumerate() {
        if operator == "In" && *number == 0 {
            errors.invalid(&path.index(index), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(number) {
            errors.duplicate(&path.index(index), *number);
        }
    }
    if !numbers.is_sorted() {
        errors.invalid(&path, codes["values"].clone(), "must be ordered");
    }
}

fn validate_patterns(patterns: &[Value], path: &Path, errors: &mut Errors) {
    if patterns.len() > PATTERNS_MAX {
        errors.too_many(path, patterns.len(), PATTERNS_MAX);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        named(name::label_key, pattern.text("type"), &path.child("type"), errors);
        known_word(pattern.text("status"), &["False", "True", "Unknown"], &path.child("status"), errors);
    }
}

/// J5.
fn validate_success(spec: &Value, path: &Path, errors: &mut Errors) {
    let rules = spec["successPolicy"].items("rules");
    if rules.is_empty() {
        errors.required(path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES_MAX {
        errors.too_many(path, rules.len(), RULES_MAX);
    }
    let completions = spec.int("completions").unwrap_or(0);
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        if !rule.is_set("succeededCount") && !rule.is_set("succeededIndexes") {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut listed = None;
        if rule.is_set("succeededIndexes") {
            let (text, path) = (rule.text("succeededIndexes"), path.child("succeededIndexes"));
            if text.len() > INDEXES_BYTES_MAX {
                errors.too_long(&path, INDEXES_BYTES_MAX);
            }
            match count_indexes(text, completions) {
                Ok(count) => listed = Some(count),
                Err(why) => errors.invalid(&path, text, &format!("error parsing succeededIndexes: {why}")),
            }
        }
        let Some(count) = rule.int("succeededCount") else { continue };
        not_negative(rule, "succeededCount", &path, errors);
        let path = path.child("succeededCount");
        if count > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&path, count, &detail);
        } else if let Some(listed) = listed.filter(|listed| count > *listed) {
            let detail = format!(
                "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.invalid(&path, count, &detail);
        }
    }
}

/// How many indexes a list such as `1,3-5,7` names: intervals that grow and do not touch.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut count, mut last) = (0, -1);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let bound = |part: &str| {
            part.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))
        };
        let (first, end) = match interval.split_once('-') {
            Some((first, end)) => (bound(first)?, bound(end)?),
            None => (bound(interval)?, bound(interval)?),
        };
        if interval.contains('-') && first >= end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        if first <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if end >= completions {
            return Err(format!("too large index: {interval:?}"));
        }
        count += end - first + 1;
        last = end;
    }
    Ok(count)
}
