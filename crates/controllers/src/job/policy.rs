//! R7 and R8: what a pod's failure means to its job, and when a job has succeeded before all of its pods have.
//!
//! Source: API reference, batch/v1 PodFailurePolicy and SuccessPolicy: the first rule that matches counts.

use serde::Deserialize;

use super::index::Indexes;
use super::pod::JobPod;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct FailurePolicy {
    rules: Vec<FailureRule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FailureRule {
    action: String,
    on_exit_codes: Option<ExitCodes>,
    on_pod_conditions: Option<Vec<Pattern>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExitCodes {
    container_name: Option<String>,
    operator: String,
    values: Vec<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Pattern {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct SuccessPolicy {
    rules: Vec<SuccessRule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SuccessRule {
    succeeded_indexes: Option<String>,
    succeeded_count: Option<i64>,
}

/// What a pod's failure means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One failure more.
    Count,
    /// Nothing: the pod is made again.
    Ignore,
    /// The index has failed, whatever its limit.
    FailIndex,
    /// The job has failed, for this reason.
    FailJob(String),
}

/// R7.
pub(super) fn meaning(policy: Option<&FailurePolicy>, pod: &JobPod) -> Meaning {
    // What has not ended has neither exit codes nor final conditions.
    let Some(policy) = policy.filter(|_| pod.has_failed()) else { return Meaning::Count };
    for (number, rule) in policy.rules.iter().enumerate() {
        let Some(found) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignore,
            "FailIndex" => Meaning::FailIndex,
            "FailJob" => Meaning::FailJob(format!("{found} matching FailJob rule at index {number}")),
            _ => Meaning::Count,
        };
    }
    Meaning::Count
}

/// What of the pod matches the rule.
fn matches(rule: &FailureRule, pod: &JobPod) -> Option<String> {
    let key = || format!("{}/{}", pod.object.header.namespace(), pod.name());
    if let Some(wanted) = &rule.on_exit_codes {
        let mut ended = pod.containers().filter_map(|container| Some((container, container.exit_code()?)));
        let (container, code) = ended.find(|(container, code)| {
            let named = wanted.container_name.as_ref().is_none_or(|name| *name == container.name);
            let listed = wanted.values.contains(code);
            named && *code != 0 && listed == (wanted.operator == "In")
        })?;
        return Some(format!("Container {} for pod {} failed with exit code {code}", container.name, key()));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let is_met = |pattern: &&Pattern| {
        pod.conditions().any(|condition| condition.kind == pattern.kind && condition.status == pattern.status)
    };
    let pattern = patterns.iter().find(is_met)?;
    Some(format!("Pod {} has condition {}", key(), pattern.kind))
}

/// R8: the number of the first rule that is met.
pub(super) fn met(policy: &SuccessPolicy, completed: &Indexes, completions: i64) -> Option<usize> {
    policy.rules.iter().position(|rule| {
        let (have, all) = match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::read(text, completions);
                (completed.count_of(&wanted), wanted.len())
            }
            None => (completed.len(), completions),
        };
        have >= rule.succeeded_count.unwrap_or(all)
    })
}
