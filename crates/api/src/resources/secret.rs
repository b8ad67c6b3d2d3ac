//! Secret: what pods may know and others may not.
//!
//! Rules
//!   S1 type        Opaque unless said; never changes
//!   S2 keys        may become file names; what the type needs is there
//!   S3 size        1 MiB in all
//!   S4 immutable   once said, nothing changes any more, nor that it was said
//!   S5 silence     no error shows a value
//! Source: API reference, core/v1 Secret; "Types of Secret".

use jiff::Timestamp;
use serde_json::{Value, json};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tree::{Tree, fill_text, map_mut, remove};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// Bytes of all values of a Secret or ConfigMap, decoded.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";
/// Shown in place of a value (S5).
const REDACTED: &str = "<secret contents redacted>";

/// The row of Secret.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Type", "string", "what the secret is for, which says which keys it has"),
        column("Data", "string", "number of keys"),
        age_column(),
    ];
    row(&kinds::SECRET, columns, Secret).selectable(&["type"])
}

struct Secret;

impl Rules for Secret {
    /// `stringData` is a way to write, not to keep: its texts become values, in base64 as all of them.
    fn default(&self, object: &mut Value) {
        fill_text(object, "type", "Opaque");
        let texts = object.entries("stringData").clone();
        if !texts.is_empty()
            && let Some(data) = map_mut(object, "data")
        {
            for (key, text) in texts {
                data.insert(key, Value::from(STANDARD.encode(text.as_str().unwrap_or_default())));
            }
        }
        remove(object, "stringData");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (data, at) = (object.entries("data"), Path::new("data"));
        let mut size = 0;
        for (key, value) in data {
            let path = at.key(key);
            for reason in name::config_key(key) {
                errors.invalid(&path, key.as_str(), &reason);
            }
            size += decoded(value, &path, errors).map_or(0, |bytes| bytes.len());
        }
        if size > DATA_BYTES_MAX {
            errors.too_long(&at, DATA_BYTES_MAX);
        }
        validate_type(object, &at, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object.text("type") != old.text("type") {
            errors.immutable(&Path::new("type"), object.text("type"));
        }
        validate_immutable(object, old, &["data"], errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"].text("name");
        vec![json!(name), json!(object.text("type")), json!(object.entries("data").len()), age::of(object, now)]
    }
}

/// S2: the keys that a type needs.
fn validate_type(secret: &Value, at: &Path, errors: &mut Errors) {
    let data = secret.entries("data");
    let account = secret["metadata"]["annotations"].text(ACCOUNT_ANNOTATION);
    let require = |keys: &[&str], errors: &mut Errors| {
        for key in keys.iter().filter(|key| !data.contains_key(**key)) {
            errors.required(&at.key(key), "");
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" if account.is_empty() => {
            errors.required(&Path::new("metadata").child("annotations").key(ACCOUNT_ANNOTATION), "");
        }
        "kubernetes.io/dockercfg" => validate_json(secret, ".dockercfg", at, errors),
        "kubernetes.io/dockerconfigjson" => validate_json(secret, ".dockerconfigjson", at, errors),
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            require(&["username", "password"], errors);
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| key == "") => {
            errors.required(&at.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"], errors),
        _ => {}
    }
}

fn validate_json(secret: &Value, key: &str, at: &Path, errors: &mut Errors) {
    let path = at.key(key);
    let Some(value) = secret.entries("data").get(key) else {
        errors.required(&path, "");
        return;
    };
    let Some(Ok(bytes)) = value.as_str().map(|text| STANDARD.decode(text)) else { return };
    if serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes).is_err() {
        errors.invalid(&path, REDACTED, "expected a JSON object");
    }
}

/// The bytes of a value in base64; `None` after an error.
pub(super) fn decoded(value: &Value, path: &Path, errors: &mut Errors) -> Option<Vec<u8>> {
    if value.is_null() {
        return Some(Vec::new());
    }
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
    if bytes.is_none() {
        errors.invalid(path, REDACTED, "must be base64, with padding");
    }
    bytes
}

/// S4, and the same of a ConfigMap: `fields` hold the values.
pub(super) fn validate_immutable(object: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !old.flag("immutable") {
        return;
    }
    if !object.flag("immutable") {
        errors.forbidden(&Path::new("immutable"), DETAIL);
    }
    for field in fields {
        // An empty value is a value here, so the maps are compared as they are.
        let (now, then) = (object.entries(field), old.entries(field));
        if now != then {
            errors.forbidden(&Path::new(field), DETAIL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn check(object: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        Secret.validate(&object, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn texts_become_values() {
        let mut secret = json!({"stringData": {"a": "hello", "b": ""}, "data": {"a": "AA==", "c": "AA=="}});
        Secret.default(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "", "c": "AA=="}}));
    }

    #[test]
    fn s1_the_type_stays() {
        let mut errors = Errors::new();
        Secret.validate_update(&json!({"type": "a/b"}), &json!({"type": "Opaque"}), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["type: Invalid value: \"a/b\": field is immutable"]
        );
    }

    #[test]
    fn s2_a_type_says_which_keys_there_are() {
        let of = |kind: &str, data: Value| json!({"type": format!("kubernetes.io/{kind}"), "data": data});
        check(of("tls", json!({"tls.crt": "", "tls.key": ""})), &[]);
        check(of("tls", json!({})), &["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
        check(of("basic-auth", json!({"username": ""})), &[]);
        check(of("basic-auth", json!({})), &["data[username]: Required value", "data[password]: Required value"]);
        check(of("ssh-auth", json!({})), &["data[ssh-privatekey]: Required value"]);
        check(of("ssh-auth", json!({"ssh-privatekey": ""})), &["data[ssh-privatekey]: Required value"]);
        check(of("dockerconfigjson", json!({".dockerconfigjson": "e30="})), &[]);
        check(of("dockerconfigjson", json!({})), &["data[.dockerconfigjson]: Required value"]);
        check(
            of("service-account-token", json!({})),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
    }

    #[test]
    fn s3_and_s5_values_are_bounded_and_never_shown() {
        let mut errors = Errors::new();
        let object = json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "c2VjcmV0", "a": "!secret!", "b": "A".repeat(1_400_000)}});
        Secret.validate(&object, &mut errors);
        let mut found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "data: Too long: may not be more than 1048576 bytes",
                "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": expected a JSON object",
                "data[a]: Invalid value: \"<secret contents redacted>\": must be base64, with padding",
            ]
        );
    }

    #[test]
    fn s4_immutable_means_immutable() {
        let old = json!({"immutable": true, "type": "Opaque", "data": {"a": "AA=="}});
        let mut errors = Errors::new();
        Secret.validate_update(&json!({"immutable": true, "type": "Opaque", "data": {}}), &old, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["data: Forbidden: field is immutable when `immutable` is set"]
        );
    }
}
