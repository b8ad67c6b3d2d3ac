//! What the expressions of policies and webhooks see, and their match conditions.

use std::sync::Arc;

use serde_json::Value as Json;
use windlass_api::cel::{
    self, Activation, Budget, Check, Decision, Env, EvalError, Opaque, Program, Question, Subject, Type, Value,
};

use super::event::{Event, request};
use super::matching;
use crate::authorize::{Asked, AskedObject, may};
use crate::identity::Identity;
use crate::server::{Call, Server};
use crate::write::text;

/// What surrounds one evaluation.
pub(super) struct Surroundings<'a> {
    object: &'a Json,
    old: &'a Json,
    param: &'a Json,
    request: Json,
    namespace: Json,
    /// Whether somebody may do something with what the request is about.
    question: Question,
    authorizer: Authorizer,
}

fn question(call: Call<'_>, event: Event) -> Question {
    let (target, kind) = (call.target, &call.target.resource.kind);
    Question {
        group: kind.group.to_string(),
        resource: kind.plural.to_string(),
        subresource: target.sub.map(|sub| sub.as_str().to_owned()).unwrap_or_default(),
        namespace: target.namespace.clone(),
        name: event.name(call).to_owned(),
        ..Question::default()
    }
}

impl<'a> Surroundings<'a> {
    pub fn of(call: Call<'_>, event: Event<'a>, param: &'a Json) -> Surroundings<'a> {
        let request = request(call, event, (&call.target.resource, event));
        Surroundings { param, ..Surroundings::told(call, event, request) }
    }

    /// Of an event that is told in these words.
    pub fn told(call: Call<'_>, event: Event<'a>, request: Json) -> Surroundings<'a> {
        Surroundings {
            object: event.object,
            old: event.old,
            param: &Json::Null,
            request,
            namespace: matching::namespace(call).unwrap_or(Json::Null),
            question: question(call, event),
            authorizer: Authorizer { server: Arc::clone(call.server), who: call.who.clone() },
        }
    }
}

impl<'a> Surroundings<'a> {
    /// The value of a variable that all expressions see.
    pub fn get(&'a self, name: &str) -> Option<Value<'a>> {
        let json = match name {
            "object" => self.object,
            "oldObject" => self.old,
            "params" => self.param,
            "request" => &self.request,
            "namespaceObject" => &self.namespace,
            "authorizer.requestResource" => {
                let check = Check::new(&self.authorizer, self.question.clone());
                return Some(Value::Opaque(Opaque::ResourceCheck(check)));
            }
            "authorizer" => return Some(Value::Opaque(Opaque::Authorizer(&self.authorizer))),
            _ => return None,
        };
        Some(Value::from(json))
    }
}

/// The same with no variables of its own.
pub(super) struct Plain<'a>(pub &'a Surroundings<'a>);

impl<'a> Activation<'a> for Plain<'a> {
    fn variable(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        self.0.get(name).map(Ok)
    }
}

/// The programs of an object's `matchConditions`, or why one of them is none.
pub(super) fn read_conditions(env: &Env, owner: &Json) -> Result<Vec<Program>, String> {
    let conditions = owner["matchConditions"].as_array().into_iter().flatten();
    conditions.map(|condition| bool_program(env, text(condition, "expression"))).collect()
}

/// An expression that gives a bool.
pub(super) fn bool_program(env: &Env, expression: &str) -> Result<Program, String> {
    program(env, expression, &Type::Bool)
}

/// An expression that gives this type.
pub(super) fn program(env: &Env, expression: &str, expected: &Type) -> Result<Program, String> {
    let program = env.compile(expression).map_err(|errors| format!("compilation failed: {errors}"))?;
    if program.output().is_dyn() || program.output() == expected {
        return Ok(program);
    }
    Err(format!("compilation failed: must evaluate to {expected}"))
}

/// Whether all conditions hold. One that is false decides, whatever others fail.
pub(super) fn conditions_hold<'a>(
    conditions: &Result<Vec<Program>, String>,
    activation: &dyn Activation<'a>,
    budget: &mut Budget,
) -> Result<bool, String> {
    let mut own = Budget::new(cel::MATCH_CONDITIONS_COST_MAX.min(budget.left()));
    let mut failed = None;
    for condition in conditions.as_ref().map_err(Clone::clone)? {
        match condition.evaluate(activation, &mut own) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => failed = failed.or(Some("match condition must evaluate to bool".to_owned())),
            Err(error) => failed = failed.or(Some(error.to_string())),
        }
    }
    failed.map_or(Ok(true), Err)
}

/// Answers questions about permissions as the pipeline would.
struct Authorizer {
    server: Arc<Server>,
    who: Identity,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "authorizer of {}", self.who.name)
    }
}

impl cel::Authorizer for Authorizer {
    fn decide(&self, question: &Question) -> Decision {
        let account;
        let who = match &question.subject {
            Subject::Requester => &self.who,
            Subject::ServiceAccount(namespace, name) => {
                account = Identity::service_account(namespace, name, "");
                &account
            }
        };
        let asked = match &question.path {
            Some(path) => Asked::Path { verb: &question.verb, path },
            None => Asked::Object(AskedObject {
                verb: &question.verb,
                group: &question.group,
                resource: &question.resource,
                sub: &question.subresource,
                namespace: &question.namespace,
                name: &question.name,
            }),
        };
        match may(&self.server, who, &asked) {
            Ok(grounds) => Decision { allowed: true, reason: grounds.to_string(), error: String::new() },
            Err(why) => Decision { allowed: false, reason: why, error: String::new() },
        }
    }
}
