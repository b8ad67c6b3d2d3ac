//! What may change of a pod that exists.
//!
//! Rules
//!   U1 containers   none added, none removed; their images may change
//!   U2 deadline     may be set or shortened
//!   U3 tolerations  may be added, and their seconds changed
//!   U4 gates        may be removed; while one is left the pod may still be told more closely where to run
//!   U5 the rest     stays
//!   U6 status       a container that ended for good stays ended
//! Source: API reference, core/v1 PodSpec; "Pod update and replacement".

use serde_json::Value;

use super::super::same::same;
use super::super::tree::{Tree, carry_over};
use crate::field::{Errors, Path};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// U1 to U5.
pub(super) fn validate(pod: &Value, old: &Value, errors: &mut Errors) {
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
    validate_deadline(spec, before, &at, errors);
    validate_tolerations(spec, before, &at, errors);
    let gated = validate_gates(spec, before, &at, errors);
    if gated {
        validate_more_closely(spec, before, &at, errors);
    }
    validate_rest(spec, before, gated, &at, errors);
}

/// U2.
fn validate_deadline(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("activeDeadlineSeconds");
    match (spec.int("activeDeadlineSeconds"), before.int("activeDeadlineSeconds")) {
        (None, Some(_)) => errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value"),
        (Some(now), Some(then)) if now > then => {
            errors.invalid(&path, now, "must be less than or equal to previous value");
        }
        _ => {}
    }
}

/// U3.
fn validate_tolerations(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        carry_over(&mut toleration, &Value::Null, "tolerationSeconds");
        toleration
    };
    let now: Vec<Value> = spec.items("tolerations").iter().map(timeless).collect();
    for toleration in before.items("tolerations").iter().map(timeless) {
        if !now.iter().any(|now| same(now, &toleration)) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.forbidden(&at.child("tolerations"), detail);
        }
    }
}

/// U4. Gives whether the pod was held back.
fn validate_gates(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) -> bool {
    let gates = before.items("schedulingGates");
    let known = |name: &str| gates.iter().any(|gate| gate.text("name") == name);
    for gate in spec.items("schedulingGates") {
        let name = gate.text("name");
        if !known(name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&at.child("schedulingGates"), &detail);
        }
    }
    !gates.is_empty()
}

/// U4: of a pod that is held back, what it says about its place may grow but not change.
fn validate_more_closely(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let selector = spec.entries("nodeSelector");
    if before.entries("nodeSelector").iter().any(|(key, value)| selector.get(key) != Some(value)) {
        let detail = "only additions are allowed while the pod has scheduling gates";
        errors.invalid(&at.child("nodeSelector"), spec["nodeSelector"].clone(), detail);
    }
    let (now, then) = (&spec["affinity"]["nodeAffinity"], &before["affinity"]["nodeAffinity"]);
    if !then.is_null() && !same(now, then) {
        let detail = "may only be set where there was none while the pod has scheduling gates";
        errors.invalid(&at.child("affinity").child("nodeAffinity"), now.clone(), detail);
    }
}

/// U5.
fn validate_rest(spec: &Value, before: &Value, gated: bool, at: &Path, errors: &mut Errors) {
    let mut then = before.clone();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        carry_over(&mut then, spec, field);
    }
    if gated {
        carry_over(&mut then, spec, "nodeSelector");
        carry_over(&mut then, spec, "affinity");
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

/// U6.
pub(super) fn validate_status(pod: &Value, old: &Value, errors: &mut Errors) {
    let policy = old["spec"].text("restartPolicy");
    if policy == "Always" {
        return;
    }
    let at = Path::new("status").child("containerStatuses");
    for (index, status) in pod["status"].items("containerStatuses").iter().enumerate() {
        let name = status.text("name");
        let mut before = old["status"].items("containerStatuses").iter();
        let Some(before) = before.find(|before| before.text("name") == name) else { continue };
        let ended = &before["state"]["terminated"];
        let by_itself = old["spec"]
            .items("containers")
            .iter()
            .any(|container| container.text("name") == name && !container.text("restartPolicy").is_empty());
        let for_good = ended.is_object() && (policy == "Never" || ended.int("exitCode").unwrap_or(0) == 0);
        if for_good && !by_itself && !status["state"]["terminated"].is_object() {
            errors.forbidden(&at.index(index).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}
