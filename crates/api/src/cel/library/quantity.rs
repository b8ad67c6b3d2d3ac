//! Quantities, such as `1.5Gi`.
//!
//! Source: Kubernetes "CEL in Kubernetes", quantity library.

use super::super::cost::{Charge, Grow};
use super::super::opaque::Opaque;
use super::super::value::Value;
use super::args::Args;
use super::{Answer, Row, failed, no_overload};
use crate::quantity::{Notation, Quantity};
use Charge::One;

const READ: Charge = Charge::Scan(0, 1, Grow::Unknown);

pub(super) const ROWS: &[Row] = &[
    Row("quantity(string) -> quantity", READ, |_, args| match args.text(0)?.parse() {
        Ok(quantity) => give(quantity),
        Err(why) => failed(why.to_string()),
    }),
    Row("isQuantity(string) -> bool", READ, |_, args| Ok(Value::Bool(args.text(0)?.parse::<Quantity>().is_ok()))),
    Row("<quantity>.isInteger() -> bool", One, |_, args| Ok(Value::Bool(whole(take(args, 0)?).is_some()))),
    Row("<quantity>.asInteger() -> int", One, |_, args| {
        whole(take(args, 0)?).map_or_else(|| failed("cannot convert value to integer"), |units| Ok(Value::Int(units)))
    }),
    Row("<quantity>.asApproximateFloat() -> double", One, |_, args| Ok(Value::Double(take(args, 0)?.approximate()))),
    Row("<quantity>.sign() -> int", One, |_, args| Ok(Value::Int(take(args, 0)?.cmp(&Quantity::ZERO) as i64))),
    Row("<quantity>.isGreaterThan(quantity) -> bool", One, |_, args| Ok(Value::Bool(take(args, 0)? > take(args, 1)?))),
    Row("<quantity>.isLessThan(quantity) -> bool", One, |_, args| Ok(Value::Bool(take(args, 0)? < take(args, 1)?))),
    Row("<quantity>.compareTo(quantity) -> int", One, |_, args| {
        Ok(Value::Int(take(args, 0)?.cmp(&take(args, 1)?) as i64))
    }),
    Row("<quantity>.add(quantity) -> quantity", One, |_, args| give(take(args, 0)? + take(args, 1)?)),
    Row("<quantity>.add(int) -> quantity", One, |_, args| give(take(args, 0)? + units(args.int(1)?))),
    Row("<quantity>.sub(quantity) -> quantity", One, |_, args| give(take(args, 0)? - take(args, 1)?)),
    Row("<quantity>.sub(int) -> quantity", One, |_, args| give(take(args, 0)? - units(args.int(1)?))),
];

fn give<'a>(quantity: Quantity) -> Answer<'a> {
    Ok(Value::Opaque(Opaque::Quantity(quantity)))
}

fn take(args: &[Value], at: usize) -> Result<Quantity, super::super::EvalError> {
    match args.opaque(at)? {
        Opaque::Quantity(quantity) => Ok(*quantity),
        _ => Err(no_overload()),
    }
}

fn units(units: i64) -> Quantity {
    Quantity::from_units(units, Notation::Decimal)
}

/// The units, if there is no fraction.
fn whole(quantity: Quantity) -> Option<i64> {
    Some(quantity.units()).filter(|whole| units(*whole) == quantity)
}
