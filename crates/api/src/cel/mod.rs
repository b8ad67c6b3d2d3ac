//! CEL: the expressions of custom resource rules, admission policies and webhook conditions.
//!
//! Flow        text → tokens (`lex`) → syntax tree (`parse`, `macros`) → checked tree (`check`, `unify`) → cost estimate
//!             (`cost`) and values (`evaluate`, `library`)
//! Guarantees  an expression that compiles can be evaluated on any data; evaluation ends within its budget; nothing is
//!             copied of the data but what the expression touches
//! Assumes     the caller declares the variables and their shapes, and gives values for them
//! Not here    clocks, IO, and who may do what (the caller answers through `Authorizer`) · protobuf messages, enums and
//!             containers, which Kubernetes does not use
//!
//! ```
//! use windlass_api::cel::{Bindings, Budget, Env, Shape, Type, Value};
//! use serde_json::json;
//!
//! let env = Env::new().variable("self", Shape::map(Type::Int.into()).max(10));
//! let rule = env.compile("self.a > 1").expect("a valid rule");
//! let data = json!({"a": 2});
//! let bindings = Bindings::new().with("self", env.read("self", &data));
//! let value = rule.evaluate(&bindings, &mut Budget::new(1_000)).expect("a value");
//! assert_eq!(value.as_bool(), Some(true));
//! ```
//!
//! Why our own engine: docs/decisions/005-cel.md. Source: the CEL language definition; Kubernetes "CEL in Kubernetes".

mod ast;
mod authorizer;
mod budget;
mod check;
mod compare;
mod cost;
mod escape;
mod evaluate;
mod json;
mod lex;
mod library;
mod macros;
mod node;
mod opaque;
mod parse;
mod source;
#[cfg(test)]
mod tests;
mod types;
mod unify;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use authorizer::{Authorizer, Decision, Question, Subject};
pub use budget::{Budget, CALL_COST_MAX, EvalError, MATCH_CONDITIONS_COST_MAX, OBJECT_COST_MAX};
pub use cost::CostEstimate;
pub use escape::{escape, unescape};
pub use library::format::NamedFormat;
pub use library::net::Cidr;
pub use library::semver::Semver;
pub use library::url::Url;
pub use opaque::{Check, Opaque};
pub use source::{CompileError, CompileErrors};
pub use types::{Field, ObjectType, Order, Shape, Type};
pub use value::{Key, List, Map, Object, Text, Value};

/// What expressions may name: variables and object types.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: BTreeMap<Arc<str>, Arc<Shape>>,
    types: BTreeMap<String, Arc<ObjectType>>,
    open: Option<String>,
}

impl Env {
    /// Only the functions of the library.
    pub fn new() -> Env {
        Env::default()
    }

    /// With this variable.
    pub fn variable(mut self, name: &str, shape: impl Into<Shape>) -> Env {
        self.variables.insert(name.into(), Arc::new(shape.into()));
        self
    }

    /// With an object type that expressions can make: `Name{field: value}`.
    pub fn object(mut self, object: ObjectType) -> Env {
        self.types.insert(object.name().to_owned(), Arc::new(object));
        self
    }

    /// With objects of any field, named `root` or `root.anything`: what mutations apply.
    pub fn open_objects(mut self, root: &str) -> Env {
        self.open = Some(root.to_owned());
        self
    }

    /// Compiles an expression.
    ///
    /// Errors: what is wrong, each with its line and column.
    pub fn compile(&self, text: &str) -> Result<Program, CompileErrors> {
        let tree = parse::parse(text).map_err(|finding| source::locate(text, vec![finding]))?;
        let root = check::check(self, &tree).map_err(|findings| source::locate(text, findings))?;
        let cost = cost::estimate(&root);
        Ok(Program { root, cost })
    }

    /// Data as the value of a variable; as what it is, if there is no such variable.
    pub fn read<'a>(&self, variable: &str, data: &'a serde_json::Value) -> Value<'a> {
        self.variables.get(variable).map_or_else(|| Value::from(data), |shape| shape.read(data))
    }

    fn find_variable(&self, name: &str) -> Option<(&Arc<str>, &Arc<Shape>)> {
        self.variables.get_key_value(name)
    }

    fn find_type(&self, name: &str) -> Option<Arc<ObjectType>> {
        if let Some(object) = self.types.get(name) {
            return Some(Arc::clone(object));
        }
        let root = self.open.as_deref()?;
        let rest = name.strip_prefix(root)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| Arc::new(ObjectType::open(name)))
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    root: node::Node,
    cost: CostEstimate,
}

impl Program {
    /// The type of its value.
    pub fn output(&self) -> &Type {
        &self.root.of
    }

    /// What an evaluation may cost, given the declared sizes.
    pub fn cost(&self) -> CostEstimate {
        self.cost
    }

    /// Whether it reads this variable; a rule that reads `oldSelf` is a transition rule.
    pub fn uses(&self, variable: &str) -> bool {
        self.root.uses(variable)
    }

    /// Its value on this data.
    ///
    /// Errors: it failed on the data, or cost more than the budget allows.
    pub fn evaluate<'a>(&self, activation: &dyn Activation<'a>, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        let outer = budget.begin();
        // Even what costs nothing takes time, and is asked of each of a million items.
        let value = budget.work(1).and_then(|()| evaluate::evaluate(&self.root, activation, budget));
        budget.end(outer);
        value
    }
}

/// Where the values of variables come from.
pub trait Activation<'a> {
    /// The value of a variable; `None` if there is none.
    fn variable(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>>;

    /// The value of a variable's field where it is only made when it is used (a policy's `variables.x`); `None` for
    /// variables that are values as a whole.
    fn field(&self, _variable: &str, _field: &str, _budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        None
    }
}

/// Variables and their values.
#[derive(Debug, Clone, Default)]
pub struct Bindings<'a>(Vec<(&'static str, Value<'a>)>);

impl<'a> Bindings<'a> {
    /// None.
    pub fn new() -> Bindings<'a> {
        Bindings::default()
    }

    /// With this one.
    pub fn with(mut self, name: &'static str, value: impl Into<Value<'a>>) -> Bindings<'a> {
        self.0.push((name, value.into()));
        self
    }
}

impl<'a> Activation<'a> for Bindings<'a> {
    fn variable(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// Programs are compiled once and shared.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<(Env, Program)>();
};
