//! A pod as its job sees it, and the pods that a job makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Object, kinds};
use windlass_client::Cached;

use super::{FINALIZER, JobView};
use crate::claim::controller_reference;

/// Label and annotation of an indexed job's pods.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index has failed before this pod.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often it has failed in a way that the policy ignores.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
const HOSTNAME_BYTES_MAX: usize = 63;
const NAME_PREFIX_BYTES_MAX: usize = 57;

/// A pod of a job.
pub(super) struct JobPod {
    pub(super) object: Arc<Cached>,
    facts: Arc<Facts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    metadata: Metadata,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
    deletion_grace_period_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Option<Vec<Condition>>,
    init_container_statuses: Option<Vec<Container>>,
    container_statuses: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    last_transition_time: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    restart_count: i64,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i64,
    finished_at: Option<Timestamp>,
}

impl Container {
    /// The code that it ended with.
    pub(super) fn exit_code(&self) -> Option<i64> {
        self.state.terminated.as_ref().map(|terminated| terminated.exit_code)
    }
}

impl JobPod {
    pub(super) fn of(object: &Arc<Cached>) -> JobPod {
        let facts = object.memo(|pod: &Object| {
            pod.decode().unwrap_or_else(|error| {
                tracing::error!(pod = pod.header.key(), %error, "a pod that cannot be read says nothing to its job");
                Facts::default()
            })
        });
        JobPod { object: Arc::clone(object), facts }
    }

    pub(super) fn uid(&self) -> &str {
        self.object.header.uid()
    }

    pub(super) fn name(&self) -> &str {
        self.object.header.name()
    }

    /// It has not been counted yet.
    pub(super) fn is_tracked(&self) -> bool {
        self.object.header.has_finalizer(FINALIZER)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.object.header.is_ending()
    }

    pub(super) fn has_succeeded(&self) -> bool {
        self.object.header.phase() == "Succeeded"
    }

    pub(super) fn has_failed(&self) -> bool {
        self.object.header.phase() == "Failed"
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.has_succeeded() || self.has_failed()
    }

    pub(super) fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_ending()
    }

    /// It is on its way out and has not ended.
    pub(super) fn is_terminating(&self) -> bool {
        !self.is_terminal() && self.is_ending()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.conditions().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.facts.status.conditions.iter().flatten()
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        let status = &self.facts.status;
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    }

    pub(super) fn restarts(&self) -> i64 {
        self.containers().map(|container| container.restart_count).sum()
    }

    fn annotation(&self, name: &str) -> Option<i64> {
        self.facts.metadata.annotations.as_ref()?.get(name)?.parse().ok()
    }

    /// Its completion index, if it is one.
    pub(super) fn index(&self) -> Option<i64> {
        self.annotation(INDEX).filter(|index| *index >= 0)
    }

    /// How often its index had failed before it.
    pub(super) fn failures(&self) -> i64 {
        self.annotation(FAILURES).unwrap_or(0)
    }

    pub(super) fn ignored(&self) -> i64 {
        self.annotation(IGNORED).unwrap_or(0)
    }

    /// Its place among the pods of its index.
    pub(super) fn attempt(&self) -> i64 {
        self.failures() + self.ignored()
    }

    /// When it ended: when its last container did, else when it was no longer ready, else when it was told to go.
    pub(super) fn finished_at(&self, now: Timestamp) -> Timestamp {
        let ends = self.containers().filter_map(|container| container.state.terminated.as_ref()?.finished_at);
        if let Some(end) = ends.max() {
            return end;
        }
        let metadata = &self.facts.metadata;
        let unready = self.conditions().find(|condition| condition.kind == "Ready" && condition.status != "True");
        let told = metadata.deletion_timestamp.map(|end| {
            let grace = SignedDuration::from_secs(metadata.deletion_grace_period_seconds.unwrap_or(0));
            end.checked_sub(grace).unwrap_or(end)
        });
        let unready = unready.and_then(|condition| condition.last_transition_time);
        unready.or(told).or(metadata.creation_timestamp).unwrap_or(now).min(now)
    }
}

/// The index of a new pod, and what went before it.
pub(super) struct Attempt {
    pub(super) index: i64,
    /// Failures that count and those that are ignored; only where the index has a limit of its own.
    pub(super) failed: Option<(i64, i64)>,
}

/// A pod as the template says, owned by the job and tracked by it.
pub(super) fn new(view: &JobView, attempt: Option<&Attempt>) -> Value {
    let template = &view.job.spec.template;
    let name = view.header.name();
    let mut metadata = json!({
        "generateName": prefix(name, attempt),
        "namespace": view.header.namespace(),
        "ownerReferences": [controller_reference(&kinds::JOB, &view.header)],
    });
    for field in ["labels", "annotations"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    let mut finalizers = template["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(FINALIZER));
    metadata["finalizers"] = Value::Array(finalizers);
    let mut spec = template["spec"].clone();
    if let Some(attempt) = attempt {
        let index = attempt.index.to_string();
        set(&mut metadata, "labels", INDEX, &index);
        set(&mut metadata, "annotations", INDEX, &index);
        if let Some((failures, ignored)) = attempt.failed {
            set(&mut metadata, "annotations", FAILURES, &failures.to_string());
            if ignored > 0 {
                set(&mut metadata, "annotations", IGNORED, &ignored.to_string());
            }
        }
        spec["hostname"] = json!(hostname(name, &index));
        tell_index(&mut spec);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn set(metadata: &mut Value, map: &str, key: &str, value: &str) {
    if !metadata[map].is_object() {
        metadata[map] = json!({});
    }
    metadata[map][key] = json!(value);
}

fn prefix(job: &str, attempt: Option<&Attempt>) -> String {
    let tail = attempt.map_or_else(|| "-".to_owned(), |attempt| format!("-{}-", attempt.index));
    let room = NAME_PREFIX_BYTES_MAX.saturating_sub(tail.len()).min(job.len());
    format!("{}{tail}", &job[..room])
}

/// A host name is one label of DNS: a longer job name is cut.
fn hostname(job: &str, index: &str) -> String {
    let job = job.replace('.', "-");
    let room = HOSTNAME_BYTES_MAX.saturating_sub(index.len() + 1).min(job.len());
    format!("{}-{index}", job[..room].trim_end_matches('-'))
}

/// Every container finds its index in its environment, unless the template says something else of that name.
fn tell_index(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if !container["env"].is_array() {
                container["env"] = json!([]);
            }
            let Some(variables) = container["env"].as_array_mut() else { continue };
            if variables.iter().all(|variable| variable["name"] != INDEX_VARIABLE) {
                let path = format!("metadata.annotations['{INDEX}']");
                variables.push(json!({"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
            }
        }
    }
}
