//! What an expression may cost at least and at most, from how large the data is declared to become.
//!
//! Rules
//!   R1 sizes   a size is that of the declared shape, of the literal, or of what functions say their results are; what is
//!              neither may be of any size. An object with a place in the data counts for nothing, as in the reference
//!   R2 short   `&&`, `||` and `?:` cost at least their cheapest way, at most their dearest
//!   R3 loops   a comprehension costs its step as often as its range has items
//!
//! Source: the reference implementation's estimator and the Kubernetes libraries'.

use std::sync::Arc;

use super::super::library::Overload;
use super::super::node::{FoldNode, Node, NodeKind};
use super::super::types::{Shape, Type};
use super::super::value::Value;
use super::{Charge, Grow, LIST_COST, MAP_COST, NAME_COST, OBJECT_COST, PATTERN, SCAN, part};

/// Units: at least, at most. `u64::MAX` where nothing bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostEstimate {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

const UNKNOWN: CostEstimate = CostEstimate { min: 0, max: u64::MAX };
const NOTHING: CostEstimate = CostEstimate { min: 0, max: 0 };

impl CostEstimate {
    fn fixed(units: u64) -> CostEstimate {
        CostEstimate { min: units, max: units }
    }

    fn plus(self, other: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn or(self, other: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn part(self, of: (u64, u64)) -> CostEstimate {
        CostEstimate { min: part(self.min, of), max: part(self.max, of) }
    }
}

/// What is known of a value without evaluating.
#[derive(Debug, Clone)]
struct Known {
    cost: CostEstimate,
    /// R1; `None` where only the shape says it.
    size: Option<CostEstimate>,
    shape: Option<Arc<Shape>>,
    /// The sizes of a list's items.
    item: Option<CostEstimate>,
}

/// Estimates an expression.
pub(in super::super) fn estimate(node: &Node) -> CostEstimate {
    Estimator { locals: Vec::new() }.node(node).cost
}

/// Sizes and shapes of locals; their cost is that of a name.
struct Estimator {
    locals: Vec<Known>,
}

fn costing(cost: CostEstimate) -> Known {
    Known { cost, size: None, shape: None, item: None }
}

/// R1.
fn size(known: &Known, of: &Type) -> CostEstimate {
    if let Some(size) = known.size {
        return size;
    }
    if is_scalar(of) {
        return CostEstimate::fixed(1);
    }
    match known.shape.as_ref() {
        // The reference counts no parts of an object that has a place, so `self == oldSelf` is cheap however large it is.
        Some(shape) if matches!(shape.of(), Type::Object(_)) => NOTHING,
        Some(shape) => shape.size_max().map_or(UNKNOWN, |max| CostEstimate { min: 0, max }),
        None => UNKNOWN,
    }
}

fn is_scalar(of: &Type) -> bool {
    matches!(
        of,
        Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::Timestamp
            | Type::Duration
            | Type::Null
            | Type::Type(_)
    )
}

impl Estimator {
    fn node(&mut self, node: &Node) -> Known {
        match &node.kind {
            NodeKind::Literal(value) => {
                let size =
                    matches!(value, Value::String(_) | Value::Bytes(_)).then(|| CostEstimate::fixed(value.size()));
                Known { size, ..costing(NOTHING) }
            }
            NodeKind::Global { shape, .. } => {
                Known { shape: Some(Arc::clone(shape)), ..costing(CostEstimate::fixed(NAME_COST)) }
            }
            NodeKind::Local(slot) => {
                let known = self.locals.get(*slot).cloned().unwrap_or_else(|| costing(NOTHING));
                Known { cost: CostEstimate::fixed(NAME_COST), ..known }
            }
            NodeKind::Select(select) => {
                let operand = self.node(&select.operand);
                let charged = !select.test && !matches!(select.operand.of, Type::Optional(_));
                let cost = if charged { operand.cost.plus(CostEstimate::fixed(NAME_COST)) } else { operand.cost };
                let shape = operand.shape.as_ref().and_then(|shape| field_shape(shape, &select.field));
                Known { shape, ..costing(cost) }
            }
            NodeKind::Index { parts, .. } => {
                let [operand, index] = [self.node(&parts[0]), self.node(&parts[1])];
                let cost = operand.cost.plus(index.cost).plus(CostEstimate::fixed(1));
                let shape = operand.shape.as_ref().and_then(|shape| shape.item()).cloned();
                Known { shape, size: operand.item, ..costing(cost) }
            }
            NodeKind::And(parts) | NodeKind::Or(parts) => {
                let [left, right] = [self.node(&parts[0]), self.node(&parts[1])];
                costing(CostEstimate { min: left.cost.min, max: left.cost.plus(right.cost).max })
            }
            NodeKind::If(parts) => {
                let [condition, yes, no] = [self.node(&parts[0]), self.node(&parts[1]), self.node(&parts[2])];
                let size = size(&yes, &parts[1].of).or(size(&no, &parts[2].of));
                Known { size: Some(size), ..costing(condition.cost.plus(yes.cost.or(no.cost))) }
            }
            NodeKind::NotFalse(operand) => costing(self.node(operand).cost.plus(CostEstimate::fixed(1))),
            NodeKind::Call { overloads, args } => self.call(overloads, args),
            NodeKind::List(items) => self.list(items),
            NodeKind::Map(entries) => {
                let cost = entries.iter().fold(CostEstimate::fixed(MAP_COST), |sum, (key, value, _)| {
                    sum.plus(self.node(key).cost).plus(self.node(value).cost)
                });
                Known { size: Some(CostEstimate::fixed(entries.len() as u64)), ..costing(cost) }
            }
            NodeKind::Struct { fields, .. } => costing(
                fields
                    .iter()
                    .fold(CostEstimate::fixed(OBJECT_COST), |sum, (_, value, _)| sum.plus(self.node(value).cost)),
            ),
            NodeKind::Fold(fold) => self.fold(fold),
            NodeKind::Bind(parts) => {
                let value = self.node(&parts[0]);
                let cost = value.cost;
                self.locals.push(value);
                let body = self.node(&parts[1]);
                self.locals.pop();
                // it may be that nobody asks for the value
                let cost = CostEstimate { min: body.cost.min, max: cost.plus(body.cost).max };
                Known { cost, ..body }
            }
        }
    }

    fn list(&mut self, items: &[(Node, bool)]) -> Known {
        let mut cost = CostEstimate::fixed(LIST_COST);
        let mut item: Option<CostEstimate> = None;
        for (node, _) in items {
            let known = self.node(node);
            cost = cost.plus(known.cost);
            let size = size(&known, &node.of);
            item = Some(item.map_or(size, |item| item.or(size)));
        }
        Known { size: Some(CostEstimate::fixed(items.len() as u64)), item, ..costing(cost) }
    }

    fn call(&mut self, overloads: &[&Overload], args: &[Node]) -> Known {
        let known: Vec<Known> = args.iter().map(|arg| self.node(arg)).collect();
        let below = known.iter().fold(NOTHING, |sum, arg| sum.plus(arg.cost));
        let sizes: Vec<CostEstimate> = known.iter().zip(args).map(|(known, arg)| size(known, &arg.of)).collect();
        let mut own: Option<CostEstimate> = None;
        let mut result: Option<CostEstimate> = None;
        for overload in overloads {
            let cost = match overload.charge {
                Charge::Walk => walk(&known, &sizes, args),
                Charge::Result(times) => {
                    let joined = joined(&known, &sizes);
                    result = Some(joined);
                    joined.times(CostEstimate::fixed(times)).part(SCAN)
                }
                Charge::Pattern if matches!(overload.result, Type::List(_)) => {
                    // half a unit for each text found, and there may be one a character
                    let found = CostEstimate { min: 0, max: sizes.first().map_or(u64::MAX, |size| size.max) };
                    let texts = CostEstimate { min: 0, max: found.part((1, 2)).max.saturating_add(1) };
                    call_cost(Charge::Pattern, &sizes).plus(texts)
                }
                charge => call_cost(charge, &sizes),
            };
            own = Some(own.map_or(cost, |own| own.or(cost)));
            if let Some(size) = result_size(overload, &sizes) {
                result = Some(result.map_or(size, |result| result.or(size)));
            }
        }
        let item = overloads.iter().any(|overload| matches!(overload.charge, Charge::Scan(_, _, Grow::Split)));
        let item = item.then(|| CostEstimate { min: 0, max: sizes.first().map_or(u64::MAX, |size| size.max) });
        Known { size: result, item, ..costing(below.plus(own.unwrap_or(NOTHING))) }
    }

    /// R3.
    fn fold(&mut self, fold: &FoldNode) -> Known {
        let range = self.node(&fold.range);
        let count = size(&range, &fold.range.of);
        let init = self.node(&fold.init);
        let (range_cost, init_cost) = (range.cost, init.cost);
        let is_map = matches!(fold.range.of, Type::Map(..));
        let of = |shape: Option<Arc<Shape>>, size: Option<CostEstimate>| Known { shape, size, ..costing(NOTHING) };
        let shape = range.shape.as_ref();
        let key = of(shape.and_then(|shape| shape.key()).cloned(), None);
        let item = of(shape.and_then(|shape| shape.item()).cloned(), range.item);
        self.locals.push(costing(NOTHING));
        match (fold.pair, is_map) {
            (true, true) => self.locals.extend([key, item]),
            (true, false) => self.locals.extend([of(None, Some(CostEstimate::fixed(1))), item]),
            (false, true) => self.locals.push(key),
            (false, false) => self.locals.push(item),
        }
        let each = self.node(&fold.until).cost.plus(self.node(&fold.step).cost);
        self.locals.truncate(self.locals.len() - if fold.pair { 2 } else { 1 });
        let result = self.node(&fold.result);
        self.locals.pop();
        let cost = range_cost.plus(init_cost).plus(count.times(each)).plus(result.cost);
        let collects = matches!(fold.init.of, Type::List(_) | Type::Map(..));
        let size = collects.then_some(CostEstimate { min: 0, max: count.max });
        Known { size, ..costing(cost) }
    }
}

fn field_shape(shape: &Shape, field: &str) -> Option<Arc<Shape>> {
    match shape.of() {
        Type::Object(object) => object.find(field).map(|field| Arc::clone(&field.shape)),
        _ => shape.item().cloned(),
    }
}

/// A walk over all parts of a list: a unit each, more if they are texts.
fn walk(known: &[Known], sizes: &[CostEstimate], args: &[Node]) -> CostEstimate {
    let (Some(first), Some(count), Some(node)) = (known.first(), sizes.first(), args.first()) else { return NOTHING };
    let texts = matches!(&node.of, Type::List(item) if matches!(**item, Type::String | Type::Bytes | Type::Dyn));
    if !texts {
        return *count;
    }
    let item = item_size(first).unwrap_or(UNKNOWN);
    // short texts are charged by their number
    let number = CostEstimate { min: 0, max: count.part(SCAN).max.saturating_add(1) };
    count.times(item.part(SCAN)).plus(number)
}

/// The size of texts joined: each of the list's, with what stands between.
fn joined(known: &[Known], sizes: &[CostEstimate]) -> CostEstimate {
    let (Some(first), Some(count)) = (known.first(), sizes.first()) else { return UNKNOWN };
    let item = item_size(first).unwrap_or(UNKNOWN);
    let between = sizes.get(1).copied().unwrap_or(NOTHING);
    CostEstimate { min: 0, max: count.times(item.plus(between)).max }
}

fn item_size(list: &Known) -> Option<CostEstimate> {
    let declared = list.shape.as_ref().and_then(|shape| shape.item()).and_then(|item| item.size_max());
    list.item.or(declared.map(|max| CostEstimate { min: 0, max }))
}

fn call_cost(charge: Charge, sizes: &[CostEstimate]) -> CostEstimate {
    let size = |at: usize| sizes.get(at).copied().unwrap_or(NOTHING);
    match charge {
        Charge::One | Charge::ConcatList | Charge::Walk => CostEstimate::fixed(1),
        Charge::Fixed(units) => CostEstimate::fixed(units),
        Charge::Scan(at, times, _) => size(at).times(CostEstimate::fixed(times)).part(SCAN),
        Charge::Result(_) => UNKNOWN,
        Charge::Compare => {
            let max = size(0).max.min(size(1).max);
            CostEstimate { min: max.min(1), max }.part(SCAN)
        }
        Charge::Concat => size(0).plus(size(1)).part(SCAN),
        Charge::InList => size(1),
        Charge::Pattern => size(0).plus(CostEstimate::fixed(1)).part(SCAN).times(size(1).part(PATTERN)),
        Charge::Contains => size(0).part(SCAN).times(size(1).part(SCAN)),
        Charge::Product => size(0).times(size(1)),
    }
}

/// The longest text of a number, moment, span or address.
const SCALAR_TEXT_MAX: u64 = 64;

fn result_size(overload: &Overload, sizes: &[CostEstimate]) -> Option<CostEstimate> {
    let size = |at: usize| sizes.get(at).copied().unwrap_or(UNKNOWN);
    match overload.charge {
        Charge::Concat | Charge::ConcatList => Some(size(0).plus(size(1))),
        Charge::Scan(at, _, grow) => {
            let from = size(at);
            let max = match grow {
                Grow::Unknown => return None,
                Grow::Same => return Some(from),
                Grow::Shrink | Grow::Split => from.max,
                Grow::Twice => from.max.saturating_mul(2).saturating_add(2),
                Grow::Bytes => from.max.saturating_mul(4),
                Grow::Replace => from.max.saturating_add(1).saturating_mul(size(2).max.max(1)),
            };
            Some(CostEstimate { min: 0, max })
        }
        Charge::Pattern if !matches!(overload.result, Type::Bool) => Some(CostEstimate { min: 0, max: size(0).max }),
        _ if overload.function == "string" => match overload.params.first() {
            Some(Type::String) => Some(size(0)),
            Some(Type::Dyn) | None => None,
            Some(_) => Some(CostEstimate { min: 1, max: SCALAR_TEXT_MAX }),
        },
        _ => None,
    }
}
