//! `/resize`: the resources of a pod's containers, changed while it runs.
//!
//! Rules
//!   Z1 only these   resources of containers by name; all else stays as it is
//!   Z2 cpu, memory  no other resource changes, and an init container's only where it is a sidecar
//!   Z3 kept         what is requested or limited may change, not go
//!   Z4 quality      the pod's quality of service stays
//!   Z5 nodes        a node's own pods and those of Windows are not resized, nor those of a node that does not show the
//!                   resources of what it runs
//! Not here          `spec.resources` of a pod as a whole; carrying it out and saying how far it is (node)
//! Source: API reference, core/v1 Pod; KEP-1287.

use serde_json::Value;

use super::super::same::same;
use super::super::tree::{Tree, carry_over, items_mut, part_mut};
use super::requirements;
use crate::field::{Errors, Path};

const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// Z1: makes all of a pod as it was but the resources of its containers, and the policies that Z2 then refuses to change.
pub(super) fn keep_the_rest(pod: &mut Value, old: &Value) {
    let mut kept = super::kept(pod, old);
    if let Some(spec) = kept.get_mut("spec") {
        for list in ["containers", "initContainers"] {
            for container in items_mut(spec, list) {
                let mut wished = pod["spec"].items(list).iter();
                if let Some(wished) = wished.find(|wished| wished.text("name") == container.text("name")) {
                    carry_over(container, wished, "resources");
                    carry_over(container, wished, "resizePolicy");
                }
            }
        }
    }
    *pod = kept;
}

/// Z5: why a pod cannot be resized at all.
pub(super) fn refusal(old: &Value) -> Option<&'static str> {
    if super::is_mirror(old) {
        return Some("static pods cannot be resized");
    }
    (old["spec"]["os"].text("name") == "windows").then_some("windows pods cannot be resized")
}

/// Z2 to Z5.
pub(super) fn validate(pod: &Value, old: &Value, errors: &mut Errors) {
    let (at, spec, before) = (Path::new("spec"), &pod["spec"], &old["spec"]);
    let quality = old["status"].text("qosClass");
    let quality = if quality.is_empty() { requirements::quality(before) } else { quality };
    if requirements::quality(spec) != quality {
        errors.invalid(&at, quality, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_supported(old) {
        errors.forbidden(&at, "Pod running on node without support for resize");
    }
    for list in ["containers", "initContainers"] {
        for (index, (now, then)) in spec.items(list).iter().zip(before.items(list)).enumerate() {
            validate_kept(
                &now["resources"],
                &then["resources"],
                &at.child(list).index(index).child("resources"),
                errors,
            );
        }
    }
    validate_rest(spec, before, &at, errors);
}

/// Z5: whether the node says what the containers that run have.
fn is_supported(pod: &Value) -> bool {
    let mut running =
        pod["status"].items("containerStatuses").iter().filter(|status| status["state"].is_set("running"));
    running.next().is_none_or(|status| status.is_set("resources"))
}

/// Z3.
fn validate_kept(now: &Value, then: &Value, at: &Path, errors: &mut Errors) {
    for (field, word) in [("limits", "limits"), ("requests", "requests")] {
        if then.entries(field).keys().any(|name| !now.entries(field).contains_key(name)) {
            errors.forbidden(&at.child(field), &format!("resource {word} cannot be removed"));
        }
    }
}

/// Z2: as if nothing else but cpu and memory had been asked for.
fn validate_rest(spec: &Value, before: &Value, at: &Path, errors: &mut Errors) {
    let restored = |container: &Value, then: &Value| {
        let mut container = container.clone();
        restore(&mut container, then);
        same(&container, then)
    };
    for (container, then) in spec.items("containers").iter().zip(before.items("containers")) {
        if !restored(container, then) {
            errors.forbidden(at, "only cpu and memory resources are mutable");
        }
    }
    let init = spec.items("initContainers").iter().zip(before.items("initContainers"));
    for (index, (container, then)) in init.enumerate() {
        let is_sidecar = then.text("restartPolicy") == "Always";
        if is_sidecar && !restored(container, then) {
            let detail = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(&at.child("initContainers").index(index), detail);
        } else if !is_sidecar && !same(container, then) {
            errors.forbidden(at, "resources for non-sidecar init containers are immutable");
        }
    }
}

/// Makes the amounts that may change what they were.
fn restore(container: &mut Value, then: &Value) {
    let Some(resources) = part_mut(container, "resources") else { return };
    for field in ["requests", "limits"] {
        if let Some(amounts) = part_mut(resources, field) {
            for name in MUTABLE {
                carry_over(amounts, &then["resources"][field], name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pod;
    use crate::field::Errors;
    use crate::resource::{Rules, Subresource};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn pod() -> Value {
        let amounts = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}});
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "containers": [{"name": "c", "image": "a", "resources": amounts}],
            "initContainers": [{"name": "i", "image": "a", "resources": amounts},
                {"name": "s", "image": "a", "restartPolicy": "Always", "resources": amounts}]}});
        Pod.default(&mut pod);
        Pod.prepare_create(&mut pod);
        pod
    }

    fn change(old: &Value, edit: impl FnOnce(&mut Value), expected: &[&str]) -> Value {
        let (mut pod, mut errors) = (old.clone(), Errors::new());
        edit(&mut pod["spec"]);
        Pod.prepare_part(Subresource::Resize, &mut pod, old);
        Pod.validate_part(Subresource::Resize, &pod, old, &mut errors);
        compare(&errors, expected);
        pod
    }

    #[test]
    fn z1_only_resources_change() {
        let old = pod();
        let changed = change(
            &old,
            |spec| {
                spec["containers"][0]["image"] = json!("b");
                spec["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
                spec["initContainers"][1]["resources"]["requests"]["cpu"] = json!("500m");
            },
            &[],
        );
        assert_eq!(changed["spec"]["containers"][0]["image"], "a");
        assert_eq!(changed["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    }

    #[test]
    fn z2_cpu_and_memory_of_what_runs() {
        change(
            &pod(),
            |spec| spec["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi"),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
        change(
            &pod(),
            |spec| {
                spec["containers"][0]["resizePolicy"] =
                    json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}])
            },
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
        change(
            &pod(),
            |spec| spec["initContainers"][0]["resources"]["requests"]["cpu"] = json!("2"),
            &["spec: Forbidden: resources for non-sidecar init containers are immutable"],
        );
        change(
            &pod(),
            |spec| spec["initContainers"][1]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi"),
            &["spec.initContainers[1]: Forbidden: only cpu and memory resources for init or sidecar containers are"],
        );
    }

    #[test]
    fn z3_and_z4_nothing_goes_and_the_quality_stays() {
        change(
            &pod(),
            |spec| spec["containers"][0]["resources"]["limits"] = json!({}),
            &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
        );
        let mut best_effort = pod();
        best_effort["spec"]["initContainers"] = json!([]);
        best_effort["spec"]["containers"][0]["resources"] = json!({});
        best_effort["status"]["qosClass"] = json!("BestEffort");
        change(
            &best_effort,
            |spec| spec["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}}),
            &["spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing"],
        );
    }

    #[test]
    fn z5_not_every_pod_can_be_resized() {
        let more = |spec: &mut Value| spec["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
        let mut mirror = pod();
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        change(&mirror, more, &["[]: Forbidden: static pods cannot be resized"]);
        let mut running = pod();
        running["status"]["containerStatuses"] = json!([{"name": "c", "state": {"running": {}}}]);
        change(&running, more, &["spec: Forbidden: Pod running on node without support for resize"]);
        running["status"]["containerStatuses"][0]["resources"] = json!({});
        change(&running, more, &[]);
    }
}
