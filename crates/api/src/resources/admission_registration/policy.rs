//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules for writes, as expressions.
//!
//! Rules
//!   P1 matches      says which resources it looks at
//!   P2 validates    by an expression or an audit annotation at least; messages of one line
//!   P3 mutates      by an expression at least, of one form
//!   P4 variables    have names that expressions can use, each once
//!   P5 parameters   are of a kind that is named whole
//! Source: API reference, admissionregistration.k8s.io/v1.
//!   P6 compiles     expressions are of the types that they must be (`expression`)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{conditions, named, optional_word, required_text, required_word};
use super::super::tree::{Tree, carry_over, fill_text, remove};
use super::super::{age, column, row};
use super::expression;
use super::matching::{fill_matching, validate_conditions, validate_resources};
use super::{columns, extends_api, validate_expression};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

/// Audit annotations of one policy, and bytes of an expression that gives one its value.
const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const NO_EXPRESSION: &str = "expression is not specified";

/// The row of ValidatingAdmissionPolicy.
pub(in super::super) fn validating() -> Resource {
    let columns = columns([
        column("Validations", "integer", "how many it has"),
        column("ParamKind", "string", "what its parameters are"),
    ]);
    let row = row(&kinds::VALIDATING_ADMISSION_POLICY, columns, Validating);
    extends_api(row.subresources(&[Subresource::Status]).counts_generations())
}

/// The row of MutatingAdmissionPolicy.
pub(in super::super) fn mutating() -> Resource {
    let columns = columns([
        column("Mutations", "integer", "how many it has"),
        column("ParamKind", "string", "what its parameters are"),
    ]);
    extends_api(row(&kinds::MUTATING_ADMISSION_POLICY, columns, Mutating).counts_generations())
}

fn fill_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    fill_text(spec, "failurePolicy", "Fail");
    if let Some(matching) = spec.get_mut("matchConstraints").filter(|matching| matching.is_object()) {
        fill_matching(matching);
    }
}

struct Validating;

impl Rules for Validating {
    fn default(&self, object: &mut Value) {
        fill_policy(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_common(spec, &at, errors);
        let (validations, annotations) = (spec.items("validations"), spec.items("auditAnnotations"));
        if validations.is_empty() && annotations.is_empty() {
            let detail = "validations or auditAnnotations must be non-empty";
            errors.required(&at.child("validations"), detail);
            errors.required(&at.child("auditAnnotations"), detail);
        }
        for (index, validation) in validations.iter().enumerate() {
            validate_validation(validation, &at.child("validations").index(index), errors);
        }
        validate_annotations(annotations, &at.child("auditAnnotations"), errors);
        validate_programs(spec, &at, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let (status, at) = (&object["status"], Path::new("status"));
        conditions(status.items("conditions"), &at.child("conditions"), errors);
        let warnings = status["typeChecking"].items("expressionWarnings");
        for (index, warning) in warnings.iter().enumerate() {
            let at = at.child("typeChecking").child("expressionWarnings").index(index);
            required_text(warning, "warning", &at, errors);
            required_text(warning, "fieldRef", &at, errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, "validations", now)
    }
}

struct Mutating;

impl Rules for Mutating {
    fn default(&self, object: &mut Value) {
        fill_policy(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_common(spec, &at, errors);
        required_word(spec, "reinvocationPolicy", &["IfNeeded", "Never"], &at, errors);
        if spec.items("mutations").is_empty() {
            errors.required(&at.child("mutations"), "mutations must contain at least one item");
        }
        for (index, mutation) in spec.items("mutations").iter().enumerate() {
            validate_mutation(mutation, &at.child("mutations").index(index), errors);
        }
        validate_programs(spec, &at, errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, "mutations", now)
    }
}

/// P6, of policies that are otherwise well formed.
fn validate_programs(spec: &Value, at: &Path, errors: &mut Errors) {
    if errors.is_empty() {
        expression::validate(spec, at, errors);
    }
}

fn cells(object: &Value, list: &str, now: Timestamp) -> Vec<Value> {
    let (spec, kind) = (&object["spec"], &object["spec"]["paramKind"]);
    let parameters = if kind.is_object() {
        format!("{}/{}", kind.text("apiVersion"), kind.text("kind"))
    } else {
        "<unset>".to_owned()
    };
    vec![json!(object["metadata"].text("name")), json!(spec.items(list).len()), json!(parameters), age::of(object, now)]
}

/// P1, P4 and P5.
fn validate_common(spec: &Value, at: &Path, errors: &mut Errors) {
    optional_word(spec, "failurePolicy", &["Fail", "Ignore"], at, errors);
    if spec.is_set("paramKind") {
        validate_kind(&spec["paramKind"], &at.child("paramKind"), errors);
    }
    let path = at.child("matchConstraints");
    if spec.is_set("matchConstraints") {
        let constraints = &spec["matchConstraints"];
        validate_resources(constraints, &path, errors);
        if constraints.items("resourceRules").is_empty() {
            errors.required(&path.child("resourceRules"), "");
        }
    } else {
        errors.required(&path, "");
    }
    validate_conditions(spec.items("matchConditions"), &at.child("matchConditions"), errors);
    let variables = spec.items("variables");
    for (index, variable) in variables.iter().enumerate() {
        let (at, text) = (at.child("variables").index(index), variable.text("name"));
        if text.is_empty() {
            errors.required(&at.child("name"), "name is not specified");
        } else if !name::c_identifier(text).is_empty() {
            errors.invalid(&at.child("name"), text, "name is not a valid CEL identifier");
        } else if variables[..index].iter().any(|before| before.text("name") == text) {
            errors.duplicate(&at.child("name"), text);
        }
        validate_expression(variable, "expression", NO_EXPRESSION, &at, errors);
    }
}

/// P5.
fn validate_kind(kind: &Value, at: &Path, errors: &mut Errors) {
    let (api_version, path) = (kind.text("apiVersion"), at.child("apiVersion"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        errors.required(&path, "");
    } else if version.contains('/') {
        errors.invalid(&path, api_version, &format!("unexpected GroupVersion string: {api_version}"));
    } else {
        if !group.is_empty() {
            named(name::subdomain, group, &path, errors);
        }
        named(name::letter_label, version, &path, errors);
    }
    match kind.text("kind") {
        "" => errors.required(&at.child("kind"), ""),
        text => {
            for reason in name::letter_label(&text.to_lowercase()) {
                errors.invalid(
                    &at.child("kind"),
                    text,
                    &format!("may have mixed case, but should otherwise match: {reason}"),
                );
            }
        }
    }
}

/// P2.
fn validate_validation(validation: &Value, at: &Path, errors: &mut Errors) {
    let (expression, message) = (validation.text("expression").trim(), validation.text("message").trim());
    validate_expression(validation, "expression", NO_EXPRESSION, at, errors);
    if !validation.text("message").is_empty() && message.is_empty() {
        errors.invalid(&at.child("message"), validation.text("message"), "message must be non-empty if specified");
    } else if message.contains('\n') {
        errors.invalid(&at.child("message"), validation.text("message"), "message must not contain line breaks");
    } else if expression.contains('\n') && message.is_empty() {
        errors.required(&at.child("message"), "message must be specified if expression contains line breaks");
    }
    let expression = validation.text("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        errors.invalid(&at.child("messageExpression"), expression, "must be non-empty if specified");
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    optional_word(validation, "reason", &reasons, at, errors);
}

/// P2.
fn validate_annotations(annotations: &[Value], at: &Path, errors: &mut Errors) {
    if annotations.len() > ANNOTATIONS_MAX {
        errors.invalid(at, json!(annotations), &format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations"));
        return;
    }
    for (index, annotation) in annotations.iter().enumerate() {
        let (at, key) = (at.index(index), annotation.text("key"));
        match key {
            "" => errors.required(&at.child("key"), ""),
            key => named(name::label_key, key, &at.child("key"), errors),
        }
        if annotations[..index].iter().any(|before| before.text("key") == key) {
            errors.duplicate(&at.child("key"), key);
        }
        validate_expression(annotation, "valueExpression", "valueExpression is not specified", &at, errors);
        if annotation.text("valueExpression").trim().len() > ANNOTATION_BYTES_MAX {
            let detail = format!("must not exceed {}kb in length", ANNOTATION_BYTES_MAX / 1024);
            errors.required(&at.child("valueExpression"), &detail);
        }
    }
}

/// P3.
fn validate_mutation(mutation: &Value, at: &Path, errors: &mut Errors) {
    let forms = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    required_word(mutation, "patchType", &forms.map(|(form, _)| form), at, errors);
    for (form, field) in forms {
        let (own, path) = (mutation.text("patchType") == form, at.child(field));
        match (own, mutation.is_set(field)) {
            (true, false) => errors.required(&path, &format!("must be specified when patchType is {form}")),
            (true, true) => validate_expression(&mutation[field], "expression", NO_EXPRESSION, &path, errors),
            (false, true) => {
                errors.invalid(&path, "{}", &format!("must not be specified when patchType is not {form}"));
            }
            (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mutating, Validating};
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn of(change: Value) -> Value {
        let mut spec = json!({"matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas <= 5"}]});
        spec.as_object_mut().expect("a literal").extend(change.as_object().expect("a literal").clone());
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn p1_a_policy_says_what_it_looks_at() {
        let policy = filled(&Validating, of(json!({"paramKind": {"apiVersion": "a.b/v1", "kind": "Limit"}})));
        check(&Validating, policy.clone(), &[]);
        let spec = &policy["spec"];
        assert_eq!(
            (&spec["failurePolicy"], &spec["matchConstraints"]["matchPolicy"]),
            (&json!("Fail"), &json!("Equivalent"))
        );
        assert_eq!(cells(&Validating, &policy)[..3], [json!("p"), json!(1), json!("a.b/v1/Limit")]);
        check(&Validating, of(json!({"matchConstraints": null})), &["spec.matchConstraints: Required value"]);
        check(
            &Validating,
            of(json!({"matchConstraints": {}})),
            &["spec.matchConstraints.resourceRules: Required value"],
        );
    }

    #[test]
    fn p6_expressions_compile_to_what_they_must_be() {
        for (change, expected) in [
            (
                json!({"validations": [{"expression": "object.spec.replicas >"}]}),
                "spec.validations[0].expression: Invalid value: \"object.spec.replicas >\": compilation failed: ERROR: \
                 <input>:1:23: Syntax error: mismatched input '<EOF>' expecting an expression",
            ),
            (
                json!({"validations": [{"expression": "1 + 1"}]}),
                "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool",
            ),
            (
                json!({"validations": [{"expression": "params.x"}]}),
                "spec.validations[0].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: \
                 undeclared reference to 'params' (in container '')",
            ),
            (
                json!({"matchConditions": [{"name": "a", "expression": "variables.a"}], "variables":
                    [{"name": "a", "expression": "true"}]}),
                "spec.matchConditions[0].expression: Invalid value: \"variables.a\": compilation failed: ERROR: \
                 <input>:1:1: undeclared reference to 'variables' (in container '')",
            ),
            (
                json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]}),
                "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: \
                 <input>:1:10: undefined field 'b'",
            ),
        ] {
            check(&Validating, filled(&Validating, of(change)), &[expected]);
        }
    }

    #[test]
    fn p2_validations_are_expressions_with_short_messages() {
        let none = "Required value: validations or auditAnnotations must be non-empty";
        let expected = [format!("spec.validations: {none}"), format!("spec.auditAnnotations: {none}")];
        check(&Validating, of(json!({"validations": []})), &expected.each_ref().map(String::as_str));
        let validations = json!([{"expression": " "}, {"expression": "a\nb"}, {"expression": "a", "message": "a\nb"},
            {"expression": "a", "reason": "Mood"}]);
        let annotations = json!([{"key": "a", "valueExpression": "x"}, {"key": "a"}]);
        check(
            &Validating,
            of(json!({"validations": validations, "auditAnnotations": annotations})),
            &[
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[1].message: Required value: message must be specified if expression contains line",
                "spec.validations[2].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                "spec.validations[3].reason: Unsupported value: \"Mood\"",
                "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
            ],
        );
    }

    #[test]
    fn p3_mutations_have_one_form() {
        let mutating = |mutations: Value| of(json!({"reinvocationPolicy": "Never", "mutations": mutations}));
        let apply = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}});
        check(&Mutating, mutating(json!([apply])), &[]);
        check(&Mutating, of(json!({})), &["spec.reinvocationPolicy: Required value", "spec.mutations: Required value"]);
        let odd = json!([{"patchType": "JSONPatch", "applyConfiguration": {"expression": "x"}}]);
        check(
            &Mutating,
            mutating(odd),
            &[
                "spec.mutations[0].applyConfiguration: Invalid value: \"{}\": must not be specified when",
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            ],
        );
    }

    #[test]
    fn p4_and_p5_names_that_can_be_used() {
        let variables = json!([{"name": "a", "expression": "1"}, {"name": "a", "expression": "1"}, {"name": "a-b"}]);
        check(
            &Validating,
            of(json!({"variables": variables, "paramKind": {"apiVersion": "a/b/c"}})),
            &[
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string",
                "spec.paramKind.kind: Required value",
                "spec.variables[1].name: Duplicate value: \"a\"",
                "spec.variables[2].name: Invalid value: \"a-b\": name is not a valid CEL identifier",
                "spec.variables[2].expression: Required value: expression is not specified",
            ],
        );
    }
}
