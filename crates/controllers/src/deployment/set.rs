//! A ReplicaSet as a deployment sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::{Header, Object, kinds};
use windlass_client::{Cached, Key};

use super::Facts;
use crate::claim::controller_reference;
use crate::template;

/// How many replicas the deployment wanted when it last sized the set.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many pods all sets might have had then: desired and surge.
pub(super) const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// The set's place in the deployment's history.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The places it had before it was rolled back to.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// One set, with the sizes that this pass has decided so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Set {
    pub(super) key: Key,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) created: String,
    pub(super) is_ending: bool,
    pub(super) revision_seen: u64,
    pub(super) generation: i64,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) replicas: i64,
    pub(super) min_ready_seconds: i64,
    pub(super) status: SetStatus,
    pub(super) facts: Arc<SetFacts>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct SetFacts {
    metadata: SetMetadata,
    spec: SetSpec,
    status: SetStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct SetMetadata {
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SetSpec {
    replicas: Option<i64>,
    min_ready_seconds: Option<i64>,
    template: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SetStatus {
    pub(super) replicas: i64,
    pub(super) ready_replicas: i64,
    pub(super) available_replicas: i64,
    pub(super) terminating_replicas: i64,
    pub(super) observed_generation: i64,
    pub(super) conditions: Option<Vec<Value>>,
}

fn facts(set: &Cached) -> Arc<SetFacts> {
    set.memo(|set: &Object| {
        set.decode().unwrap_or_else(|error| {
            tracing::error!(set = set.header.key(), %error, "a replica set that cannot be read counts as empty");
            SetFacts::default()
        })
    })
}

impl Set {
    pub(super) fn of(set: &Cached) -> Set {
        let facts = facts(set);
        Set {
            key: Key::of(&set.header),
            name: set.header.name().to_owned(),
            uid: set.header.uid().to_owned(),
            created: set.header.created().to_owned(),
            is_ending: set.header.is_ending(),
            revision_seen: set.header.revision,
            generation: set.header.generation,
            annotations: facts.metadata.annotations.clone().unwrap_or_default(),
            replicas: facts.spec.replicas.unwrap_or(1),
            min_ready_seconds: facts.spec.min_ready_seconds.unwrap_or(0),
            status: facts.status.clone(),
            facts,
        }
    }

    /// Its place in the history; 0 for a set that has none yet.
    pub(super) fn revision(&self) -> i64 {
        self.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// Whether the set is of this template.
pub(super) fn same_template(set: &Set, template: &Value) -> bool {
    template::same(&set.facts.spec.template, template)
}

/// Whether the cached set is of this template.
pub(super) fn has_template(set: &Cached, template: &Value) -> bool {
    template::same(&facts(set).spec.template, template)
}

/// How often the name of the current template's set was taken.
fn collisions(deployment: &Facts) -> i64 {
    deployment.status["collisionCount"].as_i64().unwrap_or(0)
}

/// The name of the current template's set.
pub(super) fn name(header: &Header, deployment: &Facts) -> String {
    format!("{}-{}", header.name(), template::hash(&deployment.spec.template, collisions(deployment)))
}

/// The set of the current template, to be created.
pub(super) fn new(header: &Header, deployment: &Facts, annotations: &BTreeMap<String, String>, replicas: i64) -> Value {
    let hash = template::hash(&deployment.spec.template, collisions(deployment));
    let mut template = deployment.spec.template.clone();
    if template["metadata"].is_null() {
        template["metadata"] = json!({});
    }
    if template["metadata"]["labels"].is_null() {
        template["metadata"]["labels"] = json!({});
    }
    template["metadata"]["labels"][template::HASH_LABEL] = json!(hash);
    let mut selected = deployment.spec.selector.json.clone();
    if selected["matchLabels"].is_null() {
        selected["matchLabels"] = json!({});
    }
    selected["matchLabels"][template::HASH_LABEL] = json!(hash);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name(header, deployment), "namespace": header.namespace(),
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [controller_reference(&kinds::DEPLOYMENT, header)],
        },
        "spec": {
            "replicas": replicas, "minReadySeconds": deployment.spec.min_ready_seconds.unwrap_or(0),
            "selector": selected, "template": template,
        },
    })
}

/// The deployment's annotations that its set carries too: those that say something about the change.
pub(super) fn inherited(deployment: &Facts) -> impl Iterator<Item = (&String, &String)> {
    const OWN: [&str; 6] = [
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MOST,
        "deprecated.deployment.rollback.to",
    ];
    deployment.metadata.annotations.iter().flatten().filter(|(name, _)| !OWN.contains(&name.as_str()))
}
