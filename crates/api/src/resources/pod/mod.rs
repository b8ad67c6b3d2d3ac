//! Pod: containers that live and die together on one node.
//!
//! The nouns of a pod have files of their own here; templates of workloads go through the same ones.
//!   defaults      what may be left out
//!   spec          a spec as a whole → container, claim, env, placement, probe, requirements, security, volume, windows
//!   volume        a pod's volumes and their mounts → source, projected
//!   annotation    annotations of a pod that mean something
//!   update        what may change of a pod that exists
//!   status        what may become of its status
//!   warning       what its author is told of, though it is valid
//!   ephemeral     containers that are added to one that runs
//!   resize        resources that are changed while it runs
//!   cells         the printed row

mod annotation;
mod cells;
mod claim;
mod container;
mod defaults;
mod env;
mod ephemeral;
mod match_label;
mod placement;
mod probe;
mod projected;
mod requirements;
mod resize;
mod security;
mod source;
mod spec;
mod standard;
mod status;
mod update;
mod volume;
pub(super) mod warning;
mod windows;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{Tree, carry_over, fill, fill_text, part_mut};
use super::{age_column, column, name_column, row, wide};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

pub(super) use defaults::{fill_template, fill_volume_source};
pub(super) use placement::{validate_node_selector, validate_taints, validate_tolerations};
pub use requirements::{amounts, quality, together};
pub(super) use requirements::{validate_amounts, validate_container_name, validate_name, validate_quantity};
pub(super) use source::{Holder as VolumeHolder, validate as validate_volume_source};
pub(super) use spec::validate_template;
pub use standard::{Level, Version, violations};

/// Seconds a pod has to stop when neither it nor its deletion says otherwise.
pub const GRACE_SECONDS_DEFAULT: u32 = 30;

/// Seconds a pod stays bound to a node that is not ready or cannot be reached, unless it says otherwise.
pub const LOST_NODE_SECONDS_DEFAULT: i64 = 300;

/// The row of Pod.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Ready", "string", "ready containers of all"),
        column("Status", "string", "what the pod is doing, or why it is not"),
        column("Restarts", "string", "how often containers were restarted, and when last"),
        age_column(),
        wide("IP", "string", "the pod's address"),
        wide("Node", "string", "where it runs"),
        wide("Nominated Node", "string", "where it will run once others have made room"),
        wide("Readiness Gates", "string", "conditions met of those that readiness also waits for"),
    ];
    let mut pod = row(&kinds::POD, columns, Pod)
        .shows_deleted()
        .short_names(&["po"])
        .in_all()
        .subresources(&[
            Subresource::Status,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Log,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::EphemeralContainers,
            Subresource::Resize,
        ])
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
        .counts_generations();
    pod.grace_seconds_default = Some(GRACE_SECONDS_DEFAULT);
    pod
}

struct Pod;

impl Rules for Pod {
    fn default(&self, object: &mut Value) {
        defaults::fill_pod(object);
    }

    /// A new pod waits, and has what Kubernetes' admission gives to every pod: an account, a priority, and patience with
    /// nodes that are lost.
    fn prepare_create(&self, object: &mut Value) {
        match_label::merge(object);
        let Some(spec) = part_mut(object, "spec") else { return };
        fill_text(spec, "serviceAccountName", "default");
        defaults::fill_account(spec);
        fill(spec, "priority", 0);
        fill(spec, "preemptionPolicy", "PreemptLowerPriority");
        tolerate_lost_nodes(spec);
        let mut status = json!({"phase": "Pending", "qosClass": requirements::quality(spec)});
        if !spec.items("schedulingGates").is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object["status"] = status;
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
        let Some(spec) = part_mut(object, "spec") else { return };
        for field in ["serviceAccountName", "serviceAccount", "priority", "preemptionPolicy"] {
            if !spec.is_set(field) {
                carry_over(spec, &old["spec"], field);
            }
        }
        tolerate_lost_nodes(spec);
    }

    fn prepare_part(&self, part: Subresource, object: &mut Value, old: &Value) {
        match part {
            Subresource::EphemeralContainers => ephemeral::keep_the_rest(object, old),
            Subresource::Resize => resize::keep_the_rest(object, old),
            _ => {}
        }
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        status::fill(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_whole(object, errors);
        let (spec, at) = (&object["spec"], Path::new("spec"));
        if !spec.items("ephemeralContainers").is_empty() {
            errors.forbidden(&at.child("ephemeralContainers"), "cannot be set on create");
        }
        if !spec.items("schedulingGates").is_empty() && !spec.text("nodeName").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.forbidden(&at.child("nodeName"), detail);
        }
        annotation::validate_fields(&object["metadata"], spec, &at, errors);
    }

    fn validate_changed(&self, object: &Value, old: &Value, errors: &mut Errors) {
        validate_whole(object, errors);
        self.validate_update(object, old, errors);
    }

    fn validate_part(&self, part: Subresource, object: &Value, old: &Value, errors: &mut Errors) {
        let refusal = match part {
            Subresource::EphemeralContainers => ephemeral::refusal(old),
            Subresource::Resize => resize::refusal(old),
            _ => None,
        };
        if let Some(refusal) = refusal {
            errors.forbidden(&Path::whole(), refusal);
            return;
        }
        validate_whole(object, errors);
        match part {
            Subresource::EphemeralContainers => ephemeral::validate_update(object, old, errors),
            Subresource::Resize => resize::validate(object, old, errors),
            _ => {}
        }
    }

    /// Of a new pod only: one that exists is changed by programs, which nobody reads the warnings of.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let mut all: Vec<String> = warning::of_name(object, "this is used in the Pod's hostname").into_iter().collect();
        all.extend(warning::warnings(object, &Path::root()));
        all
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        update::validate(object, old, errors);
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        status::validate(object, old, errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells::cells(object, now)
    }
}

/// What holds for every pod, new or not.
fn validate_whole(pod: &Value, errors: &mut Errors) {
    let (spec, at) = (&pod["spec"], Path::new("spec"));
    annotation::validate(&pod["metadata"], spec, &Path::new("metadata").child("annotations"), errors);
    spec::validate(spec, Some(pod), &at, errors);
    for list in ["containers", "initContainers"] {
        for (index, container) in spec.items(list).iter().enumerate() {
            container::validate_image_space(container, &at.child(list).index(index), errors);
        }
    }
}

/// All containers of a pod spec, in the order in which Kubernetes visits them, with the list and the index of each.
fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    lists.flat_map(|list| spec.items(list).iter().enumerate().map(move |(index, container)| (list, index, container)))
}

/// A pod as it was, with what tells it from others as the wished one has it: what a subresource begins with.
fn kept(pod: &Value, old: &Value) -> Value {
    let mut kept = old.clone();
    if let Some(metadata) = kept.get_mut("metadata") {
        carry_over(metadata, &pod["metadata"], "resourceVersion");
    }
    kept
}

/// Whether a pod is its node's own: the object only mirrors what the node runs anyway.
fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// Adds the tolerations that let a pod outlast a short absence of its node, where it says nothing of its own.
fn tolerate_lost_nodes(spec: &mut Value) {
    let mut tolerations = spec.items("tolerations").to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let says = tolerations.iter().any(|toleration| {
            let of_key = toleration.text("key") == key || toleration.text("key").is_empty();
            of_key && matches!(toleration.text("effect"), "" | "NoExecute")
        });
        if !says {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS_DEFAULT,
            }));
        }
    }
    spec["tolerations"] = Value::Array(tolerations);
}

/// The names and the images of a template's containers, as wide columns show them.
pub(super) fn template_columns(template: &Value) -> (String, String) {
    let containers = template["spec"].items("containers");
    let joined = |field: &str| containers.iter().map(|container| container.text(field)).collect::<Vec<_>>().join(",");
    (joined("name"), joined("image"))
}

#[cfg(test)]
mod tests;
