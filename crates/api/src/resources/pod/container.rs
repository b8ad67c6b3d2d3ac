//! Containers of a pod: init containers, which run one after the other first, and the main ones, which run together.
//!
//! Rules
//!   C1 names     DNS labels, unique in the pod over all lists
//!   C2 image     named; in a pod without spaces around it
//!   C3 ports     named once per container; a port of the machine is taken once per pod
//!   C4 role      what only a running container can do (probes, lifecycle) an init container may only have as a sidecar
//!   C5 restart   a container may say itself when it is restarted, by rules over its exit codes
//!   C6 resize    what a change of resources means is said once per resource, and is no restart where nothing is restarted
//! Source: API reference, core/v1 Container; KEP-753, KEP-1287, KEP-5307.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::check::{PORTS, named, required_name, required_word, within};
use super::super::tree::Tree;
use super::volume::{self, Volumes};
use super::{claim, env, ephemeral, probe, requirements, security};
use crate::field::{Errors, Path};
use crate::name;

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What containers are checked against.
pub(super) struct Around<'a> {
    /// The spec they are part of.
    pub spec: &'a Value,
    /// Whether it is a pod's, not a template's.
    pub is_pod: bool,
    /// What their mounts may refer to.
    pub volumes: &'a Volumes<'a>,
    /// The claims for devices that they may refer to.
    pub claims: &'a BTreeSet<&'a str>,
}

/// Checks all containers of the spec at `at`.
pub(super) fn validate_all(around: &Around<'_>, at: &Path, errors: &mut Errors) {
    let spec = around.spec;
    let mut names = BTreeSet::new();
    validate_main(around, &mut names, &at.child("containers"), errors);
    let list = at.child("initContainers");
    for (index, container) in spec.items("initContainers").iter().enumerate() {
        let path = list.index(index);
        validate(container, around, &path, errors);
        validate_restart(container, &path, errors);
        validate_unique(container, &mut names, &path, errors);
        validate_host_ports(std::slice::from_ref(container), &list, errors);
        let is_sidecar = container.text("restartPolicy") == "Always";
        if is_sidecar {
            probe::validate(container, spec, &path, errors);
        } else {
            validate_init(container, &path, errors);
        }
    }
    let mut others = names.clone();
    let list = at.child("ephemeralContainers");
    for (index, container) in spec.items("ephemeralContainers").iter().enumerate() {
        let path = list.index(index);
        validate(container, around, &path, errors);
        validate_image_space(container, &path, errors);
        validate_unique(container, &mut others, &path, errors);
        ephemeral::validate(container, &names, &path, errors);
    }
}

fn validate_main<'a>(around: &Around<'a>, names: &mut BTreeSet<&'a str>, list: &Path, errors: &mut Errors) {
    let containers = around.spec.items("containers");
    if containers.is_empty() {
        errors.required(list, "");
    }
    for (index, container) in containers.iter().enumerate() {
        let path = list.index(index);
        validate(container, around, &path, errors);
        validate_unique(container, names, &path, errors);
        probe::validate(container, around.spec, &path, errors);
        validate_restart(container, &path, errors);
    }
    validate_host_ports(containers, list, errors);
}

/// C1: over all lists that came before.
fn validate_unique<'a>(container: &'a Value, names: &mut BTreeSet<&'a str>, at: &Path, errors: &mut Errors) {
    let name = container.text("name");
    if !name.is_empty() && !names.insert(name) {
        errors.duplicate(&at.child("name"), name);
    }
}

/// C4 and C6 of an init container that ends before the next begins.
fn validate_init(container: &Value, at: &Path, errors: &mut Errors) {
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.is_set(field) {
            errors.forbidden(&at.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
    for (index, policy) in container.items("resizePolicy").iter().enumerate() {
        if policy.text("restartPolicy") == "RestartContainer" {
            let path = at.child("resizePolicy").index(index).child("restartPolicy");
            let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.invalid(&path, "RestartContainer", detail);
        }
    }
}

/// C5.
fn validate_restart(container: &Value, at: &Path, errors: &mut Errors) {
    let (policy, rules) = (&container["restartPolicy"], container.items("restartPolicyRules"));
    let path = at.child("restartPolicy");
    match policy.as_str() {
        None if rules.is_empty() => return,
        None => errors.required(&path, "must specify restartPolicy when restart rules are used"),
        Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => errors.not_supported(&path, other, &["Always", "Never", "OnFailure"]),
    }
    let list = at.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(&list, rules.len(), RESTART_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        let action = rule.text("action");
        if !matches!(action, "Restart" | "RestartAllContainers") {
            errors.not_supported(&path.child("action"), action, &["Restart", "RestartAllContainers"]);
        }
        let (codes, path) = (&rule["exitCodes"], path.child("exitCodes"));
        if codes.is_null() {
            errors.required(&path, "must be specified");
            continue;
        }
        let operator = codes.text("operator");
        if !matches!(operator, "In" | "NotIn") {
            errors.not_supported(&path.child("operator"), operator, &["In", "NotIn"]);
        }
        let values = codes.items("values").len();
        if values > EXIT_CODES_MAX {
            errors.too_many(&path.child("values"), values, EXIT_CODES_MAX);
        }
    }
}

/// What holds for every container.
fn validate(container: &Value, around: &Around<'_>, at: &Path, errors: &mut Errors) {
    required_name(container, "name", name::label, at, errors);
    if container.text("image").is_empty() {
        errors.required(&at.child("image"), "");
    }
    required_word(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], at, errors);
    validate_ports(container, at, errors);
    env::validate(container, at, errors);
    volume::validate_mounts(container, around.volumes, at, errors);
    volume::validate_devices(container, around.volumes, at, errors);
    validate_pull_policy(container, "imagePullPolicy", at, errors);
    let resources = at.child("resources");
    requirements::validate(&container["resources"], &resources, errors);
    claim::validate_used(&container["resources"], around.claims, &resources, errors);
    validate_resize(container, around.spec, at, errors);
    if container.is_set("securityContext") {
        let host_users = around.spec.get("hostUsers") != Some(&Value::Bool(false));
        let path = at.child("securityContext");
        security::validate_container(&container["securityContext"], host_users, &path, errors);
    }
    validate_texts(container, at, errors);
}

/// What the kernel is given ends at a NUL byte; one inside would cut a command short without a word.
fn validate_texts(container: &Value, at: &Path, errors: &mut Errors) {
    const REFUSED: &str = "must not contain a NUL byte";
    for (field, texts) in [("command", container.items("command")), ("args", container.items("args"))] {
        for (index, text) in texts.iter().enumerate().filter(|(_, text)| holds_nul(text)) {
            errors.invalid(&at.child(field).index(index), text.clone(), REFUSED);
        }
    }
    for (index, variable) in container.items("env").iter().enumerate() {
        if holds_nul(&variable["value"]) {
            let path = at.child("env").index(index).child("value");
            errors.invalid(&path, variable["value"].clone(), REFUSED);
        }
    }
    if holds_nul(&container["workingDir"]) {
        errors.invalid(&at.child("workingDir"), container.text("workingDir"), REFUSED);
    }
}

fn holds_nul(text: &Value) -> bool {
    text.as_str().is_some_and(|text| text.contains('\0'))
}

/// When an image is pulled, of a container or of a volume.
pub(super) fn validate_pull_policy(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    required_word(object, field, &["Always", "IfNotPresent", "Never"], at, errors);
}

/// C2, for what is a pod: a template may hold what somebody fills in later.
pub(super) fn validate_image_space(container: &Value, at: &Path, errors: &mut Errors) {
    let image = container.text("image");
    if image.trim() != image {
        errors.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
    }
}

/// C6. Kubernetes names the list, not which of its items is wrong, except where one is there twice.
fn validate_resize(container: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let list = at.child("resizePolicy");
    let mut resources = BTreeSet::new();
    for (index, policy) in container.items("resizePolicy").iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if !resources.insert(resource) {
            errors.duplicate(&list.index(index), resource);
        }
        for (word, words) in
            [(resource, ["cpu", "memory"].as_slice()), (restart, ["NotRequired", "RestartContainer"].as_slice())]
        {
            match word {
                "" => errors.required(&list, ""),
                _ if !words.contains(&word) => errors.not_supported(&list, word, words),
                _ => {}
            }
        }
        if spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(&list, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
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
            if !name::port_name(name).is_empty() {
                named(name::port_name, name, &path.child("name"), errors);
            } else if !names.insert(name) {
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

/// C3 over containers that run together.
fn validate_host_ports(containers: &[Value], list: &Path, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let Some(host_port) = port.int("hostPort").filter(|&port| port != 0) else { continue };
            let key = format!("{}/{}/{host_port}", port.text("protocol"), port.text("hostIP"));
            if !taken.insert(key.clone()) {
                let path = list.index(index).child("ports").index(port_index).child("hostPort");
                errors.duplicate(&path, key);
            }
        }
    }
}

/// C3: on the machine's own network a port is the machine's; a template need not say it twice.
pub(super) fn validate_network_ports(around: &Around<'_>, at: &Path, errors: &mut Errors) {
    if !around.spec.flag("hostNetwork") {
        return;
    }
    for (index, container) in around.spec.items("containers").iter().enumerate() {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let host_port = port.int("hostPort").unwrap_or(0);
            let counts = around.is_pod || host_port != 0;
            if counts && host_port != port.int("containerPort").unwrap_or(0) {
                let path = at.child("containers").index(index).child("ports").index(port_index).child("hostPort");
                errors.invalid(&path, host_port, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}
