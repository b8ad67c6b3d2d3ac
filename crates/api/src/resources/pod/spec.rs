//! A pod's spec as a whole, of a pod itself or of a template.
//!
//! Source: API reference, core/v1 PodSpec.

use serde_json::Value;

use super::super::check::{address, named, optional_name, optional_word, required_word, within};
use super::super::metadata::{validate_annotations, validate_labels};
use super::super::tree::Tree;
use super::{container, placement, requirements, security, volume};
use crate::field::{Errors, Path};
use crate::name;

/// What the resolver of a container can hold.
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
/// What the kernel takes as a host name.
const HOSTNAME_OVERRIDE_BYTES_MAX: usize = 64;
const DEADLINE_SECONDS: (i64, i64) = (1, i32::MAX as i64);

/// Checks the pod template of a workload at `at`, which is the path of the template.
pub(in super::super) fn validate_template(template: &Value, at: &Path, errors: &mut Errors) {
    validate_labels(template["metadata"].entries("labels"), &at.child("labels"), errors);
    validate_annotations(template["metadata"].entries("annotations"), &at.child("annotations"), errors);
    let path = at.child("spec");
    validate(&template["spec"], &path, errors);
    if !template["spec"].items("ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Checks a pod spec at `at`.
pub(super) fn validate(spec: &Value, at: &Path, errors: &mut Errors) {
    if !spec.is_object() {
        errors.required(at, "");
        return;
    }
    let volumes = volume::validate(spec.items("volumes"), &at.child("volumes"), errors);
    container::validate_all(spec, &volumes, at, errors);
    required_word(spec, "restartPolicy", &["Always", "Never", "OnFailure"], at, errors);
    within(spec, "activeDeadlineSeconds", DEADLINE_SECONDS, at, errors);
    validate_names(spec, at, errors);
    validate_host(spec, at, errors);
    validate_dns(spec, at, errors);
    placement::validate(spec, at, errors);
    if spec.is_set("securityContext") {
        security::validate_pod(&spec["securityContext"], &at.child("securityContext"), errors);
    }
    if spec.is_set("resources") {
        requirements::validate(&spec["resources"], &at.child("resources"), errors);
    }
    for (index, gate) in spec.items("readinessGates").iter().enumerate() {
        let path = at.child("readinessGates").index(index).child("conditionType");
        named(name::label_key, gate.text("conditionType"), &path, errors);
    }
}

fn validate_names(spec: &Value, at: &Path, errors: &mut Errors) {
    for field in ["nodeName", "serviceAccountName", "runtimeClassName", "priorityClassName"] {
        optional_name(spec, field, name::subdomain, at, errors);
    }
    for field in ["hostname", "subdomain"] {
        optional_name(spec, field, name::label, at, errors);
    }
    optional_name(spec, "hostnameOverride", name::subdomain, at, errors);
    if spec.text("hostnameOverride").len() > HOSTNAME_OVERRIDE_BYTES_MAX {
        errors.too_long(&at.child("hostnameOverride"), HOSTNAME_OVERRIDE_BYTES_MAX);
    }
    optional_word(spec, "preemptionPolicy", &["Never", "PreemptLowerPriority"], at, errors);
    if spec.is_set("os") {
        required_word(&spec["os"], "name", &["linux", "windows"], &at.child("os"), errors);
    }
}

fn validate_host(spec: &Value, at: &Path, errors: &mut Errors) {
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&at.child("shareProcessNamespace"), true, detail);
    }
    if spec.get("hostUsers") == Some(&Value::Bool(false)) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec.flag(field) {
                errors.forbidden(&at.child(field), &format!("when `hostUsers` is false, `{field}` may not be set"));
            }
        }
    }
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = at.child("hostAliases").index(index);
        address(alias.text("ip"), &path.child("ip"), errors);
        for (index, hostname) in alias.items("hostnames").iter().enumerate() {
            let path = path.child("hostnames").index(index);
            named(name::subdomain, hostname.as_str().unwrap_or_default(), &path, errors);
        }
    }
}

fn validate_dns(spec: &Value, at: &Path, errors: &mut Errors) {
    const POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    required_word(spec, "dnsPolicy", POLICIES, at, errors);
    let (config, path) = (&spec["dnsConfig"], at.child("dnsConfig"));
    let nameservers = config.items("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if !config.is_object() {
            errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if nameservers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&path.child("nameservers"), detail);
        }
    }
    if nameservers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(&path.child("nameservers"), config["nameservers"].clone(), &detail);
    }
    for (index, nameserver) in nameservers.iter().enumerate() {
        let path = path.child("nameservers").index(index);
        address(nameserver.as_str().unwrap_or_default(), &path, errors);
    }
    let searches: Vec<&str> = config.items("searches").iter().filter_map(Value::as_str).collect();
    let searches_path = path.child("searches");
    if searches.len() > SEARCH_PATHS_MAX {
        let detail = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        errors.invalid(&searches_path, config["searches"].clone(), &detail);
    }
    if searches.join(" ").len() > SEARCH_BYTES_MAX {
        let detail =
            format!("must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list");
        errors.invalid(&searches_path, config["searches"].clone(), &detail);
    }
    for (index, search) in searches.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        // Names in DNS may begin with an underscore where host names may not.
        let plain = search.trim_end_matches('.').replace('_', "a");
        for reason in name::subdomain(&plain) {
            errors.invalid(&searches_path.index(index), search, &reason);
        }
    }
    for (index, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}
