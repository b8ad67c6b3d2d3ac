//! Lists as sets.
//!
//! Source: the sets extension.

use super::super::budget::EvalError;
use super::super::compare::position;
use super::super::cost::Charge::Product;
use super::super::value::{List, Value};
use super::args::Args;
use super::{Context, Row};

pub(super) const ROWS: &[Row] = &[
    Row("sets.contains(list(A), list(A)) -> bool", Product, |context, args| {
        Ok(Value::Bool(contains(args.list(0)?, args.list(1)?, context)?))
    }),
    Row("sets.equivalent(list(A), list(A)) -> bool", Product, |context, args| {
        let (a, b) = (args.list(0)?, args.list(1)?);
        Ok(Value::Bool(contains(a, b, context)? && contains(b, a, context)?))
    }),
    Row("sets.intersects(list(A), list(A)) -> bool", Product, |context, args| {
        let all: Vec<Value> = args.list(0)?.iter().collect();
        for item in args.list(1)?.iter() {
            if position(&item, &all, context.budget)?.is_some() {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
];

/// Whether every item of `part` is in `all`.
fn contains(all: &List, part: &List, context: &mut Context) -> Result<bool, EvalError> {
    let all: Vec<Value> = all.iter().collect();
    for item in part.iter() {
        if position(&item, &all, context.budget)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
