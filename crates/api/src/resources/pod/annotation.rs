//! Annotations of a pod that mean something: profiles from before they had fields, whose pod it is, and what it costs to
//! delete it.
//!
//! Rules
//!   A1 mirror     a node's own pod is on a node; a pod is never made one, nor stops being one
//!   A2 cost       of deletion is a whole number of 32 bits
//!   A3 profiles   are well-formed, of containers that exist, and say what their fields say
//! Source: "Well-Known Labels, Annotations and Taints"; KEP-24, KEP-135, KEP-2255.

use serde_json::{Map, Value};

use super::super::check::descending_path;
use super::super::tree::Tree;
use crate::field::{Errors, Path};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCAL: &str = "localhost/";

/// A1 to A3 of a pod or template. `at` is the path of the annotations.
pub(super) fn validate(metadata: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let annotations = metadata.entries("annotations");
    if annotations.is_empty() {
        return;
    }
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    if let Some(mirror) = text(MIRROR)
        && spec.text("nodeName").is_empty()
    {
        errors.invalid(&at.key(MIRROR), mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(cost) = text(DELETION_COST).filter(|cost| !is_cost(cost)) {
        errors.invalid(&at.key(DELETION_COST), cost, "must be a 32bit integer");
    }
    if let Some(profile) = text(SECCOMP_POD) {
        validate_seccomp(profile, &at.child(SECCOMP_POD), errors);
    }
    for (key, profile) in annotations {
        let profile = profile.as_str().unwrap_or_default();
        if key.starts_with(SECCOMP_CONTAINER) {
            validate_seccomp(profile, &at.child(key), errors);
        } else if let Some(name) = key.strip_prefix(APP_ARMOR) {
            if !super::containers(spec).any(|(_, _, container)| container.text("name") == name) {
                errors.invalid(&at.key(key), name, "container not found");
            }
            if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with(LOCAL) {
                errors.invalid(&at.key(key), profile, &format!("invalid AppArmor profile name: {profile:?}"));
            }
        }
    }
}

/// A number as it is usually written: no sign but a minus, no zeroes in front.
fn is_cost(text: &str) -> bool {
    let starts_well = text == "0" || text.starts_with('-') || text.starts_with(|first| ('1'..='9').contains(&first));
    starts_well && text.parse::<i32>().is_ok()
}

fn validate_seccomp(profile: &str, path: &Path, errors: &mut Errors) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match profile.strip_prefix(LOCAL) {
            Some(local) => descending_path(local, path, errors),
            None => errors.invalid(path, profile, "must be a valid seccomp profile"),
        },
    }
}

/// A3: where both an annotation and a field speak of a profile. `at` is the path of the spec.
pub(super) fn validate_fields(metadata: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let annotations = metadata.entries("annotations");
    if annotations.is_empty() {
        return;
    }
    let of_pod = &spec["securityContext"];
    let seccomp = Pair { word: "seccomp", field: "seccompProfile", annotations };
    seccomp.compare(SECCOMP_POD, &of_pod["seccompProfile"], &at.child("securityContext"), errors);
    for (list, index, container) in super::containers(spec) {
        let path = at.child(list).index(index).child("securityContext");
        let key = format!("{SECCOMP_CONTAINER}{}", container.text("name"));
        seccomp.compare(&key, &container["securityContext"]["seccompProfile"], &path, errors);
    }
    if spec["os"].text("name") == "windows" {
        return;
    }
    let app_armor = Pair { word: "apparmor", field: "appArmorProfile", annotations };
    for (list, index, container) in super::containers(spec) {
        let path = at.child(list).index(index).child("securityContext");
        let own = &container["securityContext"]["appArmorProfile"];
        let profile = if own.is_object() { own } else { &of_pod["appArmorProfile"] };
        app_armor.compare(&format!("{APP_ARMOR}{}", container.text("name")), profile, &path, errors);
    }
}

/// Annotations and the field that came after them.
struct Pair<'a> {
    word: &'static str,
    field: &'static str,
    annotations: &'a Map<String, Value>,
}

impl Pair<'_> {
    fn compare(&self, key: &str, profile: &Value, at: &Path, errors: &mut Errors) {
        let Some(said) = self.annotations.get(key).and_then(Value::as_str) else { return };
        let path = at.child(self.field);
        let is_same_type = match profile.text("type") {
            "Unconfined" => said == "unconfined",
            "RuntimeDefault" => said == "runtime/default" || (self.word == "seccomp" && said == "docker/default"),
            "Localhost" => said.starts_with(LOCAL),
            _ => return,
        };
        if !is_same_type {
            let detail = format!("{} type in annotation and field must match", self.word);
            errors.forbidden(&path.child("type"), &detail);
        } else if profile.text("type") == "Localhost" && said[LOCAL.len()..] != *profile.text("localhostProfile") {
            let detail = format!("{} profile in annotation and field must match", self.word);
            errors.forbidden(&path.child("localhostProfile"), &detail);
        }
    }
}

/// A1 and A3 of a change.
pub(super) fn validate_update(pod: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("metadata").child("annotations");
    let (now, then) = (pod["metadata"].entries("annotations"), old["metadata"].entries("annotations"));
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in then {
        if let Some(what) = what(key).filter(|_| now.get(key) != Some(value)) {
            errors.forbidden(&path.key(key), &format!("may not remove or update {what}"));
        }
    }
    for key in now.keys().filter(|key| !then.contains_key(*key)) {
        if let Some(what) = what(key) {
            errors.forbidden(&path.key(key), &format!("may not add {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{validate, validate_fields, validate_update};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(annotations: Value, spec: Value, expected: &[&str]) {
        let (metadata, mut errors) = (json!({"annotations": annotations}), Errors::new());
        validate(&metadata, &spec, &Path::new("a"), &mut errors);
        validate_fields(&metadata, &spec, &Path::new("spec"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn a1_a_nodes_own_pod_is_on_a_node_and_stays_one() {
        check(json!({"kubernetes.io/config.mirror": "h"}), json!({"nodeName": "n"}), &[]);
        check(
            json!({"kubernetes.io/config.mirror": "h"}),
            json!({}),
            &[
                "a[kubernetes.io/config.mirror]: Invalid value: \"h\": must set spec.nodeName if mirror pod annotation is set",
            ],
        );
        let (mirror, plain) = (json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}}}), json!({}));
        for (now, then, expected) in [
            (&mirror, &plain, "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod"),
            (&plain, &mirror, "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update"),
        ] {
            let mut errors = Errors::new();
            validate_update(now, then, &mut errors);
            compare(&errors, &[expected]);
        }
    }

    #[test]
    fn a2_the_cost_of_deletion_is_a_number() {
        for (cost, good) in [
            ("0", true),
            ("-5", true),
            ("100", true),
            ("+1", false),
            ("01", false),
            ("2147483648", false),
            ("x", false),
        ] {
            let expected = format!(
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: {cost:?}: must be a 32bit integer"
            );
            let expected = [expected.as_str()];
            check(
                json!({"controller.kubernetes.io/pod-deletion-cost": cost}),
                json!({}),
                if good { &[] } else { &expected },
            );
        }
    }

    #[test]
    fn a3_profiles_say_what_their_fields_say() {
        let spec = |profile: Value| json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": profile, "appArmorProfile": profile}}]});
        let annotations = json!({"container.seccomp.security.alpha.kubernetes.io/c": "localhost/a",
            "container.apparmor.security.beta.kubernetes.io/c": "localhost/a"});
        check(annotations.clone(), spec(json!({"type": "Localhost", "localhostProfile": "a"})), &[]);
        check(
            annotations.clone(),
            spec(json!({"type": "Localhost", "localhostProfile": "b"})),
            &[
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation",
                "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation",
            ],
        );
        check(
            annotations,
            spec(json!({"type": "Unconfined"})),
            &[
                "spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must",
                "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must",
            ],
        );
        check(
            json!({"container.apparmor.security.beta.kubernetes.io/x": "mine", "seccomp.security.alpha.kubernetes.io/pod": "mine"}),
            json!({}),
            &[
                "a.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"mine\": must be a valid seccomp profile",
                "a[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: \"x\": container not found",
                "a[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: \"mine\": invalid AppArmor profile name",
            ],
        );
    }
}
