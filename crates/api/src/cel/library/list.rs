//! Lists: the Kubernetes list library, and of the lists extension `distinct`, `flatten`, `reverse`, `slice`, `sort`,
//! what `sortBy` is read as, `lists.range`, `first` and `last`.
//!
//! Source: Kubernetes "CEL in Kubernetes", list library; the lists extension.

use std::cmp::Ordering;

use super::super::budget::EvalError;
use super::super::compare::{equal, order, position};
use super::super::cost::Charge::{self, One, Walk};
use super::super::cost::Grow;
use super::super::value::{List, Value};
use super::args::Args;
use super::{Answer, Context, Row, failed, find_overloads, no_overload, takes};

/// Numbers that `lists.range` makes.
const RANGE_MAX: i64 = 100_000;
const SAME: Charge = Charge::Scan(0, 10, Grow::Same);

pub(super) const ROWS: &[Row] = &[
    Row(
        "<list(int)|list(uint)|list(double)|list(bool)|list(string)|list(bytes)|list(timestamp)|list(duration)>.isSorted() \
         -> bool",
        Walk,
        |_, args| {
            let items: Vec<Value> = args.list(0)?.iter().collect();
            for pair in items.windows(2) {
                if order(&pair[0], &pair[1]).ok_or_else(no_overload)?.is_gt() {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        },
    ),
    Row("<list(int)>.sum() -> int", Walk, |context, args| sum(context, args, Value::Int(0))),
    Row("<list(uint)>.sum() -> uint", Walk, |context, args| sum(context, args, Value::Uint(0))),
    Row("<list(double)>.sum() -> double", Walk, |context, args| sum(context, args, Value::Double(0.0))),
    Row("<list(duration)>.sum() -> duration", Walk, |context, args| sum(context, args, Value::Duration(0))),
    Row("<list(int)>.min() -> int", Walk, least),
    Row("<list(uint)>.min() -> uint", Walk, least),
    Row("<list(double)>.min() -> double", Walk, least),
    Row("<list(bool)>.min() -> bool", Walk, least),
    Row("<list(string)>.min() -> string", Walk, least),
    Row("<list(bytes)>.min() -> bytes", Walk, least),
    Row("<list(timestamp)>.min() -> timestamp", Walk, least),
    Row("<list(duration)>.min() -> duration", Walk, least),
    Row("<list(int)>.max() -> int", Walk, greatest),
    Row("<list(uint)>.max() -> uint", Walk, greatest),
    Row("<list(double)>.max() -> double", Walk, greatest),
    Row("<list(bool)>.max() -> bool", Walk, greatest),
    Row("<list(string)>.max() -> string", Walk, greatest),
    Row("<list(bytes)>.max() -> bytes", Walk, greatest),
    Row("<list(timestamp)>.max() -> timestamp", Walk, greatest),
    Row("<list(duration)>.max() -> duration", Walk, greatest),
    Row("<list(A)>.indexOf(A) -> int", Walk, |context, args| {
        let items: Vec<Value> = args.list(0)?.iter().collect();
        let at = position(args.value(1)?, &items, context.budget)?;
        Ok(Value::Int(at.map_or(-1, |at| at as i64)))
    }),
    Row("<list(A)>.lastIndexOf(A) -> int", Walk, |context, args| {
        let items: Vec<Value> = args.list(0)?.iter().collect();
        for (at, item) in items.iter().enumerate().rev() {
            if equal(item, args.value(1)?, context.budget)? {
                return Ok(Value::Int(at as i64));
            }
        }
        Ok(Value::Int(-1))
    }),
    Row("<list(A)>.distinct() -> list(A)", SAME, |context, args| {
        let mut kept: Vec<Value> = Vec::new();
        for item in args.list(0)?.iter() {
            if position(&item, &kept, context.budget)?.is_none() {
                kept.push(item);
            }
        }
        Ok(kept.into())
    }),
    Row("<list(A)>.reverse() -> list(A)", SAME, |_, args| {
        let mut items: Vec<Value> = args.list(0)?.iter().collect();
        items.reverse();
        Ok(items.into())
    }),
    Row("<list(A)>.sort() -> list(A)", SAME, |_, args| {
        let mut items: Vec<Value> = args.list(0)?.iter().collect();
        let alike = items.windows(2).all(|pair| order(&pair[0], &pair[1]).is_some());
        items.sort_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
        if alike { Ok(items.into()) } else { Err(no_overload()) }
    }),
    Row(
        "<list(A)>.@sortByAssociatedKeys(list(int)|list(uint)|list(double)|list(bool)|list(string)|list(bytes)|\
         list(timestamp)|list(duration)) -> list(A)",
        SAME,
        |_, args| {
            let keys: Vec<Value> = args.list(1)?.iter().collect();
            let alike = keys.windows(2).all(|pair| order(&pair[0], &pair[1]).is_some());
            let items = args.list(0)?;
            if !alike || keys.len() != items.len() {
                return Err(no_overload());
            }
            let mut pairs: Vec<(Value, Value)> = keys.into_iter().zip(items.iter()).collect();
            pairs.sort_by(|(a, _), (b, _)| order(a, b).unwrap_or(Ordering::Equal));
            Ok(pairs.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into())
        },
    ),
    Row("<list(A)>.slice(int, int) -> list(A)", SAME, |_, args| {
        let items: Vec<Value> = args.list(0)?.iter().collect();
        let (start, end) = (args.int(1)?, args.int(2)?);
        let bounds = (usize::try_from(start).ok(), usize::try_from(end).ok());
        match bounds {
            (Some(start), Some(end)) if start <= end && end <= items.len() => Ok(items[start..end].to_vec().into()),
            _ => failed(format!("cannot slice({start}, {end}), list is length {}", items.len())),
        }
    }),
    Row("<list(list(A))>.flatten() -> list(A)", SAME, |context, args| {
        let mut flat = Vec::new();
        for item in args.list(0)?.iter() {
            match item {
                Value::List(inner) => {
                    context.budget.work(inner.len() as u64)?;
                    flat.extend(inner.iter());
                }
                other => flat.push(other),
            }
        }
        Ok(flat.into())
    }),
    Row("<list(dyn)>.flatten(int) -> list(dyn)", SAME, |context, args| {
        let depth = args.int(1)?;
        if depth < 0 {
            return failed("level must be non-negative");
        }
        let mut flat = Vec::new();
        flatten(args.list(0)?, depth, &mut flat, context)?;
        Ok(flat.into())
    }),
    Row("<list(A)>.first() -> optional(A)", One, |_, args| Ok(ends(args.list(0)?, |_| 0))),
    Row("<list(A)>.last() -> optional(A)", One, |_, args| Ok(ends(args.list(0)?, |length| length.wrapping_sub(1)))),
    Row("lists.range(int) -> list(int)", One, |context, args| {
        let end = args.int(0)?;
        if !(0..=RANGE_MAX).contains(&end) {
            return failed(format!("lists.range takes 0 to {RANGE_MAX}, found {end}"));
        }
        context.budget.work(end.unsigned_abs())?;
        Ok((0..end).map(Value::Int).collect::<Vec<_>>().into())
    }),
];

/// Lists inside lists, so many deep. Data is not deeper than readers allow.
fn flatten<'a>(list: &List<'a>, depth: i64, flat: &mut Vec<Value<'a>>, context: &mut Context) -> Result<(), EvalError> {
    context.budget.work(list.len() as u64)?;
    for item in list.iter() {
        match item {
            Value::List(inner) if depth > 0 => flatten(&inner, depth - 1, flat, context)?,
            other => flat.push(other),
        }
    }
    Ok(())
}

fn ends<'a>(list: &List<'a>, at: fn(usize) -> usize) -> Value<'a> {
    list.get(at(list.len())).map_or(Value::NONE, Value::some)
}

fn sum<'a>(context: &mut Context<'_>, args: &[Value<'a>], zero: Value<'a>) -> Answer<'a> {
    let mut total = zero;
    for item in args.list(0)?.iter() {
        let pair = [total, item];
        let plus = find_overloads("_+_", false)
            .iter()
            .find(|overload| overload.params.iter().zip(&pair).all(|(param, value)| takes(param, value)));
        total = (plus.ok_or_else(no_overload)?.run)(context, &pair)?;
    }
    Ok(total)
}

fn least<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    extreme(args.list(0)?, "min", Ordering::Less)
}

fn greatest<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    extreme(args.list(0)?, "max", Ordering::Greater)
}

fn extreme<'a>(list: &List<'a>, what: &str, wanted: Ordering) -> Answer<'a> {
    let mut items = list.iter();
    let Some(mut best) = items.next() else { return failed(format!("{what} called on empty list")) };
    for item in items {
        if order(&item, &best).ok_or_else(no_overload)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

/// How much a walk over a value costs: a tenth of a unit a character, a unit for what has no parts.
pub(in super::super) fn walk_cost(value: &Value, context: &mut Context) -> Result<u64, EvalError> {
    match value {
        Value::String(_) | Value::Bytes(_) => {
            // short texts are free, but many of them are not
            context.budget.work(1)?;
            Ok(value.size() / 10)
        }
        Value::List(list) => {
            let mut cost = 0u64;
            for item in list.iter() {
                cost = cost.saturating_add(walk_cost(&item, context)?);
            }
            Ok(cost)
        }
        _ => Ok(1),
    }
}
