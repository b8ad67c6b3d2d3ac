//! Environment: the variables of a container, and where their values come from.

use serde_json::Value;

use super::super::check::{named, required_name, required_text};
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;
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

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const MORE_THAN_ONE: &str = "may not have more than one field specified at a time";

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
        validate_all_from(source, &path.index(index), errors);
    }
}

fn validate_source(variable: &Value, path: &Path, errors: &mut Errors) {
    let source = &variable["valueFrom"];
    let given: Vec<&str> = SOURCES.into_iter().filter(|kind| source.is_set(kind)).collect();
    for kind in &given {
        let (part, path) = (&source[*kind], path.child(kind));
        match *kind {
            "fieldRef" => validate_field(part, ENV_FIELDS, &path, errors),
            "resourceFieldRef" => validate_resource_field(part, &path, errors),
            "fileKeyRef" => {
                required_name(part, "volumeName", name::label, &path, errors);
                required_text(part, "path", &path, errors);
                required_name(part, "key", name::env_name, &path, errors);
            }
            _ => {
                required_text(part, "name", &path, errors);
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

fn validate_all_from(source: &Value, path: &Path, errors: &mut Errors) {
    let prefix = source.text("prefix");
    if !prefix.is_empty() {
        named(name::env_name, prefix, &path.child("prefix"), errors);
    }
    let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|kind| source.is_set(kind)).collect();
    for kind in &given {
        required_text(&source[*kind], "name", &path.child(kind), errors);
    }
    match given.len() {
        0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errors.invalid(path, "", MORE_THAN_ONE),
    }
}

/// A reference to a field of the pod: one of `fields`, or one entry of its labels or annotations.
pub(super) fn validate_field(reference: &Value, fields: &[&str], path: &Path, errors: &mut Errors) {
    required_text(reference, "apiVersion", path, errors);
    let field_path = reference.text("fieldPath");
    let path = path.child("fieldPath");
    if field_path.is_empty() {
        errors.required(&path, "");
        return;
    }
    let entry = field_path.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match entry {
        Some(("metadata.annotations", key)) => named(name::label_key, &key.to_ascii_lowercase(), &path, errors),
        Some(("metadata.labels", key)) => named(name::label_key, key, &path, errors),
        Some(_) => errors.invalid(&path, field_path, "does not support subscript"),
        None if fields.contains(&field_path) => {}
        None => errors.not_supported(&path, field_path, fields),
    }
}

/// A reference to what a container requests or is limited to.
pub(super) fn validate_resource_field(reference: &Value, path: &Path, errors: &mut Errors) {
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
    if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    } else {
        validate_divisor(reference, resource, path, errors);
    }
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
        _ => ("hugepages", BYTES),
    };
    if !listed.contains(&shown.as_str()) {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { listed.join(", ") };
        errors.invalid(&path, shown, &format!("only divisor's values {values} are supported with the {what} resource"));
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
                "c.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.color\": supported values: \"metadata.name\"",
            ],
        );
        check(
            from(json!({"secretKeyRef": {"name": "s"}, "configMapKeyRef": {"key": "../x"}})),
            &[
                "c.env[0].valueFrom.configMapKeyRef.name: Required value",
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
                "c.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"1Mi\": only divisor's values 1m and 1 are supported with the cpu resource",
            ],
        );
    }

    #[test]
    fn all_keys_come_from_one_object() {
        check(json!({"envFrom": [{"prefix": "A_", "configMapRef": {"name": "c"}}]}), &[]);
        check(json!({"envFrom": [{}]}), &["c.envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef`"]);
        check(json!({"envFrom": [{"secretRef": {}}]}), &["c.envFrom[0].secretRef.name: Required value"]);
    }
}
