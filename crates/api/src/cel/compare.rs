//! Whether values are equal, and which comes first.
//!
//! Rules
//!   R1 numbers   compare by value across types
//!   R2 others    of different types are unequal, not an error
//!   R3 sets      lists declared as sets compare in any order; declared as maps, by their keys
//!   R4 charged   every item looked at is charged: lists of lists cannot be compared for the price of one
//!
//! Source: CEL language definition, "Equality" and "Ordering"; Kubernetes "CEL in Kubernetes", list types.

use std::cmp::Ordering;

use super::budget::{Budget, EvalError};
use super::types::Order;
use super::value::{List, Map, Object, Value};

/// R1-R4.
pub(super) fn equal(a: &Value, b: &Value, budget: &mut Budget) -> Result<bool, EvalError> {
    let same = match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => same_type(a, b),
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => return equal(a, b, budget),
        (Value::List(a), Value::List(b)) => return lists(a, b, budget),
        (Value::Map(a), Value::Map(b)) => return maps(a, b, budget),
        (Value::Object(a), Value::Object(b)) => return objects(a, b, budget),
        _ => numbers(a, b) == Some(Ordering::Equal),
    };
    Ok(same)
}

/// Types are told apart by what is outermost: `type([1]) == list`.
fn same_type(a: &super::Type, b: &super::Type) -> bool {
    use super::Type;
    match (a, b) {
        (Type::Object(_), Type::Object(_)) | (Type::Opaque(_), Type::Opaque(_)) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn lists(a: &List, b: &List, budget: &mut Budget) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if *a.order() != Order::Atomic && a.order() == b.order() {
        return unordered(a, b, budget);
    }
    for (a, b) in a.iter().zip(b.iter()) {
        budget.work(1)?;
        if !equal(&a, &b, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// R3.
fn unordered(a: &List, b: &List, budget: &mut Budget) -> Result<bool, EvalError> {
    let mut left: Vec<Value> = b.iter().collect();
    for item in a.iter() {
        let Some(at) = position(&item, &left, budget)? else { return Ok(false) };
        left.swap_remove(at);
    }
    Ok(true)
}

/// Where the first equal item is.
pub(super) fn position(item: &Value, among: &[Value], budget: &mut Budget) -> Result<Option<usize>, EvalError> {
    for (at, other) in among.iter().enumerate() {
        budget.work(1)?;
        if equal(item, other, budget)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn maps(a: &Map, b: &Map, budget: &mut Budget) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.entries() {
        budget.work(1)?;
        match b.get(&key) {
            Some(other) if equal(&value, &other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn objects(a: &Object, b: &Object, budget: &mut Budget) -> Result<bool, EvalError> {
    let (a_fields, b_fields) = (a.fields(), b.fields());
    if a.of().name() != b.of().name() || a_fields.len() != b_fields.len() {
        return Ok(false);
    }
    for (name, value) in a_fields {
        budget.work(1)?;
        match b_fields.iter().find(|(other, _)| *other == name) {
            Some((_, other)) if equal(&value, other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// R1; `None` for what is no number, and for NaN.
pub(super) fn numbers(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Int(a), Value::Double(b)) => whole_and_double(i128::from(*a), *b),
        (Value::Uint(a), Value::Double(b)) => whole_and_double(i128::from(*a), *b),
        (Value::Double(a), Value::Int(b)) => whole_and_double(i128::from(*b), *a).map(Ordering::reverse),
        (Value::Double(a), Value::Uint(b)) => whole_and_double(i128::from(*b), *a).map(Ordering::reverse),
        _ => None,
    }
}

fn whole_and_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // beyond 2^65 no 64-bit integer is larger
    if double.abs() > 36_893_488_147_419_103_232.0 {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order == Ordering::Equal && double > floor { Ordering::Less } else { order })
}

/// Which comes first; `None` for what has no order.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        _ => numbers(a, b),
    }
}
