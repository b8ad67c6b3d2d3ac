//! The expressions of admission policies: what they may name, and that they compile.
//!
//! Rules
//!   E1 names      `object`, `oldObject`, `request`, `namespaceObject`, `authorizer` and, with the request's resource
//!                 already said, `authorizer.requestResource`; `params` if the policy takes some;
//!                 `variables` with those before it, except in match conditions; those of webhooks see no namespace
//!   E2 compiles   what does not compile is refused when it is written, with its place
//!   E3 types      conditions and validations are bools, messages and annotations texts, mutations what they apply
//!
//! Not here    types of what the policy matches: `object` is dynamic (`type_check` says in the status what is wrong then)
//! Source: API reference, admissionregistration.k8s.io/v1; Kubernetes "CEL in Kubernetes".

use std::sync::Arc;

use serde_json::Value;

use super::super::tree::Tree;
use super::matching::CONDITIONS_MAX;
use crate::cel::{Env, ObjectType, Shape, Type};
use crate::field::{Errors, Path};

/// E1: the environment of a policy's expressions, yet without variables.
pub fn policy_environment(has_params: bool) -> Env {
    let patch = ObjectType::new("JSONPatch")
        .field("op", Type::String)
        .field("path", Type::String)
        .field("from", Type::String)
        .field("value", Type::Dyn);
    let env = Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", request())
        .variable("namespaceObject", Type::Dyn)
        .variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"))
        .object(patch)
        .open_objects("Object");
    if has_params { env.variable("params", Type::Dyn) } else { env }
}

/// E1: the environment of a webhook's match conditions.
pub fn webhook_environment() -> Env {
    Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", request())
        .variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"))
}

/// What a request says of itself.
fn request() -> Shape {
    let texts = |name: &str, fields: &[&str]| {
        let fields = fields.iter().fold(ObjectType::new(name), |object, field| object.field(field, Type::String));
        Shape::object(Arc::new(fields))
    };
    let kind = texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = texts("kubernetes.GroupVersionResource", &["group", "version", "resource"]);
    let user = ObjectType::new("kubernetes.UserInfo")
        .field("username", Type::String)
        .field("uid", Type::String)
        .field("groups", Type::list(Type::String))
        .field("extra", Type::map(Type::String, Type::list(Type::String)));
    let request = ObjectType::new("kubernetes.AdmissionRequest")
        .field("kind", kind.clone())
        .field("requestKind", kind)
        .field("resource", resource.clone())
        .field("requestResource", resource)
        .field("userInfo", Shape::object(Arc::new(user)))
        .field("dryRun", Type::Bool)
        .field("options", Type::Dyn);
    let words = ["subResource", "requestSubResource", "name", "namespace", "operation"];
    let request = words.into_iter().fold(request, |request, word| request.field(word, Type::String));
    Shape::object(Arc::new(request))
}

/// E2 and E3, of a webhook's match conditions.
pub(super) fn validate_webhook(webhook: &Value, at: &Path, errors: &mut Errors) {
    let env = webhook_environment();
    for (index, condition) in webhook.items("matchConditions").iter().take(CONDITIONS_MAX).enumerate() {
        compile(&env, condition, "expression", &at.child("matchConditions").index(index), (errors, "bool"));
    }
}

/// E1: the environment with these variables, by name and type.
pub fn policy_variables(env: &Env, known: &[(String, Type)]) -> Env {
    let object = known.iter().fold(ObjectType::new("variables"), |object, (name, of)| object.field(name, of.clone()));
    env.clone().variable("variables", Shape::object(Arc::new(object)))
}

/// E2 and E3, of a policy that is otherwise well formed.
pub(super) fn validate(spec: &Value, at: &Path, errors: &mut Errors) {
    let base = policy_environment(spec.is_set("paramKind"));
    for (index, condition) in spec.items("matchConditions").iter().enumerate() {
        compile(&base, condition, "expression", &at.child("matchConditions").index(index), (errors, "bool"));
    }
    let mut known: Vec<(String, Type)> = Vec::new();
    for (index, variable) in spec.items("variables").iter().enumerate() {
        let env = policy_variables(&base, &known);
        let at = at.child("variables").index(index);
        let of = compile(&env, variable, "expression", &at, (errors, ""));
        known.push((variable.text("name").to_owned(), of));
    }
    let env = policy_variables(&base, &known);
    for (index, validation) in spec.items("validations").iter().enumerate() {
        let at = at.child("validations").index(index);
        compile(&env, validation, "expression", &at, (errors, "bool"));
        compile(&env, validation, "messageExpression", &at, (errors, "string"));
    }
    for (index, annotation) in spec.items("auditAnnotations").iter().enumerate() {
        let at = at.child("auditAnnotations").index(index);
        compile(&env, annotation, "valueExpression", &at, (errors, "string or null"));
    }
    for (index, mutation) in spec.items("mutations").iter().enumerate() {
        let at = at.child("mutations").index(index);
        compile(&env, &mutation["jsonPatch"], "expression", &at.child("jsonPatch"), (errors, "list(JSONPatch)"));
        let path = at.child("applyConfiguration");
        compile(&env, &mutation["applyConfiguration"], "expression", &path, (errors, "Object"));
    }
}

/// The type of an expression that is there; what is wrong with it goes to the errors.
fn compile(env: &Env, owner: &Value, field: &str, at: &Path, (errors, expected): (&mut Errors, &str)) -> Type {
    let text = owner.text(field);
    if text.is_empty() {
        return Type::Dyn;
    }
    let mut refuse = |why: &str| errors.invalid(&at.child(field), text, why);
    match env.compile(text) {
        Err(found) => {
            refuse(&format!("compilation failed: {found}"));
            Type::Dyn
        }
        Ok(program) => {
            let of = program.output().clone();
            let shown = of.to_string();
            let fits = match expected {
                "" => true,
                "list(JSONPatch)" => [expected, "list(dyn)"].contains(&shown.as_str()),
                "string or null" => ["string", "null"].contains(&shown.as_str()),
                expected => shown == expected,
            };
            if !fits && !of.is_dyn() {
                refuse(&format!("must evaluate to {expected}"));
            }
            of
        }
    }
}
