//! ResourceClaimTemplate: claims that are made for each pod.
//!
//! Rules (what is asked for: `claim`)
//!   T1 labels   labels and annotations of the claims are well formed
//!   T2 kept     a template never changes
//! Source: API reference, resource.k8s.io/v1 ResourceClaimTemplate.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::metadata::validate_template_metadata;
use super::super::same::same;
use super::super::tree::Tree;
use super::super::{age, age_column, name_column, row};
use super::claim;
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of ResourceClaimTemplate.
pub(in super::super) fn resource() -> Resource {
    row(&kinds::RESOURCE_CLAIM_TEMPLATE, vec![name_column(), age_column()], ResourceClaimTemplate).shows_deleted()
}

struct ResourceClaimTemplate;

impl Rules for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(|spec| spec.get_mut("spec")) {
            claim::fill(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_template_metadata(&spec["metadata"], &at.child("metadata"), errors);
        claim::validate(&spec["spec"], &at.child("spec"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if !same(&object["spec"], &old["spec"]) {
            errors.immutable(&Path::new("spec"), object["spec"].clone());
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceClaimTemplate;
    use crate::resources::fixture::{check, check_update, filled};
    use serde_json::json;

    #[test]
    fn t1_and_t2_a_template_is_a_claim_that_stays() {
        let request = json!({"name": "gpu", "exactly": {"deviceClassName": "gpu"}});
        let good = json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": [request]}}}});
        let good = filled(&ResourceClaimTemplate, good);
        assert_eq!(good["spec"]["spec"]["devices"]["requests"][0]["exactly"]["allocationMode"], "ExactCount");
        check(&ResourceClaimTemplate, good.clone(), &[]);
        let odd = json!({"spec": {"metadata": {"labels": {"a b": ""}}, "spec": {"devices": {"requests": [{}]}}}});
        check(
            &ResourceClaimTemplate,
            odd.clone(),
            &[
                "spec.metadata.labels: Invalid value: \"a b\"",
                "spec.spec.devices.requests[0].name: Required value",
                "spec.spec.devices.requests[0]: Required value",
            ],
        );
        check_update(&ResourceClaimTemplate, &odd, &good, &["spec: Invalid value"]);
    }
}
