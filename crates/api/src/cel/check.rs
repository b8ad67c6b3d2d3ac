//! The checker: a syntax tree to a checked tree, every expression with its type.
//!
//! Rules
//!   R1 names      a name is a variable of a comprehension, a variable of the environment, or a type; else it is refused
//!   R2 fields     objects have the fields they declare and no others
//!   R3 overloads  of a function's overloads those that fit are kept; if none fits the call is refused; if their
//!                 results differ the result is `dyn`
//!   R4 alike      items of a list literal, keys and values of a map literal are of one type each, or dynamic
//!   R5 literals   literal patterns, durations and moments are read now, not when they are evaluated
//!   R6 all        checking goes on after an error; what depends on it fits everywhere
//!
//! Source: CEL language definition, "Gradual type checking"; the wording is the reference implementation's.

use std::sync::Arc;

use super::Env;
use super::ast::{Expr, Kind, Literal};
use super::library::{self, Overload, names};
use super::macros::RESULT;
use super::node::{FoldNode, Node, NodeKind, Select};
use super::source::{ERRORS_MAX, Finding};
use super::types::{ObjectType, Shape, Type};
use super::unify::Unifier;
use super::value::{Text, Value};

/// Checks an expression.
pub(super) fn check(env: &Env, expr: &Expr) -> Result<Node, Vec<Finding>> {
    let mut checker = Checker { env, unifier: Unifier::default(), locals: Vec::new(), findings: Vec::new() };
    let mut node = checker.expr(expr);
    if !checker.findings.is_empty() {
        return Err(checker.findings);
    }
    close(&mut node, &checker.unifier);
    Ok(node)
}

/// Puts in the types that were found after a node was made.
fn close(node: &mut Node, unifier: &Unifier) {
    node.of = unifier.substitute(&node.of, true);
    match &mut node.kind {
        NodeKind::Literal(_) | NodeKind::Global { .. } | NodeKind::Local(_) => {}
        NodeKind::Select(select) => close(&mut select.operand, unifier),
        NodeKind::Index { parts, .. } | NodeKind::And(parts) | NodeKind::Or(parts) | NodeKind::Bind(parts) => {
            parts.iter_mut().for_each(|part| close(part, unifier));
        }
        NodeKind::If(parts) => parts.iter_mut().for_each(|part| close(part, unifier)),
        NodeKind::NotFalse(operand) => close(operand, unifier),
        NodeKind::Call { args, .. } => args.iter_mut().for_each(|arg| close(arg, unifier)),
        NodeKind::List(items) => items.iter_mut().for_each(|(item, _)| close(item, unifier)),
        NodeKind::Map(entries) => entries.iter_mut().for_each(|(key, value, _)| {
            close(key, unifier);
            close(value, unifier);
        }),
        NodeKind::Struct { fields, .. } => fields.iter_mut().for_each(|(_, value, _)| close(value, unifier)),
        NodeKind::Fold(fold) => {
            let FoldNode { range, init, until, step, result, .. } = &mut **fold;
            [range, init, until, step, result].into_iter().for_each(|part| close(part, unifier));
        }
    }
}

struct Checker<'a> {
    env: &'a Env,
    unifier: Unifier,
    locals: Vec<(Arc<str>, Type)>,
    findings: Vec<Finding>,
}

fn literal(value: Value<'static>) -> Node {
    Node { of: value.of(), kind: NodeKind::Literal(value) }
}

impl Checker<'_> {
    fn report(&mut self, at: u32, message: String) -> Type {
        if self.findings.len() < ERRORS_MAX {
            self.findings.push(Finding::new(at, message));
        }
        Type::Error
    }

    /// R6: a node that stands for what was refused.
    fn refused(&mut self, at: u32, message: String) -> Node {
        let of = self.report(at, message);
        Node { of, kind: NodeKind::Literal(Value::Null) }
    }

    fn shown(&self, of: &Type) -> String {
        self.unifier.substitute(of, false).to_string()
    }

    fn expr(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(literal) => self.literal(literal),
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select { operand, field, test, optional } => self.select(expr, operand, field, (*test, *optional)),
            Kind::Call { function, target, args } => self.call(expr.at, function, target.as_deref(), args),
            Kind::List(items) => self.list(items),
            Kind::Map(_) => self.map(expr),
            Kind::Struct { name, fields } => self.construct(expr.at, name, fields),
            Kind::Fold(_) => self.fold(expr),
            Kind::Bind { name, value, body } => {
                let value = self.expr(value);
                self.locals.push((Arc::clone(name), value.of.clone()));
                let body = self.expr(body);
                self.locals.pop();
                Node { of: body.of.clone(), kind: NodeKind::Bind(Box::new([value, body])) }
            }
        }
    }

    fn literal(&mut self, value: &Literal) -> Node {
        literal(match value {
            Literal::Null => Value::Null,
            Literal::Bool(bool) => Value::Bool(*bool),
            Literal::Int(int) => Value::Int(*int),
            Literal::Uint(uint) => Value::Uint(*uint),
            Literal::Double(double) => Value::Double(*double),
            Literal::String(text) => Value::String(Text::Owned(Arc::clone(text))),
            Literal::Bytes(bytes) => Value::Bytes(Arc::clone(bytes)),
        })
    }

    fn local(&self, name: &str) -> Option<(usize, &Type)> {
        self.locals.iter().enumerate().rev().find(|(_, (own, _))| **own == *name).map(|(at, (_, of))| (at, of))
    }

    /// R1.
    fn named(&self, name: &str) -> Option<Node> {
        if let Some((slot, of)) = self.local(name) {
            return Some(Node { of: of.clone(), kind: NodeKind::Local(slot) });
        }
        if let Some((name, shape)) = self.env.find_variable(name) {
            let kind = NodeKind::Global { name: Arc::clone(name), shape: Arc::clone(shape) };
            return Some(Node { of: shape.of().clone(), kind });
        }
        let of = names::find_type(name).or_else(|| self.env.find_type(name).map(Type::Object))?;
        let node = literal(Value::Type(of.clone()));
        Some(Node { of: Type::Type(Arc::new(of)), ..node })
    }

    fn ident(&mut self, at: u32, name: &str) -> Node {
        match self.named(name) {
            Some(node) => node,
            None => self.refused(at, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &Arc<str>, how: (bool, bool)) -> Node {
        let (test, optional) = how;
        // a dotted name may be that of a variable or a type
        if let Some(node) = expr.dotted().and_then(|name| self.dotted_variable(&name)) {
            return node;
        }
        if let Some(node) = expr.dotted().filter(|name| !self.is_value(name)).and_then(|name| self.named(&name)) {
            return node;
        }
        let operand = self.expr(operand);
        let of = self.unifier.resolve(&operand.of);
        let (inner, is_optional) = match &of {
            Type::Optional(inner) => (self.unifier.resolve(inner), true),
            other => (other.clone(), false),
        };
        let found = self.field(expr.at, &inner, field);
        let of = match (test, optional || is_optional) {
            (true, _) => Type::Bool,
            (_, true) => Type::optional(found),
            _ => found,
        };
        let select = Select { operand, field: Arc::clone(field), test, optional };
        Node { of, kind: NodeKind::Select(Box::new(select)) }
    }

    /// R1: a variable whose own name is dotted, such as `authorizer.requestResource`.
    fn dotted_variable(&self, name: &str) -> Option<Node> {
        let first = name.split('.').next().unwrap_or_default();
        let (name, shape) = self.env.find_variable(name).filter(|_| self.local(first).is_none())?;
        let kind = NodeKind::Global { name: Arc::clone(name), shape: Arc::clone(shape) };
        Some(Node { of: shape.of().clone(), kind })
    }

    /// Whether the first part of a dotted name is a variable.
    fn is_value(&self, dotted: &str) -> bool {
        let first = dotted.split('.').next().unwrap_or_default();
        self.local(first).is_some() || self.env.find_variable(first).is_some()
    }

    /// R2.
    fn field(&mut self, at: u32, of: &Type, field: &str) -> Type {
        match of {
            Type::Map(key, value) => {
                if self.unifier.fits(&Type::String, key) {
                    return (**value).clone();
                }
                let shown = self.shown(of);
                self.report(at, format!("type '{shown}' does not support field selection"))
            }
            Type::Object(object) if object.is_open() => Type::Dyn,
            Type::Object(object) => match object.find(field) {
                Some(found) => found.shape.of().clone(),
                None => self.report(at, format!("undefined field '{field}'")),
            },
            Type::Param(_) => {
                self.unifier.fits(of, &Type::Dyn);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let shown = self.shown(other);
                self.report(at, format!("type '{shown}' does not support field selection"))
            }
        }
    }

    fn call(&mut self, at: u32, function: &str, target: Option<&Expr>, args: &[Expr]) -> Node {
        // `math.greatest(…)` is a function with a dotted name, not a member of `math`
        let qualified = target.and_then(Expr::dotted).map(|target| format!("{target}.{function}"));
        let qualified = qualified.filter(|name| !self.is_value(name) && library::has_function(name, false));
        let (function, target) = match &qualified {
            Some(name) => (name.as_str(), None),
            None => (function, target),
        };
        let nodes: Vec<Node> = target.into_iter().chain(args).map(|arg| self.expr(arg)).collect();
        let candidates = library::find_overloads(function, target.is_some());
        if candidates.is_empty() {
            return self.refused(at, format!("undeclared reference to '{function}' (in container '')"));
        }
        self.check_literals(function, target.is_some(), args);
        let (overloads, of) = self.resolve(candidates, &nodes);
        if overloads.is_empty() {
            let mut types = nodes.iter().map(|node| self.shown(&node.of));
            let target = target.and_then(|_| types.next()).map(|of| format!("{of}.")).unwrap_or_default();
            let args = types.collect::<Vec<_>>().join(", ");
            let message = format!("found no matching overload for '{function}' applied to '{target}({args})'");
            return self.refused(at, message);
        }
        Node { of, kind: operator(function, overloads, nodes) }
    }

    /// R3: the overloads that fit, and the type they give.
    fn resolve(&mut self, candidates: &'static [&'static Overload], args: &[Node]) -> (Vec<&'static Overload>, Type) {
        let mut found = Vec::new();
        let mut result: Option<Type> = None;
        for overload in candidates.iter().filter(|overload| overload.params.len() == args.len()) {
            let first = self.unifier.fresh_block(overload.letters);
            let params: Vec<Type> = overload.params.iter().map(|param| instance(param, first)).collect();
            let pairs: Vec<(&Type, &Type)> = args.iter().map(|arg| &arg.of).zip(&params).collect();
            if !self.unifier.all_fit(&pairs) {
                continue;
            }
            found.push(*overload);
            let of = self.unifier.substitute(&instance(&overload.result, first), false);
            result = match result {
                None => Some(of),
                Some(before) if self.unifier.substitute(&before, false) == of => Some(before),
                Some(_) => Some(Type::Dyn),
            };
        }
        (found, result.unwrap_or(Type::Error))
    }

    /// R5.
    fn check_literals(&mut self, function: &str, member: bool, args: &[Expr]) {
        let at = usize::from(!member && matches!(function, "matches"));
        let Some(Expr { kind: Kind::Literal(Literal::String(text)), at, .. }) = args.get(at) else { return };
        let whole = match function {
            "matches" | "find" | "findAll" => library::regex::compile(text).err(),
            "duration" if !member => library::time::read_duration(text).err(),
            "timestamp" if !member => library::time::read_timestamp(text).err(),
            _ => None,
        };
        if let Some(why) = whole {
            self.report(*at, format!("invalid {function} argument: {why}"));
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Node {
        let mut of = self.unifier.fresh();
        let mut nodes = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let node = self.expr(item);
            let held = self.unwrapped(item.at, &node.of, *optional);
            of = self.join(item.at, of, held);
            nodes.push((node, *optional));
        }
        Node { of: Type::list(of), kind: NodeKind::List(nodes) }
    }

    /// The type inside, where an optional must stand.
    fn unwrapped(&mut self, at: u32, of: &Type, optional: bool) -> Type {
        if !optional {
            return of.clone();
        }
        let inner = self.unifier.fresh();
        if self.unifier.fits(of, &Type::optional(inner.clone())) {
            return inner;
        }
        let shown = self.shown(of);
        self.report(at, format!("expected type 'optional_type(dyn)' but found '{shown}'"))
    }

    /// R4: the one type of two.
    fn join(&mut self, at: u32, so_far: Type, next: Type) -> Type {
        if self.unifier.resolve(&so_far).is_dyn() || self.unifier.resolve(&next).is_dyn() {
            return Type::Dyn;
        }
        if self.unifier.fits(&next, &so_far) {
            return so_far;
        }
        let (expected, found) = (self.shown(&so_far), self.shown(&next));
        self.report(at, format!("expected type '{expected}' but found '{found}'"))
    }

    fn map(&mut self, expr: &Expr) -> Node {
        let Kind::Map(entries) = &expr.kind else { return self.refused(expr.at, "expected a map".to_owned()) };
        let (mut keys, mut values) = (self.unifier.fresh(), self.unifier.fresh());
        let mut nodes = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = self.expr(&entry.key);
            let of = self.unifier.resolve(&key.of);
            if !matches!(of, Type::Bool | Type::Int | Type::Uint | Type::String | Type::Param(_)) && !of.is_dyn() {
                let shown = self.shown(&of);
                self.report(entry.key.at, format!("unsupported key type: {shown}"));
            }
            keys = self.join(entry.key.at, keys, of);
            let value = self.expr(&entry.value);
            let held = self.unwrapped(entry.value.at, &value.of, entry.optional);
            values = self.join(entry.value.at, values, held);
            nodes.push((key, value, entry.optional));
        }
        Node { of: Type::map(keys, values), kind: NodeKind::Map(nodes) }
    }

    fn construct(&mut self, at: u32, name: &str, fields: &[(Arc<str>, Expr, bool)]) -> Node {
        let Some(object) = self.env.find_type(name) else {
            return self.refused(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        let mut nodes = Vec::with_capacity(fields.len());
        for (field, value, optional) in fields {
            let node = self.expr(value);
            let of = self.unwrapped(value.at, &node.of, *optional);
            let json = self.field_fits(value.at, &object, field, &of);
            nodes.push((json, node, *optional));
        }
        Node { of: Type::Object(Arc::clone(&object)), kind: NodeKind::Struct { object, fields: nodes } }
    }

    /// The JSON name of a field that is given a value of this type.
    fn field_fits(&mut self, at: u32, object: &ObjectType, name: &Arc<str>, of: &Type) -> Arc<str> {
        if object.is_open() {
            return super::escape::unescape(name).into();
        }
        let Some(field) = object.find(name) else {
            self.report(at, format!("undefined field '{name}'"));
            return Arc::clone(name);
        };
        let shape: &Shape = &field.shape;
        if !self.unifier.fits(of, shape.of()) {
            let (expected, found) = (self.shown(shape.of()), self.shown(of));
            self.report(at, format!("expected type of field '{name}' is '{expected}' but provided type is '{found}'"));
        }
        Arc::clone(&field.json)
    }

    fn fold(&mut self, expr: &Expr) -> Node {
        let Kind::Fold(fold) = &expr.kind else { return self.refused(expr.at, "expected a comprehension".to_owned()) };
        let range = self.expr(&fold.range);
        let (first, second) = self.range_types(fold.range.at, &range.of, fold.second.is_some());
        let init = self.expr(&fold.init);
        let result_of = init.of.clone();
        self.locals.push((RESULT.into(), result_of.clone()));
        self.locals.push((Arc::clone(&fold.first), first));
        if let Some(name) = &fold.second {
            self.locals.push((Arc::clone(name), second));
        }
        let until = self.expr(&fold.until);
        let step = self.expr(&fold.step);
        if !self.unifier.fits(&step.of, &result_of) {
            let (expected, found) = (self.shown(&result_of), self.shown(&step.of));
            self.report(expr.at, format!("expected type '{expected}' but found '{found}'"));
        }
        let variables = 1 + usize::from(fold.second.is_some());
        self.locals.truncate(self.locals.len() - variables);
        let result = self.expr(&fold.result);
        self.locals.pop();
        let pair = fold.second.is_some();
        let of = result.of.clone();
        Node { of, kind: NodeKind::Fold(Box::new(FoldNode { range, pair, init, until, step, result })) }
    }

    /// The types of a comprehension's variables over a range of this type.
    fn range_types(&mut self, at: u32, range: &Type, pair: bool) -> (Type, Type) {
        match self.unifier.resolve(range) {
            Type::List(item) if pair => (Type::Int, (*item).clone()),
            Type::List(item) => ((*item).clone(), Type::Dyn),
            Type::Map(key, value) => ((*key).clone(), (*value).clone()),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Param(_) => {
                self.unifier.fits(range, &Type::Dyn);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let shown = self.shown(&other);
                let message = format!(
                    "expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(at, message);
                (Type::Error, Type::Error)
            }
        }
    }
}

/// A declared type with its letters as the unknown types from `first`.
fn instance(of: &Type, first: u32) -> Type {
    let inner = |of: &Arc<Type>| Arc::new(instance(of, first));
    match of {
        Type::Param(at) => Type::Param(first + at),
        Type::List(item) => Type::List(inner(item)),
        Type::Map(key, value) => Type::Map(inner(key), inner(value)),
        Type::Optional(of) => Type::Optional(inner(of)),
        Type::Type(of) => Type::Type(inner(of)),
        other => other.clone(),
    }
}

/// Operators that do not evaluate all of their operands, or that are faster on their own.
fn operator(function: &str, overloads: Vec<&'static Overload>, args: Vec<Node>) -> NodeKind {
    let two = |args: Vec<Node>| <Box<[Node; 2]>>::try_from(args.into_boxed_slice());
    let kind = match function {
        "_&&_" => two(args).map(NodeKind::And),
        "_||_" => two(args).map(NodeKind::Or),
        "_[_]" => two(args).map(|parts| NodeKind::Index { parts, optional: false }),
        "_[?_]" => two(args).map(|parts| NodeKind::Index { parts, optional: true }),
        "_?_:_" => <Box<[Node; 3]>>::try_from(args.into_boxed_slice()).map(NodeKind::If),
        "@not_strictly_false" => <Box<[Node; 1]>>::try_from(args.into_boxed_slice()).map(|operand| {
            NodeKind::NotFalse(Box::new({
                let [operand] = *operand;
                operand
            }))
        }),
        _ => return NodeKind::Call { overloads, args },
    };
    // the overloads have as many parameters as the operators have operands
    kind.unwrap_or_else(|args| NodeKind::Call { overloads, args: args.into_vec() })
}
