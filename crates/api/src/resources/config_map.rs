//! ConfigMap: settings for pods, as text or bytes.
//!
//! Rules
//!   K1 keys        may become file names; none is both text and bytes
//!   K2 size        1 MiB in all
//!   K3 immutable   once said, nothing changes any more, nor that it was said
//! Source: API reference, core/v1 ConfigMap.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row, secret};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// The row of ConfigMap.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Data", "string", "number of keys, text and binary"), age_column()];
    row(&kinds::CONFIG_MAP, columns, ConfigMap).short_names(&["cm"])
}

struct ConfigMap;

impl Rules for ConfigMap {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (texts, bytes) = (object.entries("data"), object.entries("binaryData"));
        let mut size = 0;
        for (key, value) in texts {
            let path = Path::new("data").key(key);
            for reason in name::config_key(key) {
                errors.invalid(&path, key.as_str(), &reason);
            }
            if bytes.contains_key(key) {
                errors.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in bytes {
            let path = Path::new("binaryData").key(key);
            for reason in name::config_key(key) {
                errors.invalid(&path, key.as_str(), &reason);
            }
            size += secret::decoded(value, &path, errors).map_or(0, |bytes| bytes.len());
        }
        if size > secret::DATA_BYTES_MAX {
            errors.too_long(&Path::whole(), secret::DATA_BYTES_MAX);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        secret::validate_immutable(object, old, &["data", "binaryData"], errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = object.entries("data").len() + object.entries("binaryData").len();
        vec![json!(object["metadata"].text("name")), json!(keys), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::ConfigMap;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn check(object: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        ConfigMap.validate(&object, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn k1_keys_may_become_files() {
        check(json!({"data": {"a.b": "x"}, "binaryData": {"c": "AAE="}}), &[]);
        check(
            json!({"data": {"a/b": "", "c": ""}, "binaryData": {"c": "AA==", "d": "%"}}),
            &[
                "data[a/b]: Invalid value: \"a/b\": a valid config key",
                "data[c]: Invalid value: \"c\": duplicate of key present in binaryData",
                "binaryData[d]: Invalid value",
            ],
        );
    }

    #[test]
    fn k2_a_mebibyte_in_all() {
        let of = |bytes: usize| json!({"data": {"a": "x".repeat(bytes)}, "binaryData": {"b": "AAAA"}});
        check(of(1024 * 1024 - 3), &[]);
        check(of(1024 * 1024 - 2), &["[]: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn k3_immutable_means_immutable() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let mut errors = Errors::new();
        ConfigMap.validate_update(&old, &old, &mut errors);
        assert!(errors.is_empty());
        ConfigMap.validate_update(&json!({"data": {"a": "2"}, "binaryData": {"b": "AA=="}}), &old, &mut errors);
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["immutable", "data", "binaryData"]);
        let mut errors = Errors::new();
        ConfigMap.validate_update(&old, &json!({"data": {"a": "0"}}), &mut errors);
        assert!(errors.is_empty());
    }
}
