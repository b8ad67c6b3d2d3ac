//! What the expressions of a policy see, and how its validations are run.

use std::cell::RefCell;

use serde_json::Value as Json;
use windlass_api::cel::{self, Activation, Budget, EvalError, Value};

use super::Failure;
use super::compiled::{Policy, Validating};
use crate::admit::event::Event;
use crate::admit::surroundings::{Surroundings, conditions_hold};
use crate::server::Call;

/// Characters of a message that an expression makes.
const MESSAGE_CHARS_MAX: usize = 5 * 1024;

/// The variables of a policy, evaluated when they are first used.
pub(super) struct Scope<'a> {
    policy: &'a Policy,
    around: &'a Surroundings<'a>,
    used: RefCell<Vec<Option<Result<Value<'a>, EvalError>>>>,
}

impl<'a> Scope<'a> {
    pub fn new(policy: &'a Policy, around: &'a Surroundings<'a>) -> Scope<'a> {
        let variables = policy.variables.as_ref().map_or(0, Vec::len);
        Scope { policy, around, used: RefCell::new(vec![None; variables]) }
    }

    /// Whether all match conditions hold. One that is false decides, whatever others fail.
    pub fn conditions_hold(&self, budget: &mut Budget) -> Result<bool, Failure> {
        conditions_hold(&self.policy.conditions, self, budget).map_err(Failure)
    }
}

impl<'a> Activation<'a> for Scope<'a> {
    fn variable(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        self.around.get(name).map(Ok)
    }

    fn field(&self, variable: &str, field: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        if variable != "variables" {
            return None;
        }
        let variables = self.policy.variables.as_ref().ok()?;
        let at = variables.iter().position(|(name, _)| name == field)?;
        let known = self.used.borrow().get(at).cloned().flatten();
        if known.is_some() {
            return known;
        }
        let value = variables[at].1.evaluate(self, budget);
        if let Some(slot) = self.used.borrow_mut().get_mut(at) {
            *slot = Some(value.clone());
        }
        Some(value)
    }
}

/// Runs a policy's validations; tells of each that does not hold, with its message.
pub(super) fn check(
    call: Call<'_>,
    policy: &Policy,
    event: Event,
    param: &Json,
    mut tell: impl FnMut(&Validating, &str),
) -> Result<(), Failure> {
    let around = Surroundings::of(call, event, param);
    let scope = Scope::new(policy, &around);
    let mut budget = Budget::new(cel::OBJECT_COST_MAX);
    if !scope.conditions_hold(&mut budget)? {
        return Ok(());
    }
    policy.variables.as_ref().map_err(Failure::new)?;
    let mut failed = None;
    for validation in policy.validations.as_ref().map_err(Failure::new)? {
        match validation.expression.evaluate(&scope, &mut budget) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => tell(validation, &message(validation, &scope, &mut budget)),
            Ok(_) => failed = failed.or(Some(Failure("validation must evaluate to bool".to_owned()))),
            Err(error) => {
                let why = format!("{}: {error}", validation.message);
                failed = failed.or(Some(Failure(why)));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The message of a validation that does not hold: what its expression gives, if that is a line of text.
fn message<'a>(validation: &Validating, scope: &Scope<'a>, budget: &mut Budget) -> String {
    let made = validation.message_expression.as_ref().and_then(|program| program.evaluate(scope, budget).ok());
    let made = made.as_ref().and_then(|value| value.as_str()).map(str::trim).unwrap_or_default();
    let fits = !made.is_empty() && !made.contains('\n') && made.chars().count() <= MESSAGE_CHARS_MAX;
    if fits { made.to_owned() } else { validation.message.clone() }
}
