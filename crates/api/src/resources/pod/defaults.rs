//! What a pod's author may leave out, and what it is then.
//!
//! Two layers, as in Kubernetes: what holds for every pod spec, also inside a template, and what a pod gets on top when it
//! is written itself (so that a template stays as its author wrote it).
//! Source: API reference, core/v1 PodSpec, Container, Probe and the volume sources.

use serde_json::{Value, json};

use super::super::persistent_volume_claim;
use super::super::tree::{Tree, fill, fill_number, fill_text, items_mut, map_mut, part_mut};
use super::requirements;
use super::volume;
use crate::quantity::Quantity;

/// Mode of files made from keys: readable by all, writable by the owner.
const FILE_MODE_DEFAULT: i64 = 0o644;
/// Seconds a service account token projected into a pod is good for.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;

/// Fills in a pod.
pub(super) fn fill_pod(pod: &mut Value) {
    let Some(spec) = part_mut(pod, "spec") else { return };
    fill_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            if let Some(resources) = container.get_mut("resources") {
                requirements::fill_requests_from_limits(resources);
            }
        }
    }
    requirements::fill_pod_requests(spec);
    fill(spec, "enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            items_mut(spec, list).iter_mut().for_each(fill_host_ports);
        }
    }
}

/// Fills in the pod template of a workload.
pub(in super::super) fn fill_template(template: &mut Value) {
    if let Some(spec) = part_mut(template, "spec") {
        fill_spec(spec);
    }
}

fn fill_spec(spec: &mut Value) {
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", super::GRACE_SECONDS_DEFAULT);
    fill(spec, "securityContext", json!({}));
    fill_account(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        items_mut(spec, list).iter_mut().for_each(fill_container);
    }
    items_mut(spec, "volumes").iter_mut().for_each(fill_volume);
    for field in ["requests", "limits"] {
        if let Some(resources) = spec.get_mut("resources") {
            canonical_quantities(resources, field);
        }
    }
    canonical_quantities(spec, "overhead");
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are served and say the same.
pub(super) fn fill_account(spec: &mut Value) {
    let name = match (spec.text("serviceAccountName"), spec.text("serviceAccount")) {
        ("", "") => return,
        ("", old_name) => old_name.to_owned(),
        (name, _) => name.to_owned(),
    };
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
}

fn fill_container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    if let Some(resources) = container.get_mut("resources") {
        canonical_quantities(resources, "requests");
        canonical_quantities(resources, "limits");
    }
    for port in items_mut(container, "ports") {
        fill_text(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom") {
            fill_field_sources(source);
            if let Some(file) = source.get_mut("fileKeyRef") {
                fill(file, "optional", false);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            fill_probe(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for moment in ["postStart", "preStop"] {
            if let Some(action) = lifecycle.get_mut(moment) {
                fill_http_action(action);
            }
        }
    }
}

fn fill_host_ports(container: &mut Value) {
    for port in items_mut(container, "ports") {
        let number = port.int("containerPort").unwrap_or(0);
        fill_number(port, "hostPort", number);
    }
}

fn fill_probe(probe: &mut Value) {
    fill_number(probe, "timeoutSeconds", 1);
    fill_number(probe, "periodSeconds", 10);
    fill_number(probe, "successThreshold", 1);
    fill_number(probe, "failureThreshold", 3);
    fill_http_action(probe);
    if let Some(grpc) = probe.get_mut("grpc") {
        fill(grpc, "service", "");
    }
}

fn fill_http_action(action: &mut Value) {
    if let Some(http) = action.get_mut("httpGet") {
        fill_text(http, "path", "/");
        fill_text(http, "scheme", "HTTP");
    }
}

/// `fieldRef` and `resourceFieldRef`, wherever they stand.
fn fill_field_sources(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef") {
        fill_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef") {
        fill(resource, "divisor", "0");
        canonical_quantity(resource, "divisor");
    }
}

fn fill_volume(volume: &mut Value) {
    if !volume.is_object() {
        return;
    }
    if volume::sources(volume).next().is_none() {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            fill(source, "defaultMode", FILE_MODE_DEFAULT);
        }
    }
    if let Some(empty_dir) = volume.get_mut("emptyDir") {
        canonical_quantity(empty_dir, "sizeLimit");
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = pull_policy(image.text("reference"));
        fill_text(image, "pullPolicy", policy);
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        items_mut(downward, "items").iter_mut().for_each(fill_field_sources);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                fill(token, "expirationSeconds", TOKEN_SECONDS_DEFAULT);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                items_mut(downward, "items").iter_mut().for_each(fill_field_sources);
            }
        }
    }
    if let Some(claim) = volume.get_mut("ephemeral").and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"))
        && let Some(spec) = part_mut(claim, "spec")
    {
        persistent_volume_claim::fill_spec(spec);
    }
    fill_volume_source(volume);
}

/// What holds for the sources of a pod's volumes and of persistent ones alike.
pub(in super::super) fn fill_volume_source(volume: &mut Value) {
    if let Some(host_path) = volume.get_mut("hostPath") {
        fill(host_path, "type", "");
    }
    if let Some(iscsi) = volume.get_mut("iscsi") {
        fill_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = volume.get_mut("rbd") {
        fill_text(rbd, "pool", "rbd");
        fill_text(rbd, "user", "admin");
        fill_text(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = volume.get_mut("azureDisk") {
        fill(disk, "cachingMode", "ReadWrite");
        fill(disk, "kind", "Shared");
        fill(disk, "fsType", "ext4");
        fill(disk, "readOnly", false);
    }
    if let Some(scale_io) = volume.get_mut("scaleIO") {
        fill_text(scale_io, "storageMode", "ThinProvisioned");
        fill_text(scale_io, "fsType", "xfs");
    }
}

/// Whether an image is pulled although it is there: only if its tag may come to mean another image.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let (name, pinned) = name.split_once('@').map_or((name, false), |(name, _)| (name, true));
    match name.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !pinned && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

/// Writes the quantities of a map as Kubernetes serves them: as texts in their shortest form.
fn canonical_quantities(object: &mut Value, field: &str) {
    if !object.is_set(field) {
        return;
    }
    let Some(quantities) = map_mut(object, field) else { return };
    for value in quantities.values_mut() {
        make_canonical(value);
    }
}

fn canonical_quantity(object: &mut Value, field: &str) {
    if let Some(value) = object.get_mut(field) {
        make_canonical(value);
    }
}

/// What is no quantity stays, for validation to refuse.
fn make_canonical(value: &mut Value) {
    if let Ok(quantity) = Quantity::from_json(value) {
        let text = quantity.to_string();
        if value.as_str() != Some(&text) {
            *value = Value::from(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fill_pod, fill_template, pull_policy};
    use serde_json::json;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("host:5000/a/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_small_pod_is_filled_in() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "nginx:1",
            "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "0.5"}},
            "ports": [{"containerPort": 80}],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}});
        fill_pod(&mut pod);
        assert_eq!(
            pod,
            json!({"spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
                "containers": [{"name": "c", "image": "nginx:1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [{"name": "v", "emptyDir": {}},
                    {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}]}})
        );
    }

    #[test]
    fn a_template_gets_less_than_a_pod() {
        let mut template = json!({"spec": {"hostNetwork": true, "serviceAccount": "robot", "containers": [
            {"name": "c", "image": "a", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}]}});
        fill_template(&mut template);
        let spec = &template["spec"];
        assert_eq!(spec.get("enableServiceLinks"), None);
        assert_eq!(spec["serviceAccountName"], "robot");
        assert_eq!(spec["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
        assert_eq!(spec["containers"][0]["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));

        let mut pod = template;
        fill_pod(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
    }

    #[test]
    fn odd_shapes_do_not_stop_it() {
        for spec in
            [json!(null), json!(3), json!({"containers": [1, null, {"ports": "x", "resources": []}], "volumes": [7]})]
        {
            let mut pod = json!({"spec": spec});
            fill_pod(&mut pod);
            let once = pod.clone();
            fill_pod(&mut pod);
            assert_eq!(once, pod);
        }
    }
}
