//! The checked tree: what is evaluated and what costs are estimated from. Names are resolved, overloads chosen.

use std::sync::Arc;

use super::library::Overload;
use super::types::{ObjectType, Shape, Type};
use super::value::Value;

/// A checked expression.
#[derive(Debug)]
pub(super) struct Node {
    pub of: Type,
    pub kind: NodeKind,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Literal(Value<'static>),
    /// A variable of the environment.
    Global {
        name: Arc<str>,
        shape: Arc<Shape>,
    },
    /// A variable of a comprehension or binding, by its place on the stack.
    Local(usize),
    Select(Box<Select>),
    Index {
        parts: Box<[Node; 2]>,
        optional: bool,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// Condition, then, else.
    If(Box<[Node; 3]>),
    /// False only if the operand is `false`: failures are not.
    NotFalse(Box<Node>),
    /// The overloads that its types allow; more than one if some are known only later.
    Call {
        overloads: Vec<&'static Overload>,
        args: Vec<Node>,
    },
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct {
        object: Arc<ObjectType>,
        fields: Vec<(Arc<str>, Node, bool)>,
    },
    Fold(Box<FoldNode>),
    /// A value and the body that sees it as the next local.
    Bind(Box<[Node; 2]>),
}

/// `operand.field`.
#[derive(Debug)]
pub(super) struct Select {
    pub operand: Node,
    pub field: Arc<str>,
    /// Only whether it is there.
    pub test: bool,
    /// `operand.?field`.
    pub optional: bool,
}

/// A comprehension. The accumulator is the next local, its variables those after.
#[derive(Debug)]
pub(super) struct FoldNode {
    pub range: Node,
    /// Whether there are two variables.
    pub pair: bool,
    pub init: Node,
    pub until: Node,
    pub step: Node,
    pub result: Node,
}

impl Node {
    /// The nodes right below.
    pub fn children(&self, see: &mut dyn FnMut(&Node)) {
        match &self.kind {
            NodeKind::Literal(_) | NodeKind::Global { .. } | NodeKind::Local(_) => {}
            NodeKind::Select(select) => see(&select.operand),
            NodeKind::Index { parts, .. } | NodeKind::And(parts) | NodeKind::Or(parts) | NodeKind::Bind(parts) => {
                parts.iter().for_each(see);
            }
            NodeKind::If(parts) => parts.iter().for_each(see),
            NodeKind::NotFalse(operand) => see(operand),
            NodeKind::Call { args, .. } => args.iter().for_each(see),
            NodeKind::List(items) => items.iter().for_each(|(item, _)| see(item)),
            NodeKind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                see(key);
                see(value);
            }),
            NodeKind::Struct { fields, .. } => fields.iter().for_each(|(_, value, _)| see(value)),
            NodeKind::Fold(fold) => {
                [&fold.range, &fold.init, &fold.until, &fold.step, &fold.result].into_iter().for_each(see);
            }
        }
    }

    /// Whether the variable is read anywhere below.
    pub fn uses(&self, variable: &str) -> bool {
        if matches!(&self.kind, NodeKind::Global { name, .. } if &**name == variable) {
            return true;
        }
        let mut used = false;
        self.children(&mut |child| used = used || child.uses(variable));
        used
    }
}
