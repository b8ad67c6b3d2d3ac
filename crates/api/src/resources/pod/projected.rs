//! Files that volumes make of other objects: keys of Secrets and ConfigMaps, fields of the pod, tokens, trust bundles and
//! certificates, and projected volumes, which put several of them into one place.
//!
//! Rules
//!   F1 below     a file stays below the mount point, and off the names that are kept for the links which switch all files
//!   F2 one path  no two sources of a projected volume write the same file
//!   F3 one kind  a source of a projected volume is of one kind
//!   F4 token     lasts between ten minutes and what fits into 32 bits of seconds
//!   F5 bundle    trust anchors by name, or by signer and labels
//!   F6 certificate   a key of a known type, a signer, and at least one file for what comes of it
//! Source: API reference, core/v1 ProjectedVolumeSource; KEP-3257, KEP-4317.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::certificate_signing_request::validate_signer;
use super::super::check::{descending_path, required_text};
use super::super::tree::Tree;
use super::env;
use crate::field::{Errors, Path};
use crate::name;
use crate::selector::LabelSelector;

const MODES: (i64, i64) = (0, 0o777);
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const CERTIFICATE_SECONDS_MIN: i64 = 3600;
/// 91 days, and one day for the signers that come with the cluster.
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 24 * 60 * 60;
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i64 = 24 * 60 * 60;
const SAME_PATH: &str = "conflicting duplicate paths";

/// F1 for the keys of a Secret or ConfigMap.
pub(super) fn validate_files(source: &Value, path: &Path, errors: &mut Errors) {
    validate_mode(source, "defaultMode", path, errors);
    validate_items(source, path, errors);
}

fn validate_items(source: &Value, path: &Path, errors: &mut Errors) {
    for (index, item) in source.items("items").iter().enumerate() {
        let path = path.child("items").index(index);
        required_text(item, "key", &path, errors);
        validate_file_path(item, &path, errors);
        validate_mode(item, "mode", &path, errors);
    }
}

/// F1 for fields of the pod.
pub(super) fn validate_downward_volume(source: &Value, path: &Path, errors: &mut Errors) {
    validate_mode(source, "defaultMode", path, errors);
    validate_downward(source, path, errors);
}

/// Kubernetes names the volume, not which of its items is wrong.
fn validate_downward(source: &Value, path: &Path, errors: &mut Errors) {
    for item in source.items("items") {
        validate_file_path(item, path, errors);
        match (item.is_set("fieldRef"), item.is_set("resourceFieldRef")) {
            (true, both) => {
                env::validate_field(&item["fieldRef"], env::FILE_FIELDS, &path.child("fieldRef"), errors);
                if both {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.invalid(path, "resource", detail);
                }
            }
            (false, true) => {
                let path = path.child("resourceFieldRef");
                env::validate_resource_field(&item["resourceFieldRef"], env::Use::File, &path, errors);
            }
            (false, false) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
        }
        validate_mode(item, "mode", path, errors);
    }
}

/// F1 to F6.
pub(super) fn validate(projected: &Value, path: &Path, errors: &mut Errors) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    validate_mode(projected, "defaultMode", path, errors);
    let mut files = Files { taken: BTreeSet::new(), path };
    for (index, source) in projected.items("sources").iter().enumerate() {
        let at = path.child("sources").index(index);
        let given: Vec<&str> = KINDS.into_iter().filter(|kind| source.is_set(kind)).collect();
        for kind in &given {
            let (part, at) = (&source[*kind], at.child(kind));
            match *kind {
                "secret" | "configMap" => {
                    required_text(part, "name", &at, errors);
                    validate_items(part, &at, errors);
                    for item in part.items("items") {
                        files.take(item.text("path"), part.text("name"), errors);
                    }
                }
                "downwardAPI" => {
                    validate_downward(part, &at, errors);
                    for item in part.items("items") {
                        files.take(item.text("path"), item.text("path"), errors);
                    }
                }
                "serviceAccountToken" => validate_token(part, path, &at, errors),
                "clusterTrustBundle" => {
                    validate_bundle(part, &at, errors);
                    files.take(part.text("path"), part.text("path"), errors);
                }
                _ => validate_certificate(part, &mut files, &at, errors),
            }
        }
        if given.len() > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

/// F2: the files of a projected volume at `path`.
struct Files<'a> {
    taken: BTreeSet<&'a str>,
    path: &'a Path,
}

impl<'a> Files<'a> {
    /// Takes a file for `by`.
    fn take(&mut self, file: &'a str, by: &str, errors: &mut Errors) {
        if !file.is_empty() && !self.taken.insert(file) {
            errors.invalid(self.path, by, SAME_PATH);
        }
    }
}

/// F4. The file is spoken of as the volume's own, as Kubernetes does.
fn validate_token(token: &Value, volume: &Path, at: &Path, errors: &mut Errors) {
    let path = at.child("expirationSeconds");
    match token.int("expirationSeconds") {
        None => errors.required(&path, ""),
        Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
            errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
            errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        Some(_) => {}
    }
    validate_file_path(token, volume, errors);
}

/// F5.
fn validate_bundle(bundle: &Value, at: &Path, errors: &mut Errors) {
    match (bundle.is_set("name"), bundle.is_set("signerName")) {
        (true, true) => errors.invalid(at, bundle.clone(), "only one of name and signerName may be used"),
        (true, false) => {
            let (name, path) = (bundle.text("name"), at.child("name"));
            if name.is_empty() {
                errors.required(&path, "must be a valid object name");
            }
            // A bundle of a signer is named after it: the signer with ':' for '/', and ':' and a name of its own.
            let own = name.rsplit(':').next().unwrap_or_default();
            for reason in name::subdomain(own) {
                errors.invalid(&path, name, &format!("not a valid clustertrustbundlename: {reason}"));
            }
            if bundle.is_set("labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                errors.invalid(&at.child("labelSelector"), bundle["labelSelector"].clone(), detail);
            }
        }
        (false, true) => {
            let path = at.child("signerName");
            if bundle.text("signerName").is_empty() {
                errors.required(&path, "must be a valid signer name");
            }
            validate_signer(bundle.text("signerName"), &path, errors);
            LabelSelector::from_json(&bundle["labelSelector"], &at.child("labelSelector"), errors);
        }
        (false, false) => errors.required(at, "either name or signerName must be specified"),
    }
    validate_file_path(bundle, at, errors);
}

/// F6.
fn validate_certificate<'a>(certificate: &'a Value, files: &mut Files<'a>, at: &Path, errors: &mut Errors) {
    let signer = certificate.text("signerName");
    validate_signer(signer, &at.child("signerName"), errors);
    let path = at.child("userAnnotations");
    for key in certificate.entries("userAnnotations").keys() {
        for reason in name::domain_key(key) {
            errors.invalid(&path, key.as_str(), &reason);
        }
    }
    let key_type = certificate.text("keyType");
    if !KEY_TYPES.contains(&key_type) {
        errors.not_supported(&at.child("keyType"), key_type, KEY_TYPES);
    }
    if let Some(seconds) = certificate.int("maxExpirationSeconds") {
        let path = at.child("maxExpirationSeconds");
        let is_kubernetes = signer.starts_with("kubernetes.io/");
        let most = if is_kubernetes { KUBERNETES_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
        if seconds < CERTIFICATE_SECONDS_MIN {
            let detail = format!("if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}");
            errors.invalid(&path, seconds, &detail);
        }
        if seconds > most {
            errors.invalid(&path, seconds, &format!("if provided, maxExpirationSeconds must be <= {most}"));
        }
    }
    let mut any = false;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let file = certificate.text(field);
        if !file.is_empty() {
            any = true;
            validate_place(file, &at.child(field), errors);
            files.take(file, file, errors);
        }
    }
    if !any {
        errors.required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}

/// F1 for the `path` of an item.
fn validate_file_path(item: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("path");
    match item.text("path") {
        "" => errors.required(&path, ""),
        file => validate_place(file, &path, errors),
    }
}

/// F1.
fn validate_place(file: &str, path: &Path, errors: &mut Errors) {
    descending_path(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

fn validate_mode(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    if let Some(mode) = object.int(field).filter(|mode| !(MODES.0..=MODES.1).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&at.child(field), mode, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::{self, Holder};
    use crate::field::{Errors, Path};
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(kind: &str, source: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        source::validate(
            kind,
            &source,
            Holder::Pod { volume: "v", pod: "p" },
            &Path::new("v").child(kind),
            &mut errors,
        );
        compare(&errors, expected);
    }

    fn check_projected(sources: Value, expected: &[&str]) {
        check("projected", json!({"sources": sources}), expected);
    }

    #[test]
    fn f1_files_stay_below_the_mount_point() {
        let item = |path: &str| json!({"name": "c", "items": [{"key": "k", "path": path}]});
        check("configMap", item("a/b"), &[]);
        check("configMap", item("/a"), &["v.configMap.items[0].path: Invalid value: \"/a\": must be a relative path"]);
        check(
            "configMap",
            item("a/../../b"),
            &["v.configMap.items[0].path: Invalid value: \"a/../../b\": must not contain '..'"],
        );
        check(
            "configMap",
            item("..data"),
            &["v.configMap.items[0].path: Invalid value: \"..data\": must not start with '..'"],
        );
        check(
            "secret",
            json!({"defaultMode": 0o1000, "items": [{"path": "x", "mode": -1}]}),
            &[
                "v.secret.secretName: Required value",
                "v.secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "v.secret.items[0].key: Required value",
                "v.secret.items[0].mode: Invalid value: -1",
            ],
        );
        check(
            "downwardAPI",
            json!({"items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}, {"path": "x"}]}),
            &["v.downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"],
        );
        check(
            "downwardAPI",
            json!({"items": [{"path": "l", "resourceFieldRef": {"resource": "limits.cpu"}}]}),
            &["v.downwardAPI.resourceFieldRef.containerName: Required value"],
        );
    }

    #[test]
    fn f2_no_two_sources_write_the_same_file() {
        let certificate =
            json!({"signerName": "a.example/b", "keyType": "ED25519", "keyPath": "k", "certificateChainPath": "k"});
        check_projected(
            json!([{"configMap": {"name": "c", "items": [{"key": "k", "path": "k"}]}},
                {"secret": {"name": "s", "items": [{"key": "k", "path": "k"}]}}, {"podCertificate": certificate}]),
            &[
                "v.projected: Invalid value: \"s\": conflicting duplicate paths",
                "v.projected: Invalid value: \"k\": conflicting duplicate paths",
                "v.projected: Invalid value: \"k\": conflicting duplicate paths",
            ],
        );
    }

    #[test]
    fn f3_a_source_is_of_one_kind() {
        check_projected(
            json!([{"configMap": {"name": "c"}, "secret": {}}]),
            &[
                "v.projected.sources[0].secret.name: Required value",
                "v.projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
            ],
        );
    }

    #[test]
    fn f4_a_token_lasts_between_ten_minutes_and_2_to_the_32_seconds() {
        let token = |seconds: i64| json!([{"serviceAccountToken": {"path": "t", "expirationSeconds": seconds}}]);
        check_projected(token(600), &[]);
        check_projected(token(1 << 32), &[]);
        let at = "v.projected.sources[0].serviceAccountToken.expirationSeconds";
        check_projected(
            token(599),
            &[&format!("{at}: Invalid value: 599: may not specify a duration less than 10 minutes")],
        );
        check_projected(
            token((1 << 32) + 1),
            &[&format!("{at}: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds")],
        );
        check_projected(
            json!([{"serviceAccountToken": {"expirationSeconds": 600}}]),
            &["v.projected.path: Required value"],
        );
    }

    #[test]
    fn f5_a_bundle_is_named_or_found_by_its_signer() {
        let bundle = |fields: Value| json!([{"clusterTrustBundle": fields}]);
        let at = "v.projected.sources[0].clusterTrustBundle";
        check_projected(bundle(json!({"name": "example.com:signer:bundle", "path": "ca"})), &[]);
        check_projected(bundle(json!({"signerName": "example.com/s", "labelSelector": {}, "path": "ca"})), &[]);
        check_projected(
            bundle(json!({})),
            &[
                &format!("{at}: Required value: either name or signerName must be specified"),
                &format!("{at}.path: Required value"),
            ],
        );
        check_projected(
            bundle(json!({"name": "A", "labelSelector": {}, "path": "ca"})),
            &[
                &format!("{at}.name: Invalid value: \"A\": not a valid clustertrustbundlename: a lowercase RFC 1123"),
                &format!("{at}.labelSelector: Invalid value: {{}}: labelSelector must be unset if name is specified"),
            ],
        );
        check_projected(
            bundle(json!({"name": "a", "signerName": "me", "path": "ca"})),
            &[&format!("{at}: Invalid value")],
        );
    }

    #[test]
    fn f6_a_certificate_has_a_key_a_signer_and_a_file() {
        let certificate = |fields: Value| json!([{"podCertificate": fields}]);
        let at = "v.projected.sources[0].podCertificate";
        check_projected(
            certificate(json!({"signerName": "example.com/s", "keyType": "ECDSAP256", "credentialBundlePath": "c",
                "maxExpirationSeconds": 86_401})),
            &[],
        );
        check_projected(
            certificate(json!({"signerName": "kubernetes.io/s", "keyType": "RSA1024", "maxExpirationSeconds": 86_401,
                "userAnnotations": {"plain": "x"}})),
            &[
                &format!("{at}.userAnnotations: Invalid value: \"plain\": must be a domain-prefixed key"),
                &format!("{at}.keyType: Unsupported value: \"RSA1024\": supported values: \"RSA3072\", \"RSA4096\""),
                &format!(
                    "{at}.maxExpirationSeconds: Invalid value: 86401: if provided, maxExpirationSeconds must be <= 86400"
                ),
                &format!("{at}: Required value: specify at least one of credentialBundlePath, keyPath, and"),
            ],
        );
        check_projected(
            certificate(
                json!({"signerName": "example.com/s", "keyType": "ED25519", "keyPath": "..k", "maxExpirationSeconds": 5}),
            ),
            &[
                &format!(
                    "{at}.maxExpirationSeconds: Invalid value: 5: if provided, maxExpirationSeconds must be >= 3600"
                ),
                &format!("{at}.keyPath: Invalid value: \"..k\": must not start with '..'"),
            ],
        );
    }
}
