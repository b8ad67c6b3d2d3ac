//! A pod's spec as a whole, of a pod itself or of a template.
//!
//! Source: API reference, core/v1 PodSpec.

use serde_json::Value;

use super::super::check::{address, named, optional_name, required_word, within};
use super::super::metadata::{validate_annotations, validate_labels};
use super::super::tree::Tree;
use super::container::{self, Around};
use super::{annotation, claim, env, placement, requirements, security, volume, windows};
use crate::field::{Errors, Path};
use crate::name;

/// What the resolver of a container can hold.
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
/// What the kernel takes as a host name.
const HOSTNAME_OVERRIDE_BYTES_MAX: usize = 64;
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const DEADLINE_SECONDS: (i64, i64) = (1, i32::MAX as i64);

/// Checks the pod template of a workload at `at`, which is the path of the template.
pub(in super::super) fn validate_template(template: &Value, at: &Path, errors: &mut Errors) {
    let (metadata, spec, path) = (&template["metadata"], &template["spec"], at.child("spec"));
    validate_labels(metadata.entries("labels"), &at.child("labels"), errors);
    validate_annotations(metadata.entries("annotations"), &at.child("annotations"), errors);
    annotation::validate(metadata, spec, &at.child("annotations"), errors);
    validate(spec, None, &path, errors);
    annotation::validate_fields(metadata, spec, &path, errors);
    if !spec.items("ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Checks a pod spec at `at`; `pod` is the pod whose it is, if it is not a template's.
pub(super) fn validate(spec: &Value, pod: Option<&Value>, at: &Path, errors: &mut Errors) {
    if !spec.is_object() {
        errors.required(at, "");
        return;
    }
    if !spec.is_set("terminationGracePeriodSeconds") {
        errors.required(&at.child("terminationGracePeriodSeconds"), "");
    }
    let name = pod.map_or("", |pod| pod["metadata"].text("name"));
    let volumes = volume::validate(spec.items("volumes"), name, &at.child("volumes"), errors);
    let claims = claim::validate(spec, pod.is_some_and(super::is_mirror), at, errors);
    let around = Around { spec, is_pod: pod.is_some(), volumes: &volumes, claims: &claims };
    container::validate_all(&around, at, errors);
    requirements::validate_pod(spec, at, errors);
    container::validate_network_ports(&around, at, errors);
    required_word(spec, "restartPolicy", &["Always", "OnFailure", "Never"], at, errors);
    required_word(spec, "dnsPolicy", DNS_POLICIES, at, errors);
    validate_labels(spec.entries("nodeSelector"), &at.child("nodeSelector"), errors);
    security::validate_pod(spec, at, errors);
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&at.child("shareProcessNamespace"), true, detail);
    }
    placement::validate_affinity(spec, at, errors);
    validate_dns(spec, at, errors);
    for (index, gate) in spec.items("readinessGates").iter().enumerate() {
        let path = at.child("readinessGates").index(index).child("conditionType");
        named(name::label_key, gate.text("conditionType"), &path, errors);
    }
    placement::validate_gates(spec, at, errors);
    placement::validate_spread(spec, at, errors);
    windows::validate_machine_processes(spec, at, errors);
    validate_users(spec, at, errors);
    validate_names(spec, at, errors);
    if spec.is_set("overhead") {
        requirements::validate_overhead(spec.entries("overhead"), &at.child("overhead"), errors);
    }
    windows::validate_system(spec, at, errors);
    validate_group(spec, at, errors);
    env::validate_file_volumes(spec, at, errors);
}

/// What a pod with users of its own does not share with its machine. Kubernetes spells two of them as Go does.
fn validate_users(spec: &Value, at: &Path, errors: &mut Errors) {
    const DETAIL: &str = "when `hostUsers` is false";
    if spec.get("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for (field, spelled) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(field) {
            errors.forbidden(&at.child(spelled), DETAIL);
        }
    }
    for (list, index, container) in super::containers(spec) {
        if !container.items("volumeDevices").is_empty() {
            errors.forbidden(&at.child(list).index(index).child("volumeDevices"), DETAIL);
        }
    }
}

fn validate_names(spec: &Value, at: &Path, errors: &mut Errors) {
    if spec.is_set("hostnameOverride") {
        validate_hostname_override(spec, &at.child("hostnameOverride"), errors);
    }
    for field in ["serviceAccountName", "nodeName"] {
        optional_name(spec, field, name::subdomain, at, errors);
    }
    within(spec, "activeDeadlineSeconds", DEADLINE_SECONDS, at, errors);
    for field in ["hostname", "subdomain"] {
        optional_name(spec, field, name::label, at, errors);
    }
    placement::validate_tolerations(spec, at, errors);
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = at.child("hostAliases").index(index);
        address(alias.text("ip"), &path.child("ip"), errors);
        for (index, hostname) in alias.items("hostnames").iter().enumerate() {
            let path = path.child("hostnames").index(index);
            named(name::subdomain, hostname.as_str().unwrap_or_default(), &path, errors);
        }
    }
    optional_name(spec, "priorityClassName", name::subdomain, at, errors);
    if spec.is_set("runtimeClassName") {
        named(name::subdomain, spec.text("runtimeClassName"), &at.child("runtimeClassName"), errors);
    }
    if spec.is_set("preemptionPolicy") {
        required_word(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], at, errors);
    }
}

fn validate_hostname_override(spec: &Value, path: &Path, errors: &mut Errors) {
    let name = spec.text("hostnameOverride");
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.flag(field) {
            errors.forbidden(path, &format!("may not be specified when {field} is true"));
        }
    }
    if name.len() > HOSTNAME_OVERRIDE_BYTES_MAX {
        errors.too_long(path, HOSTNAME_OVERRIDE_BYTES_MAX);
    }
    named(name::subdomain, name, path, errors);
}

/// The pods that it is placed together with.
fn validate_group(spec: &Value, at: &Path, errors: &mut Errors) {
    let (group, path) = (&spec["schedulingGroup"], at.child("schedulingGroup").child("podGroupName"));
    if !group.is_object() {
        return;
    }
    match group.get("podGroupName").and_then(Value::as_str) {
        None => errors.invalid(&path, Value::Null, "must specify one of: `podGroupName`"),
        Some(name) => named(name::subdomain, name, &path, errors),
    }
}

fn validate_dns(spec: &Value, at: &Path, errors: &mut Errors) {
    let (config, path) = (&spec["dnsConfig"], at.child("dnsConfig"));
    let nameservers = config.items("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if !config.is_object() {
            errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        } else if nameservers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&path.child("nameservers"), detail);
            return;
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
        let search = search.strip_suffix('.').unwrap_or(search);
        named(name::subdomain_with_underscore, search, &searches_path.index(index), errors);
    }
    for (index, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}
