//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy holds, and with which parameters.
//!
//! Rules
//!   B1 policy       is named
//!   B2 parameters   by name or by selector, and it is said what holds when there are none
//!   B3 actions      what a violation leads to; each once, and not both refused and warned of
//! Source: API reference, admissionregistration.k8s.io/v1.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{named, required_name, required_word};
use super::super::tree::{Tree, fill};
use super::super::{age, column, row};
use super::matching::{fill_matching, validate_resources};
use super::{columns, extends_api};
use crate::field::{Errors, Path};
use crate::kind::{Kind, kinds};
use crate::name;
use crate::resource::{Resource, Rules};
use crate::selector::LabelSelector;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// The row of ValidatingAdmissionPolicyBinding.
pub(in super::super) fn validating() -> Resource {
    resource(&kinds::VALIDATING_ADMISSION_POLICY_BINDING, true)
}

/// The row of MutatingAdmissionPolicyBinding.
pub(in super::super) fn mutating() -> Resource {
    resource(&kinds::MUTATING_ADMISSION_POLICY_BINDING, false)
}

fn resource(kind: &Kind, has_actions: bool) -> Resource {
    let columns = columns([
        column("PolicyName", "string", "the policy"),
        column("ParamRef", "string", "where its parameters are"),
    ]);
    extends_api(row(kind, columns, Binding { has_actions }).counts_generations())
}

/// The rules of both kinds; only a validation has consequences to choose from.
struct Binding {
    has_actions: bool,
}

impl Rules for Binding {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        if let Some(matching) = spec.get_mut("matchResources").filter(|matching| matching.is_object()) {
            fill_matching(matching);
        }
        if let Some(reference) = spec.get_mut("paramRef").filter(|_| !self.has_actions) {
            fill(reference, "parameterNotFoundAction", "Deny");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        required_name(spec, "policyName", name::path_segment, &at, errors);
        if spec.is_set("paramRef") {
            validate_reference(&spec["paramRef"], &at.child("paramRef"), errors);
        }
        if spec.is_set("matchResources") {
            validate_resources(&spec["matchResources"], &at.child("matchResources"), errors);
        }
        if self.has_actions {
            validate_actions(spec.items("validationActions"), &at.child("validationActions"), errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, reference) = (&object["spec"], &object["spec"]["paramRef"]);
        let parameters = match (reference.text("namespace"), reference.text("name")) {
            _ if !reference.is_object() => "<unset>".to_owned(),
            ("", "") => "*".to_owned(),
            ("", name) => name.to_owned(),
            (namespace, "") => format!("{namespace}/*"),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("policyName")),
            json!(parameters),
            age::of(object, now),
        ]
    }
}

/// B2.
fn validate_reference(reference: &Value, at: &Path, errors: &mut Errors) {
    let name = reference.text("name");
    match (name.is_empty(), reference.is_set("selector")) {
        (true, false) => errors.required(at, "one of name or selector must be specified"),
        (false, true) => errors.forbidden(&at.child("name"), "name and selector are mutually exclusive"),
        (false, false) => named(name::path_segment, name, &at.child("name"), errors),
        (true, true) => {
            LabelSelector::from_json(&reference["selector"], &at.child("selector"), errors);
        }
    }
    required_word(reference, "parameterNotFoundAction", &["Allow", "Deny"], at, errors);
}

/// B3.
fn validate_actions(actions: &[Value], at: &Path, errors: &mut Errors) {
    if actions.is_empty() {
        errors.required(at, "");
    }
    for (index, action) in actions.iter().enumerate() {
        let word = action.as_str().unwrap_or_default();
        if !ACTIONS.contains(&word) {
            errors.not_supported(&at.index(index), word, &ACTIONS);
        }
        if actions[..index].contains(action) {
            errors.duplicate(&at.index(index), word);
        }
    }
    if actions.iter().any(|action| action == "Deny") && actions.iter().any(|action| action == "Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        errors.invalid(at, json!(actions), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::Binding;
    use crate::resources::fixture::{cells, check};
    use serde_json::{Value, json};

    const VALIDATING: Binding = Binding { has_actions: true };

    fn of(change: Value) -> Value {
        let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
        spec.as_object_mut().expect("a literal").extend(change.as_object().expect("a literal").clone());
        json!({"metadata": {"name": "b"}, "spec": spec})
    }

    #[test]
    fn b1_and_b2_a_policy_with_its_parameters() {
        let reference = |reference: Value| of(json!({ "paramRef": reference }));
        let good = reference(json!({"name": "x", "namespace": "ns", "parameterNotFoundAction": "Deny"}));
        check(&VALIDATING, good.clone(), &[]);
        assert_eq!(cells(&VALIDATING, &good)[1..3], ["p", "ns/x"].map(Value::from));
        assert_eq!(cells(&VALIDATING, &of(json!({})))[2], "<unset>");
        check(
            &VALIDATING,
            reference(json!({})),
            &["spec.paramRef: Required value: one of name or", "spec.paramRef.parameterNotFoundAction: Required value"],
        );
        let both = json!({"name": "x", "selector": {}, "parameterNotFoundAction": "Allow"});
        check(
            &VALIDATING,
            reference(both),
            &["spec.paramRef.name: Forbidden: name and selector are mutually exclusive"],
        );
        check(&VALIDATING, of(json!({"policyName": ""})), &["spec.policyName: Required value"]);
        check(&Binding { has_actions: false }, reference(json!({"name": "x"})), &[]);
    }

    #[test]
    fn b3_a_violation_leads_to_something() {
        let actions = |actions: Value| of(json!({ "validationActions": actions }));
        check(&VALIDATING, actions(json!([])), &["spec.validationActions: Required value"]);
        check(
            &VALIDATING,
            actions(json!(["Deny", "Warn", "Warn", "Cry"])),
            &[
                "spec.validationActions[2]: Duplicate value: \"Warn\"",
                "spec.validationActions[3]: Unsupported value: \"Cry\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\",\"Cry\"]: must not contain both",
            ],
        );
    }
}
