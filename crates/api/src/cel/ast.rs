//! The syntax tree: what the parser makes and the checker reads, macros expanded.

use std::sync::Arc;

/// Expressions inside each other, at most: deeper ones would exhaust the stack. Chains of `&&` and `||` are balanced and
/// do not count.
pub(super) const DEPTH_MAX: u16 = 250;

/// How deep in their bodies, at most, macros first use what they bind to names of their own.
const MACRO_USE_DEPTH: u16 = 4;

/// Brackets and calls inside each other, at most: the parser's own recursion, which takes more stack a level.
pub(super) const NESTING_MAX: u16 = 100;

/// An expression and the byte where it is reported.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub at: u32,
    pub depth: u16,
    pub kind: Kind,
}

/// A literal.
#[derive(Debug, Clone)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    /// `operand.field`; `test`: only whether it is there; `optional`: `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        test: bool,
        optional: bool,
    },
    Call {
        function: Arc<str>,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Items; those marked are optionals that may be left out.
    List(Vec<(Expr, bool)>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<(Arc<str>, Expr, bool)>,
    },
    Fold(Box<Fold>),
    /// `cel.bind(name, value, body)`.
    Bind {
        name: Arc<str>,
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

/// An entry of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// A comprehension: `result` after running over `range` with one or two variables and the accumulator `@result`.
#[derive(Debug, Clone)]
pub(super) struct Fold {
    pub range: Expr,
    pub first: Arc<str>,
    pub second: Option<Arc<str>>,
    pub init: Expr,
    pub until: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Expr {
    pub fn new(at: u32, kind: Kind) -> Expr {
        let mut depth = 0;
        kind.children(&mut |child| depth = depth.max(child.depth));
        if let Kind::Bind { name, value, body } = &kind {
            // what is bound is evaluated where it is first used: how deep in the body only a macro knows of its own name
            let is_own = !name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
            let used = if is_own { MACRO_USE_DEPTH } else { body.depth };
            depth = depth.max(value.depth.saturating_add(used));
        }
        Expr { at, depth: depth.saturating_add(1), kind }
    }

    pub fn ident(at: u32, name: &str) -> Expr {
        Expr::new(at, Kind::Ident(name.into()))
    }

    pub fn literal(at: u32, literal: Literal) -> Expr {
        Expr::new(at, Kind::Literal(literal))
    }

    pub fn call(at: u32, function: &str, args: Vec<Expr>) -> Expr {
        Expr::new(at, Kind::Call { function: function.into(), target: None, args })
    }

    pub fn member(at: u32, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
        Expr::new(at, Kind::Call { function: function.into(), target: Some(Box::new(target)), args })
    }

    /// `a.b.c` as one name, if it is only names.
    pub fn dotted(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test: false, optional: false } => {
                Some(format!("{}.{field}", operand.dotted()?))
            }
            _ => None,
        }
    }
}

impl Kind {
    fn children(&self, see: &mut dyn FnMut(&Expr)) {
        match self {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => see(operand),
            Kind::Call { target, args, .. } => target.iter().map(|target| &**target).chain(args).for_each(see),
            Kind::List(items) => items.iter().for_each(|(item, _)| see(item)),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                see(&entry.key);
                see(&entry.value);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(|(_, value, _)| see(value)),
            Kind::Fold(fold) => {
                [&fold.range, &fold.init, &fold.until, &fold.step, &fold.result].into_iter().for_each(see);
            }
            Kind::Bind { value, body, .. } => [&**value, &**body].into_iter().for_each(see),
        }
    }
}
