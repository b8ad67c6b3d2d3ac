//! StorageClass: a way to get volumes.
//!
//! Rules
//!   S1 provisioner   who makes the volumes; named
//!   S2 parameters    what it is told, within bounds
//!   S3 policies      volumes go with their claim unless kept, and are made at once unless the pod's node comes first
//!   S4 kept          none of these changes
//! Source: API reference, storage.k8s.io/v1 StorageClass.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{optional_word, required_name, required_word};
use super::super::tree::{Tree, fill_text};
use super::super::{age, age_column, column, name_column, row};
use super::{keep, validate_parameters, validate_provisioner};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// Marks the class of claims that name none.
const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The row of StorageClass.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Provisioner", "string", "who makes the volumes"),
        column("ReclaimPolicy", "string", "what becomes of a volume whose claim is gone"),
        column("VolumeBindingMode", "string", "whether a volume is made before the pod's node is known"),
        column("AllowVolumeExpansion", "string", "whether volumes can grow"),
        age_column(),
    ];
    row(&kinds::STORAGE_CLASS, columns, StorageClass).shows_deleted().short_names(&["sc"])
}

struct StorageClass;

impl Rules for StorageClass {
    fn default(&self, object: &mut Value) {
        fill_text(object, "reclaimPolicy", "Delete");
        fill_text(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let root = Path::root();
        validate_provisioner(object, "provisioner", errors);
        validate_parameters(object, errors);
        optional_word(object, "reclaimPolicy", &["Delete", "Retain"], &root, errors);
        required_word(object, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], &root, errors);
        for (index, term) in object.items("allowedTopologies").iter().enumerate() {
            validate_topology(term, &Path::new("allowedTopologies").index(index), errors);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        keep(object, old, "parameters", errors);
        keep(object, old, "provisioner", errors);
        keep(object, old, "reclaimPolicy", errors);
        let mode = object.text("volumeBindingMode");
        if mode != old.text("volumeBindingMode") {
            errors.immutable(&Path::new("volumeBindingMode"), mode);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let metadata = &object["metadata"];
        let is_default = DEFAULT_ANNOTATIONS.iter().any(|key| metadata["annotations"].text(key) == "true");
        let mark = if is_default { " (default)" } else { "" };
        let or_none = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("<unset>").to_owned();
        vec![
            json!(format!("{}{mark}", metadata.text("name"))),
            json!(object.text("provisioner")),
            json!(or_none("reclaimPolicy")),
            json!(or_none("volumeBindingMode")),
            json!(object.flag("allowVolumeExpansion")),
            age::of(object, now),
        ]
    }
}

fn validate_topology(term: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, expression) in term.items("matchLabelExpressions").iter().enumerate() {
        let at = at.child("matchLabelExpressions").index(index);
        if !seen.insert(expression.text("key")) {
            errors.duplicate(&at.child("key"), expression.text("key"));
        }
        required_name(expression, "key", name::label_key, &at, errors);
        let (values, path) = (expression.items("values"), at.child("values"));
        if values.is_empty() {
            errors.required(&path, "");
        }
        for (index, value) in values.iter().enumerate() {
            if values[..index].contains(value) {
                errors.duplicate(&path.index(index), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StorageClass;
    use crate::resources::fixture::{cells, check, check_update, filled};
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({"metadata": {"name": "fast"}, "provisioner": "example.com/Disk", "parameters": {"type": "ssd"}})
    }

    #[test]
    fn s1_and_s2_somebody_makes_the_volumes() {
        check(&StorageClass, good(), &[]);
        check(&StorageClass, json!({}), &["provisioner: Required value"]);
        check(
            &StorageClass,
            json!({"provisioner": "a b", "parameters": {"": "x", "k": "v".repeat(256 * 1024)}}),
            &[
                "provisioner: Invalid value: \"a b\"",
                "parameters: Invalid value: \"\": field can not be empty.",
                "parameters: Too long",
            ],
        );
        let topology = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}, {"key": "zone"}]}]);
        let at = "allowedTopologies[0].matchLabelExpressions";
        check(
            &StorageClass,
            json!({"provisioner": "a", "allowedTopologies": topology}),
            &[
                &format!("{at}[0].values[1]: Duplicate"),
                &format!("{at}[1].key: Duplicate"),
                &format!("{at}[1].values: Req"),
            ],
        );
    }

    #[test]
    fn s3_policies_are_filled_in() {
        let mut class = filled(&StorageClass, good());
        class["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        let expected = [json!("fast (default)"), json!("example.com/Disk"), json!("Delete"), json!("Immediate")];
        assert_eq!(cells(&StorageClass, &class)[..4], expected);
        assert_eq!(cells(&StorageClass, &class)[4], false);
        class["reclaimPolicy"] = json!("Recycle");
        class["volumeBindingMode"] = json!("Soon");
        check(&StorageClass, class, &["reclaimPolicy: Unsupported value", "volumeBindingMode: Unsupported value"]);
    }

    #[test]
    fn s4_a_class_stays_what_it_is() {
        let old = filled(&StorageClass, good());
        let mut new = old.clone();
        new["allowVolumeExpansion"] = json!(true);
        check_update(&StorageClass, &new, &old, &[]);
        new["parameters"]["type"] = json!("hdd");
        new["provisioner"] = json!("b");
        new["reclaimPolicy"] = json!("Retain");
        new["volumeBindingMode"] = json!("WaitForFirstConsumer");
        check_update(
            &StorageClass,
            &new,
            &old,
            &[
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ],
        );
    }
}
