//! Volumes of a pod, and where its containers mount them.
//!
//! Rules
//!   V1 name     a DNS label, unique in the pod
//!   V2 source   exactly one; what it must name is named
//!   V3 files    keys become files below the mount point, never above or beside it
//!   V4 mount    refers to a volume of the pod, once per path
//! Source: API reference, core/v1 Volume and VolumeMount.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::check::{descending_path, no_backsteps, optional_word, required_name, required_text, required_word};
use super::super::tree::Tree;
use super::env;
use crate::field::{Errors, Path};
use crate::name;
use crate::quantity::Quantity;

const MODES: (i64, i64) = (0, 0o777);
const HOST_PATH_TYPES: &[&str] =
    &["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Seconds that a service account token may be good for.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// The kinds of source that a volume gives.
pub(super) fn sources(volume: &Value) -> impl Iterator<Item = &str> {
    let fields = volume.as_object().into_iter().flatten();
    fields.filter(|(field, source)| *field != "name" && !source.is_null()).map(|(field, _)| field.as_str())
}

/// V1 to V3. Gives the names that mounts may refer to.
pub(super) fn validate<'a>(volumes: &'a [Value], at: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = at.index(index);
        required_name(volume, "name", name::label, &path, errors);
        let name = volume.text("name");
        if !name.is_empty() && !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let given: Vec<&str> = sources(volume).collect();
        if given.is_empty() {
            errors.required(&path, "must specify a volume type");
        }
        for (index, kind) in given.iter().enumerate() {
            if index > 0 {
                errors.forbidden(&path.child(kind), "may not specify more than 1 volume type");
            } else {
                validate_source(kind, &volume[*kind], &path.child(kind), errors);
            }
        }
    }
    names
}

/// V2, also for the sources of persistent volumes.
pub(in super::super) fn validate_source(kind: &str, source: &Value, path: &Path, errors: &mut Errors) {
    match kind {
        "emptyDir" => validate_empty_dir(source, path, errors),
        "hostPath" => validate_host_path(source, path, errors),
        "secret" => validate_files(source, Some("secretName"), path, errors),
        "configMap" => validate_files(source, Some("name"), path, errors),
        "downwardAPI" => {
            within_modes(source, "defaultMode", path, errors);
            validate_downward(source, path, errors);
        }
        "projected" => validate_projected(source, path, errors),
        "persistentVolumeClaim" => required_text(source, "claimName", path, errors),
        "image" => required_text(source, "reference", path, errors),
        "csi" => required_text(source, "driver", path, errors),
        "nfs" => {
            required_text(source, "server", path, errors);
            required_text(source, "path", path, errors);
            if !source.text("path").is_empty() && !source.text("path").starts_with('/') {
                errors.invalid(&path.child("path"), source.text("path"), "must be an absolute path");
            }
        }
        "ephemeral" if !source.is_set("volumeClaimTemplate") => {
            errors.required(&path.child("volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn validate_empty_dir(source: &Value, path: &Path, errors: &mut Errors) {
    if !source.is_set("sizeLimit") {
        return;
    }
    let path = path.child("sizeLimit");
    match Quantity::from_json(&source["sizeLimit"]) {
        Ok(limit) if limit.is_negative() => {
            errors.forbidden(&path, "SizeLimit field must be a valid resource quantity");
        }
        Ok(_) => {}
        Err(error) => errors.invalid(&path, source["sizeLimit"].clone(), &error.to_string()),
    }
}

fn validate_host_path(source: &Value, path: &Path, errors: &mut Errors) {
    match source.text("path") {
        "" => errors.required(&path.child("path"), ""),
        host_path => no_backsteps(host_path, &path.child("path"), errors),
    }
    optional_word(source, "type", HOST_PATH_TYPES, path, errors);
}

/// V3 for the keys of a Secret or ConfigMap.
fn validate_files(source: &Value, name_field: Option<&str>, path: &Path, errors: &mut Errors) {
    if let Some(field) = name_field {
        required_text(source, field, path, errors);
    }
    within_modes(source, "defaultMode", path, errors);
    for (index, item) in source.items("items").iter().enumerate() {
        let path = path.child("items").index(index);
        required_text(item, "key", &path, errors);
        validate_file_path(item, &path, errors);
        within_modes(item, "mode", &path, errors);
    }
}

fn validate_downward(source: &Value, path: &Path, errors: &mut Errors) {
    for (index, item) in source.items("items").iter().enumerate() {
        let path = path.child("items").index(index);
        validate_file_path(item, &path, errors);
        within_modes(item, "mode", &path, errors);
        match (item.is_set("fieldRef"), item.is_set("resourceFieldRef")) {
            (true, true) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(&path, "resource", detail);
            }
            (true, false) => {
                env::validate_field(&item["fieldRef"], env::FILE_FIELDS, &path.child("fieldRef"), errors);
            }
            (false, true) => {
                let path = path.child("resourceFieldRef");
                required_text(&item["resourceFieldRef"], "containerName", &path, errors);
                env::validate_resource_field(&item["resourceFieldRef"], &path, errors);
            }
            (false, false) => errors.required(&path, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn validate_projected(projected: &Value, path: &Path, errors: &mut Errors) {
    within_modes(projected, "defaultMode", path, errors);
    let mut files: BTreeSet<&str> = BTreeSet::new();
    for (index, source) in projected.items("sources").iter().enumerate() {
        let path = path.child("sources").index(index);
        let mut given = source.as_object().into_iter().flatten().filter(|(_, part)| !part.is_null());
        let Some((kind, part)) = given.next() else {
            errors.required(&path, "must specify at least one projection source type");
            continue;
        };
        for (other, _) in given {
            errors.forbidden(&path.child(other), "may not specify more than 1 volume type");
        }
        let path = path.child(kind);
        match kind.as_str() {
            "secret" | "configMap" => validate_files(part, Some("name"), &path, errors),
            "downwardAPI" => validate_downward(part, &path, errors),
            "serviceAccountToken" => validate_token(part, &path, errors),
            _ => {}
        }
        let paths = part.items("items").iter().map(|item| item.text("path"));
        for file in paths.chain(Some(part.text("path"))).filter(|file| !file.is_empty()) {
            if !files.insert(file) {
                errors.invalid(&path, file, "conflicting duplicate paths");
            }
        }
    }
}

fn validate_token(token: &Value, path: &Path, errors: &mut Errors) {
    let seconds = token.int("expirationSeconds").unwrap_or(TOKEN_SECONDS_MIN);
    let seconds_path = path.child("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        errors.invalid(&seconds_path, seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > TOKEN_SECONDS_MAX {
        errors.invalid(&seconds_path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    validate_file_path(token, path, errors);
}

/// The path of a file below the mount point. Names that begin with `..` are kept for the links that switch all files at
/// once.
fn validate_file_path(item: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("path");
    match item.text("path") {
        "" => errors.required(&path, ""),
        file => {
            descending_path(file, &path, errors);
            if file.starts_with("..") && !file.starts_with("../") && file != ".." {
                errors.invalid(&path, file, "must not start with '..'");
            }
        }
    }
}

fn within_modes(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    if let Some(mode) = object.int(field).filter(|mode| !(MODES.0..=MODES.1).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&at.child(field), mode, detail);
    }
}

/// V4. `volumes` are the names that exist; `privileged` says whether the container may change mounts of the machine.
pub(super) fn validate_mounts(container: &Value, volumes: &BTreeSet<&str>, at: &Path, errors: &mut Errors) {
    let privileged = container["securityContext"].flag("privileged");
    let devices: BTreeSet<&str> =
        container.items("volumeDevices").iter().map(|device| device.text("devicePath")).collect();
    let mut mount_paths = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let path = at.child("volumeMounts").index(index);
        validate_reference(mount, volumes, &path, errors);
        let mount_path = mount.text("mountPath");
        if mount_path.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if !mount_paths.insert(mount_path) {
            errors.invalid(&path.child("mountPath"), mount_path, "must be unique");
        } else if devices.contains(mount_path) {
            errors.invalid(&path.child("mountPath"), mount_path, "must not already exist in volumeDevices");
        }
        if mount_path.contains('\0') {
            errors.invalid(&path.child("mountPath"), mount_path, "must not contain a NUL byte");
        }
        validate_sub_paths(mount, &path, errors);
        validate_propagation(mount, privileged, &path, errors);
    }
    for (index, device) in container.items("volumeDevices").iter().enumerate() {
        let path = at.child("volumeDevices").index(index);
        validate_reference(device, volumes, &path, errors);
        required_text(device, "devicePath", &path, errors);
        no_backsteps(device.text("devicePath"), &path.child("devicePath"), errors);
    }
}

fn validate_reference(mount: &Value, volumes: &BTreeSet<&str>, at: &Path, errors: &mut Errors) {
    match mount.text("name") {
        "" => errors.required(&at.child("name"), ""),
        name if !volumes.contains(name) => errors.not_found(&at.child("name"), name),
        _ => {}
    }
}

fn validate_sub_paths(mount: &Value, at: &Path, errors: &mut Errors) {
    let (sub_path, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
    if !sub_path.is_empty() {
        descending_path(sub_path, &at.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            errors.invalid(&at.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending_path(expression, &at.child("subPathExpr"), errors);
    }
}

fn validate_propagation(mount: &Value, privileged: bool, at: &Path, errors: &mut Errors) {
    if mount.is_set("mountPropagation") {
        required_word(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], at, errors);
        if mount.text("mountPropagation") == "Bidirectional" && !privileged {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&at.child("mountPropagation"), detail);
        }
    }
    let recursive = mount.text("recursiveReadOnly");
    if recursive.is_empty() {
        return;
    }
    optional_word(mount, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"], at, errors);
    if recursive != "Disabled" && !mount.flag("readOnly") {
        let detail = "may only be specified when readOnly is true";
        errors.forbidden(&at.child("recursiveReadOnly"), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::{validate, validate_mounts};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn compare(errors: &Errors, expected: &[&str], of: &Value) {
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{of}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    fn check(volume: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(std::slice::from_ref(&volume), &Path::new("v"), &mut errors);
        compare(&errors, expected, &volume);
    }

    #[test]
    fn v1_and_v2() {
        check(json!({"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}), &[]);
        check(
            json!({"name": "A b"}),
            &["v[0].name: Invalid value: \"A b\"", "v[0]: Required value: must specify a volume type"],
        );
        check(
            json!({"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}),
            &["v[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        );
        check(json!({"name": "a", "emptyDir": {"sizeLimit": "-1"}}), &["v[0].emptyDir.sizeLimit: Forbidden"]);
        check(
            json!({"name": "a", "hostPath": {"path": "/a/../b", "type": "Pipe"}}),
            &[
                "v[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "v[0].hostPath.type: Unsupported value: \"Pipe\"",
            ],
        );
        check(
            json!({"name": "a", "persistentVolumeClaim": {}}),
            &["v[0].persistentVolumeClaim.claimName: Required value"],
        );
        let twice = [json!({"name": "a", "emptyDir": {}}), json!({"name": "a", "emptyDir": {}})];
        let mut errors = Errors::new();
        validate(&twice, &Path::new("v"), &mut errors);
        compare(&errors, &["v[1].name: Duplicate value: \"a\""], &twice[0]);
    }

    #[test]
    fn v3_files_stay_below_the_mount_point() {
        let item = |path: &str| json!({"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": path}]}});
        check(item("a/b"), &[]);
        check(item("/a"), &["v[0].configMap.items[0].path: Invalid value: \"/a\": must be a relative path"]);
        check(
            item("a/../../b"),
            &["v[0].configMap.items[0].path: Invalid value: \"a/../../b\": must not contain '..'"],
        );
        check(item("..data"), &["v[0].configMap.items[0].path: Invalid value: \"..data\": must not start with '..'"]);
        check(
            json!({"name": "a", "secret": {"defaultMode": 0o1000, "items": [{"path": "x", "mode": -1}]}}),
            &[
                "v[0].secret.secretName: Required value",
                "v[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777",
                "v[0].secret.items[0].key: Required value",
                "v[0].secret.items[0].mode: Invalid value: -1",
            ],
        );
        check(
            json!({"name": "a", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 5}},
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "token"}]}}, {}]}}),
            &[
                "v[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less",
                "v[0].projected.sources[1].configMap: Invalid value: \"token\": conflicting duplicate paths",
                "v[0].projected.sources[2]: Required value: must specify at least one",
            ],
        );
        check(
            json!({"name": "a", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}, {"path": "x"}]}}),
            &["v[0].downwardAPI.items[1]: Required value: one of fieldRef and resourceFieldRef is required"],
        );
    }

    #[test]
    fn v4_mounts_refer_to_volumes_once_per_path() {
        let check = |container: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            validate_mounts(&container, &BTreeSet::from(["a"]), &Path::new("c"), &mut errors);
            compare(&errors, expected, &container);
        };
        check(json!({"volumeMounts": [{"name": "a", "mountPath": "/x", "subPath": "y/z"}]}), &[]);
        check(
            json!({"volumeMounts": [{"name": "b", "mountPath": "/x"}, {"name": "a", "mountPath": "/x", "subPath": "../y"}, {}]}),
            &[
                "c.volumeMounts[0].name: Not found: \"b\"",
                "c.volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
                "c.volumeMounts[1].subPath: Invalid value: \"../y\": must not contain '..'",
                "c.volumeMounts[2].name: Required value",
                "c.volumeMounts[2].mountPath: Required value",
            ],
        );
        check(
            json!({"volumeMounts": [{"name": "a", "mountPath": "/x", "mountPropagation": "Bidirectional", "recursiveReadOnly": "Enabled"}]}),
            &["c.volumeMounts[0].mountPropagation: Forbidden", "c.volumeMounts[0].recursiveReadOnly: Forbidden"],
        );
    }
}
