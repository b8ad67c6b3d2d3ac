//! VolumeAttributesClass: attributes of a volume that can change while it is used.
//!
//! Rules
//!   V1 driver       who applies them; named
//!   V2 parameters   what they are: at least one
//!   V3 kept         neither changes
//! Source: API reference, storage.k8s.io/v1 VolumeAttributesClass.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::tree::Tree;
use super::super::{age, age_column, column, name_column, row};
use super::{keep, validate_parameters, validate_provisioner};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of VolumeAttributesClass.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![name_column(), column("DriverName", "string", "who applies the attributes"), age_column()];
    row(&kinds::VOLUME_ATTRIBUTES_CLASS, columns, VolumeAttributesClass).shows_deleted().short_names(&["vac"])
}

struct VolumeAttributesClass;

impl Rules for VolumeAttributesClass {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_provisioner(object, "driverName", errors);
        if object.entries("parameters").is_empty() {
            errors.required(&Path::new("parameters"), "must contain at least one key/value pair");
        }
        validate_parameters(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        keep(object, old, "driverName", errors);
        keep(object, old, "parameters", errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), json!(object.text("driverName")), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::VolumeAttributesClass;
    use crate::resources::fixture::{check, check_update};
    use serde_json::json;

    #[test]
    fn v1_to_v3_a_class_says_what_for_whom_and_stays_so() {
        let class = json!({"driverName": "disk.example.com", "parameters": {"iops": "100"}});
        check(&VolumeAttributesClass, class.clone(), &[]);
        let empty = json!({});
        let expected = ["driverName: Required value", "parameters: Required value: must contain at least one"];
        check(&VolumeAttributesClass, empty.clone(), &expected);
        let expected = ["driverName: Forbidden: updates to driverName are", "parameters: Forbidden: updates to"];
        check_update(&VolumeAttributesClass, &empty, &class, &expected);
    }
}
