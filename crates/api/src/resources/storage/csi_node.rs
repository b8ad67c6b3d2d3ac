//! CSINode: the storage drivers of one node.
//!
//! Rules
//!   N1 drivers   each once, with the name it has for the node
//!   N2 kept      a driver that is listed changes only in how much it can take
//! Source: API reference, storage.k8s.io/v1 CSINode.
//! Not here    `status` (a feature that is off unless asked for): it is dropped

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{named, not_negative};
use super::super::tree::{Tree, remove};
use super::super::{age, age_column, column, name_column, row};
use super::validate_driver;
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// Bytes of the name that a driver has for a node.
const NODE_ID_BYTES_MAX: usize = 256;

/// The row of CSINode.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Drivers", "integer", "how many drivers it has"), age_column()];
    row(&kinds::CSI_NODE, columns, CsiNode).shows_deleted().needs_revision()
}

struct CsiNode;

impl Rules for CsiNode {
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        remove(object, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let at = Path::new("spec").child("drivers");
        let mut seen = BTreeSet::new();
        for (index, driver) in object["spec"].items("drivers").iter().enumerate() {
            let at = at.index(index);
            validate_driver(driver, "name", &at, errors);
            match driver.text("nodeID") {
                "" => errors.required(&at.child("nodeID"), ""),
                id if id.len() > NODE_ID_BYTES_MAX => {
                    errors.invalid(&at.child("nodeID"), id, &format!("must be {NODE_ID_BYTES_MAX} characters or less"));
                }
                _ => {}
            }
            not_negative(&driver["allocatable"], "count", &at.child("allocatable"), errors);
            if !seen.insert(driver.text("name")) {
                errors.duplicate(&at.child("name"), driver.text("name"));
            }
            let (keys, path) = (driver.items("topologyKeys"), at.child("topologyKeys"));
            for (index, key) in keys.iter().enumerate() {
                match key.as_str().unwrap_or_default() {
                    "" => errors.required(&path, ""),
                    key => named(name::label_key, key, &path, errors),
                }
                if keys[..index].contains(key) {
                    errors.duplicate(&path, key.clone());
                }
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        for driver in object["spec"].items("drivers") {
            let before = old["spec"].items("drivers").iter().find(|before| before.text("name") == driver.text("name"));
            let changed = |before: &&Value| {
                before.text("nodeID") != driver.text("nodeID")
                    || before.items("topologyKeys") != driver.items("topologyKeys")
            };
            if before.is_some_and(|before| changed(&before)) {
                errors.immutable(&Path::new("CSINode.Spec.Drivers"), driver.clone());
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let drivers = object["spec"].items("drivers").len();
        vec![json!(object["metadata"].text("name")), json!(drivers), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::CsiNode;
    use crate::resources::fixture::{cells, check, check_update};
    use serde_json::{Value, json};

    fn of(drivers: Value) -> Value {
        json!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}})
    }

    #[test]
    fn n1_each_driver_is_listed_once() {
        let good = of(json!([{"name": "a.b", "nodeID": "x", "topologyKeys": ["zone"], "allocatable": {"count": 3}}]));
        check(&CsiNode, good.clone(), &[]);
        assert_eq!(cells(&CsiNode, &good)[1], 1);
        let at = "spec.drivers";
        check(
            &CsiNode,
            of(
                json!([{"name": "a", "topologyKeys": ["", "z", "z"]}, {"name": "a", "nodeID": "x", "allocatable": {"count": -1}}]),
            ),
            &[
                &format!("{at}[0].nodeID: Required value"),
                &format!("{at}[0].topologyKeys: Required value"),
                &format!("{at}[0].topologyKeys: Duplicate value: \"z\""),
                &format!("{at}[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0"),
                &format!("{at}[1].name: Duplicate value: \"a\""),
            ],
        );
    }

    #[test]
    fn n2_a_listed_driver_stays() {
        let old = of(json!([{"name": "a", "nodeID": "x"}]));
        let room = of(json!([{"name": "a", "nodeID": "x", "allocatable": {"count": 1}}, {"name": "b", "nodeID": "y"}]));
        check_update(&CsiNode, &room, &old, &[]);
        check_update(&CsiNode, &of(json!([])), &old, &[]);
        check_update(
            &CsiNode,
            &of(json!([{"name": "a", "nodeID": "z"}])),
            &old,
            &["CSINode.Spec.Drivers: Invalid value"],
        );
    }
}
