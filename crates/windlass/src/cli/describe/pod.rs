//! Pod: where it runs, its containers and their states, conditions, volumes.

use serde_json::Value;

use super::container::containers;
use super::sheet::{NONE, Sheet, date, items, number, plain, text};
use super::template::{spread, tolerations};
use super::volume::volumes;

pub(super) fn describe(sheet: &mut Sheet, pod: &Value) -> bool {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    sheet.field(0, "Name", text(metadata, "name"));
    sheet.field(0, "Namespace", text(metadata, "namespace"));
    sheet.field(0, "Priority", number(spec, "priority"));
    for (title, key) in [("Priority Class Name", "priorityClassName"), ("Runtime Class Name", "runtimeClassName")] {
        if !text(spec, key).is_empty() {
            sheet.field(0, title, text(spec, key));
        }
    }
    sheet.field(0, "Service Account", text(spec, "serviceAccountName"));
    match text(spec, "nodeName") {
        "" => sheet.field(0, "Node", NONE),
        node => sheet.field(0, "Node", format_args!("{node}/{}", text(status, "hostIP"))),
    }
    if !text(status, "startTime").is_empty() {
        sheet.field(0, "Start Time", date(text(status, "startTime")));
    }
    sheet.labels(0, "Labels", &metadata["labels"]);
    sheet.annotations(0, &metadata["annotations"]);
    phase(sheet, pod);
    addresses(sheet, status);
    sheet.controller(pod);
    if !text(status, "nominatedNodeName").is_empty() {
        sheet.field(0, "NominatedNodeName", text(status, "nominatedNodeName"));
    }
    if !items(spec, "initContainers").is_empty() {
        containers(sheet, "Init Containers", items(spec, "initContainers"), pod, false);
    }
    containers(sheet, "Containers", items(spec, "containers"), pod, false);
    if !items(spec, "ephemeralContainers").is_empty() {
        containers(sheet, "Ephemeral Containers", items(spec, "ephemeralContainers"), pod, false);
    }
    gates(sheet, pod);
    conditions(sheet, status);
    volumes(sheet, items(spec, "volumes"), false);
    sheet.field(0, "QoS Class", text(status, "qosClass"));
    sheet.labels(0, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(sheet, spec, 0);
    spread(sheet, spec, 0);
    true
}

fn phase(sheet: &mut Sheet, pod: &Value) {
    let (metadata, status) = (&pod["metadata"], &pod["status"]);
    if text(metadata, "deletionTimestamp").is_empty() {
        sheet.field(0, "Status", text(status, "phase"));
    } else {
        sheet.field(0, "Status", format_args!("Terminating (since {})", date(text(metadata, "deletionTimestamp"))));
        sheet.field(0, "Termination Grace Period", format_args!("{}s", number(metadata, "deletionGracePeriodSeconds")));
    }
    for (title, key) in [("Reason", "reason"), ("Message", "message")] {
        if !text(status, key).is_empty() {
            sheet.field(0, title, text(status, key));
        }
    }
    let profile = &pod["spec"]["securityContext"]["seccompProfile"];
    if profile.is_object() {
        sheet.field(0, "SeccompProfile", text(profile, "type"));
    }
}

fn addresses(sheet: &mut Sheet, status: &Value) {
    sheet.field(0, "IP", text(status, "podIP"));
    match items(status, "podIPs") {
        [] => sheet.field(0, "IPs", NONE),
        addresses => {
            sheet.line(0, "IPs:");
            addresses.iter().for_each(|address| sheet.field(1, "IP", text(address, "ip")));
        }
    }
}

fn gates(sheet: &mut Sheet, pod: &Value) {
    let gates = items(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return;
    }
    sheet.line(0, "Readiness Gates:\n  Type\tStatus");
    for gate in gates {
        let kind = text(gate, "conditionType");
        let met = items(&pod["status"], "conditions").iter().find(|condition| text(condition, "type") == kind);
        let status = met.map_or("<none>", |condition| text(condition, "status"));
        sheet.line(1, format_args!("{kind} \t{status} "));
    }
}

fn conditions(sheet: &mut Sheet, status: &Value) {
    let conditions = items(status, "conditions");
    if conditions.is_empty() {
        return;
    }
    sheet.line(0, "Conditions:\n  Type\tStatus");
    for condition in conditions {
        sheet.line(1, format_args!("{} \t{} ", text(condition, "type"), text(condition, "status")));
    }
}

/// How many pods are in each phase, as their owners show it.
pub(super) fn phases(pods: &[Value]) -> String {
    let count = |phase: &str| pods.iter().filter(|pod| plain(&pod["status"]["phase"]) == phase).count();
    format!(
        "{} Running / {} Waiting / {} Succeeded / {} Failed",
        count("Running"),
        count("Pending"),
        count("Succeeded"),
        count("Failed")
    )
}

/// Whether an object is controlled by the one with this uid.
pub fn is_owned(object: &Value, uid: &str) -> bool {
    let owners = items(&object["metadata"], "ownerReferences");
    owners.iter().any(|owner| owner["controller"] == true && text(owner, "uid") == uid)
}
