//! What may change of a pod that exists.
//!
//! Rules
//!   U1 containers   none added, none removed; their images may change
//!   U2 deadline     may be set or shortened
//!   U3 tolerations  may be added, and their seconds changed
//!   U4 gates        may be removed; while one is left the pod may still be told more closely where to run
//!   U5 the rest     stays
//! Source: API reference, core/v1 PodSpec; "Pod update and replacement".

use serde_json::Value;

use super::super::same::same;
use super::super::tree::{Tree, carry_over, part_mut};
use super::annotation;
use crate::field::{Errors, Path};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// U1 to U5.
pub(super) fn validate(pod: &Value, old: &Value, errors: &mut Errors) {
    annotation::validate_update(pod, old, errors);
    let (spec, before) = (&pod["spec"], &old["spec"]);
    if spec == before {
        return;
    }
    let at = Path::new("spec");
    for list in ["containers", "initContainers"] {
        if spec.items(list).len() != before.items(list).len() {
            errors.forbidden(&at.child(list), "pod updates may not add or remove containers");
            return;
        }
    }
    if !validate_deadline(spec, before, &at, errors) {
        return;
    }
    validate_tolerations(spec, before, &at, errors);
    validate_gates(spec, before, &at, errors);
    let gated = !before.items("schedulingGates").is_empty();
    if gated {
        validate_more_closely(spec, before, &at, errors);
    }
    validate_rest(spec, before, gated, &at, errors);
}

/// U2. Gives whether the rest is looked at.
fn validate_deadline(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) -> bool {
    let path = at.child("activeDeadlineSeconds");
    match (spec.int("activeDeadlineSeconds"), before.int("activeDeadlineSeconds")) {
        (None, Some(_)) => errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value"),
        (Some(now), Some(then)) if now > then => {
            errors.invalid(&path, now, "must be less than or equal to previous value");
            return false;
        }
        _ => {}
    }
    true
}

/// U3.
fn validate_tolerations(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        carry_over(&mut toleration, &Value::Null, "tolerationSeconds");
        toleration
    };
    let now: Vec<Value> = spec.items("tolerations").iter().map(timeless).collect();
    let mut then = before.items("tolerations").iter().map(timeless);
    if !then.all(|toleration| now.iter().any(|now| same(now, &toleration))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&at.child("tolerations"), detail);
    }
}

/// U4.
fn validate_gates(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let gates = before.items("schedulingGates");
    for (index, gate) in spec.items("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !gates.iter().any(|gate| gate.text("name") == name) {
            let path = at.child("schedulingGates").index(index).child("name");
            errors.forbidden(&path, &format!("only deletion is allowed, but found new scheduling gate '{name}'"));
        }
    }
}

/// U4: of a pod that is held back, what it says about its place may grow but not change.
fn validate_more_closely(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let selector = spec.entries("nodeSelector");
    if before.entries("nodeSelector").iter().any(|(key, value)| selector.get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&at.child("nodeSelector"), spec["nodeSelector"].clone(), detail);
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |spec: &Value| spec["affinity"]["nodeAffinity"][REQUIRED].items("nodeSelectorTerms").to_vec();
    let (now, then) = (terms(spec), terms(before));
    let path = at.child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    if then.is_empty() {
        return;
    }
    if now.len() != then.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(&path, now, detail);
        return;
    }
    for (index, (now, then)) in now.iter().zip(&then).enumerate() {
        if !only_adds(now, then) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(index), now.clone(), detail);
        }
    }
}

/// Whether a term asks for all that it did, and perhaps more. One that asks for nothing meets no node, and stays so.
fn only_adds(now: &Value, then: &Value) -> bool {
    const LISTS: [&str; 2] = ["matchExpressions", "matchFields"];
    if LISTS.iter().all(|list| then.items(list).is_empty()) {
        return LISTS.iter().all(|list| now.items(list).is_empty());
    }
    LISTS.iter().all(|list| {
        let (now, then) = (now.items(list), then.items(list));
        now.len() >= then.len() && now.iter().zip(then).all(|(now, then)| same(now, then))
    })
}

/// U5.
fn validate_rest(spec: &Value, before: &Value, gated: bool, at: &Path, errors: &mut Errors) {
    let mut then = before.clone();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        carry_over(&mut then, spec, field);
    }
    if gated {
        carry_over(&mut then, spec, "nodeSelector");
        let node_affinity = &spec["affinity"]["nodeAffinity"];
        if node_affinity.is_object()
            && let Some(affinity) = part_mut(&mut then, "affinity")
        {
            affinity["nodeAffinity"] = node_affinity.clone();
        } else if let Some(affinity) = then.get_mut("affinity") {
            carry_over(affinity, &Value::Null, "nodeAffinity");
        }
    }
    if before.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && spec.int("terminationGracePeriodSeconds") == Some(1)
    {
        carry_over(&mut then, spec, "terminationGracePeriodSeconds");
    }
    for list in ["containers", "initContainers"] {
        let containers = then.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, now) in containers.zip(spec.items(list)) {
            carry_over(container, now, "image");
        }
    }
    if same(spec, &then) {
        return;
    }
    let fields =
        |tree: &Value| tree.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let mut changed: Vec<String> = fields(spec);
    changed.extend(fields(&then));
    changed.sort();
    changed.dedup();
    changed.retain(|field| !same(&spec[field.as_str()], &then[field.as_str()]));
    errors.forbidden(at, &format!("{MAY_CHANGE}\nchanged here: {}", changed.join(", ")));
}
