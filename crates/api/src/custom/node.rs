//! A structural schema, compiled: one node for each place in an object.
//!
//! Goal        everything later asked of a value at a place is a field of its node, read once from the JSON schema
//! Relies on   the definition's own rules: what reaches a row was found structural
//! Not here    what a schema may say (`resources/custom_resource_definition/structural`)
//!
//! Source: custom resources, "Specifying a structural schema"; OpenAPI 3.0 Schema Object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pattern::Pattern;
use crate::resources::tree::Tree;

/// The type a schema asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Not said.
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Type {
        match text {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::Any,
        }
    }

    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Type::Any => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum List {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By themselves.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// What a schema says of fields that it does not name.
#[derive(Debug, Clone, Default)]
pub(crate) enum Additional {
    /// Nothing: they are unknown.
    #[default]
    None,
    /// They may hold anything.
    Any,
    /// Each holds this.
    Each(Box<Node>),
}

/// One place of a schema.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) of: Type,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) embedded: bool,
    /// Fields that it does not name are kept.
    pub(crate) open: bool,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) list: List,
    /// Server-side apply takes the object as one value.
    pub(crate) atomic: bool,
    pub(crate) default: Option<Value>,
    pub(crate) checks: Option<Box<Checks>>,
}

/// What must hold of a value beyond its type.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks {
    pub(crate) format: String,
    pub(crate) words: Vec<Value>,
    pub(crate) least: Option<(f64, bool)>,
    pub(crate) most: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) pattern: Option<Pattern>,
    pub(crate) items: (Option<u64>, Option<u64>),
    pub(crate) unique: bool,
    pub(crate) properties: (Option<u64>, Option<u64>),
    pub(crate) required: Vec<String>,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
}

impl Node {
    /// Compiles a JSON schema that was found structural. What it says that is no keyword is left out.
    pub(crate) fn compile(schema: &Value) -> Node {
        let nodes = |field: &str| schema.items(field).iter().map(Node::compile).collect::<Vec<Node>>();
        let length = |least: &str, most: &str| (schema[least].as_u64(), schema[most].as_u64());
        let bound = |at: &str, exclusive: &str| schema[at].as_f64().map(|bound| (bound, schema.flag(exclusive)));
        let checks = Checks {
            format: schema.text("format").to_owned(),
            words: schema.items("enum").to_vec(),
            least: bound("minimum", "exclusiveMinimum"),
            most: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema["multipleOf"].as_f64(),
            length: length("minLength", "maxLength"),
            pattern: Some(schema.text("pattern")).filter(|text| !text.is_empty()).and_then(|p| Pattern::new(p).ok()),
            items: length("minItems", "maxItems"),
            unique: schema.flag("uniqueItems"),
            properties: length("minProperties", "maxProperties"),
            required: schema.items("required").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Node::compile(not))),
        };
        Node {
            of: Type::parse(schema.text("type")),
            nullable: schema.flag("nullable"),
            int_or_string: schema.flag("x-kubernetes-int-or-string"),
            embedded: schema.flag("x-kubernetes-embedded-resource"),
            open: schema.flag("x-kubernetes-preserve-unknown-fields"),
            properties: schema
                .entries("properties")
                .iter()
                .map(|(name, inner)| (name.clone(), Node::compile(inner)))
                .collect(),
            additional: match &schema["additionalProperties"] {
                Value::Bool(true) => Additional::Any,
                inner if inner.is_object() => Additional::Each(Box::new(Node::compile(inner))),
                _ => Additional::None,
            },
            items: schema.get("items").filter(|items| items.is_object()).map(|items| Box::new(Node::compile(items))),
            list: match schema.text("x-kubernetes-list-type") {
                "set" => List::Set,
                "map" => {
                    let keys = schema.items("x-kubernetes-list-map-keys").iter().filter_map(Value::as_str);
                    List::Map(keys.map(str::to_owned).collect())
                }
                _ => List::Atomic,
            },
            atomic: schema.text("x-kubernetes-map-type") == "atomic",
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            checks: (!checks.is_empty()).then(|| Box::new(checks)),
        }
    }

    /// The node of a field: a named one, or that of all others.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Each(node) => Some(node),
            Additional::None | Additional::Any => None,
        })
    }

    /// The schema of an object that says nothing: everything is kept.
    pub(crate) fn open() -> Node {
        let mut node = Node::compile(&Value::Null);
        node.of = Type::Object;
        node.open = true;
        node
    }
}

impl Checks {
    fn is_empty(&self) -> bool {
        let Checks { format, words, least, most, multiple_of, length, pattern, items, unique, properties, .. } = self;
        let lists = [&self.all_of, &self.any_of, &self.one_of];
        format.is_empty()
            && words.is_empty()
            && least.is_none()
            && most.is_none()
            && multiple_of.is_none()
            && [length, items, properties].iter().all(|bounds| **bounds == (None, None))
            && pattern.is_none()
            && !unique
            && self.required.is_empty()
            && lists.iter().all(|list| list.is_empty())
            && self.not.is_none()
    }
}
