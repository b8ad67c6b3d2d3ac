//! VolumeAttachment: a volume that is to be attached to a node.
//!
//! Rules
//!   V1 what       a PersistentVolume or a volume of a pod, exactly one
//!   V2 where      by a driver, to a node
//!   V3 kept       none of it changes
//! Source: API reference, storage.k8s.io/v1 VolumeAttachment.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{named, not_negative, required_name};
use super::super::same::same;
use super::super::tree::{Tree, carry_over, fill, remove};
use super::super::{age, age_column, column, name_column, row};
use super::{PARAMETERS_BYTES_MAX, validate_driver};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

/// Bytes of the message of an error.
const MESSAGE_BYTES_MAX: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

/// The row of VolumeAttachment.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Attacher", "string", "who attaches it"),
        column("PV", "string", "the volume"),
        column("Node", "string", "where to"),
        column("Attached", "boolean", "whether it is"),
        age_column(),
    ];
    row(&kinds::VOLUME_ATTACHMENT, columns, VolumeAttachment)
        .shows_deleted()
        .needs_revision()
        .subresources(&[Subresource::Status])
}

struct VolumeAttachment;

impl Rules for VolumeAttachment {
    fn default(&self, object: &mut Value) {
        if object.is_set("status") {
            fill(&mut object["status"], "attached", false);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
        fill(object, "status", json!({"attached": false}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_driver(spec, "attacher", &at, errors);
        let (source, path) = (&spec["source"], at.child("source"));
        match (source.is_set("inlineVolumeSpec"), source.is_set("persistentVolumeName")) {
            (false, false) => errors.required(&path, ONE_SOURCE),
            (true, true) => errors.forbidden(&path, ONE_SOURCE),
            (true, false) => {}
            (false, true) => match source.text("persistentVolumeName") {
                "" => {
                    errors.required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName")
                }
                volume => named(name::subdomain, volume, &path.child("persistentVolumeName"), errors),
            },
        }
        required_name(spec, "nodeName", name::subdomain, &at, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if !same(&object["spec"], &old["spec"]) {
            errors.immutable(&Path::new("spec"), object["spec"].clone());
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let (status, at) = (&object["status"], Path::new("status"));
        let facts = status.entries("attachmentMetadata");
        let bytes: usize = facts.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
        if bytes > PARAMETERS_BYTES_MAX {
            errors.too_long(&at.child("attachmentMetadata"), PARAMETERS_BYTES_MAX);
        }
        for field in ["attachError", "detachError"] {
            let at = at.child(field);
            if status[field].text("message").len() > MESSAGE_BYTES_MAX {
                errors.too_long(&at.child("message"), MESSAGE_BYTES_MAX);
            }
            not_negative(&status[field], "errorCode", &at, errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("attacher")),
            json!(spec["source"].text("persistentVolumeName")),
            json!(spec.text("nodeName")),
            json!(object["status"].flag("attached")),
            age::of(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::VolumeAttachment;
    use crate::resources::fixture::{cells, check, check_update};
    use serde_json::{Value, json};

    fn of(source: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "nodeName": "n", "source": source}})
    }

    #[test]
    fn v1_to_v3_one_volume_to_one_node() {
        let good = of(json!({"persistentVolumeName": "pv"}));
        check(&VolumeAttachment, good.clone(), &[]);
        assert_eq!(
            cells(&VolumeAttachment, &good)[1..5],
            [json!("d.example.com"), json!("pv"), json!("n"), json!(false)]
        );
        check(&VolumeAttachment, of(json!({})), &["spec.source: Required value: must specify exactly one of"]);
        let both = of(json!({"persistentVolumeName": "pv", "inlineVolumeSpec": {}}));
        check(&VolumeAttachment, both.clone(), &["spec.source: Forbidden: must specify exactly one of"]);
        check(
            &VolumeAttachment,
            json!({"spec": {"attacher": "D".repeat(64), "source": {"persistentVolumeName": ""}}}),
            &["spec.attacher: Too long", "spec.source.persistentVolumeName: Required", "spec.nodeName: Required"],
        );
        let other = of(json!({"persistentVolumeName": "other"}));
        check_update(&VolumeAttachment, &other, &good, &["spec: Invalid value"]);
    }
}
