//! Macros: calls that are read as other expressions.
//!
//! `has(a.b)`; `all exists exists_one map filter` with one variable; `all exists existsOne transformList transformMap
//! transformMapEntry` with two; `cel.bind`; `optMap optFlatMap`; `sortBy`.
//!
//! Source: CEL language definition, "Macros"; the extensions for bindings, two-variable comprehensions and optionals.

use std::sync::Arc;

use super::ast::{Entry, Expr, Fold, Kind, Literal};
use super::source::Finding;

/// The accumulator's name, which no expression can spell.
pub(super) const RESULT: &str = "@result";
/// The variable of an optional's value, likewise.
const UNUSED: &str = "#unused";
/// The variable of a list to be sorted, likewise.
const UNSORTED: &str = "@unsorted";

pub(super) enum Expanded {
    Yes(Expr),
    /// It is no macro: the parts, back.
    No(Expr, Vec<Expr>),
}

/// `has(a.b)`.
pub(super) fn has(at: u32, mut args: Vec<Expr>) -> Result<Expr, Finding> {
    match (args.pop(), args.is_empty()) {
        (Some(Expr { kind: Kind::Select { operand, field, test: false, optional: false }, .. }), true) => {
            Ok(Expr::new(at, Kind::Select { operand, field, test: true, optional: false }))
        }
        (last, _) => {
            let at = last.map_or(at, |last| last.at);
            Err(Finding::new(at, "invalid argument to has() macro"))
        }
    }
}

/// Expands a call of a member, if it is a macro.
pub(super) fn expand_member(at: u32, target: Expr, function: &str, args: Vec<Expr>) -> Result<Expanded, Finding> {
    let bind = matches!(&target.kind, Kind::Ident(name) if &**name == "cel") && function == "bind";
    match (function, args.len()) {
        ("bind", 3) if bind => expand_bind(at, args),
        ("all" | "exists" | "exists_one" | "existsOne" | "map" | "filter", 2) => one(at, target, function, args),
        ("map", 3) => one(at, target, function, args),
        ("all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap" | "transformMapEntry", 3) => {
            two(at, target, function, args)
        }
        ("transformList" | "transformMap" | "transformMapEntry", 4) => two(at, target, function, args),
        ("optMap" | "optFlatMap", 2) => optional(at, target, function, args),
        ("sortBy", 2) => sort_by(at, target, args),
        _ => return Ok(Expanded::No(target, args)),
    }
    .map(Expanded::Yes)
}

fn variable(expr: Option<Expr>, at: u32) -> Result<Arc<str>, Finding> {
    match expr {
        Some(Expr { kind: Kind::Ident(name), .. }) => Ok(name),
        other => Err(Finding::new(other.map_or(at, |expr| expr.at), "argument must be a simple name")),
    }
}

/// Parts of a comprehension that macros share.
struct Parts {
    init: Expr,
    until: Expr,
    step: Expr,
    result: Expr,
}

struct Make {
    at: u32,
}

impl Make {
    fn result(&self) -> Expr {
        Expr::ident(self.at, RESULT)
    }

    fn bool(&self, bool: bool) -> Expr {
        Expr::literal(self.at, Literal::Bool(bool))
    }

    fn call(&self, function: &str, args: Vec<Expr>) -> Expr {
        Expr::call(self.at, function, args)
    }

    fn all(&self, test: Expr) -> Parts {
        Parts {
            init: self.bool(true),
            until: self.call("@not_strictly_false", vec![self.result()]),
            step: self.call("_&&_", vec![self.result(), test]),
            result: self.result(),
        }
    }

    fn exists(&self, test: Expr) -> Parts {
        Parts {
            init: self.bool(false),
            until: self.call("@not_strictly_false", vec![self.call("!_", vec![self.result()])]),
            step: self.call("_||_", vec![self.result(), test]),
            result: self.result(),
        }
    }

    fn exists_one(&self, test: Expr) -> Parts {
        let number = |number| Expr::literal(self.at, Literal::Int(number));
        let more = self.call("_+_", vec![self.result(), number(1)]);
        Parts {
            init: number(0),
            until: self.bool(true),
            step: self.call("_?_:_", vec![test, more, self.result()]),
            result: self.call("_==_", vec![self.result(), number(1)]),
        }
    }

    /// Collects into a list or map by `step`, for those that pass `test`.
    fn collect(&self, init: Kind, test: Option<Expr>, step: Expr) -> Parts {
        let step = match test {
            Some(test) => self.call("_?_:_", vec![test, step, self.result()]),
            None => step,
        };
        Parts { init: Expr::new(self.at, init), until: self.bool(true), step, result: self.result() }
    }

    fn append(&self, item: Expr) -> Expr {
        let list = Expr::new(self.at, Kind::List(vec![(item, false)]));
        self.call("_+_", vec![self.result(), list])
    }
}

fn fold(at: u32, range: Expr, variables: (Arc<str>, Option<Arc<str>>), parts: Parts) -> Expr {
    let (first, second) = variables;
    let Parts { init, until, step, result } = parts;
    Expr::new(at, Kind::Fold(Box::new(Fold { range, first, second, init, until, step, result })))
}

fn one(at: u32, range: Expr, function: &str, args: Vec<Expr>) -> Result<Expr, Finding> {
    let make = Make { at };
    let mut args = args.into_iter();
    let name_at = args.as_slice().first().map_or(at, |arg| arg.at);
    let name = variable(args.next(), at)?;
    let last = args.next_back().ok_or_else(|| Finding::new(at, "argument expected"))?;
    let parts = match function {
        "all" => make.all(last),
        "exists" => make.exists(last),
        "exists_one" | "existsOne" => make.exists_one(last),
        "map" => make.collect(Kind::List(Vec::new()), args.next(), make.append(last)),
        _ => {
            let item = Expr::ident(name_at, &name);
            make.collect(Kind::List(Vec::new()), Some(last), make.append(item))
        }
    };
    Ok(fold(at, range, (name, None), parts))
}

fn two(at: u32, range: Expr, function: &str, args: Vec<Expr>) -> Result<Expr, Finding> {
    let make = Make { at };
    let mut args = args.into_iter();
    let first = variable(args.next(), at)?;
    let second_at = args.as_slice().first().map_or(at, |arg| arg.at);
    let second = variable(args.next(), at)?;
    if first == second {
        return Err(Finding::new(second_at, format!("duplicate variable name: {second}")));
    }
    let last = args.next_back().ok_or_else(|| Finding::new(at, "argument expected"))?;
    let test = args.next();
    let parts = match function {
        "all" => make.all(last),
        "exists" => make.exists(last),
        "existsOne" | "exists_one" => make.exists_one(last),
        "transformList" => make.collect(Kind::List(Vec::new()), test, make.append(last)),
        "transformMap" => {
            let key = Expr::ident(at, &first);
            let step = make.call("cel.@mapInsert", vec![make.result(), key, last]);
            make.collect(Kind::Map(Vec::<Entry>::new()), test, step)
        }
        _ => {
            let step = make.call("cel.@mapInsert", vec![make.result(), last]);
            make.collect(Kind::Map(Vec::<Entry>::new()), test, step)
        }
    };
    Ok(fold(at, range, (first, Some(second)), parts))
}

fn expand_bind(at: u32, args: Vec<Expr>) -> Result<Expr, Finding> {
    let mut args = args.into_iter();
    let name = match args.next() {
        Some(Expr { kind: Kind::Ident(name), .. }) => name,
        other => {
            let at = other.map_or(at, |expr| expr.at);
            return Err(Finding::new(at, "cel.bind() variable names must be simple identifiers"));
        }
    };
    let mut next = || args.next().map(Box::new).ok_or_else(|| Finding::new(at, "argument expected"));
    let (value, body) = (next()?, next()?);
    Ok(Expr::new(at, Kind::Bind { name, value, body }))
}

/// `target.optMap(v, f)`: none stays none, a value is bound to `v`.
fn optional(at: u32, target: Expr, function: &str, args: Vec<Expr>) -> Result<Expr, Finding> {
    let make = Make { at };
    let mut args = args.into_iter();
    let name = variable(args.next(), at)?;
    let body = args.next().ok_or_else(|| Finding::new(at, "argument expected"))?;
    let held = || Expr::ident(at, UNUSED);
    let value = Box::new(Expr::member(at, held(), "value", Vec::new()));
    let inner = Expr::new(at, Kind::Bind { name, value, body: Box::new(body) });
    let some = if function == "optMap" { make.call("optional.of", vec![inner]) } else { inner };
    let test = Expr::member(at, held(), "hasValue", Vec::new());
    let none = make.call("optional.none", Vec::new());
    let choice = make.call("_?_:_", vec![test, some, none]);
    // the target is evaluated once, whatever it costs
    Ok(Expr::new(at, Kind::Bind { name: UNUSED.into(), value: Box::new(target), body: Box::new(choice) }))
}

/// `target.sortBy(v, key)`: the target's items in the order of the keys that they are mapped to.
fn sort_by(at: u32, target: Expr, args: Vec<Expr>) -> Result<Expr, Finding> {
    let keys = one(at, Expr::ident(at, UNSORTED), "map", args)?;
    let body = Box::new(Expr::member(at, Expr::ident(at, UNSORTED), "@sortByAssociatedKeys", vec![keys]));
    // the target is evaluated once, whatever it costs
    Ok(Expr::new(at, Kind::Bind { name: UNSORTED.into(), value: Box::new(target), body }))
}
