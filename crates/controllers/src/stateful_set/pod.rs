//! R4: what makes a pod the one of its ordinal.

use serde_json::{Value, json};
use windlass_api::{Header, kinds};

use super::{View, claim};
use crate::claim::controller_reference;
use crate::controller_revision::REVISION_LABEL;
use crate::plan::{Plan, Target};

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// A pod's name.
fn name(set: &Header, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.name())
}

/// The pod of this ordinal, by a template and the name of its revision.
pub(super) fn new(view: &View, ordinal: i64, template: &Value, revision: &str) -> Value {
    let name = name(&view.header, ordinal);
    let mut metadata = json!({
        "name": name, "namespace": view.header.namespace(),
        "ownerReferences": [controller_reference(&kinds::STATEFUL_SET, &view.header)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        let value = &template["metadata"][field];
        if !value.is_null() {
            metadata[field] = value.clone();
        }
    }
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][REVISION_LABEL] = json!(revision);
    metadata["labels"][NAME_LABEL] = json!(name);
    metadata["labels"][INDEX_LABEL] = json!(ordinal.to_string());
    let mut spec = template["spec"].clone();
    spec["hostname"] = json!(name);
    if let Some(service) = view.set.spec.service_name.as_ref().filter(|service| !service.is_empty()) {
        spec["subdomain"] = json!(service);
    }
    mount(view, ordinal, &mut spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Each claim template is a volume; one of the same name in the pod's template gives way.
fn mount(view: &View, ordinal: i64, spec: &mut Value) {
    let templates = view.set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    if templates.is_empty() {
        return;
    }
    let own = templates.iter().map(|template| {
        let claim = claim::name(&view.header, template, ordinal);
        json!({"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}})
    });
    let own: Vec<Value> = own.collect();
    let given = spec["volumes"].as_array().into_iter().flatten();
    let others = given.filter(|volume| own.iter().all(|claim| claim["name"] != volume["name"])).cloned();
    spec["volumes"] = others.chain(own.iter().cloned()).collect();
}

/// Gives an adopted or changed pod its labels back.
pub(super) fn identify(view: &View, ordinal: i64, pod: &Header, plan: &mut Plan) {
    let (name, index) = (name(&view.header, ordinal), ordinal.to_string());
    let labels = pod.labels();
    if labels.get(NAME_LABEL) == Some(name.as_str()) && labels.get(INDEX_LABEL) == Some(index.as_str())
        || pod.is_ending()
    {
        return;
    }
    let patch = json!({"metadata": {"uid": pod.uid(), "labels": {NAME_LABEL: name, INDEX_LABEL: index}}});
    plan.patch(Target::of(&kinds::POD, pod), patch, format!("Pod {} is told which one it is", pod.name()));
}
