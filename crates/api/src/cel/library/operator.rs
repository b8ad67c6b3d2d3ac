//! Operators: arithmetic, order, equality, membership, concatenation. `&&`, `||`, `?:`, indices and what
//! collects maps are rows for the checker only; `evaluate` runs them itself.
//!
//! Rules
//!   R1 overflow  integers, spans and moments that leave their range are failures, not wrapped
//!   R2 zero      division by zero is a failure for integers and infinite for floating point
//!
//! Source: CEL language definition, "List of Standard Definitions".

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::budget::EvalError;
use super::super::compare::{equal, order, position};
use super::super::cost::{Charge, Grow};
use super::super::types::Order;
use super::super::value::{List, Text, Value};
use super::args::{Args, give, room};
use super::{Answer, Context, Row, failed, no_overload, time};
use Charge::{Compare, Concat, ConcatList, InList, One};

/// Items of a list that an expression may build.
const ITEMS_MAX: usize = 1_000_000;

/// Rows that `evaluate` runs itself.
fn never<'a>(_: &mut Context<'_>, _: &[Value<'a>]) -> Answer<'a> {
    Err(no_overload())
}

pub(super) const ROWS: &[Row] = &[
    Row("_&&_(bool, bool) -> bool", One, never),
    Row("_||_(bool, bool) -> bool", One, never),
    Row("_?_:_(bool, A, A) -> A", One, never),
    Row("@not_strictly_false(bool) -> bool", One, never),
    Row("_[_](list(A), int) -> A", One, never),
    Row("_[_](map(A, B), A) -> B", One, never),
    Row("_[_](optional(list(A)), int) -> optional(A)", One, never),
    Row("_[_](optional(map(A, B)), A) -> optional(B)", One, never),
    Row("_[?_](list(A), int) -> optional(A)", One, never),
    Row("_[?_](map(A, B), A) -> optional(B)", One, never),
    Row("_[?_](optional(list(A)), int) -> optional(A)", One, never),
    Row("_[?_](optional(map(A, B)), A) -> optional(B)", One, never),
    Row("!_(bool) -> bool", One, |_, args| Ok(Value::Bool(!args.bool(0)?))),
    Row("_==_(A, A) -> bool", Compare, |context, args| {
        Ok(Value::Bool(equal(args.value(0)?, args.value(1)?, context.budget)?))
    }),
    Row("_!=_(A, A) -> bool", Compare, |context, args| {
        Ok(Value::Bool(!equal(args.value(0)?, args.value(1)?, context.budget)?))
    }),
    Row("_<_(int|uint|double, int|uint|double) -> bool", One, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_(int|uint|double, int|uint|double) -> bool", One, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_(int|uint|double, int|uint|double) -> bool", One, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_(int|uint|double, int|uint|double) -> bool", One, |_, args| ordered(args, Ordering::is_ge)),
    Row("_<_(bool, bool) -> bool", One, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_(bool, bool) -> bool", One, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_(bool, bool) -> bool", One, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_(bool, bool) -> bool", One, |_, args| ordered(args, Ordering::is_ge)),
    Row("_<_(string, string) -> bool", Compare, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_(string, string) -> bool", Compare, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_(string, string) -> bool", Compare, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_(string, string) -> bool", Compare, |_, args| ordered(args, Ordering::is_ge)),
    Row("_<_(bytes, bytes) -> bool", Compare, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_(bytes, bytes) -> bool", Compare, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_(bytes, bytes) -> bool", Compare, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_(bytes, bytes) -> bool", Compare, |_, args| ordered(args, Ordering::is_ge)),
    Row("_<_(timestamp, timestamp) -> bool", One, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_(timestamp, timestamp) -> bool", One, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_(timestamp, timestamp) -> bool", One, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_(timestamp, timestamp) -> bool", One, |_, args| ordered(args, Ordering::is_ge)),
    Row("_<_(duration, duration) -> bool", One, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_(duration, duration) -> bool", One, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_(duration, duration) -> bool", One, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_(duration, duration) -> bool", One, |_, args| ordered(args, Ordering::is_ge)),
    Row("_+_(int, int) -> int", One, |_, args| int(args.int(0)?.checked_add(args.int(1)?))),
    Row("_+_(uint, uint) -> uint", One, |_, args| uint(args.uint(0)?.checked_add(args.uint(1)?))),
    Row("_+_(double, double) -> double", One, |_, args| Ok(Value::Double(args.double(0)? + args.double(1)?))),
    Row("_+_(string, string) -> string", Concat, |_, args| {
        let (a, b) = (args.text(0)?, args.text(1)?);
        room(a.len() + b.len())?;
        give([&**a, &**b].concat())
    }),
    Row("_+_(bytes, bytes) -> bytes", Concat, |_, args| match (args.value(0)?, args.value(1)?) {
        (Value::Bytes(a), Value::Bytes(b)) => {
            room(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        _ => Err(no_overload()),
    }),
    Row("_+_(list(A), list(A)) -> list(A)", ConcatList, join_lists),
    Row("_+_(timestamp, duration) -> timestamp", One, |_, args| time::add(args.value(0)?, args.value(1)?)),
    Row("_+_(duration, timestamp) -> timestamp", One, |_, args| time::add(args.value(1)?, args.value(0)?)),
    Row("_+_(duration, duration) -> duration", One, |_, args| time::add(args.value(0)?, args.value(1)?)),
    Row("_-_(int, int) -> int", One, |_, args| int(args.int(0)?.checked_sub(args.int(1)?))),
    Row("_-_(uint, uint) -> uint", One, |_, args| uint(args.uint(0)?.checked_sub(args.uint(1)?))),
    Row("_-_(double, double) -> double", One, |_, args| Ok(Value::Double(args.double(0)? - args.double(1)?))),
    Row("_-_(timestamp, timestamp) -> duration", One, |_, args| time::subtract(args.value(0)?, args.value(1)?)),
    Row("_-_(timestamp, duration) -> timestamp", One, |_, args| time::subtract(args.value(0)?, args.value(1)?)),
    Row("_-_(duration, duration) -> duration", One, |_, args| time::subtract(args.value(0)?, args.value(1)?)),
    Row("_*_(int, int) -> int", One, |_, args| int(args.int(0)?.checked_mul(args.int(1)?))),
    Row("_*_(uint, uint) -> uint", One, |_, args| uint(args.uint(0)?.checked_mul(args.uint(1)?))),
    Row("_*_(double, double) -> double", One, |_, args| Ok(Value::Double(args.double(0)? * args.double(1)?))),
    Row("_/_(int, int) -> int", One, |_, args| match args.int(1)? {
        0 => failed("division by zero"),
        by => int(args.int(0)?.checked_div(by)),
    }),
    Row("_/_(uint, uint) -> uint", One, |_, args| match args.uint(1)? {
        0 => failed("division by zero"),
        by => Ok(Value::Uint(args.uint(0)? / by)),
    }),
    Row("_/_(double, double) -> double", One, |_, args| Ok(Value::Double(args.double(0)? / args.double(1)?))),
    Row("_%_(int, int) -> int", One, |_, args| match args.int(1)? {
        0 => failed("modulus by zero"),
        by => int(args.int(0)?.checked_rem(by)),
    }),
    Row("_%_(uint, uint) -> uint", One, |_, args| match args.uint(1)? {
        0 => failed("modulus by zero"),
        by => Ok(Value::Uint(args.uint(0)? % by)),
    }),
    Row("-_(int) -> int", One, |_, args| int(args.int(0)?.checked_neg())),
    Row("-_(double) -> double", One, |_, args| Ok(Value::Double(-args.double(0)?))),
    Row("@in(A, list(A)) -> bool", InList, |context, args| {
        let list = args.list(1)?;
        for item in list.iter() {
            if equal(args.value(0)?, &item, context.budget)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    Row("@in(A, map(A, B)) -> bool", One, |_, args| Ok(Value::Bool(args.map(1)?.has(args.value(0)?)))),
    Row("cel.@mapInsert(map(A, B), A, B) -> map(A, B)", One, never),
    Row("cel.@mapInsert(map(A, B), map(A, B)) -> map(A, B)", One, never),
    Row("strings.quote(string) -> string", Charge::Scan(0, 1, Grow::Twice), |_, args| {
        give(super::show::quote(args.text(0)?))
    }),
];

fn ordered<'a>(args: &[Value<'a>], is: fn(Ordering) -> bool) -> Answer<'a> {
    // NaN has no order: every comparison with it is false
    Ok(Value::Bool(order(args.value(0)?, args.value(1)?).is_some_and(is)))
}

/// R1.
fn int<'a>(result: Option<i64>) -> Answer<'a> {
    result.map(Value::Int).ok_or_else(|| EvalError::Failed("integer overflow".to_owned()))
}

/// R1.
fn uint<'a>(result: Option<u64>) -> Answer<'a> {
    result.map(Value::Uint).ok_or_else(|| EvalError::Failed("unsigned integer overflow".to_owned()))
}

/// Joins lists as their order says: sets take what is new, lists with keys replace items of equal keys.
fn join_lists<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    let (a, b) = (args.list(0)?, args.list(1)?);
    let total = a.len() + b.len();
    if total > ITEMS_MAX {
        return failed(format!("list exceeds {ITEMS_MAX} items"));
    }
    context.budget.work(total as u64)?;
    let mut items: Vec<Value> = a.iter().collect();
    match a.order() {
        Order::Atomic => items.extend(b.iter()),
        Order::Set => {
            for item in b.iter() {
                if position(&item, &items, context.budget)?.is_none() {
                    items.push(item);
                }
            }
        }
        Order::Keyed(keys) => {
            for item in b.iter() {
                match keyed(&item, &items, keys, context)? {
                    Some(at) => items[at] = item,
                    None => items.push(item),
                }
            }
        }
    }
    Ok(Value::List(List::Built(Arc::new(items), a.order().clone())))
}

fn keyed(item: &Value, among: &[Value], keys: &[String], context: &mut Context) -> Result<Option<usize>, EvalError> {
    let key = |of: &Value| -> Value<'static> {
        let texts = keys.iter().map(|key| super::show::show(&field(of, key)));
        Value::String(Text::Owned(texts.collect::<Vec<_>>().join("\u{0}").into()))
    };
    let keys_of: Vec<Value> = among.iter().map(key).collect();
    position(&key(item), &keys_of, context.budget)
}

fn field<'a>(of: &Value<'a>, json: &str) -> Value<'a> {
    match of {
        Value::Object(object) => {
            object.fields().into_iter().find(|(name, _)| name == json).map_or(Value::Null, |(_, value)| value)
        }
        Value::Map(map) => map.get_str(json).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}
