//! CSIStorageCapacity: how much room a class has left in one part of the cluster.
//!
//! Rules
//!   C1 amounts   quantities that are not negative
//!   C2 kept      the class and the part of the cluster never change
//! Source: API reference, storage.k8s.io/v1 CSIStorageCapacity.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{amount, named};
use super::super::same::same;
use super::super::tree::Tree;
use super::super::{column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};
use crate::selector::LabelSelector;

/// The row of CSIStorageCapacity.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("StorageClassName", "string", "the class"),
        column("Capacity", "string", "how much room is left"),
    ];
    row(&kinds::CSI_STORAGE_CAPACITY, columns, CsiStorageCapacity).needs_revision()
}

struct CsiStorageCapacity;

impl Rules for CsiStorageCapacity {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        named(name::subdomain, object.text("storageClassName"), &Path::new("storageClassName"), errors);
        if object.is_set("nodeTopology") {
            LabelSelector::from_json(&object["nodeTopology"], &Path::new("nodeTopology"), errors);
        }
        for field in ["capacity", "maximumVolumeSize"] {
            amount(&object[field], &Path::new(field), errors);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        for field in ["nodeTopology", "storageClassName"] {
            if !same(&object[field], &old[field]) {
                errors.immutable(&Path::new(field), object[field].clone());
            }
        }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let capacity = object.get("capacity").and_then(Value::as_str).unwrap_or("<unset>");
        vec![json!(object["metadata"].text("name")), json!(object.text("storageClassName")), json!(capacity)]
    }
}

#[cfg(test)]
mod tests {
    use super::CsiStorageCapacity;
    use crate::resources::fixture::{check, check_update};
    use serde_json::json;

    #[test]
    fn c1_and_c2_room_of_a_class_in_one_place() {
        let good =
            json!({"storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}});
        check(&CsiStorageCapacity, good.clone(), &[]);
        let odd = json!({"capacity": "-1", "maximumVolumeSize": "much"});
        let expected =
            ["storageClassName: Invalid value: \"\"", "capacity: Invalid value: \"-1\"", "maximumVolumeSize: Inv"];
        check(&CsiStorageCapacity, odd.clone(), &expected);
        let expected = ["nodeTopology: Invalid value: null: field is immutable", "storageClassName: Invalid value"];
        check_update(&CsiStorageCapacity, &odd, &good, &expected);
    }
}
