//! The evaluator: walks a checked tree over values.
//!
//! Rules
//!   R1 short     `&&`, `||` and `?:` evaluate what they need; a failure on one side of `&&` or `||` does not matter if
//!                the other side decides
//!   R2 absent    a field or key that is not there is a failure, unless it is asked for with `has` or `?`
//!   R3 charged   every step is charged before it is done; a cost that runs out ends everything, `&&` or not
//!   R4 in place  lists and maps that a comprehension collects grow in place
//!   R5 lazy      what a name is bound to is evaluated when the name is first used, once
//!
//! Relies on   the checker: trees are bounded in depth, locals are where it says
//! Source: CEL language definition, "Evaluation"; the reference implementation's run-time costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Activation;
use super::budget::{Budget, EvalError};
use super::cost::{Charge, LIST_COST, MAP_COST, NAME_COST, OBJECT_COST, charge};
use super::library::show::show;
use super::library::{Answer, Context, Overload, add, failed, no_overload, regex::Patterns, takes};
use super::node::{FoldNode, Node, NodeKind, Select};
use super::types::{ObjectType, Order};
use super::value::{List, Map, Object, Value};

/// The function that `transformMap` and `transformMapEntry` collect with.
const MAP_INSERT: &str = "cel.@mapInsert";

/// Evaluates a tree.
pub(super) fn evaluate<'a>(node: &Node, activation: &dyn Activation<'a>, budget: &mut Budget) -> Answer<'a> {
    let context = Context { budget, patterns: Patterns::default() };
    Evaluation { activation, locals: Vec::new(), context }.node(node)
}

struct Evaluation<'e, 'n, 'a> {
    activation: &'e dyn Activation<'a>,
    locals: Vec<Local<'n, 'a>>,
    context: Context<'e>,
}

/// A variable of a comprehension or binding.
enum Local<'n, 'a> {
    /// Its value, or a failure that may yet not matter.
    Known(Answer<'a>),
    /// What it is bound to, until somebody asks (R5).
    Bound(&'n Node),
}

impl<'n, 'a> Evaluation<'_, 'n, 'a> {
    fn charge(&mut self, units: u64) -> Result<(), EvalError> {
        self.context.budget.charge(units)
    }

    fn node(&mut self, node: &'n Node) -> Answer<'a> {
        match &node.kind {
            NodeKind::Literal(value) => Ok(value.clone()),
            NodeKind::Global { name, .. } => {
                self.charge(NAME_COST)?;
                let found = self.activation.variable(name, self.context.budget);
                found.unwrap_or_else(|| failed(format!("no such attribute(s): {name}")))
            }
            NodeKind::Local(slot) => {
                self.charge(NAME_COST)?;
                self.local(*slot)
            }
            NodeKind::Select(select) => self.select(select),
            NodeKind::Index { parts, optional } => self.index(parts, *optional),
            NodeKind::And(parts) => self.logic(parts, false),
            NodeKind::Or(parts) => self.logic(parts, true),
            NodeKind::If(parts) => match self.node(&parts[0])? {
                Value::Bool(true) => self.node(&parts[1]),
                Value::Bool(false) => self.node(&parts[2]),
                _ => Err(no_overload()),
            },
            NodeKind::NotFalse(operand) => {
                self.charge(1)?;
                match self.node(operand) {
                    Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
                    Err(error) if error.is_cost() => Err(error),
                    _ => Ok(Value::Bool(true)),
                }
            }
            NodeKind::Call { overloads, args } => self.call(overloads, args),
            NodeKind::List(items) => self.list(items),
            NodeKind::Map(entries) => self.map(entries),
            NodeKind::Struct { object, fields } => self.construct(object, fields),
            NodeKind::Fold(fold) => self.fold(fold),
            NodeKind::Bind(parts) => {
                self.locals.push(Local::Bound(&parts[0]));
                let body = self.node(&parts[1]);
                self.locals.pop();
                body
            }
        }
    }

    /// R5.
    fn local(&mut self, slot: usize) -> Answer<'a> {
        let bound = match self.locals.get(slot) {
            Some(Local::Known(answer)) => return answer.clone(),
            Some(Local::Bound(bound)) => *bound,
            None => return Err(no_overload()),
        };
        // what it is bound to sees the locals that were there before it
        let above = self.locals.split_off(slot);
        let answer = self.node(bound);
        self.locals.truncate(slot);
        self.locals.push(Local::Known(answer.clone()));
        self.locals.extend(above.into_iter().skip(1));
        answer
    }

    /// R4: takes the value out of a local; who takes it puts another there.
    fn take(&mut self, slot: usize) -> Option<Answer<'a>> {
        match self.locals.get_mut(slot) {
            Some(Local::Known(held)) => Some(std::mem::replace(held, Ok(Value::Null))),
            _ => None,
        }
    }

    /// R1: `decisive` is the value that decides.
    fn logic(&mut self, parts: &'n [Node; 2], decisive: bool) -> Answer<'a> {
        let left = self.node(&parts[0]);
        match &left {
            Ok(Value::Bool(bool)) if *bool == decisive => return left,
            Err(error) if error.is_cost() => return left,
            _ => {}
        }
        let right = self.node(&parts[1]);
        match (&left, &right) {
            (_, Ok(Value::Bool(bool))) if *bool == decisive => right,
            (_, Err(error)) if error.is_cost() => right,
            (Err(_), _) => left,
            (Ok(Value::Bool(_)), Ok(Value::Bool(_)) | Err(_)) => right,
            _ => Err(no_overload()),
        }
    }

    fn select(&mut self, select: &'n Select) -> Answer<'a> {
        let found = match &select.operand.kind {
            NodeKind::Global { name, .. } => {
                // what the caller evaluates when it is used, such as a policy's `variables.x`
                self.activation.field(name, &select.field, self.context.budget)
            }
            _ => None,
        };
        if let Some(found) = found {
            self.charge(NAME_COST * 2)?;
            let value = found?;
            return Ok(match (select.test, select.optional) {
                (true, _) => Value::Bool(true),
                (_, true) => Value::some(value),
                _ => value,
            });
        }
        let operand = self.node(&select.operand)?;
        if !select.test {
            self.charge(NAME_COST)?;
        }
        let (held, is_optional) = match operand {
            Value::Optional(None) if select.test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::NONE),
            Value::Optional(Some(held)) => ((*held).clone(), true),
            other => (other, false),
        };
        let found = match &held {
            Value::Map(map) => map.get_str(&select.field),
            Value::Object(object) => object.get(&select.field),
            _ if select.test || select.optional || is_optional => return Err(no_overload()),
            _ => return failed("no such overload"),
        };
        match found {
            found if select.test => Ok(Value::Bool(found.is_some())),
            found if select.optional || is_optional => Ok(found.map_or(Value::NONE, Value::some)),
            Some(value) => Ok(value),
            None => failed(format!("no such key: {}", select.field)),
        }
    }

    /// R2.
    fn index(&mut self, parts: &'n [Node; 2], optional: bool) -> Answer<'a> {
        let operand = self.node(&parts[0])?;
        let index = self.node(&parts[1])?;
        self.charge(1)?;
        let (held, optional) = match operand {
            Value::Optional(None) => return Ok(Value::NONE),
            Value::Optional(Some(held)) => ((*held).clone(), true),
            other => (other, optional),
        };
        let found = match (&held, &index) {
            (Value::Map(map), key) => map.get(key).ok_or_else(|| format!("no such key: {}", show(key))),
            (Value::Object(object), Value::String(key)) => {
                object.get(key).ok_or_else(|| format!("no such key: {}", &**key))
            }
            (Value::List(list), key) => match place(key) {
                Some(at) => list.get(at).ok_or_else(|| format!("index out of bounds: {at}")),
                None => Err(format!("index out of bounds: {}", show(key))),
            },
            _ => return Err(no_overload()),
        };
        match found {
            Ok(value) if optional => Ok(Value::some(value)),
            Ok(value) => Ok(value),
            Err(_) if optional => Ok(Value::NONE),
            Err(why) => failed(why),
        }
    }

    fn call(&mut self, overloads: &[&'static Overload], args: &'n [Node]) -> Answer<'a> {
        if let [list, item] = args
            && let Some(grown) = self.append(overloads, list, item)
        {
            return grown;
        }
        if let [Node { kind: NodeKind::Local(slot), .. }, entries @ ..] = args
            && overloads.iter().all(|overload| overload.function == MAP_INSERT)
        {
            return self.insert(*slot, entries);
        }
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.node(arg)?);
        }
        let fits =
            |overload: &&&Overload| overload.params.iter().zip(&values).all(|(param, value)| takes(param, value));
        let overload = overloads.iter().find(fits).ok_or_else(no_overload)?;
        charge(overload.charge, &values, None, &mut self.context)?;
        let result = (overload.run)(&mut self.context, &values)?;
        charge(overload.charge, &values, Some(&result), &mut self.context)?;
        Ok(result)
    }

    /// R4: `@result + [item]`, where nothing else holds the list.
    fn append(&mut self, overloads: &[&'static Overload], list: &'n Node, item: &'n Node) -> Option<Answer<'a>> {
        let (NodeKind::Local(slot), NodeKind::List(items)) = (&list.kind, &item.kind) else { return None };
        let joins = overloads.iter().all(|overload| matches!(overload.charge, Charge::ConcatList));
        let [(item, false)] = items.as_slice() else { return None };
        let growable = matches!(self.locals.get(*slot), Some(Local::Known(Ok(Value::List(List::Built(..))))));
        if !joins || !growable {
            return None;
        }
        Some(self.append_item(*slot, item))
    }

    fn append_item(&mut self, slot: usize, item: &'n Node) -> Answer<'a> {
        self.charge(NAME_COST + LIST_COST + 1)?;
        let value = self.node(item)?;
        // a fold takes its step's result as the accumulator, so what is taken here comes back
        let taken = self.take(slot);
        let Some(Ok(Value::List(List::Built(mut items, order)))) = taken else { return Err(no_overload()) };
        if Arc::get_mut(&mut items).is_none() {
            self.context.budget.work(items.len() as u64)?;
        }
        Arc::make_mut(&mut items).push(value);
        Ok(Value::List(List::Built(items, order)))
    }

    /// R4: `cel.@mapInsert(@result, key, value)`, or with a map of entries.
    fn insert(&mut self, slot: usize, entries: &'n [Node]) -> Answer<'a> {
        self.charge(NAME_COST + 1)?;
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries {
            values.push(self.node(entry)?);
        }
        let taken = self.take(slot);
        let Some(Ok(Value::Map(Map::Built(mut built)))) = taken else { return Err(no_overload()) };
        let entries = match values.as_slice() {
            [key, value] => vec![(key.clone(), value.clone())],
            [Value::Map(map)] => map.entries(),
            _ => return Err(no_overload()),
        };
        let copied = if Arc::get_mut(&mut built).is_none() { built.len() } else { 0 };
        self.context.budget.work((copied + entries.len()) as u64)?;
        add(Arc::make_mut(&mut built), entries)?;
        Ok(Value::Map(Map::Built(built)))
    }

    fn list(&mut self, items: &'n [(Node, bool)]) -> Answer<'a> {
        let mut built = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.node(item)?;
            match (optional, value) {
                (false, value) => built.push(value),
                (true, Value::Optional(held)) => built.extend(held.map(|held| (*held).clone())),
                (true, _) => return Err(no_overload()),
            }
        }
        self.charge(LIST_COST)?;
        Ok(Value::List(List::Built(Arc::new(built), Order::Atomic)))
    }

    fn map(&mut self, entries: &'n [(Node, Node, bool)]) -> Answer<'a> {
        let mut built = BTreeMap::new();
        for (key, value, optional) in entries {
            let (key, value) = (self.node(key)?, self.node(value)?);
            match (optional, value) {
                (false, value) => add(&mut built, [(key, value)])?,
                (true, Value::Optional(held)) => add(&mut built, held.map(|held| (key, (*held).clone())))?,
                (true, _) => return Err(no_overload()),
            }
        }
        self.charge(MAP_COST)?;
        Ok(Value::Map(Map::Built(Arc::new(built))))
    }

    fn construct(&mut self, object: &Arc<ObjectType>, fields: &'n [(Arc<str>, Node, bool)]) -> Answer<'a> {
        let mut built = Vec::with_capacity(fields.len());
        for (name, value, optional) in fields {
            let value = self.node(value)?;
            match (optional, value) {
                (false, value) => built.push((Arc::clone(name), value)),
                (true, Value::Optional(held)) => {
                    built.extend(held.map(|held| (Arc::clone(name), (*held).clone())));
                }
                (true, _) => return Err(no_overload()),
            }
        }
        self.charge(OBJECT_COST)?;
        Ok(Value::Object(Object::Built(Arc::clone(object), Arc::new(built))))
    }

    fn fold(&mut self, fold: &'n FoldNode) -> Answer<'a> {
        let range = self.node(&fold.range)?;
        let init = self.node(&fold.init)?;
        let slot = self.locals.len();
        self.locals.push(Local::Known(Ok(init)));
        let done = self.run_fold(fold, &range, slot);
        self.locals.truncate(slot + 1);
        let result = done.and_then(|()| self.node(&fold.result));
        self.locals.truncate(slot);
        result
    }

    fn run_fold(&mut self, fold: &'n FoldNode, range: &Value<'a>, slot: usize) -> Result<(), EvalError> {
        let list = match range {
            Value::List(list) => list.clone(),
            Value::Map(map) => {
                let entries = map.entries();
                self.context.budget.work(entries.len() as u64)?;
                for (key, value) in entries {
                    if !self.turn(fold, slot, (key, value))? {
                        break;
                    }
                }
                return Ok(());
            }
            _ => return Err(no_overload()),
        };
        for at in 0..list.len() {
            let Some(item) = list.get(at) else { break };
            let pair = if fold.pair { (Value::Int(at as i64), item) } else { (item, Value::Null) };
            if !self.turn(fold, slot, pair)? {
                break;
            }
        }
        Ok(())
    }

    /// One turn of a comprehension; whether there is to be another.
    fn turn(&mut self, fold: &'n FoldNode, slot: usize, variables: (Value<'a>, Value<'a>)) -> Result<bool, EvalError> {
        self.locals.truncate(slot + 1);
        self.locals.push(Local::Known(Ok(variables.0)));
        if fold.pair {
            self.locals.push(Local::Known(Ok(variables.1)));
        }
        match self.node(&fold.until)? {
            Value::Bool(true) => {}
            _ => return Ok(false),
        }
        let step = self.node(&fold.step);
        // R1: `all` and `exists` go on after a failure, since a later item may decide; the others cannot recover
        match &step {
            Err(error) if error.is_cost() || matches!(fold.until.kind, NodeKind::Literal(_)) => {
                return Err(error.clone());
            }
            _ => {}
        }
        self.locals[slot] = Local::Known(step);
        Ok(true)
    }
}

/// The place in a list that a number names.
fn place(index: &Value) -> Option<usize> {
    match index {
        Value::Int(int) => usize::try_from(*int).ok(),
        Value::Uint(uint) => usize::try_from(*uint).ok(),
        Value::Double(double) => super::value::whole_int(*double).and_then(|int| usize::try_from(int).ok()),
        _ => None,
    }
}
