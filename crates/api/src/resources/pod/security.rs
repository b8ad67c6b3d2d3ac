//! Security context: as whom a pod's processes run, and what they may ask of the kernel.
//!
//! Source: API reference, core/v1 PodSecurityContext and SecurityContext.

use serde_json::Value;

use super::super::check::{descending_path, optional_word, required_word, within};
use super::super::tree::Tree;
use crate::field::{Errors, Path};

/// User and group numbers.
const IDS: (i64, i64) = (0, i32::MAX as i64);
const SYSCTL_BYTES_MAX: usize = 253;

/// Checks the security context of a pod.
pub(super) fn validate_pod(context: &Value, path: &Path, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        within(context, field, IDS, path, errors);
    }
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        if !group.as_i64().is_some_and(|group| (IDS.0..=IDS.1).contains(&group)) {
            let path = path.child("supplementalGroups").index(index);
            errors.invalid(&path, group.clone(), "must be between 0 and 2147483647, inclusive");
        }
    }
    optional_word(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    optional_word(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    validate_sysctls(context, &path.child("sysctls"), errors);
    validate_profiles(context, path, errors);
}

/// Checks the security context of a container.
pub(super) fn validate_container(context: &Value, path: &Path, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        within(context, field, IDS, path, errors);
    }
    optional_word(context, "procMount", &["Default", "Unmasked"], path, errors);
    validate_profiles(context, path, errors);
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context.clone(), detail);
        }
        let added = context["capabilities"].items("add");
        if added.iter().any(|capability| matches!(capability.as_str(), Some("CAP_SYS_ADMIN" | "SYS_ADMIN"))) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), detail);
        }
    }
}

fn validate_profiles(context: &Value, at: &Path, errors: &mut Errors) {
    for (field, word) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = &context[field];
        if profile.is_null() {
            continue;
        }
        let path = at.child(field);
        required_word(profile, "type", &["Localhost", "RuntimeDefault", "Unconfined"], &path, errors);
        let (local, path) = (profile.text("localhostProfile"), path.child("localhostProfile"));
        if profile.text("type") == "Localhost" {
            if local.trim().is_empty() {
                errors.required(&path, &format!("must be set when {word} type is Localhost"));
            }
            descending_path(local, &path, errors);
        } else if profile.is_set("localhostProfile") {
            errors.invalid(&path, local, &format!("can only be set when {word} type is Localhost"));
        }
    }
}

fn validate_sysctls(context: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, sysctl) in context.items("sysctls").iter().enumerate() {
        let path = at.index(index).child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if name.len() > SYSCTL_BYTES_MAX || !is_sysctl(name) {
            let detail = format!("must have at most {SYSCTL_BYTES_MAX} characters and be names with dots between them");
            errors.invalid(&path, name, &detail);
        } else if !seen.insert(name.replace('/', ".")) {
            errors.duplicate(&path, name);
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.split(['.', '/']).all(|part| {
        let bytes = part.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
        ends_well(bytes.first()) && ends_well(bytes.last()) && bytes.iter().all(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::{validate_container, validate_pod};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn check(rule: fn(&Value, &Path, &mut Errors), context: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        rule(&context, &Path::new("sc"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{context}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn ids_are_those_of_the_kernel() {
        check(validate_pod, json!({"runAsUser": 0, "fsGroup": 2_147_483_647}), &[]);
        check(
            validate_pod,
            json!({"runAsUser": -1, "supplementalGroups": [1, 4_294_967_296_i64]}),
            &[
                "sc.runAsUser: Invalid value: -1: must be between 0 and 2147483647",
                "sc.supplementalGroups[1]: Invalid value",
            ],
        );
        check(
            validate_pod,
            json!({"sysctls": [{"name": "net.core.somaxconn"}, {"name": "net/core/somaxconn"}, {"name": "../x"}]}),
            &["sc.sysctls[1].name: Duplicate value", "sc.sysctls[2].name: Invalid value: \"../x\""],
        );
    }

    #[test]
    fn profiles_are_named_only_where_they_are_local() {
        check(validate_container, json!({"seccompProfile": {"type": "RuntimeDefault"}}), &[]);
        check(
            validate_container,
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
            &["sc.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'"],
        );
        check(
            validate_container,
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": ""}}),
            &["sc.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"],
        );
        check(
            validate_container,
            json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}, "appArmorProfile": {}}),
            &[
                "sc.seccompProfile.localhostProfile: Invalid value: \"x\": can only be set",
                "sc.appArmorProfile.type: Required value",
            ],
        );
    }

    #[test]
    fn privilege_is_not_both_given_and_refused() {
        check(
            validate_container,
            json!({"privileged": true, "allowPrivilegeEscalation": false, "capabilities": {"add": ["SYS_ADMIN"]}}),
            &["sc: Invalid value", "sc: Invalid value"],
        );
    }
}
