//! A definition's own rules: names, versions, columns, paths, conversion (C4, C5, C7).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::names::{APPROVAL, Approval, is_established, is_protected};
use super::structural;
use crate::custom::path::{JsonPath, simple};
use crate::custom::{COLUMN_FORMATS, COLUMN_TYPES};
use crate::field::{Errors, Path};
use crate::name;
use crate::resources::check::{check_bundle, named, required_text};
use crate::resources::tree::Tree;

/// Versions of one definition: each costs a table.
pub(super) const VERSIONS_MAX: usize = 32;
/// Printer columns of one version.
const COLUMNS_MAX: usize = 64;
/// Selectable fields of one version: each is read of every object that a selector looks at.
const SELECTABLE_FIELDS_MAX: usize = 8;
const DEPRECATION_BYTES_MAX: usize = 256;

/// Adds an error for each broken rule.
pub(super) fn validate(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    let (group, names) = (spec.text("group"), &spec["names"]);
    let wanted = format!("{}.{group}", names.text("plural"));
    if object["metadata"].text("name") != wanted {
        let path = Path::new("metadata").child("name");
        errors.invalid(&path, object["metadata"].text("name"), "must be spec.names.plural+\".\"+spec.group");
    }
    match group {
        "" => errors.required(&at.child("group"), ""),
        group => {
            named(name::subdomain, group, &at.child("group"), errors);
            if !group.contains('.') {
                errors.invalid(&at.child("group"), group, "should be a domain with at least one dot");
            }
        }
    }
    if is_protected(group) {
        let path = Path::new("metadata").child("annotations").key(APPROVAL);
        match Approval::of(object) {
            Approval::Missing => errors.required(&path, &Approval::Missing.detail()),
            Approval::Invalid(text) => errors.invalid(&path, text, &Approval::Invalid(text).detail()),
            Approval::Given(_) | Approval::Bypassed(_) => {}
        }
    }
    match spec.text("scope") {
        "" => errors.required(&at.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported(&at.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    if spec.flag("preserveUnknownFields") {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.invalid(&at.child("preserveUnknownFields"), true, detail);
    }
    validate_names(object, errors);
    validate_versions(spec, &at.child("versions"), errors);
    validate_conversion(&spec["conversion"], &at.child("conversion"), errors);
    validate_stored(object, errors);
}

/// C4.
pub(super) fn validate_names(object: &Value, errors: &mut Errors) {
    let (names, at) = (&object["spec"]["names"], Path::new("spec").child("names"));
    for field in ["plural", "singular"] {
        match names.text(field) {
            "" => errors.required(&at.child(field), ""),
            text => named(name::letter_label, text, &at.child(field), errors),
        }
    }
    for field in ["kind", "listKind"] {
        let text = names.text(field);
        if text.is_empty() {
            errors.required(&at.child(field), "");
        }
        for reason in name::letter_label(&text.to_lowercase()).iter().filter(|_| !text.is_empty()) {
            let detail = format!("may have mixed case, but should otherwise match: {reason}");
            errors.invalid(&at.child(field), text, &detail);
        }
    }
    if !names.text("kind").is_empty() && names.text("kind") == names.text("listKind") {
        errors.invalid(&at.child("listKind"), names.text("listKind"), "kind and listKind may not be the same");
    }
    for field in ["shortNames", "categories"] {
        for (index, text) in names.items(field).iter().enumerate() {
            named(name::letter_label, text.as_str().unwrap_or_default(), &at.child(field).index(index), errors);
        }
    }
}

/// C5.
fn validate_versions(spec: &Value, at: &Path, errors: &mut Errors) {
    let versions = spec.items("versions");
    if versions.len() > VERSIONS_MAX {
        return errors.too_many(at, versions.len(), VERSIONS_MAX);
    }
    let mut names = BTreeSet::new();
    let is_unique = versions.iter().all(|version| names.insert(version.text("name")));
    if !is_unique {
        errors.invalid(at, json!(names), "must contain unique version names");
    }
    if versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        errors.invalid(at, json!(names), "must have exactly one version marked as storage version");
    }
    for (index, version) in versions.iter().enumerate() {
        validate_version(version, &at.index(index), errors);
    }
}

fn validate_version(version: &Value, at: &Path, errors: &mut Errors) {
    match version.text("name") {
        "" => errors.required(&at.child("name"), ""),
        text => named(name::letter_label, text, &at.child("name"), errors),
    }
    let (said, path) = (version.text("deprecationWarning"), at.child("deprecationWarning"));
    if !said.is_empty() && !version.flag("deprecated") {
        errors.invalid(&path, said, "can only be set for deprecated versions");
    }
    if said.len() > DEPRECATION_BYTES_MAX {
        errors.too_long(&path, DEPRECATION_BYTES_MAX);
    }
    let (schema, path) = (&version["schema"]["openAPIV3Schema"], at.child("schema").child("openAPIV3Schema"));
    if schema.is_object() {
        structural::validate(schema, &path, errors);
    } else {
        errors.required(&path, "schemas are required");
    }
    let (columns, path) = (version.items("additionalPrinterColumns"), at.child("additionalPrinterColumns"));
    if columns.len() > COLUMNS_MAX {
        errors.too_many(&path, columns.len(), COLUMNS_MAX);
    }
    for (index, column) in columns.iter().take(COLUMNS_MAX).enumerate() {
        validate_column(column, &path.index(index), errors);
    }
    validate_selectable(version, schema, &at.child("selectableFields"), errors);
    let scale = &version["subresources"]["scale"];
    if scale.is_object() {
        validate_scale(scale, &at.child("subresources").child("scale"), errors);
    }
}

fn validate_column(column: &Value, at: &Path, errors: &mut Errors) {
    required_text(column, "name", at, errors);
    match column.text("type") {
        "" => {
            let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
            errors.required(&at.child("type"), &detail);
        }
        text if COLUMN_TYPES.contains(&text) => {}
        text => errors.invalid(&at.child("type"), text, &format!("must be one of {}", COLUMN_TYPES.join(","))),
    }
    let format = column.text("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&at.child("format"), format, &format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    match column.text("jsonPath") {
        "" => errors.required(&at.child("jsonPath"), ""),
        text => {
            if let Err(why) = JsonPath::parse(text) {
                errors.invalid(&at.child("jsonPath"), text, &why);
            }
        }
    }
}

fn validate_selectable(version: &Value, schema: &Value, at: &Path, errors: &mut Errors) {
    let fields = version.items("selectableFields");
    if fields.len() > SELECTABLE_FIELDS_MAX {
        errors.too_many(at, fields.len(), SELECTABLE_FIELDS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let (text, path) = (field.text("jsonPath"), at.index(index).child("jsonPath"));
        if text.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert(text) {
            errors.duplicate(&path, text);
        }
        let Some(names) = simple(text) else {
            errors.invalid(&path, text, "is an invalid path: expected fields only, such as .spec.color");
            continue;
        };
        if names.first().is_some_and(|first| first == "metadata") {
            errors.invalid(&path, text, "must not point to fields in metadata");
            continue;
        }
        let found = names.iter().try_fold(schema, |schema, name| schema["properties"].get(name));
        match found.map(|schema| schema.text("type")) {
            Some("string" | "integer" | "boolean") => {}
            Some(_) => errors.invalid(&path, text, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."),
            None => errors.invalid(&path, text, "is an invalid path: does not refer to a valid field"),
        }
    }
}

fn validate_scale(scale: &Value, at: &Path, errors: &mut Errors) {
    for (field, below, required) in [
        ("specReplicasPath", &["spec"][..], true),
        ("statusReplicasPath", &["status"], true),
        ("labelSelectorPath", &["spec", "status"], false),
    ] {
        let (text, path) = (scale.text(field), at.child(field));
        if text.is_empty() {
            if required {
                errors.required(&path, "");
            }
            continue;
        }
        match simple(text) {
            Some(names) if names.len() > 1 && below.contains(&names[0].as_str()) => {}
            Some(_) => {
                let dotted: Vec<String> = below.iter().map(|name| format!(".{name}")).collect();
                let detail = format!("should be a json path under {}", dotted.join(" or "));
                errors.invalid(&path, text, &detail);
            }
            None => errors.invalid(&path, text, "should be a simple json path: fields only"),
        }
    }
}

fn validate_conversion(conversion: &Value, at: &Path, errors: &mut Errors) {
    let (webhook, path) = (&conversion["webhook"], at.child("webhook"));
    match conversion.text("strategy") {
        "" => errors.required(&at.child("strategy"), ""),
        "None" => {
            if conversion.is_set("webhook") {
                errors.forbidden(&path, "should not be set when strategy is not set to Webhook");
            }
        }
        "Webhook" => {
            if !webhook.is_set("clientConfig") {
                errors.required(&path.child("clientConfig"), "required when strategy is set to Webhook");
            } else {
                validate_client(&webhook["clientConfig"], &path.child("clientConfig"), errors);
            }
            let versions = webhook.items("conversionReviewVersions");
            let at = path.child("conversionReviewVersions");
            if versions.is_empty() {
                errors.required(&at, "");
            } else if !versions.iter().any(|version| *version == "v1") {
                // Nothing here speaks v1beta1.
                errors.invalid(&at, json!(versions), "must include at least one of v1");
            }
        }
        other => errors.not_supported(&at.child("strategy"), other, &["None", "Webhook"]),
    }
}

fn validate_client(config: &Value, at: &Path, errors: &mut Errors) {
    let (url, service) = (config.text("url"), &config["service"]);
    let bundle = config.text("caBundle");
    if let Err(why) = check_bundle(bundle) {
        errors.invalid(&at.child("caBundle"), bundle, &format!("unable to load root certificates: {why}"));
    }
    if url.is_empty() != service.is_object() {
        errors.required(at, "exactly one of url or service is required");
        return;
    }
    if url.is_empty() {
        let at = at.child("service");
        required_text(service, "name", &at, errors);
        required_text(service, "namespace", &at, errors);
        let port = service.int("port").unwrap_or(443);
        if !(1..=65_535).contains(&port) {
            errors.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
        }
        let path = service.text("path");
        if !path.is_empty() && (!path.starts_with('/') || path.contains("//") || path.contains(['?', '#', ' '])) {
            errors.invalid(&at.child("path"), path, "must be an absolute path without empty parts");
        }
        return;
    }
    let at = at.child("url");
    let Some(rest) = url.strip_prefix("https://") else {
        return errors.invalid(&at, url, "'https' is the only allowed URL scheme; desired format: https://host[/path]");
    };
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        errors.invalid(&at, url, "host must be specified; desired format: https://host[/path]");
    }
    if host.contains('@') {
        errors.invalid(&at, url, "user information is not permitted in the URL");
    }
    if url.contains('#') {
        errors.invalid(&at, url, "fragments are not permitted in the URL");
    }
    if url.contains('?') {
        errors.invalid(&at, url, "query parameters are not permitted in the URL");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) || host.contains(['\\', '%', '"', '<', '>']) {
        errors.invalid(&at, url, "url must be a valid URL");
    }
}

/// C3 of a status that was written: it lists the version that is stored.
pub(super) fn validate_status(object: &Value, errors: &mut Errors) {
    let (stored, at) = (object["status"].items("storedVersions"), Path::new("status").child("storedVersions"));
    let storage = object["spec"].items("versions").iter().find(|version| version.flag("storage"));
    let storage = storage.map(|version| version.text("name"));
    if let Some(storage) = storage.filter(|storage| !stored.iter().any(|version| version == storage)) {
        errors.invalid(&at, json!(stored), &format!("must have the storage version {storage}"));
    }
    validate_stored(object, errors);
}

/// C3.
fn validate_stored(object: &Value, errors: &mut Errors) {
    let (stored, at) = (object["status"].items("storedVersions"), Path::new("status").child("storedVersions"));
    let versions = object["spec"].items("versions");
    for (index, version) in stored.iter().enumerate() {
        let name = version.as_str().unwrap_or_default();
        if !versions.iter().any(|version| version.text("name") == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {name} and removes \
                 {name} from status.storedVersions"
            );
            errors.invalid(&at.index(index), name, &detail);
        }
    }
}

/// C7.
pub(super) fn validate_update(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before, at) = (&object["spec"], &old["spec"], Path::new("spec"));
    if spec["group"] != before["group"] {
        errors.immutable(&at.child("group"), spec.text("group"));
    }
    let (names, names_before, at_names) = (&spec["names"], &before["names"], at.child("names"));
    if names["plural"] != names_before["plural"] {
        errors.immutable(&at_names.child("plural"), names.text("plural"));
    }
    if is_established(old) {
        if spec["scope"] != before["scope"] {
            errors.immutable(&at.child("scope"), spec.text("scope"));
        }
        if names["kind"] != names_before["kind"] {
            errors.immutable(&at_names.child("kind"), names.text("kind"));
        }
    }
}
