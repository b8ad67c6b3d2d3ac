//! What a call costs, now that its arguments and result are there.

use super::super::budget::EvalError;
use super::super::library::{Context, walk_cost};
use super::super::value::Value;
use super::{Charge, PATTERN, SCAN, part};

/// Charges for a call. Costs that depend on the result are charged after it, so results are bounded by themselves.
pub(in super::super) fn charge(
    charge: Charge,
    args: &[Value],
    result: Option<&Value>,
    context: &mut Context,
) -> Result<(), EvalError> {
    let size = |at: usize| args.get(at).map_or(0, Value::size);
    let units = match (charge, result) {
        (Charge::Result(times), Some(result)) => part(result.size().saturating_mul(times), SCAN),
        (Charge::Result(_), None) | (_, Some(_)) => 0,
        (Charge::One | Charge::ConcatList, None) => 1,
        (Charge::Fixed(units), None) => units,
        (Charge::Scan(at, times, _), None) => part(size(at).saturating_mul(times), SCAN),
        (Charge::Walk, None) => match args.first() {
            Some(value) => walk_cost(value, context)?,
            None => 0,
        },
        (Charge::Compare, None) => part(size(0).min(size(1)), SCAN),
        (Charge::Concat, None) => part(size(0).saturating_add(size(1)), SCAN),
        (Charge::InList, None) => size(1),
        (Charge::Pattern, None) => part(size(0).saturating_add(1), SCAN).saturating_mul(part(size(1), PATTERN)),
        (Charge::Contains, None) => part(size(0), SCAN).saturating_mul(part(size(1), SCAN)),
        (Charge::Product, None) => size(0).saturating_mul(size(1)),
    };
    context.budget.charge(units)
}
