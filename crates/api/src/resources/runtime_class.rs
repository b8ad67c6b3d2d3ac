//! RuntimeClass: what runs the containers of a pod.
//!
//! Rules
//!   R1 handler      a name that nodes know it by; it never changes
//!   R2 overhead     amounts of resources
//!   R3 scheduling   a selector of nodes and tolerations, each once
//! Source: API reference, node.k8s.io/v1 RuntimeClass.
//! Not here    what a pod takes from its class (admission)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::named;
use super::metadata::validate_labels;
use super::tree::Tree;
use super::{age, age_column, column, name_column, pod, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// The row of RuntimeClass.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Handler", "string", "what nodes know it by"), age_column()];
    row(&kinds::RUNTIME_CLASS, columns, RuntimeClass).created_by_update().needs_revision()
}

struct RuntimeClass;

impl Rules for RuntimeClass {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        named(name::label, object.text("handler"), &Path::new("handler"), errors);
        let overhead = object["overhead"].entries("podFixed");
        pod::validate_amounts(overhead, &Path::new("overhead").child("limits"), errors);
        let (scheduling, at) = (&object["scheduling"], Path::new("scheduling"));
        validate_labels(scheduling.entries("nodeSelector"), &at.child("nodeSelector"), errors);
        pod::validate_tolerations(scheduling, &at, errors);
        let tolerations = scheduling.items("tolerations");
        for (index, toleration) in tolerations.iter().enumerate() {
            if tolerations[..index].contains(toleration) {
                errors.duplicate(&at.child("tolerations").index(index), toleration.clone());
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let handler = object.text("handler");
        if handler != old.text("handler") {
            errors.immutable(&Path::new("handler"), handler);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), json!(object.text("handler")), age::of(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::RuntimeClass;
    use crate::resources::fixture::{cells, check, check_update};
    use serde_json::json;

    #[test]
    fn r1_to_r3_a_handler_and_what_it_costs() {
        let good = json!({"metadata": {"name": "vm"}, "handler": "kata", "overhead": {"podFixed": {"memory": "120Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        check(&RuntimeClass, good.clone(), &[]);
        assert_eq!(cells(&RuntimeClass, &good)[1], "kata");
        let twice = json!({"key": "vm", "operator": "Exists"});
        let odd = json!({"handler": "Kata", "overhead": {"podFixed": {"cpu": "-1"}},
            "scheduling": {"nodeSelector": {"a b": ""}, "tolerations": [twice, twice]}});
        check(
            &RuntimeClass,
            odd.clone(),
            &[
                "handler: Invalid value: \"Kata\"",
                "overhead.limits[cpu]: Invalid value: \"-1\"",
                "scheduling.nodeSelector: Invalid value: \"a b\"",
                "scheduling.tolerations[1]: Duplicate value",
            ],
        );
        check_update(&RuntimeClass, &odd, &good, &["handler: Invalid value: \"Kata\": field is immutable"]);
    }
}
