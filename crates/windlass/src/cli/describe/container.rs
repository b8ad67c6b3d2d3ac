//! Containers of a pod or a template: image, command, state, resources, probes, environment, mounts.

use serde_json::Value;

use super::probe::probe;
use super::sheet::{NONE, Sheet, date, items, number, pairs, plain, text};

/// Containers under one title, with their statuses where they run.
pub(super) fn containers(sheet: &mut Sheet, title: &str, containers: &[Value], pod: &Value, in_template: bool) {
    let (level, space) = if in_template { (1, " ") } else { (0, "") };
    sheet.line(level, format_args!("{title}:"));
    for container in containers {
        let name = text(container, "name");
        sheet.line(1, format_args!("{space}{name}:"));
        let statuses = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
        let status =
            statuses.iter().flat_map(|key| items(&pod["status"], key)).find(|status| text(status, "name") == name);
        describe(sheet, container, status, pod);
    }
}

fn describe(sheet: &mut Sheet, container: &Value, status: Option<&Value>, pod: &Value) {
    if let Some(status) = status {
        sheet.field(2, "Container ID", text(status, "containerID"));
    }
    sheet.field(2, "Image", text(container, "image"));
    if let Some(status) = status {
        sheet.field(2, "Image ID", text(status, "imageID"));
    }
    let several = items(container, "ports").len() > 1;
    let (port, host_port) = if several { ("Ports", "Host Ports") } else { ("Port", "Host Port") };
    sheet.field_or_none(2, port, &ports(container, "containerPort"));
    sheet.field_or_none(2, host_port, &ports(container, "hostPort"));
    let profile = &container["securityContext"]["seccompProfile"];
    if profile.is_object() {
        sheet.field(2, "SeccompProfile", text(profile, "type"));
        if text(profile, "type") == "Localhost" {
            sheet.field(3, "LocalhostProfile", text(profile, "localhostProfile"));
        }
    }
    words(sheet, "Command", items(container, "command"));
    words(sheet, "Args", items(container, "args"));
    if let Some(status) = status {
        describe_status(sheet, status);
    }
    for (title, key) in [("Limits", "limits"), ("Requests", "requests")] {
        let resources = &container["resources"][key];
        if resources.as_object().is_some_and(|map| !map.is_empty()) {
            sheet.line(2, format_args!("{title}:"));
            for (resource, amount) in pairs(resources) {
                sheet.field(3, resource, amount);
            }
        }
    }
    for (title, key) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
        if container[key].is_object() {
            sheet.field(2, title, probe(&container[key]));
        }
    }
    environment(sheet, container, pod);
    mounts(sheet, container);
}

/// `80/TCP (http), 81/UDP`.
fn ports(container: &Value, key: &str) -> String {
    let shown = items(container, "ports").iter().map(|port| {
        let named = match text(port, "name") {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        format!("{}/{}{named}", number(port, key), text(port, "protocol"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn words(sheet: &mut Sheet, title: &str, words: &[Value]) {
    if words.is_empty() {
        return;
    }
    sheet.line(2, format_args!("{title}:"));
    for line in words.iter().filter_map(Value::as_str).flat_map(|word| word.split('\n')) {
        sheet.line(3, line);
    }
}

fn describe_status(sheet: &mut Sheet, status: &Value) {
    describe_state(sheet, "State", &status["state"]);
    if status["lastState"]["terminated"].is_object() {
        describe_state(sheet, "Last State", &status["lastState"]);
    }
    sheet.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
    sheet.field(2, "Restart Count", number(status, "restartCount"));
}

fn describe_state(sheet: &mut Sheet, title: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        sheet.field(2, title, "Running");
        sheet.field(3, "Started", date(text(running, "startedAt")));
    } else if let Some(terminated) = state.get("terminated") {
        sheet.field(2, title, "Terminated");
        for (title, key) in [("Reason", "reason"), ("Message", "message")] {
            if !text(terminated, key).is_empty() {
                sheet.field(3, title, text(terminated, key));
            }
        }
        sheet.field(3, "Exit Code", number(terminated, "exitCode"));
        if number(terminated, "signal") > 0 {
            sheet.field(3, "Signal", number(terminated, "signal"));
        }
        sheet.field(3, "Started", date(text(terminated, "startedAt")));
        sheet.field(3, "Finished", date(text(terminated, "finishedAt")));
    } else {
        sheet.field(2, title, "Waiting");
        let reason = text(&state["waiting"], "reason");
        if !reason.is_empty() {
            sheet.field(3, "Reason", reason);
        }
    }
}

fn environment(sheet: &mut Sheet, container: &Value, pod: &Value) {
    let sources = items(container, "envFrom");
    if !sources.is_empty() {
        sheet.line(2, "Environment Variables from:");
        for source in sources {
            let (what, reference) = match source.get("configMapRef") {
                Some(map) => ("ConfigMap", map),
                None => ("Secret", &source["secretRef"]),
            };
            let prefix = match text(source, "prefix") {
                "" => String::new(),
                prefix => format!(" with prefix '{prefix}'"),
            };
            let optional = reference["optional"] == true;
            sheet.line(3, format_args!("{}\t{what}{prefix}\tOptional: {optional}", text(reference, "name")));
        }
    }
    let variables = items(container, "env");
    if variables.is_empty() {
        sheet.field(2, "Environment", NONE);
        return;
    }
    sheet.line(2, "Environment:");
    for variable in variables {
        describe_variable(sheet, variable, container, pod);
    }
}

fn describe_variable(sheet: &mut Sheet, variable: &Value, container: &Value, pod: &Value) {
    let name = text(variable, "name");
    let from = &variable["valueFrom"];
    if let Some(field) = from.get("fieldRef") {
        let (version, path) = (text(field, "apiVersion"), text(field, "fieldPath"));
        sheet.field(3, name, format_args!("{} ({version}:{path})", field_value(pod, path)));
    } else if let Some(resource) = from.get("resourceFieldRef") {
        let resource = text(resource, "resource");
        sheet.field(3, name, format_args!("{} ({resource})", resource_value(container, resource)));
    } else if let Some(secret) = from.get("secretKeyRef") {
        let (key, of, optional) = (text(secret, "key"), text(secret, "name"), secret["optional"] == true);
        sheet.field(3, name, format_args!("<set to the key '{key}' in secret '{of}'>\tOptional: {optional}"));
    } else if let Some(map) = from.get("configMapKeyRef") {
        let (key, of, optional) = (text(map, "key"), text(map, "name"), map["optional"] == true);
        sheet.field(3, name, format_args!("<set to the key '{key}' of config map '{of}'>\tOptional: {optional}"));
    } else {
        let mut lines = text(variable, "value").split('\n');
        sheet.field(3, name, lines.next().unwrap_or_default());
        lines.for_each(|line| sheet.line(3, format_args!("\t{line}")));
    }
}

/// What the downward API will say; nothing in a template.
fn field_value(pod: &Value, path: &str) -> String {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let pointer = format!("/{}", map.replace('.', "/"));
        return pod.pointer(&pointer).map(|map| plain(&map[key])).unwrap_or_default();
    }
    pod.pointer(&format!("/{}", path.replace('.', "/"))).map(plain).unwrap_or_default()
}

fn resource_value(container: &Value, resource: &str) -> String {
    let (kind, name) = resource.split_once('.').unwrap_or(("", resource));
    match plain(&container["resources"][kind][name]) {
        amount if amount.is_empty() && kind == "limits" => "node allocatable".to_owned(),
        amount if amount.is_empty() => "0".to_owned(),
        amount => match amount.parse::<windlass_api::quantity::Quantity>() {
            Ok(quantity) => quantity.units().to_string(),
            Err(_) => amount,
        },
    }
}

fn mounts(sheet: &mut Sheet, container: &Value) {
    let mounts = items(container, "volumeMounts");
    if mounts.is_empty() {
        sheet.field(2, "Mounts", NONE);
        return;
    }
    sheet.line(2, "Mounts:");
    let mut mounts: Vec<&Value> = mounts.iter().collect();
    mounts.sort_by_key(|mount| text(mount, "mountPath"));
    for mount in mounts {
        let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
        if !text(mount, "subPath").is_empty() {
            flags.push(format!("path={:?}", text(mount, "subPath")));
        }
        sheet.line(3, format_args!("{} from {} ({})", text(mount, "mountPath"), text(mount, "name"), flags.join(",")));
    }
    let devices = items(container, "volumeDevices");
    if !devices.is_empty() {
        sheet.line(2, "Devices:");
        for device in devices {
            sheet.line(3, format_args!("{} from {}", text(device, "devicePath"), text(device, "name")));
        }
    }
}
