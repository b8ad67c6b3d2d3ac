//! What pods say that is only for Windows, and what they may not say because it is only for another system.
//!
//! Rules
//!   W1 options   of a security context are well-formed
//!   W2 machine   processes of the machine: all containers or none, on the machine's network
//!   W3 system    of a system that is known; what is only for another one is not said
//! Source: API reference, core/v1 PodOS and WindowsSecurityContextOptions; KEP-2802.

use serde_json::Value;

use super::super::check::named;
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

const CREDENTIAL_BYTES_MAX: usize = 64 * 1024;
const DOMAIN_BYTES_MAX: usize = 255;
const USER_BYTES_MAX: usize = 104;
const NOT_FOR_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_FOR_LINUX: &str = "windows options cannot be set for a linux pod";
/// Fields of a pod's security context that Windows knows nothing of.
const OF_POD: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// Fields of a container's.
const OF_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// W1, for a security context at `at`.
pub(super) fn validate(context: &Value, at: &Path, errors: &mut Errors) {
    let (options, at) = (&context["windowsOptions"], at.child("windowsOptions"));
    if options.is_set("gmsaCredentialSpecName") {
        let path = at.child("gmsaCredentialSpecName");
        named(name::subdomain, options.text("gmsaCredentialSpecName"), &path, errors);
    }
    if options.is_set("gmsaCredentialSpec") {
        let (spec, path) = (options.text("gmsaCredentialSpec"), at.child("gmsaCredentialSpec"));
        if spec.is_empty() {
            errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > CREDENTIAL_BYTES_MAX {
            errors.invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if options.is_set("runAsUserName") {
        let user = options.text("runAsUserName");
        for fault in user_faults(user) {
            errors.invalid(&at.child("runAsUserName"), user, &format!("runAsUserName{fault}"));
        }
    }
}

/// What is wrong with a user of Windows, who may be one of a domain: `DOMAIN\user`.
fn user_faults(text: &str) -> Vec<String> {
    let one = |fault: &str| vec![fault.to_owned()];
    if text.is_empty() {
        return one(" cannot be an empty string");
    }
    if text.chars().any(|found| found.is_ascii_control()) {
        return one(" cannot contain control characters");
    }
    if text.matches('\\').count() > 1 {
        return one(" cannot contain more than one backslash");
    }
    let mut faults = Vec::new();
    let (domain, user) = text.split_once('\\').map_or((None, text), |(domain, user)| (Some(domain), user));
    if let Some(domain) = domain {
        if domain.len() > DOMAIN_BYTES_MAX {
            faults.push("'s Domain length must be under 256 characters".to_owned());
        }
        if !is_net_bios(domain) && !is_dns(domain) {
            faults.push("'s Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        faults.push("'s User cannot be empty".to_owned());
    } else if user.len() > USER_BYTES_MAX {
        faults.push(format!("'s User length must not be longer than {USER_BYTES_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|found| ". ".contains(found)) {
        faults.push("'s User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(|found| "\"/\\:;|=,+*?<>@[]".contains(found)) {
        faults.push("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned());
    }
    faults
}

fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    let is_fine = |found: char| !"\\/:*?\"<>|".contains(found);
    (1..=15).contains(&count) && !domain.starts_with('.') && domain.chars().all(is_fine)
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| name::label(&label.to_ascii_lowercase()).is_empty())
}

/// W2.
pub(super) fn validate_machine_processes(spec: &Value, at: &Path, errors: &mut Errors) {
    let wish = |context: &Value| context["windowsOptions"].get("hostProcess").and_then(Value::as_bool);
    let of_pod = wish(&spec["securityContext"]);
    let (mut all, mut of_machine) = (0, 0);
    for (list, index, container) in super::containers(spec) {
        all += 1;
        let own = wish(&container["securityContext"]);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = at.child(list).index(index).child("securityContext").child("windowsOptions");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.invalid(&path.child("hostProcess"), own, &detail);
        }
        if own.or(of_pod) == Some(true) {
            of_machine += 1;
        }
    }
    if of_machine == 0 {
        return;
    }
    if of_machine != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(at, "", detail);
    }
    if !spec.flag("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&at.child("hostNetwork"), false, detail);
    }
}

/// W3.
pub(super) fn validate_system(spec: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("os");
    match spec["os"].text("name") {
        _ if !spec.is_set("os") => {}
        "" => errors.required(&path.child("name"), ""),
        "linux" => validate_linux(spec, at, errors),
        "windows" => validate_windows(spec, at, errors),
        other => errors.not_supported(&path, other, &["linux", "windows"]),
    }
}

fn validate_linux(spec: &Value, at: &Path, errors: &mut Errors) {
    if spec["securityContext"].is_set("windowsOptions") {
        errors.forbidden(&at.child("securityContext").child("windowsOptions"), NOT_FOR_LINUX);
    }
    for (list, index, container) in super::containers(spec) {
        if container["securityContext"].is_set("windowsOptions") {
            let path = at.child(list).index(index).child("securityContext").child("windowsOptions");
            errors.forbidden(&path, NOT_FOR_LINUX);
        }
    }
}

fn validate_windows(spec: &Value, at: &Path, errors: &mut Errors) {
    for field in OF_POD {
        let value = &spec["securityContext"][field];
        if !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty()) {
            errors.forbidden(&at.child("securityContext").child(field), NOT_FOR_WINDOWS);
        }
    }
    for field in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
        let is_said = if field.starts_with("hostU") || field.starts_with("share") {
            spec.is_set(field)
        } else {
            spec.flag(field)
        };
        if is_said {
            errors.forbidden(&at.child(field), NOT_FOR_WINDOWS);
        }
    }
    for (list, index, container) in super::containers(spec) {
        for field in OF_CONTAINER.into_iter().filter(|field| container["securityContext"].is_set(field)) {
            let path = at.child(list).index(index).child("securityContext").child(field);
            errors.forbidden(&path, NOT_FOR_WINDOWS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{user_faults, validate, validate_machine_processes, validate_system};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    #[test]
    fn w1_options_are_well_formed() {
        for user in ["ann", "CORP\\ann", "corp.example.com\\ann", "ContainerAdministrator"] {
            assert_eq!(user_faults(user), [""; 0], "{user}");
        }
        for (user, fault) in [
            ("", " cannot be an empty string"),
            ("a\tb", " cannot contain control characters"),
            ("a\\b\\c", " cannot contain more than one backslash"),
            ("CORP\\", "'s User cannot be empty"),
            (".x:\\ann", "'s Domain doesn't match the NetBios nor the DNS format"),
            (". .", "'s User cannot contain only periods or spaces"),
            ("a@b", "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"),
        ] {
            assert_eq!(user_faults(user), [fault], "{user}");
        }
        let mut errors = Errors::new();
        let options = json!({"gmsaCredentialSpecName": "A_b", "gmsaCredentialSpec": "", "runAsUserName": ""});
        validate(&json!({"windowsOptions": options}), &Path::new("sc"), &mut errors);
        compare(
            &errors,
            &[
                "sc.windowsOptions.gmsaCredentialSpecName: Invalid value: \"A_b\"",
                "sc.windowsOptions.gmsaCredentialSpec: Invalid value: \"\": gmsaCredentialSpec cannot be an empty string",
                "sc.windowsOptions.runAsUserName: Invalid value: \"\": runAsUserName cannot be an empty string",
            ],
        );
    }

    fn check(rule: fn(&Value, &Path, &mut Errors), spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        rule(&spec, &Path::new("spec"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn w2_processes_of_the_machine_are_all_or_none() {
        let of_machine = |flag: bool| json!({"securityContext": {"windowsOptions": {"hostProcess": flag}}});
        check(validate_machine_processes, json!({"hostNetwork": true, "containers": [of_machine(true)]}), &[]);
        check(
            validate_machine_processes,
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [of_machine(false), {}]}),
            &[
                "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true",
                "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be",
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true",
            ],
        );
    }

    #[test]
    fn w3_what_is_for_another_system_is_not_said() {
        let options = json!({"windowsOptions": {}});
        check(
            validate_system,
            json!({"os": {"name": "linux"}, "securityContext": options, "containers": [{"securityContext": options}]}),
            &[
                "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set",
            ],
        );
        check(
            validate_system,
            json!({"os": {"name": "windows"}, "hostUsers": true, "hostPID": false, "securityContext": {"fsGroup": 0},
                "initContainers": [{"securityContext": {"privileged": false}}]}),
            &[
                "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                "spec.hostUsers: Forbidden: cannot be set for a windows pod",
                "spec.initContainers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ],
        );
        check(validate_system, json!({"os": {}}), &["spec.os.name: Required value"]);
        check(
            validate_system,
            json!({"os": {"name": "plan9"}}),
            &["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
        );
    }
}
