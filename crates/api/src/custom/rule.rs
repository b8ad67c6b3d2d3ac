//! The rules in CEL of a schema (`x-kubernetes-validations`), compiled once.
//!
//! Goal        each place that says rules has them as programs, typed by the schema at that place
//! Flow        JSON schema and its [`Node`] → [`Ruled`]: only those places that have rules, or have them below
//! Rules
//!   R1 names     `self` is the value, `oldSelf` the one before; with optionalOldSelf that is an optional
//!   R2 result    a rule gives a bool, its message a text
//!   R3 field     fieldPath names a field below the rule's place
//! Relies on   the schema was found structural
//! Not here    what a definition may say of rules (`resources/custom_resource_definition/rule`) · running them (`verdict`)
//!
//! Source: custom resources, "Validation rules"; API reference, ValidationRule.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::node::{List, Node, Type as Of};
use super::path::simple;
use super::shape::{self, Sized};
use crate::cel::{Env, Program, Shape, Type};
use crate::field::{FieldReason, Path};
use crate::resources::tree::Tree;
use crate::schema::kubernetes;

/// The keyword.
pub(crate) const RULES: &str = "x-kubernetes-validations";
/// What a rule may call its refusals.
pub(crate) const REASONS: [FieldReason; 4] =
    [FieldReason::Duplicate, FieldReason::Forbidden, FieldReason::Invalid, FieldReason::Required];

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) text: String,
    /// Empty if none is said.
    pub(crate) message: String,
    /// The program, or why there is none.
    pub(crate) program: Result<Program, String>,
    pub(crate) message_program: Option<Result<Program, String>>,
    pub(crate) reason: FieldReason,
    /// Where its refusals stand, or why that is no field.
    pub(crate) field: Result<Vec<Step>, String>,
    pub(crate) optional_old: bool,
    /// Whether it compares a value with the one before.
    pub(crate) is_transition: bool,
}

/// One step of a field path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Key(String),
}

impl Rule {
    /// Where its refusals stand, of a value at `path`.
    pub(crate) fn place(&self, path: &Path) -> Path {
        self.field.iter().flatten().fold(path.clone(), |path, step| match step {
            Step::Field(name) => path.child(name),
            Step::Key(name) => path.key(name),
        })
    }
}

const OBJECT_META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A place that has rules, or has them below.
#[derive(Debug)]
pub(crate) struct Ruled {
    pub(crate) shape: Shape,
    pub(crate) rules: Vec<Rule>,
    pub(crate) fields: BTreeMap<String, Ruled>,
    /// That of a list's items or a map's values.
    pub(crate) each: Option<Box<Ruled>>,
    pub(crate) list: List,
    /// How many items or values are declared at most.
    pub(crate) each_max: Option<u64>,
    /// What its shortest JSON takes.
    pub(crate) bytes_min: u64,
}

impl Ruled {
    /// Compiles the rules of an object's schema; `None` if it has none.
    pub(crate) fn compile(schema: &Value, node: &Node) -> Option<Ruled> {
        if has_rules(schema) { place(schema, node, "self", true).1 } else { None }
    }
}

/// What an object of this schema is to others: with all of its metadata, which its own rules do not see.
pub(crate) fn shape_of(node: &Node) -> Option<Shape> {
    let (sized, _) = place(&Value::Null, node, "object", true);
    let shape = sized?.shape;
    let Type::Object(object) = shape.of() else { return Some(shape) };
    let metadata = kubernetes().find(OBJECT_META)?;
    Some(Shape::object(Arc::new(object.with("metadata", Shape::of_message(metadata)))))
}

fn has_rules(schema: &Value) -> bool {
    !schema.items(RULES).is_empty()
        || schema.entries("properties").values().any(has_rules)
        || ["items", "additionalProperties"].iter().filter_map(|field| schema.get(*field)).any(has_rules)
}

/// The shape of a place, if it has one, and its rules, if there are any.
fn place(schema: &Value, node: &Node, name: &str, is_root: bool) -> (Option<Sized>, Option<Ruled>) {
    let mut fields = BTreeMap::new();
    let mut each = None;
    let mut below = |schema: &Value, node: &Node, name: &str| {
        let (sized, ruled) = place(schema, node, name, false);
        each = ruled;
        sized
    };
    let sized = match node.of {
        Of::Array => {
            let item = node.items.as_deref();
            let item = item.and_then(|item| below(&schema["items"], item, &format!("{name}.@idx")));
            item.map(|item| shape::list(node, &item))
        }
        Of::Object => match shape::map_values(node) {
            Some(values) => {
                let value = below(&schema["additionalProperties"], values, &format!("{name}.@elem"));
                value.map(|value| shape::map(node, &value))
            }
            None => {
                let mut shapes = BTreeMap::new();
                for (field, inner) in &node.properties {
                    let (sized, ruled) = place(&schema["properties"][field], inner, &format!("{name}.{field}"), false);
                    shapes.extend(sized.map(|sized| (field.clone(), sized)));
                    fields.extend(ruled.map(|ruled| (field.clone(), ruled)));
                }
                Some(shape::object(node, name, &shapes, is_root || node.embedded))
            }
        },
        _ => shape::scalar(node),
    };
    let rules = schema.items(RULES);
    if rules.is_empty() && fields.is_empty() && each.is_none() {
        return (sized, None);
    }
    let own = sized.clone().unwrap_or_else(|| Sized { shape: Type::Dyn.into(), bytes_min: 1 });
    let checks = node.checks.as_deref();
    let ruled = Ruled {
        rules: rules.iter().map(|rule| compile(rule, schema, &own.shape)).collect(),
        shape: own.shape,
        fields,
        each: each.map(Box::new),
        list: node.list.clone(),
        each_max: checks.and_then(|checks| if node.of == Of::Array { checks.items.1 } else { checks.properties.1 }),
        bytes_min: if node.nullable { own.bytes_min.min(4) } else { own.bytes_min },
    };
    (sized, Some(ruled))
}

fn compile(rule: &Value, schema: &Value, shape: &Shape) -> Rule {
    let optional_old = rule.flag("optionalOldSelf");
    let old = if optional_old { Type::optional(shape.of().clone()).into() } else { shape.clone() };
    let env = Env::new().variable("self", shape.clone()).variable("oldSelf", old);
    let message = Some(rule.text("messageExpression").trim()).filter(|text| !text.is_empty());
    let own = program(&env, rule.text("rule"), &Type::Bool);
    let message_program = message.map(|text| program(&env, text, &Type::String));
    let programs = [Some(&own), message_program.as_ref()];
    let is_transition = programs.into_iter().flatten().flatten().any(|program| program.uses("oldSelf"));
    Rule {
        text: rule.text("rule").trim().to_owned(),
        message: rule.text("message").trim().to_owned(),
        program: own,
        message_program,
        reason: *REASONS.iter().find(|reason| reason.as_str() == rule.text("reason")).unwrap_or(&FieldReason::Invalid),
        field: field(rule.text("fieldPath").trim(), schema),
        optional_old,
        is_transition,
    }
}

/// R2.
fn program(env: &Env, text: &str, wanted: &Type) -> Result<Program, String> {
    let whose = if *wanted == Type::Bool { "" } else { "messageExpression " };
    let program = env.compile(text).map_err(|errors| format!("{whose}compilation failed: {errors}"))?;
    match program.output() == wanted {
        true => Ok(program),
        false if whose.is_empty() => Err("cel expression must evaluate to a bool".to_owned()),
        false => Err("messageExpression must evaluate to a string".to_owned()),
    }
}

/// R3.
fn field(text: &str, schema: &Value) -> Result<Vec<Step>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names = simple(text).ok_or("expected names of fields only, such as .spec.color")?;
    let mut at = schema;
    let mut steps = Vec::with_capacity(names.len());
    for name in names {
        let (properties, additional) = (&at["properties"], &at["additionalProperties"]);
        (at, steps) = match properties.get(&name) {
            Some(inner) => (inner, pushed(steps, Step::Field(name))),
            None if additional.is_object() => (additional, pushed(steps, Step::Key(name))),
            None => return Err("does not refer to a valid field".to_owned()),
        };
    }
    Ok(steps)
}

fn pushed(mut steps: Vec<Step>, step: Step) -> Vec<Step> {
    steps.push(step);
    steps
}

#[cfg(test)]
mod tests {
    use super::{Ruled, Step, field};
    use crate::custom::Node;
    use serde_json::{Value, json};

    /// What is wrong with a rule of a schema, by its first line.
    fn refused(schema: &Value) -> String {
        let ruled = Ruled::compile(schema, &Node::compile(schema)).expect("rules");
        let why = ruled.rules[0].program.as_ref().err().cloned().unwrap_or_default();
        why.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn r1_self_is_typed_by_the_schema() {
        let schema = |rule: &str, old: bool| {
            json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "optionalOldSelf": old}], "properties": {
                "n": {"type": "integer"}, "when": {"type": "string", "format": "date-time"},
                "span": {"type": "string", "format": "duration"}, "raw": {"type": "string", "format": "byte"},
                "either": {"x-kubernetes-int-or-string": true}, "m": {"type": "object", "additionalProperties": {"type": "number"}},
                "any": {"x-kubernetes-preserve-unknown-fields": true}, "a-b": {"type": "boolean"},
                "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
            }})
        };
        for rule in [
            "self.n == 1 && self.when < timestamp('2026-01-01T00:00:00Z') && self.span < duration('1h')",
            "self.raw.size() == 1 && self.either == 1 && self.m.a == 1.5 && self.a__dash__b",
            "self.l.exists(x, x.k == 'a') && self.metadata.name == 'x' && self.kind == 'Foo'",
            "oldSelf.n == self.n",
        ] {
            assert_eq!(refused(&schema(rule, false)), "", "{rule}");
        }
        assert_eq!(refused(&schema("oldSelf.hasValue() && oldSelf.value().n == self.n", true)), "");
        for (rule, why) in [
            ("self.x == 1", "compilation failed: ERROR: <input>:1:5: undefined field 'x'"),
            ("self.any == 1", "compilation failed: ERROR: <input>:1:5: undefined field 'any'"),
            ("self.metadata.labels.a == ''", "compilation failed: ERROR: <input>:1:14: undefined field 'labels'"),
        ] {
            assert_eq!(refused(&schema(rule, false)), why);
        }
    }

    #[test]
    fn r2_a_rule_gives_a_bool() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "'a'", "messageExpression": "1"}]});
        assert_eq!(refused(&schema), "cel expression must evaluate to a bool");
        let ruled = Ruled::compile(&schema, &Node::compile(&schema)).expect("rules");
        let why = ruled.rules[0].message_program.as_ref().and_then(|program| program.as_ref().err());
        assert_eq!(why.map(String::as_str), Some("messageExpression must evaluate to a string"));
    }

    #[test]
    fn r3_a_field_path_names_a_field_below() {
        let schema =
            json!({"properties": {"a": {"additionalProperties": {"properties": {"b": {}}}}, "l": {"items": {}}}});
        let (name, key) = (|text: &str| Step::Field(text.into()), |text: &str| Step::Key(text.into()));
        assert_eq!(field(".a.x.b", &schema), Ok(vec![name("a"), key("x"), name("b")]));
        assert_eq!(field("", &schema), Ok(Vec::new()));
        for text in [".c", ".l[0]", "a b"] {
            assert!(field(text, &schema).is_err(), "{text}");
        }
    }

    #[test]
    fn schemas_without_rules_cost_nothing() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        assert!(Ruled::compile(&schema, &Node::compile(&schema)).is_none());
    }
}
