//! DeviceTaintRule: a taint for all devices that it selects, as if their driver had said it.
//!
//! Rules
//!   T1 selector    by driver, pool and device, each as it may be named; one that names nothing selects all
//!   T2 taint       a key, a value and an effect
//!   T3 conditions  at most 8 of them
//! Source: API reference, resource.k8s.io/v1 DeviceTaintRule; KEP-5055.
//! Not here    when the taint was added (apiserver: `admit/device_taint`)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{conditions, named};
use super::super::tree::{Tree, carry_over, remove};
use super::super::{age, age_column, name_column, row};
use super::resource_slice::validate_pool_name;
use super::{validate_driver, validate_taint};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

const CONDITIONS_MAX: usize = 8;

/// The row of DeviceTaintRule.
pub(in super::super) fn resource() -> Resource {
    row(&kinds::DEVICE_TAINT_RULE, vec![name_column(), age_column()], DeviceTaintRule)
        .needs_revision()
        .subresources(&[Subresource::Status])
        .counts_generations()
}

struct DeviceTaintRule;

impl Rules for DeviceTaintRule {
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        let (selector, path) = (&spec["deviceSelector"], at.child("deviceSelector"));
        if selector.is_set("driver") {
            validate_driver(selector, &path, errors);
        }
        if selector.is_set("pool") {
            validate_pool_name(selector.text("pool"), &path.child("pool"), errors);
        }
        if selector.is_set("device") {
            named(name::label, selector.text("device"), &path.child("device"), errors);
        }
        validate_taint(&spec["taint"], &at.child("taint"), errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let (found, path) = (object["status"].items("conditions"), Path::new("status").child("conditions"));
        conditions(found, &path, errors);
        if found.len() > CONDITIONS_MAX {
            errors.too_many(&path, found.len(), CONDITIONS_MAX);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceTaintRule;
    use crate::resources::fixture::check;
    use serde_json::json;

    #[test]
    fn t1_and_t2_what_is_tainted_and_how() {
        let taint = json!({"key": "example.com/broken", "value": "yes", "effect": "NoExecute"});
        check(&DeviceTaintRule, json!({"spec": {"taint": taint}}), &[]);
        let selector = json!({"driver": "gpu.example.com", "pool": "rack/node-1", "device": "gpu-0"});
        check(&DeviceTaintRule, json!({"spec": {"deviceSelector": selector, "taint": taint}}), &[]);
        let odd =
            json!({"spec": {"deviceSelector": {"driver": "", "device": "A"}, "taint": {"effect": "PreferNoSchedule"}}});
        let device = "spec.deviceSelector.device: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
                      alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
                      or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        check(
            &DeviceTaintRule,
            odd,
            &[
                "spec.deviceSelector.driver: Required value",
                device,
                "spec.taint.key: Invalid value: \"\": name part must be non-empty",
                "spec.taint.key: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', \
                 and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
                 used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "spec.taint.effect: Unsupported value: \"PreferNoSchedule\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
            ],
        );
    }
}
