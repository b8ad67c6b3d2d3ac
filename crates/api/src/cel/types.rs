//! Types of expressions, and the shapes that data is declared to have.
//!
//! A **type** is what the checker reasons with. A **shape** is a type with what the schema says beyond it: how large the
//! data may become (for cost estimates), how a list is ordered (for `==` and `+`), and how JSON is read as a value.
//!
//! Source: CEL language definition, "Values"; Kubernetes "CEL in Kubernetes", type mapping of structural schemas.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::escape::escape;
use crate::schema::{Field as SchemaField, Form, Message, Shape as SchemaShape, Type as SchemaType};

/// The type of an expression.
#[derive(Debug, Clone)]
pub enum Type {
    /// Known only when it is evaluated.
    Dyn,
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool,
    /// 64-bit integer.
    Int,
    /// 64-bit unsigned integer.
    Uint,
    /// 64-bit floating point.
    Double,
    /// UTF-8 text.
    String,
    /// Bytes.
    Bytes,
    /// A moment, years 1 to 9999.
    Timestamp,
    /// A span of time in nanoseconds.
    Duration,
    /// A list.
    List(Arc<Type>),
    /// A map from the first to the second.
    Map(Arc<Type>, Arc<Type>),
    /// A value or none.
    Optional(Arc<Type>),
    /// The type of types.
    Type(Arc<Type>),
    /// An object with declared fields.
    Object(Arc<ObjectType>),
    /// A type of a library, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// To be found by the checker.
    Param(u32),
    /// What has been reported already; fits everywhere.
    Error,
}

impl Type {
    /// A list of these.
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    /// A map.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// Perhaps one of these.
    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    /// Whether the checker accepts anything here.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }
}

/// Types are equal by structure; objects by name.
impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b))
            | (Type::Optional(a), Type::Optional(b))
            | (Type::Type(a), Type::Type(b)) => a == b,
            (Type::Map(a, b), Type::Map(c, d)) => a == c && b == d,
            (Type::Object(a), Type::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Param(a), Type::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => out.write_str("dyn"),
            Type::Null => out.write_str("null"),
            Type::Bool => out.write_str("bool"),
            Type::Int => out.write_str("int"),
            Type::Uint => out.write_str("uint"),
            Type::Double => out.write_str("double"),
            Type::String => out.write_str("string"),
            Type::Bytes => out.write_str("bytes"),
            Type::Timestamp => out.write_str("timestamp"),
            Type::Duration => out.write_str("duration"),
            Type::List(item) => write!(out, "list({item})"),
            Type::Map(key, value) => write!(out, "map({key}, {value})"),
            Type::Optional(of) => write!(out, "optional_type({of})"),
            Type::Type(of) => write!(out, "type({of})"),
            Type::Object(object) => out.write_str(&object.name),
            Type::Opaque(name) => out.write_str(name),
            Type::Param(at) => write!(out, "_var{at}"),
            Type::Error => out.write_str("!error!"),
        }
    }
}

/// How a list is compared and joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Order {
    /// As it stands.
    #[default]
    Atomic,
    /// As a set: `==` takes any order, `+` adds what is not there.
    Set,
    /// As a map by these fields: `==` takes any order, `+` replaces items of equal keys.
    Keyed(Arc<[String]>),
}

/// What data is declared to be.
#[derive(Debug, Clone)]
pub struct Shape {
    of: Type,
    max: Option<u64>,
    key: Option<Arc<Shape>>,
    item: Option<Arc<Shape>>,
    order: Order,
}

impl From<Type> for Shape {
    fn from(of: Type) -> Shape {
        let inner = |of: &Arc<Type>| Some(Arc::new(Shape::from((**of).clone())));
        let (key, item) = match &of {
            Type::List(item) => (None, inner(item)),
            Type::Map(key, value) => (inner(key), inner(value)),
            _ => (None, None),
        };
        Shape { of, max: None, key, item, order: Order::Atomic }
    }
}

impl Shape {
    /// An object.
    pub fn object(of: Arc<ObjectType>) -> Shape {
        Shape::from(Type::Object(of))
    }

    /// A list of such items.
    pub fn list(item: Shape) -> Shape {
        let of = Type::list(item.of.clone());
        Shape { of, max: None, key: None, item: Some(Arc::new(item)), order: Order::Atomic }
    }

    /// A map from texts to such values.
    pub fn map(value: Shape) -> Shape {
        let of = Type::map(Type::String, value.of.clone());
        Shape {
            of,
            max: None,
            key: Some(Arc::new(Shape::from(Type::String))),
            item: Some(Arc::new(value)),
            order: Order::Atomic,
        }
    }

    /// At most so many characters, bytes, items or entries.
    pub fn max(mut self, max: u64) -> Shape {
        self.max = Some(max);
        self
    }

    /// At most so many characters in a map's keys.
    pub fn key_max(mut self, max: u64) -> Shape {
        self.key = self.key.map(|key| Arc::new(Shape { max: Some(max), ..(*key).clone() }));
        self
    }

    /// A list with this order.
    pub fn ordered(mut self, order: Order) -> Shape {
        self.order = order;
        self
    }

    /// Its type.
    pub fn of(&self) -> &Type {
        &self.of
    }

    /// The largest size, if one is declared.
    pub fn size_max(&self) -> Option<u64> {
        self.max
    }

    /// The shape of a list's items or a map's values.
    pub fn item(&self) -> Option<&Arc<Shape>> {
        self.item.as_ref()
    }

    /// The shape of a map's keys.
    pub fn key(&self) -> Option<&Arc<Shape>> {
        self.key.as_ref()
    }

    /// How a list is compared and joined.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The shape of a built-in message, as the published schema declares it.
    pub fn of_message(message: Message<'static>) -> Shape {
        match message.form() {
            Form::Fields => Shape::object(Arc::new(ObjectType::of_message(message))),
            Form::Quantity => Type::String.into(),
            Form::Time | Form::MicroTime => Type::Timestamp.into(),
            Form::Duration => Type::Duration.into(),
            Form::Strings => Type::list(Type::String).into(),
            Form::IntOrString
            | Form::AnyObject
            | Form::Any
            | Form::Nested
            | Form::SchemaOrArray
            | Form::SchemaOrBool
            | Form::SchemaOrStrings => Type::Dyn.into(),
        }
    }

    fn of_field(message: Message<'static>, field: &SchemaField) -> Shape {
        let one = match field.of {
            SchemaType::String => Type::String.into(),
            SchemaType::Bool => Type::Bool.into(),
            SchemaType::Int32 | SchemaType::Int64 => Type::Int.into(),
            SchemaType::Double => Type::Double.into(),
            SchemaType::Bytes => Type::Bytes.into(),
            SchemaType::Message(id) => Shape::of_message(message.schema().message(id)),
        };
        match field.shape {
            SchemaShape::One => one,
            SchemaShape::List => Shape::list(one),
            SchemaShape::Map => Shape::map(one),
        }
    }
}

/// A declared field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name in JSON.
    pub json: Arc<str>,
    /// What it holds.
    pub shape: Arc<Shape>,
}

/// Where the fields of an object come from.
#[derive(Debug)]
enum Source {
    /// They are listed.
    Listed(BTreeMap<String, Field>),
    /// A message's, listed when first asked for: messages may contain themselves.
    Message(Message<'static>, OnceLock<BTreeMap<String, Field>>),
    /// Any field, of any type.
    Open,
}

/// An object with declared fields.
#[derive(Debug)]
pub struct ObjectType {
    name: String,
    source: Source,
}

impl ObjectType {
    /// An object of this name, yet without fields.
    pub fn new(name: impl Into<String>) -> ObjectType {
        ObjectType { name: name.into(), source: Source::Listed(BTreeMap::new()) }
    }

    /// With this field. A name that no expression can spell is left out, as Kubernetes does.
    pub fn field(mut self, json: &str, shape: impl Into<Shape>) -> ObjectType {
        if let (Source::Listed(fields), Some(name)) = (&mut self.source, escape(json)) {
            fields.insert(name, Field { json: json.into(), shape: Arc::new(shape.into()) });
        }
        self
    }

    /// The same, but for one field.
    pub fn with(&self, json: &str, shape: Shape) -> ObjectType {
        let fields = self.fields().cloned().unwrap_or_default();
        ObjectType { name: self.name.clone(), source: Source::Listed(fields) }.field(json, shape)
    }

    /// An object that takes any field.
    pub fn open(name: impl Into<String>) -> ObjectType {
        ObjectType { name: name.into(), source: Source::Open }
    }

    /// The object of a built-in message. A kind's `apiVersion` and `kind` are fields too.
    pub fn of_message(message: Message<'static>) -> ObjectType {
        ObjectType { name: message.full_name(), source: Source::Message(message, OnceLock::new()) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it takes any field.
    pub fn is_open(&self) -> bool {
        matches!(self.source, Source::Open)
    }

    /// The field that expressions call `name`.
    pub fn find(&self, name: &str) -> Option<&Field> {
        self.fields()?.get(name)
    }

    /// The field that JSON calls `name`.
    pub fn find_json(&self, name: &str) -> Option<&Field> {
        self.find(&escape(name)?)
    }

    fn fields(&self) -> Option<&BTreeMap<String, Field>> {
        match &self.source {
            Source::Listed(fields) => Some(fields),
            Source::Message(message, fields) => Some(fields.get_or_init(|| message_fields(*message))),
            Source::Open => None,
        }
    }
}

fn message_fields(message: Message<'static>) -> BTreeMap<String, Field> {
    let field = |name: &str, shape: Shape| Some((escape(name)?, Field { json: name.into(), shape: Arc::new(shape) }));
    let own = message.fields().filter_map(|own| field(&own.name, Shape::of_field(message, own)));
    let kind = ["apiVersion", "kind"].into_iter().filter(|_| message.is_kind());
    own.chain(kind.filter_map(|name| field(name, Type::String.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::{ObjectType, Shape, Type};
    use crate::schema::kubernetes;

    fn path(message: &str, names: &[&str]) -> String {
        let mut shape = Shape::of_message(kubernetes().find(message).expect(message));
        for name in names {
            let next = match shape.of() {
                Type::Object(object) => object.find(name).map(|field| (*field.shape).clone()),
                _ => shape.item().map(|item| (**item).clone()),
            };
            shape = next.expect(name);
        }
        shape.of().to_string()
    }

    #[test]
    fn built_in_kinds_have_the_types_of_the_published_schema() {
        let pod = "k8s.io.api.core.v1.Pod";
        for (names, shown) in [
            (&["apiVersion"][..], "string"),
            (&["metadata", "creationTimestamp"], "timestamp"),
            (&["metadata", "labels"], "map(string, string)"),
            (&["spec", "containers", "0", "resources", "limits"], "map(string, string)"),
            (&["spec", "containers", "0", "ports", "0", "containerPort"], "int"),
            (&["spec", "hostNetwork"], "bool"),
            (&["spec", "containers", "0", "livenessProbe", "httpGet", "port"], "dyn"),
        ] {
            assert_eq!(path(pod, names), shown, "{names:?}");
        }
        assert_eq!(path("k8s.io.api.core.v1.Secret", &["data"]), "map(string, bytes)");
    }

    #[test]
    fn messages_that_contain_themselves_are_listed_as_far_as_they_are_used() {
        let schema = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        assert_eq!(path(schema, &["properties", "a", "not", "allOf", "0", "title"]), "string");
    }

    #[test]
    fn names_that_cannot_be_spelt_are_no_fields() {
        let object = ObjectType::new("object").field("a-b", Type::Int).field("in", Type::Int).field("é", Type::Int);
        assert!(object.find("a__dash__b").is_some() && object.find("__in__").is_some());
        assert!(object.find_json("a-b").is_some() && object.find_json("é").is_none());
    }
}
