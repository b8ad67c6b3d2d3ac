//! Node: its conditions, what it has, and what runs on it.

use anyhow::Result;
use serde_json::Value;
use windlass_api::kinds;
use windlass_api::quantity::Quantity;
use windlass_api::resources::age;

use super::sheet::{NONE, Sheet, date, items, pairs, plain, text};
use crate::cli::session::Session;

/// Lines of `System Info:`.
const SYSTEM: &[(&str, &str)] = &[
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
];

pub(super) async fn describe(sheet: &mut Sheet, session: &Session, node: &Value) -> Result<bool> {
    let (metadata, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    let name = text(metadata, "name");
    sheet.field(0, "Name", name);
    sheet.field_or_none(0, "Roles", &roles(&metadata["labels"]));
    sheet.labels(0, "Labels", &metadata["labels"]);
    sheet.annotations(0, &metadata["annotations"]);
    sheet.field(0, "CreationTimestamp", date(text(metadata, "creationTimestamp")));
    let taints: Vec<String> = items(spec, "taints").iter().map(taint).collect();
    sheet.column(0, "Taints", &taints);
    sheet.field(0, "Unschedulable", spec["unschedulable"] == true);
    let lease = session.get_option(&kinds::LEASE, "kube-node-lease", name).await?;
    describe_lease(sheet, lease.as_ref());
    conditions(sheet, status);
    sheet.line(0, "Addresses:");
    for address in items(status, "addresses") {
        sheet.field(1, text(address, "type"), text(address, "address"));
    }
    for (title, key) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        sheet.line(0, format_args!("{title}:"));
        pairs(&status[key]).for_each(|(resource, amount)| sheet.field(1, resource, amount));
    }
    sheet.line(0, "System Info:");
    SYSTEM.iter().for_each(|(title, key)| sheet.field(1, title, text(&status["nodeInfo"], key)));
    if !text(spec, "podCIDR").is_empty() {
        sheet.field(0, "PodCIDR", text(spec, "podCIDR"));
        let ranges: Vec<String> = items(spec, "podCIDRs").iter().map(plain).collect();
        sheet.field(0, "PodCIDRs", ranges.join(","));
    }
    if !text(spec, "providerID").is_empty() {
        sheet.field(0, "ProviderID", text(spec, "providerID"));
    }
    let fields = format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed");
    let pods = session.list(&kinds::POD, None, &[("fieldSelector", &fields)]).await?;
    describe_pods(sheet, &pods, node, session.client.world().now());
    Ok(true)
}

fn roles(labels: &Value) -> String {
    let role = |(key, value): (&str, &str)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) if !role.is_empty() => Some(role.to_owned()),
        _ if key == "kubernetes.io/role" && !value.is_empty() => Some(value.to_owned()),
        _ => None,
    };
    let mut roles: Vec<String> = pairs(labels).filter_map(role).collect();
    roles.sort();
    roles.join(",")
}

fn taint(taint: &Value) -> String {
    let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
    match (value, effect) {
        ("", "") => key.to_owned(),
        ("", effect) => format!("{key}:{effect}"),
        (value, effect) => format!("{key}={value}:{effect}"),
    }
}

fn describe_lease(sheet: &mut Sheet, lease: Option<&Value>) {
    sheet.line(0, "Lease:");
    let spec = lease.map(|lease| &lease["spec"]).unwrap_or(&Value::Null);
    let holder = spec["holderIdentity"].as_str().unwrap_or("<unset>");
    sheet.field(1, "HolderIdentity", holder);
    sheet.field(1, "AcquireTime", date(text(spec, "acquireTime")));
    sheet.field(1, "RenewTime", date(text(spec, "renewTime")));
}

fn conditions(sheet: &mut Sheet, status: &Value) {
    sheet.line(0, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    sheet.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in items(status, "conditions") {
        let [kind, status, reason, message] = ["type", "status", "reason", "message"].map(|key| text(condition, key));
        let [heartbeat, transition] = ["lastHeartbeatTime", "lastTransitionTime"].map(|key| date(text(condition, key)));
        sheet.line(1, format_args!("{kind} \t{status} \t{heartbeat} \t{transition} \t{reason} \t{message}"));
    }
}

/// What a pod asks for of one resource: its containers together, or its largest init container if that is more.
fn asked(pod: &Value, kind: &str, resource: &str) -> Quantity {
    let of = |container: &Value| Quantity::from_json(&container["resources"][kind][resource]).unwrap_or(Quantity::ZERO);
    let stays = |container: &&Value| text(container, "restartPolicy") == "Always";
    let init = items(&pod["spec"], "initContainers");
    let sidecars: Quantity = init.iter().filter(stays).map(of).sum();
    let running: Quantity = items(&pod["spec"], "containers").iter().map(of).sum::<Quantity>() + sidecars;
    let starting = init.iter().filter(|container| !stays(container)).map(of).max().unwrap_or(Quantity::ZERO);
    let overhead = Quantity::from_json(&pod["spec"]["overhead"][resource]).unwrap_or(Quantity::ZERO);
    running.max(starting) + overhead
}

/// `10m (0%)`.
fn share(amount: Quantity, allocatable: &Value, resource: &str) -> String {
    let whole = Quantity::from_json(&allocatable[resource]).unwrap_or(Quantity::ZERO).millis() as f64;
    let percent = if whole > 0.0 { (amount.millis() as f64 / whole * 100.0) as i64 } else { 0 };
    format!("{amount} ({percent}%)")
}

fn describe_pods(sheet: &mut Sheet, pods: &[Value], node: &Value, now: jiff::Timestamp) {
    let allocatable = &node["status"]["allocatable"];
    sheet.field(0, "Non-terminated Pods", format_args!("({} in total)", pods.len()));
    sheet.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    sheet.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    for pod in pods {
        let metadata = &pod["metadata"];
        let shares: Vec<String> =
            [("requests", "cpu"), ("limits", "cpu"), ("requests", "memory"), ("limits", "memory")]
                .iter()
                .map(|(kind, resource)| share(asked(pod, kind, resource), allocatable, resource))
                .collect();
        let age = age::since(text(metadata, "creationTimestamp"), now);
        sheet.line(
            1,
            format_args!("{}\t{}\t\t{}\t{age}", text(metadata, "namespace"), text(metadata, "name"), shares.join("\t")),
        );
    }
    sheet.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)\n  Resource\tRequests\tLimits\n  --------\t--------\t------");
    let mut resources = vec!["cpu", "memory", "ephemeral-storage"];
    let others = pairs(allocatable).map(|(resource, _)| resource);
    let counted: Vec<&str> = others.filter(|resource| !resources.contains(resource) && *resource != "pods").collect();
    resources.extend(counted);
    for resource in resources {
        let [requests, limits] = ["requests", "limits"].map(|kind| {
            let sum: Quantity = pods.iter().map(|pod| asked(pod, kind, resource)).sum();
            if matches!(resource, "cpu" | "memory")
                || resource.ends_with("storage")
                || resource.starts_with("hugepages-")
            {
                share(sum, allocatable, resource)
            } else {
                sum.to_string()
            }
        });
        sheet.line(1, format_args!("{resource}\t{requests}\t{limits}"));
    }
    if allocatable.is_null() {
        sheet.line(1, NONE);
    }
}
