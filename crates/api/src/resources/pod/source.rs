//! Sources of volumes: what each kind of them must say, in a pod and in a PersistentVolume.
//!
//! Rules
//!   O1 named     what a source must name is named (`NAMED`)
//!   O2 formed    numbers, names and paths in it are well-formed
//!   O3 secrets   a reference to a Secret names it; outside of a namespace it names that too
//!   O4 claims    a claim made for the pod is a valid one, under a name that can be a claim's
//! Source: API reference, core/v1 Volume and PersistentVolume.

use serde_json::Value;

use super::super::check::{
    descending_path, named, no_backsteps, optional_name, optional_word, required_name, required_text, within,
};
use super::super::metadata::validate_template_metadata;
use super::super::persistent_volume_claim;
use super::super::storage::validate_driver;
use super::super::tree::Tree;
use super::projected;
use crate::field::{Errors, Path};
use crate::name;
use crate::quantity::Quantity;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const LUNS: (i64, i64) = (0, 255);
/// Characters of a volume's name and its iSCSI portal, where the initiator has a name: they make up an interface's.
const PORTAL_CHARS_MAX: usize = 64;
const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
const QUOBYTE_TENANT_BYTES_MAX: usize = 64;
const QUOBYTE_REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";

/// O1: the texts that a source cannot do without.
const NAMED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cinder", &["volumeID"]),
    ("configMap", &["name"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("image", &["reference"]),
    ("iscsi", &["targetPortal"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("secret", &["secretName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// Whose volume it is.
#[derive(Clone, Copy)]
pub(in super::super) enum Holder<'a> {
    /// A pod's, by the volume's name; the pod's own name is empty where it is a template.
    Pod { volume: &'a str, pod: &'a str },
    /// A PersistentVolume of this name.
    Persistent(&'a str),
}

/// O1 to O4 for a source of this kind at `path`.
pub(in super::super) fn validate(kind: &str, source: &Value, holder: Holder<'_>, path: &Path, errors: &mut Errors) {
    // Kubernetes speaks of two of them by other names than their fields have.
    let path = &match (kind, holder) {
        ("gcePersistentDisk", _) => sibling(path, "persistentDisk"),
        _ => path.clone(),
    };
    if let Some((_, fields)) = NAMED.iter().find(|(named, _)| *named == kind) {
        for field in *fields {
            required_text(source, field, path, errors);
        }
    }
    match kind {
        "awsElasticBlockStore" | "gcePersistentDisk" => validate_partition(source, path, errors),
        "azureDisk" => validate_azure_disk(source, path, errors),
        "azureFile" if source.get("secretNamespace") == Some(&Value::from("")) => {
            errors.required(&path.child("secretNamespace"), "");
        }
        "cephfs" | "rbd" => validate_ceph(kind, source, path, errors),
        "cinder" | "storageos" => validate_old_secret(kind, source, holder, path, errors),
        "csi" => validate_csi(source, holder, path, errors),
        "emptyDir" => validate_empty_dir(source, path, errors),
        "ephemeral" => validate_ephemeral(source, holder, path, errors),
        "fc" => validate_fc(source, path, errors),
        "flexVolume" => validate_flex(source, path, errors),
        "flocker" => validate_flocker(source, path, errors),
        "gitRepo" => descending_path(source.text("directory"), &path.child("directory"), errors),
        "glusterfs" => validate_gluster(source, path, errors),
        "hostPath" => validate_host_path(source, path, errors),
        "image" => super::container::validate_pull_policy(source, "pullPolicy", path, errors),
        "iscsi" => validate_iscsi(source, holder, path, errors),
        "local" => no_backsteps(source.text("path"), &path.child("path"), errors),
        "nfs" if !source.text("path").starts_with('/') => {
            errors.invalid(&path.child("path"), source.text("path"), "must be an absolute path");
        }
        "quobyte" => validate_quobyte(source, path, errors),
        "configMap" | "secret" => projected::validate_files(source, path, errors),
        "downwardAPI" => projected::validate_downward_volume(source, path, errors),
        "projected" => projected::validate(source, path, errors),
        _ => {}
    }
}

/// The path of another field of the same object.
fn sibling(path: &Path, field: &str) -> Path {
    match path.as_str().rsplit_once('.') {
        Some((parent, _)) => Path::new(parent).child(field),
        None => Path::new(field),
    }
}

fn validate_partition(source: &Value, path: &Path, errors: &mut Errors) {
    if let Some(partition) = source.int("partition").filter(|partition| !(0..=255).contains(partition)) {
        errors.invalid(&path.child("partition"), partition, "must be between 1 and 255, inclusive");
    }
}

fn validate_azure_disk(source: &Value, path: &Path, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    optional_word(source, "cachingMode", &["None", "ReadOnly", "ReadWrite"], path, errors);
    optional_word(source, "kind", &["Dedicated", "Managed", "Shared"], path, errors);
    let uri = source.text("diskURI");
    match source.text("kind") {
        "" => {}
        "Managed" if !uri.starts_with("/subscriptions/") => {
            errors.not_supported(&path.child("diskURI"), uri, &[MANAGED]);
        }
        "Managed" => {}
        _ if !uri.starts_with("https://") => errors.not_supported(&path.child("diskURI"), uri, &[BLOB]),
        _ => {}
    }
}

fn validate_ceph(kind: &str, source: &Value, path: &Path, errors: &mut Errors) {
    if source.items("monitors").is_empty() {
        errors.required(&path.child("monitors"), "");
    }
    if kind == "rbd" {
        required_text(source, "image", path, errors);
    }
}

/// O3 for the sources that only ask that it is named.
fn validate_old_secret(kind: &str, source: &Value, holder: Holder<'_>, path: &Path, errors: &mut Errors) {
    if kind == "storageos" {
        required_name(source, "volumeName", name::label, path, errors);
        optional_name(source, "volumeNamespace", name::label, path, errors);
    }
    let (secret, path) = (&source["secretRef"], path.child("secretRef"));
    if secret.is_null() {
        return;
    }
    required_text(secret, "name", &path, errors);
    if matches!(holder, Holder::Persistent(_)) {
        required_text(secret, "namespace", &path, errors);
    }
}

fn validate_csi(source: &Value, holder: Holder<'_>, path: &Path, errors: &mut Errors) {
    validate_driver(source, "driver", path, errors);
    let Holder::Persistent(_) = holder else {
        let (secret, at) = (&source["nodePublishSecretRef"], path.child("nodePublishSecretRef"));
        if secret.is_object() {
            match secret.text("name") {
                "" => errors.required(&at.child("name"), ""),
                secret => named(name::subdomain, secret, &path.child("name"), errors),
            }
        }
        return;
    };
    required_text(source, "volumeHandle", path, errors);
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let (secret, path) = (&source[field], path.child(field));
        if secret.is_object() {
            required_name(secret, "name", name::subdomain, &path, errors);
            required_name(secret, "namespace", name::label, &path, errors);
        }
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

/// O4.
fn validate_ephemeral(source: &Value, holder: Holder<'_>, path: &Path, errors: &mut Errors) {
    let (template, at) = (&source["volumeClaimTemplate"], path.child("volumeClaimTemplate"));
    if template.is_object() {
        validate_template_metadata(&template["metadata"], &at.child("metadata"), errors);
        persistent_volume_claim::validate_spec(&template["spec"], &at.child("spec"), errors);
    } else {
        errors.required(&at, "");
    }
    if let Holder::Pod { volume, pod } = holder
        && !volume.is_empty()
        && !pod.is_empty()
    {
        let claim = format!("{pod}-{volume}");
        for reason in name::subdomain(&claim) {
            errors.invalid(&sibling(path, "name"), volume, &format!("PVC name {claim:?}: {reason}"));
        }
    }
}

fn validate_fc(source: &Value, path: &Path, errors: &mut Errors) {
    let (names, ids) = (source.items("targetWWNs"), source.items("wwids"));
    let names_path = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        errors.required(&names_path, "must specify either targetWWNs or wwids, but not both");
    }
    if names.is_empty() {
        return;
    }
    if !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(&names_path, source["targetWWNs"].clone(), detail);
    }
    if source.is_set("lun") {
        within(source, "lun", LUNS, path, errors);
    } else {
        errors.required(&path.child("lun"), "lun is required if targetWWNs is specified");
    }
}

fn validate_flex(source: &Value, path: &Path, errors: &mut Errors) {
    for key in source.entries("options").keys() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&path.child("options").key(key), key.as_str(), detail);
        }
    }
}

fn validate_flocker(source: &Value, path: &Path, errors: &mut Errors) {
    let name = source.text("datasetName");
    match (name.is_empty(), source.text("datasetUUID").is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn validate_gluster(source: &Value, path: &Path, errors: &mut Errors) {
    if !source.is_set("endpointsNamespace") {
        return;
    }
    let path = path.child("endpointsNamespace");
    match source.text("endpointsNamespace") {
        "" => errors.invalid(&path, "", "if the endpointnamespace is set, it must be a valid namespace name"),
        namespace => named(name::label, namespace, &path, errors),
    }
}

fn validate_host_path(source: &Value, path: &Path, errors: &mut Errors) {
    match source.text("path") {
        "" => errors.required(&path.child("path"), ""),
        host_path => {
            no_backsteps(host_path, &path.child("path"), errors);
            optional_word(source, "type", HOST_PATH_TYPES, path, errors);
        }
    }
}

fn validate_iscsi(source: &Value, holder: Holder<'_>, path: &Path, errors: &mut Errors) {
    let portal = source.text("targetPortal");
    let (Holder::Pod { volume: holder_name, .. } | Holder::Persistent(holder_name)) = holder;
    if source.is_set("initiatorName") && holder_name.len() + 1 + portal.len() > PORTAL_CHARS_MAX {
        match holder {
            Holder::Pod { volume, .. } => errors.invalid(&sibling(path, "name"), volume, PORTAL_TOO_LONG),
            Holder::Persistent(_) => errors.invalid(&path.child("targetportal"), portal, PORTAL_TOO_LONG),
        }
    }
    match source.text("iqn") {
        "" => errors.required(&path.child("iqn"), ""),
        iqn => validate_initiator(iqn, &path.child("iqn"), errors),
    }
    within(source, "lun", LUNS, path, errors);
    let secret = &source["secretRef"];
    let authenticates = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if secret.is_null() && authenticates {
        errors.required(&path.child("secretRef"), "");
    }
    if secret.is_object() && matches!(holder, Holder::Persistent(_)) {
        required_text(secret, "name", &path.child("secretRef"), errors);
    }
    if source.is_set("initiatorName") {
        validate_initiator(source.text("initiatorName"), &path.child("initiatorname"), errors);
    }
}

/// A name of an iSCSI target or initiator, RFC 3720: `iqn.2001-04.com.example:disk`, `eui.` or `naa.` and a number.
fn validate_initiator(text: &str, path: &Path, errors: &mut Errors) {
    let alphanumeric =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let fits = match text.get(..3) {
        Some("iqn") => is_iqn(text),
        Some("eui") => alphanumeric(text.get(4..).unwrap_or_default(), 16),
        Some("naa") => alphanumeric(text.get(4..).unwrap_or_default(), 32),
        _ => {
            errors.invalid(path, text, "must be valid format starting with iqn, eui, or naa");
            return;
        }
    };
    if !fits {
        errors.invalid(path, text, "must be valid format");
    }
}

fn is_iqn(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("iqn.") else { return false };
    let Some((date, rest)) = rest.split_once('.') else { return false };
    let is_number = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(year, month)| is_number(year, 4) && is_number(month, 2));
    let Some((authority, unique)) = rest.split_once(':') else { return false };
    let is_authority = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let is_unique = |found: char| !",;*&$|".contains(found) && !found.is_whitespace();
    dated
        && !authority.is_empty()
        && authority.bytes().all(is_authority)
        && !unique.is_empty()
        && unique.chars().all(is_unique)
}

fn validate_quobyte(source: &Value, path: &Path, errors: &mut Errors) {
    let registry = source.text("registry");
    if registry.is_empty() {
        errors.required(&path.child("registry"), QUOBYTE_REGISTRY);
    } else if source.text("tenant").len() > QUOBYTE_TENANT_BYTES_MAX {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(&path.child("tenant"), detail);
    } else if registry.split(',').any(|pair| !pair.contains(':')) {
        errors.invalid(&path.child("registry"), registry, QUOBYTE_REGISTRY);
    }
    required_text(source, "volume", path, errors);
}

#[cfg(test)]
mod tests {
    use super::{Holder, validate};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check_in(holder: Holder<'_>, kind: &str, source: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(kind, &source, holder, &Path::new("v").child(kind), &mut errors);
        compare(&errors, expected);
    }

    fn check(kind: &str, source: Value, expected: &[&str]) {
        check_in(Holder::Pod { volume: "data", pod: "p" }, kind, source, expected);
    }

    fn check_persistent(kind: &str, source: Value, expected: &[&str]) {
        check_in(Holder::Persistent("pv"), kind, source, expected);
    }

    #[test]
    fn o1_what_a_source_must_name_is_named() {
        for (kind, fields) in super::NAMED.iter().filter(|(kind, _)| *kind != "iscsi") {
            let mut errors = Errors::new();
            let holder = Holder::Pod { volume: "data", pod: "p" };
            validate(kind, &json!({}), holder, &Path::new("v").child(kind), &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            for field in *fields {
                let kind = if *kind == "gcePersistentDisk" { "persistentDisk" } else { kind };
                assert!(found.contains(&format!("v.{kind}.{field}: Required value")), "{found:?}");
            }
        }
    }

    #[test]
    fn o2_numbers_and_names_in_a_source_are_well_formed() {
        check("emptyDir", json!({"sizeLimit": "-1"}), &["v.emptyDir.sizeLimit: Forbidden: SizeLimit field must be a"]);
        check(
            "gcePersistentDisk",
            json!({"pdName": "d", "partition": 256}),
            &["v.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive"],
        );
        check(
            "nfs",
            json!({"server": "s", "path": "p"}),
            &["v.nfs.path: Invalid value: \"p\": must be an absolute path"],
        );
        check(
            "hostPath",
            json!({"path": "/a/../b", "type": "Pipe"}),
            &[
                "v.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "v.hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \"CharDevice\"",
            ],
        );
        check(
            "azureDisk",
            json!({"diskName": "d", "diskURI": "x", "kind": "Managed", "cachingMode": "Some"}),
            &[
                "v.azureDisk.cachingMode: Unsupported value: \"Some\": supported values: \"None\", \"ReadOnly\"",
                "v.azureDisk.diskURI: Unsupported value: \"x\": supported values: \"/subscriptions/{sub-id}",
            ],
        );
        check("fc", json!({}), &["v.fc.targetWWNs: Required value: must specify either targetWWNs or wwids"]);
        check(
            "fc",
            json!({"targetWWNs": ["a"], "wwids": ["b"]}),
            &[
                "v.fc.targetWWNs: Invalid value: [\"a\"]: targetWWNs and wwids can not be specified",
                "v.fc.lun: Required value: lun is required if targetWWNs is specified",
            ],
        );
        check(
            "flexVolume",
            json!({"driver": "a/b", "options": {"x.k8s.io/y": "z"}}),
            &["v.flexVolume.options[x.k8s.io/y]: Invalid value: \"x.k8s.io/y\": kubernetes.io and k8s.io namespaces"],
        );
        check("flocker", json!({"datasetName": "a/b"}), &["v.flocker.datasetName: Invalid value: \"a/b\": must not"]);
        check("gitRepo", json!({"repository": "r", "directory": "../a"}), &["v.gitRepo.directory: Invalid value"]);
        check("rbd", json!({}), &["v.rbd.monitors: Required value", "v.rbd.image: Required value"]);
        check(
            "quobyte",
            json!({"registry": "a", "volume": "v"}),
            &["v.quobyte.registry: Invalid value: \"a\": must be a host:port pair"],
        );
        check(
            "image",
            json!({"reference": "a", "pullPolicy": "Often"}),
            &["v.image.pullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\""],
        );
        check("iscsi", json!({"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2001-04.com.example:disk", "lun": 0}), &[]);
        check(
            "iscsi",
            json!({"targetPortal": "x".repeat(60), "iqn": "iqn.2001.com", "lun": 256, "initiatorName": "me", "chapAuthSession": true}),
            &[
                "v.name: Invalid value: \"data\": Total length of <volume name>:<iscsi.targetPortal>",
                "v.iscsi.iqn: Invalid value: \"iqn.2001.com\": must be valid format",
                "v.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                "v.iscsi.secretRef: Required value",
                "v.iscsi.initiatorname: Invalid value: \"me\": must be valid format starting with iqn, eui, or naa",
            ],
        );
    }

    #[test]
    fn o3_secrets_are_named_and_outside_of_a_namespace_with_theirs() {
        check("cinder", json!({"volumeID": "a", "secretRef": {}}), &["v.cinder.secretRef.name: Required value"]);
        check_persistent(
            "cinder",
            json!({"volumeID": "a", "secretRef": {"name": "s"}}),
            &["v.cinder.secretRef.namespace: Required value"],
        );
        check(
            "csi",
            json!({"driver": "Driver.Example.com", "nodePublishSecretRef": {"name": "A_b"}}),
            &["v.csi.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"],
        );
        check(
            "csi",
            json!({"nodePublishSecretRef": {}}),
            &["v.csi.driver: Required value", "v.csi.nodePublishSecretRef.name: Required value"],
        );
        check_persistent(
            "csi",
            json!({"driver": "d", "nodePublishSecretRef": {"name": "s"}}),
            &["v.csi.volumeHandle: Required value", "v.csi.nodePublishSecretRef.namespace: Required value"],
        );
        check_persistent(
            "glusterfs",
            json!({"endpoints": "e", "path": "p", "endpointsNamespace": ""}),
            &["v.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set"],
        );
        check_persistent(
            "azureFile",
            json!({"secretName": "s", "shareName": "s", "secretNamespace": ""}),
            &["v.azureFile.secretNamespace: Required value"],
        );
    }

    #[test]
    fn o4_a_claim_made_for_the_pod_is_valid() {
        let good = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        check("ephemeral", json!({"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": good}}), &[]);
        check("ephemeral", json!({}), &["v.ephemeral.volumeClaimTemplate: Required value"]);
        check(
            "ephemeral",
            json!({"volumeClaimTemplate": {"metadata": {"name": "x", "labels": {"a": "b c"}}, "spec": {}}}),
            &[
                "v.ephemeral.volumeClaimTemplate.metadata.labels: Invalid value: \"b c\"",
                "v.ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
                "v.ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
                "v.ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ],
        );
        check_in(
            Holder::Pod { volume: "data", pod: &"p".repeat(250) },
            "ephemeral",
            json!({"volumeClaimTemplate": {"spec": good}}),
            &["v.name: Invalid value: \"data\": PVC name"],
        );
    }
}
