//! Security context: as whom a pod's processes run, and what they may ask of the kernel.
//!
//! Source: API reference, core/v1 PodSecurityContext and SecurityContext.

use serde_json::Value;

use super::super::check::{descending_path, optional_word, within};
use super::super::tree::Tree;
use super::windows;
use crate::field::{Errors, Path};

/// User and group numbers.
const IDS: (i64, i64) = (0, i32::MAX as i64);
const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL_PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// What the kernel takes as a path.
const PROFILE_BYTES_MAX: usize = 4095;

/// Checks the security context of a pod spec.
pub(super) fn validate_pod(spec: &Value, at: &Path, errors: &mut Errors) {
    let (context, path) = (&spec["securityContext"], &at.child("securityContext"));
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        within(context, field, IDS, path, errors);
    }
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        if !group.as_i64().is_some_and(|group| (IDS.0..=IDS.1).contains(&group)) {
            let path = path.child("supplementalGroups").index(index);
            errors.invalid(&path, group.clone(), "must be between 0 and 2147483647, inclusive");
        }
    }
    validate_sysctls(spec, &path.child("sysctls"), errors);
    optional_word(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    validate_seccomp(context, path, errors);
    windows::validate(context, path, errors);
    validate_app_armor(context, path, errors);
    optional_word(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    optional_word(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], path, errors);
}

/// Checks the security context of a container. `host_users` says whether its users are the machine's.
pub(super) fn validate_container(context: &Value, host_users: bool, path: &Path, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        within(context, field, IDS, path, errors);
    }
    match context.text("procMount") {
        _ if !context.is_set("procMount") => {}
        "Default" => {}
        "Unmasked" if host_users => {
            let detail = "`hostUsers` must be false to use `Unmasked`";
            errors.invalid(&path.child("procMount"), "Unmasked", detail);
        }
        "Unmasked" => {}
        other => errors.not_supported(&path.child("procMount"), other, &["Default", "Unmasked"]),
    }
    validate_seccomp(context, path, errors);
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
    windows::validate(context, path, errors);
    validate_app_armor(context, path, errors);
}

fn validate_seccomp(context: &Value, at: &Path, errors: &mut Errors) {
    let (profile, at) = (&context["seccompProfile"], at.child("seccompProfile"));
    if profile.is_null() {
        return;
    }
    validate_profile_type(profile, "type is required when seccompProfile is set", &at, errors);
    let path = at.child("localhostProfile");
    match (profile.text("type") == "Localhost", profile.is_set("localhostProfile")) {
        (true, false) => errors.required(&path, "must be set when seccomp type is Localhost"),
        (true, true) => descending_path(profile.text("localhostProfile"), &path, errors),
        (false, true) => errors.invalid(&path, profile.clone(), "can only be set when seccomp type is Localhost"),
        (false, false) => {}
    }
}

fn validate_app_armor(context: &Value, at: &Path, errors: &mut Errors) {
    let (profile, at) = (&context["appArmorProfile"], at.child("appArmorProfile"));
    if profile.is_null() {
        return;
    }
    let (local, path) = (profile.text("localhostProfile"), at.child("localhostProfile"));
    match profile.text("type") {
        "Localhost" => {
            if profile.is_set("localhostProfile") && local.trim() != local {
                errors.invalid(&path, local, "must not be padded with whitespace");
            } else if local.is_empty() {
                errors.required(&path, "must be set when AppArmor type is Localhost");
            }
            if local.len() > PROFILE_BYTES_MAX {
                errors.too_long(&path, PROFILE_BYTES_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.is_set("localhostProfile") {
                errors.invalid(&path, local, "can only be set when AppArmor type is Localhost");
            }
        }
        _ => validate_profile_type(profile, "type is required when appArmorProfile is set", &at, errors),
    }
}

fn validate_profile_type(profile: &Value, needed: &str, at: &Path, errors: &mut Errors) {
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    match profile.text("type") {
        "" => errors.required(&at.child("type"), needed),
        word if !TYPES.contains(&word) => errors.not_supported(&at.child("type"), word, TYPES),
        _ => {}
    }
}

fn validate_sysctls(spec: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, sysctl) in spec["securityContext"].items("sysctls").iter().enumerate() {
        let (name, path) = (sysctl.text("name"), at.index(index).child("name"));
        if name.is_empty() {
            errors.required(&path, "");
        } else if name.len() > SYSCTL_BYTES_MAX || !is_sysctl(name) {
            let detail = format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL_PATTERN}");
            errors.invalid(&path, name, &detail);
        } else if seen.contains(name) {
            errors.duplicate(&path, name);
        }
        seen.insert(name);
        // What a pod shares with its machine it may not change for all others there.
        for (shared, is_own) in [("hostNetwork", is_of_network as fn(&str) -> bool), ("hostIPC", is_of_ipc)] {
            if spec.flag(shared) && is_own(&name.replace('/', ".")) {
                errors.invalid(&path, name, &format!("may not be specified when '{shared}' is true"));
            }
        }
    }
}

fn is_of_network(sysctl: &str) -> bool {
    sysctl.starts_with("net.")
}

fn is_of_ipc(sysctl: &str) -> bool {
    sysctl == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|head| sysctl.starts_with(head))
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
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check_pod(spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate_pod(&spec, &Path::new("s"), &mut errors);
        compare(&errors, expected);
    }

    fn check(context: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate_container(&context, true, &Path::new("sc"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn ids_are_those_of_the_kernel() {
        check_pod(json!({"securityContext": {"runAsUser": 0, "fsGroup": 2_147_483_647}}), &[]);
        check_pod(
            json!({"securityContext": {"runAsUser": -1, "supplementalGroups": [1, 4_294_967_296_i64],
                "fsGroupChangePolicy": "Never", "supplementalGroupsPolicy": "Add", "seLinuxChangePolicy": "Copy"}}),
            &[
                "s.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "s.securityContext.supplementalGroups[1]: Invalid value",
                "s.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
                "s.securityContext.supplementalGroupsPolicy: Unsupported value: \"Add\": supported values: \"Merge\", \"Strict\"",
                "s.securityContext.seLinuxChangePolicy: Unsupported value: \"Copy\": supported values: \"MountOption\", \"Recursive\"",
            ],
        );
    }

    #[test]
    fn sysctls_are_the_pods_own() {
        let sysctls = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        check_pod(json!({"securityContext": {"sysctls": sysctls(&["net.core.somaxconn", "kernel.sem"])}}), &[]);
        check_pod(
            json!({"hostNetwork": true, "hostIPC": true, "securityContext": {"sysctls":
                sysctls(&["net.core.a", "kernel/shmmax", "kernel.x", "kernel.x", "../x", ""])}}),
            &[
                "s.securityContext.sysctls[0].name: Invalid value: \"net.core.a\": may not be specified when 'hostNetwork' is true",
                "s.securityContext.sysctls[1].name: Invalid value: \"kernel/shmmax\": may not be specified when 'hostIPC' is true",
                "s.securityContext.sysctls[3].name: Duplicate value: \"kernel.x\"",
                "s.securityContext.sysctls[4].name: Invalid value: \"../x\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                "s.securityContext.sysctls[5].name: Required value",
            ],
        );
    }

    #[test]
    fn profiles_are_named_only_where_they_are_local() {
        check(json!({"seccompProfile": {"type": "RuntimeDefault"}}), &[]);
        check(
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}),
            &[
                "sc.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
                "sc.appArmorProfile.localhostProfile: Invalid value: \" x\": must not be padded with whitespace",
            ],
        );
        check(
            json!({"seccompProfile": {"type": "Localhost"}, "appArmorProfile": {"type": "Localhost"}}),
            &[
                "sc.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                "sc.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
            ],
        );
        check(
            json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}, "appArmorProfile": {}}),
            &[
                "sc.seccompProfile.localhostProfile: Invalid value: {\"localhostProfile\":\"x\",\"type\":\"Unconfined\"}: can only be set",
                "sc.appArmorProfile.type: Required value: type is required when appArmorProfile is set",
            ],
        );
    }

    #[test]
    fn privilege_is_not_both_given_and_refused() {
        check(
            json!({"privileged": true, "allowPrivilegeEscalation": false, "capabilities": {"add": ["SYS_ADMIN"]}}),
            &["sc: Invalid value", "sc: Invalid value"],
        );
    }

    #[test]
    fn all_of_proc_is_shown_only_to_users_that_are_not_the_machines() {
        check(
            json!({"procMount": "Unmasked"}),
            &["sc.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false"],
        );
        check(
            json!({"procMount": "None"}),
            &["sc.procMount: Unsupported value: \"None\": supported values: \"Default\", \"Unmasked\""],
        );
        let mut errors = Errors::new();
        validate_container(&json!({"procMount": "Unmasked"}), false, &Path::new("sc"), &mut errors);
        compare(&errors, &[]);
    }
}
