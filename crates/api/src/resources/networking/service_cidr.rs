//! ServiceCIDR: a network from which Services get their addresses.
//!
//! Rules
//!   R1 networks   one, or two of different families
//!   R2 kept       a network never changes; a second family may join the first
//! Source: API reference, networking.k8s.io/v1 ServiceCIDR.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{conditions, network};
use super::super::tree::{Tree, carry_over, remove};
use super::super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of ServiceCIDR.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![name_column(), column("CIDRs", "string", "the networks, one of each family"), age_column()];
    row(&kinds::SERVICE_CIDR, columns, ServiceCidr).subresources(&[Subresource::Status]).counts_generations()
}

struct ServiceCidr;

impl Rules for ServiceCidr {
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (networks, path) = (object["spec"].items("cidrs"), Path::new("spec").child("cidrs"));
        match networks.len() {
            0 => errors.required(&path, "at least one CIDR required"),
            1 | 2 => {}
            _ => errors.invalid(&path, json!(networks), "may only hold up to 2 values"),
        }
        let before = errors.len();
        for (index, text) in networks.iter().enumerate() {
            network(text.as_str().unwrap_or_default(), &path.index(index), errors);
        }
        let is_v6 = |text: &Value| text.as_str().is_some_and(|text| text.contains(':'));
        if networks.len() == 2 && errors.len() == before && is_v6(&networks[0]) == is_v6(&networks[1]) {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            errors.invalid(&path, json!(networks), detail);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (now, before) = (object["spec"].items("cidrs"), old["spec"].items("cidrs"));
        let path = Path::new("spec").child("cidrs");
        if now.len() != before.len() && (before.len(), now.len()) != (1, 2) {
            errors.immutable(&path, json!(now));
            return;
        }
        for (index, (now, before)) in now.iter().zip(before).enumerate() {
            if now != before {
                errors.immutable(&path.index(index), now.clone());
            }
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        conditions(object["status"].items("conditions"), &Path::new("status").child("conditions"), errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let networks: Vec<&str> = object["spec"].items("cidrs").iter().filter_map(Value::as_str).collect();
        vec![json!(object["metadata"].text("name")), json!(networks.join(",")), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::ServiceCidr;
    use crate::resources::fixture::{cells, check, check_status, check_update};
    use serde_json::{Value, json};

    fn of(networks: &[&str]) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"cidrs": networks}})
    }

    #[test]
    fn r1_one_network_of_each_family() {
        check(&ServiceCidr, of(&["10.43.0.0/16", "fd00::/112"]), &[]);
        check(&ServiceCidr, of(&[]), &["spec.cidrs: Required value: at least one CIDR required"]);
        check(&ServiceCidr, of(&["10.43.0.1/16"]), &["spec.cidrs[0]: Invalid value: \"10.43.0.1/16\""]);
        check(&ServiceCidr, of(&["10.43.0.0/16", "10.44.0.0/16"]), &["spec.cidrs: Invalid value: [\"10.43.0.0/16\""]);
        assert_eq!(cells(&ServiceCidr, &of(&["10.43.0.0/16", "fd00::/112"]))[1], "10.43.0.0/16,fd00::/112");
    }

    #[test]
    fn r2_a_network_stays() {
        let (one, two) = (of(&["10.43.0.0/16"]), of(&["10.43.0.0/16", "fd00::/112"]));
        check_update(&ServiceCidr, &two, &one, &[]);
        check_update(&ServiceCidr, &one, &two, &["spec.cidrs: Invalid value: [\"10.43.0.0/16\"]: field is immutable"]);
        check_update(
            &ServiceCidr,
            &of(&["10.0.0.0/8"]),
            &one,
            &["spec.cidrs[0]: Invalid value: \"10.0.0.0/8\": field is"],
        );
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "Maybe"}]}});
        check_status(
            &ServiceCidr,
            &status,
            &one,
            &[
                "status.conditions[0].status: Unsupported value: \"Maybe\"",
                "status.conditions[0].lastTransitionTime: Required value: must be set",
                "status.conditions[0].reason: Required value",
            ],
        );
    }
}
