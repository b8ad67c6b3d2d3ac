//! Numbers: greatest and least, rounding, signs, bits.
//!
//! Source: the math extension.

use std::cmp::Ordering;

use super::super::compare::numbers;
use super::super::cost::Charge::{One, Walk};
use super::super::value::Value;
use super::args::Args;
use super::{Answer, Context, Row, failed, no_overload};

pub(super) const ROWS: &[Row] = &[
    Row("math.greatest(int) -> int", One, greatest),
    Row("math.greatest(uint) -> uint", One, greatest),
    Row("math.greatest(double) -> double", One, greatest),
    Row("math.greatest(int, int) -> int", One, greatest),
    Row("math.greatest(uint, uint) -> uint", One, greatest),
    Row("math.greatest(double, double) -> double", One, greatest),
    Row("math.greatest(int, uint|double) -> dyn", One, greatest),
    Row("math.greatest(uint, int|double) -> dyn", One, greatest),
    Row("math.greatest(double, int|uint) -> dyn", One, greatest),
    Row("math.greatest(int|uint|double, int|uint|double, int|uint|double) -> dyn", One, greatest),
    Row("math.greatest(list(int)) -> int", Walk, greatest),
    Row("math.greatest(list(uint)) -> uint", Walk, greatest),
    Row("math.greatest(list(double)) -> double", Walk, greatest),
    Row("math.least(int) -> int", One, least),
    Row("math.least(uint) -> uint", One, least),
    Row("math.least(double) -> double", One, least),
    Row("math.least(int, int) -> int", One, least),
    Row("math.least(uint, uint) -> uint", One, least),
    Row("math.least(double, double) -> double", One, least),
    Row("math.least(int, uint|double) -> dyn", One, least),
    Row("math.least(uint, int|double) -> dyn", One, least),
    Row("math.least(double, int|uint) -> dyn", One, least),
    Row("math.least(int|uint|double, int|uint|double, int|uint|double) -> dyn", One, least),
    Row("math.least(list(int)) -> int", Walk, least),
    Row("math.least(list(uint)) -> uint", Walk, least),
    Row("math.least(list(double)) -> double", Walk, least),
    Row("math.ceil(double) -> double", One, |_, args| Ok(Value::Double(args.double(0)?.ceil()))),
    Row("math.floor(double) -> double", One, |_, args| Ok(Value::Double(args.double(0)?.floor()))),
    Row("math.round(double) -> double", One, |_, args| Ok(Value::Double(args.double(0)?.round()))),
    Row("math.trunc(double) -> double", One, |_, args| Ok(Value::Double(args.double(0)?.trunc()))),
    Row("math.sqrt(double) -> double", One, |_, args| Ok(Value::Double(args.double(0)?.sqrt()))),
    Row("math.sqrt(int) -> double", One, |_, args| Ok(Value::Double((args.int(0)? as f64).sqrt()))),
    Row("math.sqrt(uint) -> double", One, |_, args| Ok(Value::Double((args.uint(0)? as f64).sqrt()))),
    Row("math.abs(int) -> int", One, |_, args| {
        args.int(0)?.checked_abs().map_or_else(|| failed("integer overflow"), |int| Ok(Value::Int(int)))
    }),
    Row("math.abs(uint) -> uint", One, |_, args| Ok(Value::Uint(args.uint(0)?))),
    Row("math.abs(double) -> double", One, |_, args| Ok(Value::Double(args.double(0)?.abs()))),
    Row("math.sign(int) -> int", One, |_, args| Ok(Value::Int(args.int(0)?.signum()))),
    Row("math.sign(uint) -> uint", One, |_, args| Ok(Value::Uint(u64::from(args.uint(0)? > 0)))),
    Row("math.sign(double) -> double", One, |_, args| {
        let double = args.double(0)?;
        Ok(Value::Double(if double == 0.0 || double.is_nan() { double } else { double.signum() }))
    }),
    Row("math.isInf(double) -> bool", One, |_, args| Ok(Value::Bool(args.double(0)?.is_infinite()))),
    Row("math.isNaN(double) -> bool", One, |_, args| Ok(Value::Bool(args.double(0)?.is_nan()))),
    Row("math.isFinite(double) -> bool", One, |_, args| Ok(Value::Bool(args.double(0)?.is_finite()))),
    Row("math.bitAnd(int, int) -> int", One, |_, args| Ok(Value::Int(args.int(0)? & args.int(1)?))),
    Row("math.bitAnd(uint, uint) -> uint", One, |_, args| Ok(Value::Uint(args.uint(0)? & args.uint(1)?))),
    Row("math.bitOr(int, int) -> int", One, |_, args| Ok(Value::Int(args.int(0)? | args.int(1)?))),
    Row("math.bitOr(uint, uint) -> uint", One, |_, args| Ok(Value::Uint(args.uint(0)? | args.uint(1)?))),
    Row("math.bitXor(int, int) -> int", One, |_, args| Ok(Value::Int(args.int(0)? ^ args.int(1)?))),
    Row("math.bitXor(uint, uint) -> uint", One, |_, args| Ok(Value::Uint(args.uint(0)? ^ args.uint(1)?))),
    Row("math.bitNot(int) -> int", One, |_, args| Ok(Value::Int(!args.int(0)?))),
    Row("math.bitNot(uint) -> uint", One, |_, args| Ok(Value::Uint(!args.uint(0)?))),
    Row("math.bitShiftLeft(int, int) -> int", One, |_, args| {
        let by = shift(args.int(1)?)?;
        Ok(Value::Int(args.int(0)?.checked_shl(by).unwrap_or(0)))
    }),
    Row("math.bitShiftLeft(uint, int) -> uint", One, |_, args| {
        let by = shift(args.int(1)?)?;
        Ok(Value::Uint(args.uint(0)?.checked_shl(by).unwrap_or(0)))
    }),
    Row("math.bitShiftRight(int, int) -> int", One, |_, args| {
        // the sign is not kept: the bits are what is shifted
        let by = shift(args.int(1)?)?;
        Ok(Value::Int((args.int(0)? as u64).checked_shr(by).unwrap_or(0) as i64))
    }),
    Row("math.bitShiftRight(uint, int) -> uint", One, |_, args| {
        let by = shift(args.int(1)?)?;
        Ok(Value::Uint(args.uint(0)?.checked_shr(by).unwrap_or(0)))
    }),
];

fn shift(by: i64) -> Result<u32, super::super::EvalError> {
    match u32::try_from(by) {
        Ok(by) => Ok(by),
        Err(_) if by > 0 => Ok(u32::MAX),
        Err(_) => failed(format!("math.bitShift() negative offset: {by}")),
    }
}

fn greatest<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    extreme(args, Ordering::Greater)
}

fn least<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    extreme(args, Ordering::Less)
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering) -> Answer<'a> {
    let items: Vec<Value> = match args.value(0)? {
        Value::List(list) => list.iter().collect(),
        _ => args.to_vec(),
    };
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else { return failed("list must not be empty") };
    for item in items {
        if numbers(&item, &best).ok_or_else(no_overload)? == wanted {
            best = item;
        }
    }
    Ok(best)
}
