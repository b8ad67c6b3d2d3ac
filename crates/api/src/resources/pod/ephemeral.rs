//! Ephemeral containers: added to a pod that runs, to look at it. Never restarted, never removed.
//!
//! Rules
//!   N1 fields      only what a visitor needs: nothing that the pod would come to rely on, and no paths inside of volumes
//!   N2 target      the container that it looks at is one of the pod's
//!   N3 adding      `/ephemeralcontainers` changes this list only; those that are there stay as they are
//!   N4 mirrors     a node's own pods take none
//! Source: API reference, core/v1 EphemeralContainer; KEP-277.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::same::same;
use super::super::tree::{Tree, carry_over};
use crate::field::{Errors, Path};

const FORBIDDEN: &str = "cannot be set for an Ephemeral Container";
/// What a container may have and a visitor may not.
const FIELDS: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// N1 and N2. `names` are those of the pod's other containers.
pub(super) fn validate(container: &Value, names: &BTreeSet<&str>, at: &Path, errors: &mut Errors) {
    let target = container.text("targetContainerName");
    if !target.is_empty() && !names.contains(target) {
        errors.not_found(&at.child("targetContainerName"), target);
    }
    for field in FIELDS.into_iter().filter(|field| !same(&container[*field], &Value::Null)) {
        errors.forbidden(&at.child(field), FORBIDDEN);
    }
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !mount.text(field).is_empty()) {
            errors.forbidden(&at.child("volumeMounts").index(index).child(field), FORBIDDEN);
        }
    }
}

/// N3: makes all of a pod as it was but the list.
pub(super) fn keep_the_rest(pod: &mut Value, old: &Value) {
    let mut kept = super::kept(pod, old);
    if let Some(spec) = kept.get_mut("spec") {
        carry_over(spec, &pod["spec"], "ephemeralContainers");
    }
    *pod = kept;
}

/// N4: why a pod takes none at all.
pub(super) fn refusal(old: &Value) -> Option<&'static str> {
    super::is_mirror(old).then_some("static pods do not support ephemeral containers")
}

/// N3.
pub(super) fn validate_update(pod: &Value, old: &Value, errors: &mut Errors) {
    let at = Path::new("spec").child("ephemeralContainers");
    let now = pod["spec"].items("ephemeralContainers");
    for before in old["spec"].items("ephemeralContainers") {
        let name = before.text("name");
        match now.iter().find(|container| container.text("name") == name) {
            None => errors.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(after) if !same(after, before) => {
                errors.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
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

    /// A pod with these ephemeral containers.
    fn pod(ephemeral: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "containers": [{"name": "c", "image": "a"}], "ephemeralContainers": ephemeral,
            "volumes": [{"name": "v", "emptyDir": {}}]}});
        Pod.default(&mut pod);
        pod
    }

    fn change(wished: &Value, old: &Value, expected: &[&str]) -> Value {
        let (mut pod, mut errors) = (wished.clone(), Errors::new());
        Pod.prepare_part(Subresource::EphemeralContainers, &mut pod, old);
        Pod.validate_part(Subresource::EphemeralContainers, &pod, old, &mut errors);
        compare(&errors, expected);
        pod
    }

    #[test]
    fn n1_and_n2_a_visitor_has_little() {
        let visitor = json!({"name": "d", "image": "a", "targetContainerName": "c",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        change(&pod(json!([visitor])), &pod(json!([])), &[]);
        change(
            &pod(json!([{"name": "c", "image": "a", "targetContainerName": "x", "resources": {"limits": {"cpu": "1"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a"}], "ports": [{"containerPort": 1}]}])),
            &pod(json!([])),
            &[
                "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
            ],
        );
    }

    #[test]
    fn n3_those_that_are_there_stay_and_nothing_else_changes() {
        let (one, two) = (json!({"name": "d", "image": "a"}), json!({"name": "e", "image": "a"}));
        let old = pod(json!([one]));
        let mut wished = pod(json!([one, two]));
        wished["spec"]["containers"][0]["image"] = json!("b");
        wished["metadata"]["labels"] = json!({"a": "b"});
        let changed = change(&wished, &old, &[]);
        assert_eq!(
            (&changed["metadata"], &changed["spec"]["containers"]),
            (&old["metadata"], &old["spec"]["containers"])
        );
        assert_eq!(changed["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2));
        change(
            &pod(json!([two])),
            &old,
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed"],
        );
        change(
            &pod(json!([{"name": "d", "image": "b"}])),
            &old,
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed"],
        );
    }

    #[test]
    fn n4_mirrors_take_none() {
        let mut old = pod(json!([]));
        old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        change(&old, &old, &["[]: Forbidden: static pods do not support ephemeral containers"]);
    }
}
