//! Containers of a pod: init containers, which run one after the other first, and the main ones, which run together.
//!
//! Rules
//!   C1 names    DNS labels, unique in the pod over all lists
//!   C2 image    named
//!   C3 ports    named once per container; a port of the machine is taken once per pod
//!   C4 role     what only a running container can do (probes, lifecycle) an init container may only have as a sidecar
//! Source: API reference, core/v1 Container.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::check::{PORTS, named, optional_word, required_name, required_word, within};
use super::super::tree::Tree;
use super::{env, ephemeral, probe, requirements, security, volume};
use crate::field::{Errors, Path};
use crate::name;

/// Where in a pod a container stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Init,
}

/// Checks all containers of a pod spec. `volumes` are the names that mounts may refer to.
pub(super) fn validate_all(spec: &Value, volumes: &BTreeSet<&str>, at: &Path, errors: &mut Errors) {
    let grace_seconds = spec.int("terminationGracePeriodSeconds").unwrap_or(0);
    if spec.items("containers").is_empty() {
        errors.required(&at.child("containers"), "");
    }
    let mut names = BTreeSet::new();
    for (list, role) in [("containers", Role::Main), ("initContainers", Role::Init)] {
        let list_path = at.child(list);
        for (index, container) in spec.items(list).iter().enumerate() {
            let path = list_path.index(index);
            validate_name(container, &mut names, &path, errors);
            validate_role(container, role, &path, errors);
            validate(container, grace_seconds, &path, errors);
            volume::validate_mounts(container, volumes, &path, errors);
        }
        validate_host_ports(spec, list, &list_path, errors);
    }
    let mut others = names.clone();
    let list_path = at.child("ephemeralContainers");
    for (index, container) in spec.items("ephemeralContainers").iter().enumerate() {
        let path = list_path.index(index);
        validate_name(container, &mut others, &path, errors);
        validate(container, grace_seconds, &path, errors);
        volume::validate_mounts(container, volumes, &path, errors);
        ephemeral::validate(container, &names, &path, errors);
    }
}

/// C1.
fn validate_name<'a>(container: &'a Value, names: &mut BTreeSet<&'a str>, at: &Path, errors: &mut Errors) {
    required_name(container, "name", name::label, at, errors);
    let name = container.text("name");
    if !name.is_empty() && !names.insert(name) {
        errors.duplicate(&at.child("name"), name);
    }
}

/// C4.
fn validate_role(container: &Value, role: Role, at: &Path, errors: &mut Errors) {
    let policy = container.text("restartPolicy");
    optional_word(container, "restartPolicy", &["Always", "Never", "OnFailure"], at, errors);
    let rules = container.items("restartPolicyRules");
    if !rules.is_empty() && policy.is_empty() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.required(&at.child("restartPolicy"), detail);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = at.child("restartPolicyRules").index(index);
        required_word(rule, "action", &["Restart", "RestartAllContainers"], &path, errors);
        let exit_codes = &rule["exitCodes"];
        if exit_codes.is_null() {
            errors.required(&path.child("exitCodes"), "must be specified");
        } else {
            required_word(exit_codes, "operator", &["In", "NotIn"], &path.child("exitCodes"), errors);
        }
    }
    if role == Role::Main || policy == "Always" {
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.is_set(field) {
            errors.forbidden(&at.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

/// What holds for every container.
fn validate(container: &Value, grace_seconds: i64, at: &Path, errors: &mut Errors) {
    if container.text("image").is_empty() {
        errors.required(&at.child("image"), "");
    }
    required_word(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, errors);
    required_word(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], at, errors);
    validate_ports(container, at, errors);
    env::validate(container, at, errors);
    probe::validate(container, grace_seconds, at, errors);
    requirements::validate(&container["resources"], &at.child("resources"), errors);
    if container.is_set("securityContext") {
        security::validate_container(&container["securityContext"], &at.child("securityContext"), errors);
    }
    validate_resize(container, at, errors);
    // What the kernel is given ends at a NUL byte; one inside would cut a command short without a word.
    for (field, texts) in [("command", container.items("command")), ("args", container.items("args"))] {
        for (index, text) in texts.iter().enumerate().filter(|(_, text)| holds_nul(text)) {
            errors.invalid(&at.child(field).index(index), text.clone(), "must not contain a NUL byte");
        }
    }
    for (index, variable) in container.items("env").iter().enumerate() {
        if holds_nul(&variable["value"]) {
            let path = at.child("env").index(index).child("value");
            errors.invalid(&path, variable["value"].clone(), "must not contain a NUL byte");
        }
    }
    if holds_nul(&container["workingDir"]) {
        errors.invalid(&at.child("workingDir"), container.text("workingDir"), "must not contain a NUL byte");
    }
}

fn holds_nul(text: &Value) -> bool {
    text.as_str().is_some_and(|text| text.contains('\0'))
}

fn validate_resize(container: &Value, at: &Path, errors: &mut Errors) {
    let mut resources = BTreeSet::new();
    for (index, policy) in container.items("resizePolicy").iter().enumerate() {
        let path = at.child("resizePolicy").index(index);
        required_word(policy, "resourceName", &["cpu", "memory"], &path, errors);
        required_word(policy, "restartPolicy", &["NotRequired", "RestartContainer"], &path, errors);
        if !resources.insert(policy.text("resourceName")) {
            errors.duplicate(&path, policy.text("resourceName"));
        }
    }
}

/// C3 inside one container.
fn validate_ports(container: &Value, at: &Path, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (index, port) in container.items("ports").iter().enumerate() {
        let path = at.child("ports").index(index);
        let name = port.text("name");
        if !name.is_empty() {
            named(name::port_name, name, &path.child("name"), errors);
            if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        match port.int("containerPort") {
            None | Some(0) => errors.required(&path.child("containerPort"), ""),
            Some(_) => within(port, "containerPort", PORTS, &path, errors),
        }
        if port.int("hostPort").unwrap_or(0) != 0 {
            within(port, "hostPort", PORTS, &path, errors);
        }
        required_word(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
    }
}

/// C3 over the containers of one list: init containers do not run beside the main ones.
fn validate_host_ports(spec: &Value, list: &str, at: &Path, errors: &mut Errors) {
    let host_network = spec.flag("hostNetwork");
    let mut taken = BTreeSet::new();
    for (index, container) in spec.items(list).iter().enumerate() {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let Some(host_port) = port.int("hostPort").filter(|&port| port != 0) else { continue };
            let path = at.index(index).child("ports").index(port_index);
            if host_network && port.int("containerPort") != Some(host_port) {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.invalid(&path.child("containerPort"), port["containerPort"].clone(), detail);
            }
            let key = format!("{}/{}/{host_port}", port.text("protocol"), port.text("hostIP"));
            if list == "containers" && !taken.insert(key.clone()) {
                errors.duplicate(&path.child("hostPort"), key);
            }
        }
    }
}
