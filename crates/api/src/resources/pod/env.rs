//! Environment: the variables of a container, and where their values come from.

use serde_json::Value;

use super::super::check::{named, no_backsteps, optional_name, required_name};
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name::{self, NameRule};
use crate::quantity::Quantity;

/// Fields of the pod that a variable may take its value from.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of the pod that a file may take its content from.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Every field that a reference may speak of, whether or not it can be used where it stands.
const KNOWN_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
/// The old name of a field, and the new one.
const OLD_FIELD: (&str, &str) = ("spec.host", "spec.nodeName");

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const MORE_THAN_ONE: &str = "may not have more than one field specified at a time";

/// Where the value of a field goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Into a variable of a container, which is the one spoken of.
    Variable,
    /// Into a file of a volume, which must say which container is spoken of.
    File,
}

/// Checks `env` and `envFrom` of a container.
pub(super) fn validate(container: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("env");
    for (index, variable) in container.items("env").iter().enumerate() {
        let path = path.index(index);
        required_name(variable, "name", name::env_name, &path, errors);
        if variable.is_set("valueFrom") {
            validate_source(variable, &path.child("valueFrom"), errors);
        }
    }
    let path = at.child("envFrom");
    for (index, source) in container.items("envFrom").iter().enumerate() {
        validate_all_from(source, &path, index, errors);
    }
}

fn validate_source(variable: &Value, path: &Path, errors: &mut Errors) {
    let source = &variable["valueFrom"];
    let given: Vec<&str> = SOURCES.into_iter().filter(|kind| source.is_set(kind)).collect();
    for kind in &given {
        let (part, path) = (&source[*kind], path.child(kind));
        match *kind {
            "fieldRef" => validate_field(part, ENV_FIELDS, &path, errors),
            "resourceFieldRef" => validate_resource_field(part, Use::Variable, &path, errors),
            "fileKeyRef" => validate_file_key(part, &path, errors),
            _ => {
                named(name::subdomain, part.text("name"), &path.child("name"), errors);
                required_name(part, "key", name::config_key, &path, errors);
            }
        }
    }
    match given.len() {
        0 => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !variable.text("value").is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(path, "", MORE_THAN_ONE),
    }
}

fn validate_file_key(reference: &Value, path: &Path, errors: &mut Errors) {
    required_name(reference, "key", name::env_name, path, errors);
    required_name(reference, "volumeName", name::label, path, errors);
    match reference.text("path") {
        "" => errors.required(&path.child("path"), ""),
        file => no_backsteps(file, &path.child("path"), errors),
    }
}

/// Checks that the files which variables come from lie in volumes that only live as long as the pod: what else holds them
/// could change under it.
pub(super) fn validate_file_volumes(spec: &Value, at: &Path, errors: &mut Errors) {
    for (list, index, container) in super::containers(spec) {
        for (variable_index, variable) in container.items("env").iter().enumerate() {
            let reference = &variable["valueFrom"]["fileKeyRef"];
            if !reference.is_object() {
                continue;
            }
            let path = at.child(list).index(index).child("env").index(variable_index);
            let path = path.child("valueFrom").child("fileKeyRef").child("volumeName");
            let name = reference.text("volumeName");
            match spec.items("volumes").iter().find(|volume| volume.text("name") == name) {
                None => errors.not_found(&path, name),
                Some(volume) if !volume.is_set("emptyDir") => {
                    errors.invalid(&path, name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    }
}

/// Kubernetes names the list, not which of its items is wrong, where the item as a whole is.
fn validate_all_from(source: &Value, list: &Path, index: usize, errors: &mut Errors) {
    let path = list.index(index);
    optional_name(source, "prefix", name::env_name, &path, errors);
    let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|kind| source.is_set(kind)).collect();
    for kind in &given {
        let (name, path) = (source[*kind].text("name"), path.child(kind).child("name"));
        match name {
            "" => errors.required(&path, ""),
            _ => {
                for reason in NameRule::Subdomain.prefix_errors(name) {
                    errors.invalid(&path, name, &reason);
                }
            }
        }
    }
    match given.len() {
        0 => errors.invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errors.invalid(list, "", MORE_THAN_ONE),
    }
}

/// A reference to a field of the pod: one of `fields`, or one entry of its labels or annotations.
pub(super) fn validate_field(reference: &Value, fields: &[&str], path: &Path, errors: &mut Errors) {
    let (version, field) = (reference.text("apiVersion"), reference.text("fieldPath"));
    let field_path = path.child("fieldPath");
    if version.is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        errors.required(&field_path, "");
        return;
    }
    let unknown = |why: String| format!("error converting fieldPath: {why}");
    if version != "v1" {
        errors.invalid(&field_path, field, &unknown(format!("unsupported pod version: {version}")));
        return;
    }
    let entry = field.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match entry.filter(|(map, _)| !map.is_empty()) {
        Some(("metadata.annotations", key)) => named(name::label_key, &key.to_lowercase(), path, errors),
        Some(("metadata.labels", key)) => named(name::label_key, key, path, errors),
        Some(_) => {
            let why = unknown(format!("field label does not support subscript: {field}"));
            errors.invalid(&field_path, field, &why);
        }
        None if field == OLD_FIELD.0 && fields.contains(&OLD_FIELD.1) => {}
        None if !KNOWN_FIELDS.contains(&field) => {
            errors.invalid(&field_path, field, &unknown(format!("field label not supported: {field}")));
        }
        None if fields.contains(&field) => {}
        None => errors.not_supported(&field_path, field, fields),
    }
}

/// A reference to what a container requests or is limited to.
pub(super) fn validate_resource_field(reference: &Value, of: Use, path: &Path, errors: &mut Errors) {
    const RESOURCES: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let resource = reference.text("resource");
    let huge_pages = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if of == Use::File && reference.text("containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    }
    validate_divisor(reference, resource, path, errors);
}

fn validate_divisor(reference: &Value, resource: &str, path: &Path, errors: &mut Errors) {
    const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let path = path.child("divisor");
    let shown = match Quantity::from_json(&reference["divisor"]) {
        _ if !reference.is_set("divisor") => return,
        Ok(divisor) if divisor.is_zero() => return,
        Ok(divisor) => divisor.to_string(),
        Err(error) => {
            errors.invalid(&path, reference["divisor"].clone(), &error.to_string());
            return;
        }
    };
    let (what, listed): (&str, &[&str]) = match resource.split_once('.') {
        Some((_, "cpu")) => ("cpu", &["1m", "1"]),
        Some((_, "memory")) => ("memory", BYTES),
        Some((_, "ephemeral-storage")) => ("local ephemeral storage", BYTES),
        Some((_, other)) if other.starts_with("hugepages-") => ("hugepages", BYTES),
        _ => return,
    };
    if !listed.contains(&shown.as_str()) {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { listed.join(", ") };
        let detail = format!("only divisor's values {values} are supported with the {what} resource");
        errors.invalid(&path, resource, &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::validate;
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn check(container: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(&container, &Path::new("c"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{container}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_one_source() {
        let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
        check(from(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['app']"}})), &[]);
        check(from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}})), &[]);
        check(
            json!({"env": [{"name": "A=B"}]}),
            &["c.env[0].name: Invalid value: \"A=B\": a valid environment variable"],
        );
        check(json!({"env": [{"value": "x"}]}), &["c.env[0].name: Required value"]);
        check(from(json!({})), &["c.env[0].valueFrom: Invalid value: \"\": must specify one of"]);
        check(
            from(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.color"}})),
            &[
                "c.env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.color\": error converting fieldPath: field label not supported: spec.color",
            ],
        );
        check(
            from(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "status.phase"}})),
            &[
                "c.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\"",
            ],
        );
        check(
            from(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['a b']"}})),
            &["c.env[0].valueFrom.fieldRef: Invalid value: \"a b\": name part must consist of"],
        );
        check(
            from(json!({"fileKeyRef": {"path": "../a"}})),
            &[
                "c.env[0].valueFrom.fileKeyRef.key: Required value",
                "c.env[0].valueFrom.fileKeyRef.volumeName: Required value",
                "c.env[0].valueFrom.fileKeyRef.path: Invalid value: \"../a\": must not contain '..'",
            ],
        );
        check(
            from(json!({"secretKeyRef": {"name": "s"}, "configMapKeyRef": {"key": "../x"}})),
            &[
                "c.env[0].valueFrom.configMapKeyRef.name: Invalid value: \"\": a lowercase RFC 1123 subdomain",
                "c.env[0].valueFrom.configMapKeyRef.key: Invalid value: \"../x\": a valid config key",
                "c.env[0].valueFrom.configMapKeyRef.key: Invalid value: \"../x\": must not start with '..'",
                "c.env[0].valueFrom.secretKeyRef.key: Required value",
                "c.env[0].valueFrom: Invalid value: \"\": may not have more than one field",
            ],
        );
        check(
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            &["c.env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"],
        );
        check(
            from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}})),
            &[
                "c.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ],
        );
    }

    #[test]
    fn all_keys_come_from_one_object() {
        check(json!({"envFrom": [{"prefix": "A_", "configMapRef": {"name": "c"}}]}), &[]);
        check(json!({"envFrom": [{}]}), &["c.envFrom: Invalid value: \"\": must specify one of: `configMapRef`"]);
        check(json!({"envFrom": [{"secretRef": {}}]}), &["c.envFrom[0].secretRef.name: Required value"]);
    }
}
