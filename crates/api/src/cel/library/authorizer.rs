//! Questions about permissions, put together step by step:
//! `authorizer.group('apps').resource('deployments').namespace('x').check('create').allowed()`.
//!
//! Source: Kubernetes "CEL in Kubernetes", authorizer library.

use std::sync::Arc;

use super::super::authorizer::{Question, Subject};
use super::super::budget::EvalError;
use super::super::cost::Charge::{Fixed, One};
use super::super::opaque::{Check, Opaque};
use super::super::value::Value;
use super::args::{Args, give};
use super::{Answer, Row, failed, no_overload};

/// Units of one question: the answer may take a walk over all roles.
const CHECK_COST: u64 = 350_000;

pub(super) const ROWS: &[Row] = &[
    Row("<authorizer>.path(string) -> path_check", One, |_, args| {
        let path = args.text(1)?;
        if path.is_empty() {
            return failed("path must not be empty");
        }
        let set = |question: &mut Question, path: String| question.path = Some(path);
        step(args, set, Opaque::PathCheck)
    }),
    Row("<authorizer>.group(string) -> group_check", One, |_, args| {
        step(args, |question, group| question.group = group, Opaque::GroupCheck)
    }),
    Row("<authorizer>.serviceAccount(string, string) -> authorizer", One, |_, args| {
        let (namespace, name) = (args.text(1)?.to_string(), args.text(2)?.to_string());
        for errors in [crate::name::label(&namespace), crate::name::subdomain(&name)] {
            if !errors.is_empty() {
                return failed(format!("Invalid service account: {}", errors.join(", ")));
            }
        }
        let mut check = take(args)?;
        Arc::make_mut(&mut check.question).subject = Subject::ServiceAccount(namespace, name);
        Ok(Value::Opaque(Opaque::Subject(check)))
    }),
    Row("<group_check>.resource(string) -> resource_check", One, |_, args| {
        step(args, |question, resource| question.resource = resource, Opaque::ResourceCheck)
    }),
    Row("<resource_check>.subresource(string) -> resource_check", One, |_, args| {
        step(args, |question, subresource| question.subresource = subresource, Opaque::ResourceCheck)
    }),
    Row("<resource_check>.namespace(string) -> resource_check", One, |_, args| {
        step(args, |question, namespace| question.namespace = namespace, Opaque::ResourceCheck)
    }),
    Row("<resource_check>.name(string) -> resource_check", One, |_, args| {
        step(args, |question, name| question.name = name, Opaque::ResourceCheck)
    }),
    Row("<resource_check>.fieldSelector(string) -> resource_check", One, |_, args| {
        step(args, |question, selector| question.field_selector = Some(selector), Opaque::ResourceCheck)
    }),
    Row("<resource_check>.labelSelector(string) -> resource_check", One, |_, args| {
        step(args, |question, selector| question.label_selector = Some(selector), Opaque::ResourceCheck)
    }),
    Row("<path_check>.check(string) -> decision", Fixed(CHECK_COST), |_, args| ask(args)),
    Row("<resource_check>.check(string) -> decision", Fixed(CHECK_COST), |_, args| ask(args)),
    Row("<decision>.allowed() -> bool", One, |_, args| match args.opaque(0)? {
        Opaque::Decision(decision) => Ok(Value::Bool(decision.allowed)),
        _ => Err(no_overload()),
    }),
    Row("<decision>.reason() -> string", One, |_, args| match args.opaque(0)? {
        Opaque::Decision(decision) => give(decision.reason.as_str()),
        _ => Err(no_overload()),
    }),
    Row("<decision>.errored() -> bool", One, |_, args| match args.opaque(0)? {
        Opaque::Decision(decision) => Ok(Value::Bool(!decision.error.is_empty())),
        _ => Err(no_overload()),
    }),
    Row("<decision>.error() -> string", One, |_, args| match args.opaque(0)? {
        Opaque::Decision(decision) => give(decision.error.as_str()),
        _ => Err(no_overload()),
    }),
];

/// The question so far.
fn take<'a>(args: &[Value<'a>]) -> Result<Check<'a>, EvalError> {
    match args.opaque(0)? {
        Opaque::Authorizer(authorizer) => Ok(Check { authorizer: *authorizer, question: Arc::default() }),
        Opaque::Subject(check)
        | Opaque::PathCheck(check)
        | Opaque::GroupCheck(check)
        | Opaque::ResourceCheck(check) => Ok(check.clone()),
        _ => Err(no_overload()),
    }
}

fn step<'a>(args: &[Value<'a>], set: fn(&mut Question, String), make: fn(Check<'a>) -> Opaque<'a>) -> Answer<'a> {
    let mut check = take(args)?;
    set(Arc::make_mut(&mut check.question), args.text(1)?.to_string());
    Ok(Value::Opaque(make(check)))
}

fn ask<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let mut check = take(args)?;
    Arc::make_mut(&mut check.question).verb = args.text(1)?.to_string();
    Ok(Value::Opaque(Opaque::Decision(Arc::new(check.authorizer.decide(&check.question)))))
}
