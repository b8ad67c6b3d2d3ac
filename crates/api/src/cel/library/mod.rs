//! The functions of the language and its libraries: one table row an overload, with its type, cost and code.
//!
//! A row is written as it is read: `Row("<string>.charAt(int) -> string", charge, code)`; `<…>` is the target of a
//! member function, capitals are types to be found, `a|b` stands for one row each.
//!
//! Not here    `has`, `all`, `map` … (macros) · the fields of objects (types)

pub(super) mod args;
pub(super) mod authorizer;
mod collection;
mod convert;
pub(super) mod format;
mod list;
mod math;
pub(super) mod names;
pub(super) mod net;
mod operator;
mod optional;
mod quantity;
pub(super) mod regex;
pub(super) mod semver;
mod set;
pub(super) mod show;
mod text;
pub(super) mod time;
pub(super) mod url;

pub(super) use collection::add;
pub(super) use list::walk_cost;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::budget::{Budget, EvalError};
use super::cost::Charge;
use super::types::Type;
use super::value::Value;

/// What a function gives.
pub(super) type Answer<'a> = Result<Value<'a>, EvalError>;
/// A function's code: its arguments, the target first.
pub(super) type Run = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Answer<'a>;

/// What functions may use beside their arguments.
pub(super) struct Context<'b> {
    pub budget: &'b mut Budget,
    pub patterns: regex::Patterns,
}

/// A function as it is written down.
pub(super) struct Row(pub &'static str, pub Charge, pub Run);

/// One overload of a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub function: &'static str,
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    /// How many types are to be found.
    pub letters: u32,
    pub charge: Charge,
    pub run: Run,
}

const LIBRARIES: [&[Row]; 16] = [
    operator::ROWS,
    convert::ROWS,
    collection::ROWS,
    text::ROWS,
    time::ROWS,
    optional::ROWS,
    list::ROWS,
    regex::ROWS,
    url::ROWS,
    quantity::ROWS,
    net::ROWS,
    format::ROWS,
    semver::ROWS,
    set::ROWS,
    math::ROWS,
    authorizer::ROWS,
];

/// Functions and member functions, by name.
type Index = [BTreeMap<&'static str, Vec<&'static Overload>>; 2];

fn index() -> &'static Index {
    static OVERLOADS: OnceLock<Vec<Overload>> = OnceLock::new();
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let overloads = OVERLOADS.get_or_init(|| LIBRARIES.into_iter().flatten().flat_map(names::read_row).collect());
        let mut index = Index::default();
        for overload in overloads {
            index[usize::from(overload.member)].entry(overload.function).or_default().push(overload);
        }
        index
    })
}

/// The overloads of a function.
pub(super) fn find_overloads(function: &str, member: bool) -> &'static [&'static Overload] {
    index()[usize::from(member)].get(function).map_or(&[], Vec::as_slice)
}

/// Whether there is such a function.
pub(super) fn has_function(function: &str, member: bool) -> bool {
    !find_overloads(function, member).is_empty()
}

/// The failure of a function that is not for these values.
pub(super) fn no_overload() -> EvalError {
    EvalError::Failed("no such overload".to_owned())
}

/// A failure with this sentence.
pub(super) fn failed<T>(why: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(why.into()))
}

/// Whether a value may be passed where this type is declared.
pub(super) fn takes(param: &Type, value: &Value) -> bool {
    match (param, value) {
        (Type::Dyn | Type::Param(_), _)
        | (Type::Null, Value::Null)
        | (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::String(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::List(_), Value::List(_))
        | (Type::Map(..), Value::Map(_))
        | (Type::Type(_), Value::Type(_)) => true,
        (Type::Optional(of), Value::Optional(value)) => value.as_ref().is_none_or(|value| takes(of, value)),
        (Type::Opaque(name), Value::Opaque(value)) => *name == value.name(),
        _ => false,
    }
}
