//! Optionals: values that may not be there.
//!
//! Source: the optional types extension.

use super::super::cost::Charge::One;
use super::super::value::Value;
use super::args::Args;
use super::{Answer, Row, failed, no_overload};

pub(super) const ROWS: &[Row] = &[
    Row("optional.of(A) -> optional(A)", One, |_, args| Ok(Value::some(args.value(0)?.clone()))),
    Row("optional.ofNonZeroValue(A) -> optional(A)", One, |_, args| {
        let value = args.value(0)?;
        Ok(if is_zero(value) { Value::NONE } else { Value::some(value.clone()) })
    }),
    Row("optional.none() -> optional(A)", One, |_, _| Ok(Value::NONE)),
    Row("<optional(A)>.hasValue() -> bool", One, |_, args| match args.value(0)? {
        Value::Optional(held) => Ok(Value::Bool(held.is_some())),
        _ => Err(no_overload()),
    }),
    Row("<optional(A)>.value() -> A", One, |_, args| match args.value(0)? {
        Value::Optional(Some(held)) => Ok((**held).clone()),
        _ => failed("optional.none() dereference"),
    }),
    Row("<optional(A)>.or(optional(A)) -> optional(A)", One, or),
    Row("<optional(A)>.orValue(A) -> A", One, |_, args| match args.value(0)? {
        Value::Optional(Some(held)) => Ok((**held).clone()),
        _ => args.value(1).cloned(),
    }),
];

fn or<'a>(_: &mut super::Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    match args.value(0)? {
        Value::Optional(None) => args.value(1).cloned(),
        held => Ok(held.clone()),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(bool) => !bool,
        Value::Int(int) => *int == 0,
        Value::Uint(uint) => *uint == 0,
        Value::Double(double) => *double == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Object(object) => object.fields().is_empty(),
        Value::Duration(nanos) => *nanos == 0,
        Value::Optional(held) => held.is_none(),
        Value::Timestamp(_) | Value::Type(_) | Value::Opaque(_) => false,
    }
}
