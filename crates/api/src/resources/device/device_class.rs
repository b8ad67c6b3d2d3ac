//! DeviceClass: a kind of device that can be claimed by name.
//!
//! Rules
//!   D1 selectors   which devices are of the class, as expressions
//!   D2 config      what their driver is told
//!   D3 extended    the name by which pods ask for one without a claim, if there is one
//! Source: API reference, resource.k8s.io/v1 DeviceClass; KEP-4381.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::named;
use super::super::tree::Tree;
use super::super::{age, age_column, name_column, row};
use super::{CONFIGS_MAX, validate_opaque, validate_selectors};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// The row of DeviceClass.
pub(in super::super) fn resource() -> Resource {
    row(&kinds::DEVICE_CLASS, vec![name_column(), age_column()], DeviceClass).shows_deleted().counts_generations()
}

struct DeviceClass;

impl Rules for DeviceClass {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_selectors(spec, &at, errors);
        let (configs, path) = (spec.items("config"), at.child("config"));
        if configs.len() > CONFIGS_MAX {
            errors.too_many(&path, configs.len(), CONFIGS_MAX);
            return;
        }
        for (index, config) in configs.iter().enumerate() {
            validate_opaque(config, &path.index(index), errors);
        }
        let (extended, path) = (spec.text("extendedResourceName"), at.child("extendedResourceName"));
        if spec.is_set("extendedResourceName") {
            named(name::label_key, extended, &path, errors);
            let domain = extended.split_once('/').map_or("", |(domain, _)| domain);
            if domain.is_empty() || domain.ends_with("kubernetes.io") || extended.starts_with("requests.") {
                errors.invalid(&path, extended, "must be a valid extended resource name");
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceClass;
    use crate::resources::fixture::check;
    use serde_json::json;

    #[test]
    fn d1_to_d3_which_devices_and_how() {
        let selectors = json!([{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]);
        let config = json!([{"opaque": {"driver": "gpu.example.com", "parameters": {"mode": "x"}}}]);
        let good =
            json!({"spec": {"selectors": selectors, "config": config, "extendedResourceName": "example.com/gpu"}});
        check(&DeviceClass, good, &[]);
        let broken = json!({"cel": {"expression": "device.nothing"}});
        let odd = json!({"spec": {"selectors": [{}, {"cel": {}}, broken], "extendedResourceName": "cpu",
            "config": [{}, {"opaque": {"parameters": []}}]}});
        check(
            &DeviceClass,
            odd,
            &[
                "spec.selectors[0].cel: Required value",
                "spec.selectors[1].cel.expression: Required value",
                "spec.selectors[2].cel.expression: Invalid value: \"device.nothing\": compilation failed",
                "spec.config[0].opaque: Required value",
                "spec.config[1].opaque.driver: Required value",
                "spec.config[1].opaque.parameters: Invalid value: \"<value omitted>\": parameters must be a valid JSON",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ],
        );
    }
}
