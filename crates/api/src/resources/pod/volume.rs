//! Volumes of a pod, and where its containers mount them.
//!
//! Rules
//!   V1 name     a DNS label, unique in the pod
//!   V2 source   exactly one, which is well-formed (`source`, `projected`)
//!   V3 claims   a claim that is made for the pod is not mounted as somebody else's too
//!   V4 mount    refers to a volume of the pod that is well-formed, once per path
//!   V5 device   refers to a claim, once per volume and path, and is not mounted as well
//! Source: API reference, core/v1 Volume, VolumeMount and VolumeDevice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::check::{descending_path, named, no_backsteps, required_word};
use super::super::tree::Tree;
use super::source::{self, Holder};
use crate::field::{Errors, Path};
use crate::name;

/// The kinds of source that a volume gives.
pub(super) fn sources(volume: &Value) -> impl Iterator<Item = &str> {
    let fields = volume.as_object().into_iter().flatten();
    fields.filter(|(field, source)| *field != "name" && !source.is_null()).map(|(field, _)| field.as_str())
}

/// The well-formed volumes of a pod by their names: what mounts may refer to.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// V1 to V3. `pod` is the pod's name, empty for a template.
pub(super) fn validate<'a>(volumes: &'a [Value], pod: &str, at: &Path, errors: &mut Errors) -> Volumes<'a> {
    let mut good = Volumes::new();
    for (index, volume) in volumes.iter().enumerate() {
        let (name, path) = (volume.text("name"), at.index(index));
        let mut found = Errors::new();
        validate_source(volume, pod, &path, &mut found);
        match name {
            "" => found.required(&path.child("name"), ""),
            _ => named(name::label, name, &path.child("name"), &mut found),
        }
        if good.contains_key(name) {
            found.duplicate(&path.child("name"), name);
        }
        if found.is_empty() {
            good.insert(name, volume);
        }
        errors.extend(found);
        validate_claim(volume, volumes, pod, &path, errors);
    }
    good
}

/// V2.
fn validate_source(volume: &Value, pod: &str, at: &Path, errors: &mut Errors) {
    let holder = Holder::Pod { volume: volume.text("name"), pod };
    let mut given = sources(volume);
    match given.next() {
        None => errors.required(at, "must specify a volume type"),
        Some(kind) => source::validate(kind, &volume[kind], holder, &at.child(kind), errors),
    }
    for kind in given {
        errors.forbidden(&at.child(kind), "may not specify more than 1 volume type");
    }
}

/// V3.
fn validate_claim(volume: &Value, volumes: &[Value], pod: &str, at: &Path, errors: &mut Errors) {
    let claim = volume["persistentVolumeClaim"].text("claimName");
    let Some(made_for) = claim.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-')) else { return };
    let is_made = |other: &Value| other.is_set("ephemeral") && other.text("name") == made_for;
    if !pod.is_empty() && volumes.iter().any(is_made) {
        let detail = "must not reference a PVC that gets created for an ephemeral volume";
        errors.invalid(&at.child("persistentVolumeClaim").child("claimName"), claim, detail);
    }
}

/// V4. Kubernetes names the list, not which of its items is wrong, where what is wrong is how it is mounted.
pub(super) fn validate_mounts(container: &Value, volumes: &Volumes<'_>, at: &Path, errors: &mut Errors) {
    let privileged = container["securityContext"].flag("privileged");
    let devices = container.items("volumeDevices");
    let list = at.child("volumeMounts");
    let mut mount_paths = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let (name, mount_path) = (mount.text("name"), mount.text("mountPath"));
        let (path, name_path) = (list.index(index), list.index(index).child("name"));
        let path = path.child("mountPath");
        if name.is_empty() {
            errors.required(&name_path, "");
        }
        if !volumes.contains_key(name) {
            errors.not_found(&name_path, name);
        }
        if mount_path.is_empty() {
            errors.required(&path, "");
        }
        if !mount_paths.insert(mount_path) {
            errors.invalid(&path, mount_path, "must be unique");
        }
        if mount_path.contains('\0') {
            errors.invalid(&path, mount_path, "must not contain a NUL byte");
        }
        if devices.iter().any(|device| device.text("name") == name) {
            errors.invalid(&name_path, name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.text("devicePath") == mount_path) {
            errors.invalid(&path, mount_path, "must not already exist as a path in volumeDevices");
        }
        validate_sub_paths(mount, &list, &list.index(index), errors);
        validate_propagation(mount, privileged, &list, errors);
    }
}

fn validate_sub_paths(mount: &Value, list: &Path, at: &Path, errors: &mut Errors) {
    let (sub_path, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
    if !sub_path.is_empty() {
        descending_path(sub_path, &list.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            errors.invalid(&at.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending_path(expression, &list.child("subPathExpr"), errors);
    }
}

fn validate_propagation(mount: &Value, privileged: bool, list: &Path, errors: &mut Errors) {
    let propagation = mount.text("mountPropagation");
    if mount.is_set("mountPropagation") {
        required_word(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], list, errors);
        if propagation == "Bidirectional" && !privileged {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&list.child("mountPropagation"), detail);
        }
    }
    let path = list.child("recursiveReadOnly");
    match mount.text("recursiveReadOnly") {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if !matches!(propagation, "" | "None") {
                errors.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => errors.not_supported(&path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// V5.
pub(super) fn validate_devices(container: &Value, volumes: &Volumes<'_>, at: &Path, errors: &mut Errors) {
    let mounts = container.items("volumeMounts");
    let (mut names, mut device_paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.items("volumeDevices").iter().enumerate() {
        let (name, device_path) = (device.text("name"), device.text("devicePath"));
        let at = at.child("volumeDevices").index(index);
        let (name_at, path_at) = (at.child("name"), at.child("devicePath"));
        if name.is_empty() {
            errors.required(&name_at, "");
        } else if !names.insert(name) {
            errors.invalid(&name_at, name, "must be unique");
        }
        match volumes.get(name) {
            None => errors.not_found(&name_at, name),
            Some(volume) if !volume.is_set("persistentVolumeClaim") && !volume.is_set("ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_at, name, detail);
            }
            Some(_) => {}
        }
        let mut stepping = Errors::new();
        no_backsteps(device_path, &path_at, &mut stepping);
        if device_path.is_empty() {
            errors.required(&path_at, "");
        }
        if device_paths.contains(device_path) {
            errors.invalid(&path_at, device_path, "must be unique");
        }
        if stepping.is_empty() {
            device_paths.insert(device_path);
        } else {
            errors.invalid(&path_at, device_path, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            errors.invalid(&name_at, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == device_path) {
            errors.invalid(&path_at, device_path, "must not already exist as a path in volumeMounts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Volumes, validate, validate_devices, validate_mounts};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(volumes: &[Value], expected: &[&str]) {
        let mut errors = Errors::new();
        validate(volumes, "p", &Path::new("v"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn v1_and_v2_a_volume_has_a_name_and_one_source() {
        check(&[json!({"name": "a", "emptyDir": {"sizeLimit": "1Gi"}})], &[]);
        check(
            &[json!({"name": "A b"})],
            &["v[0]: Required value: must specify a volume type", "v[0].name: Invalid value: \"A b\""],
        );
        check(
            &[json!({"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}})],
            &["v[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            &[json!({"name": "a", "emptyDir": {}}), json!({"name": "a", "emptyDir": {}}), json!({"emptyDir": {}})],
            &["v[1].name: Duplicate value: \"a\"", "v[2].name: Required value"],
        );
    }

    #[test]
    fn v3_a_claim_made_for_the_pod_is_not_somebody_elses() {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}});
        check(
            &[
                json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}),
                json!({"name": "b", "persistentVolumeClaim": {"claimName": "p-scratch"}}),
                json!({"name": "c", "persistentVolumeClaim": {"claimName": "p-other"}}),
            ],
            &["v[1].persistentVolumeClaim.claimName: Invalid value: \"p-scratch\": must not reference a PVC that gets"],
        );
    }

    fn check_container(container: Value, expected: &[&str]) {
        let (plain, claim) = (json!({"emptyDir": {}}), json!({"persistentVolumeClaim": {"claimName": "c"}}));
        let volumes = Volumes::from([("a", &plain), ("claim", &claim)]);
        let mut errors = Errors::new();
        validate_mounts(&container, &volumes, &Path::new("c"), &mut errors);
        validate_devices(&container, &volumes, &Path::new("c"), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn v4_mounts_refer_to_volumes_once_per_path() {
        check_container(json!({"volumeMounts": [{"name": "a", "mountPath": "/x", "subPath": "y/z"}]}), &[]);
        check_container(
            json!({"volumeMounts": [{"name": "b", "mountPath": "/x"}, {"name": "a", "mountPath": "/x", "subPath": "../y"}, {}]}),
            &[
                "c.volumeMounts[0].name: Not found: \"b\"",
                "c.volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
                "c.volumeMounts.subPath: Invalid value: \"../y\": must not contain '..'",
                "c.volumeMounts[2].name: Required value",
                "c.volumeMounts[2].name: Not found: \"\"",
                "c.volumeMounts[2].mountPath: Required value",
            ],
        );
        check_container(
            json!({"volumeMounts": [{"name": "a", "mountPath": "/x", "subPath": "y", "subPathExpr": "/z"}]}),
            &[
                "c.volumeMounts[0].subPathExpr: Invalid value: \"/z\": subPathExpr and subPath are mutually exclusive",
                "c.volumeMounts.subPathExpr: Invalid value: \"/z\": must be a relative path",
            ],
        );
        check_container(
            json!({"volumeMounts": [{"name": "a", "mountPath": "/x", "mountPropagation": "Bidirectional", "recursiveReadOnly": "Enabled"},
                {"name": "a", "mountPath": "/y", "readOnly": true, "recursiveReadOnly": "Often"}]}),
            &[
                "c.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to",
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None",
                "c.volumeMounts.recursiveReadOnly: Unsupported value: \"Often\": supported values: \"Disabled\", \"Enabled\"",
            ],
        );
    }

    #[test]
    fn v5_devices_are_claims_and_not_mounted_as_well() {
        check_container(json!({"volumeDevices": [{"name": "claim", "devicePath": "/dev/x"}]}), &[]);
        check_container(
            json!({"volumeDevices": [{"name": "a", "devicePath": "/dev/../x"}, {"name": "b"}, {"name": "claim", "devicePath": "/d"},
                {"name": "claim", "devicePath": "/d"}]}),
            &[
                "c.volumeDevices[0].name: Invalid value: \"a\": can only use volume source type of PersistentVolumeClaim",
                "c.volumeDevices[0].devicePath: Invalid value: \"/dev/../x\": can not contain backsteps ('..')",
                "c.volumeDevices[1].name: Not found: \"b\"",
                "c.volumeDevices[1].devicePath: Required value",
                "c.volumeDevices[3].name: Invalid value: \"claim\": must be unique",
                "c.volumeDevices[3].devicePath: Invalid value: \"/d\": must be unique",
            ],
        );
        check_container(
            json!({"volumeMounts": [{"name": "claim", "mountPath": "/d"}], "volumeDevices": [{"name": "claim", "devicePath": "/d"}]}),
            &[
                "c.volumeMounts[0].name: Invalid value: \"claim\": must not already exist in volumeDevices",
                "c.volumeMounts[0].mountPath: Invalid value: \"/d\": must not already exist as a path in volumeDevices",
                "c.volumeDevices[0].name: Invalid value: \"claim\": must not already exist in volumeMounts",
                "c.volumeDevices[0].devicePath: Invalid value: \"/d\": must not already exist as a path in volumeMounts",
            ],
        );
    }
}
