//! Values: what expressions give. JSON is borrowed and read as far as it is touched, by its declared shape.
//!
//! Rules
//!   R1 lazy      a value made of JSON borrows it: reading a rule over a big object costs only what the rule touches
//!   R2 declared  JSON is read as its shape says (`date-time` texts as moments…); where it does not fit, or where
//!                nothing is declared, as what it is
//!   R3 equal     numbers compare across types, values of other types are unequal; declared sets in any order
//!
//! Source: CEL language definition, "Values", "Equality"; Kubernetes "CEL in Kubernetes".

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value as Json;

use super::opaque::Opaque;
use super::types::{ObjectType, Order, Shape, Type};
use crate::codec::form::{read_base64, read_duration};

/// Text, borrowed or owned; cheap to copy either way.
#[derive(Clone)]
pub enum Text<'a> {
    /// Of the data.
    Borrowed(&'a str),
    /// Made by the expression.
    Owned(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

/// A value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// 64-bit integer.
    Int(i64),
    /// 64-bit unsigned integer.
    Uint(u64),
    /// 64-bit floating point.
    Double(f64),
    /// UTF-8 text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A moment.
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// An object with declared fields.
    Object(Object<'a>),
    /// A value or none.
    Optional(Option<Arc<Value<'a>>>),
    /// A type.
    Type(Type),
    /// A value of a library.
    Opaque(Opaque<'a>),
}

/// A list.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// Made by the expression.
    Built(Arc<Vec<Value<'a>>>, Order),
    /// Of the data, with the shape of its items.
    Json(&'a [Json], Arc<Shape>, Order),
}

/// A map.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// Made by the expression.
    Built(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// Of the data, with the shape of its values.
    Json(&'a serde_json::Map<String, Json>, Arc<Shape>),
    /// Of maps, made by the caller: asked for a text that it does not hold, it gives an empty one.
    Nested(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    /// A bool.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A text.
    String(Text<'a>),
}

/// An object with declared fields.
#[derive(Debug, Clone)]
pub enum Object<'a> {
    /// Of the data.
    Json(&'a serde_json::Map<String, Json>, Arc<ObjectType>),
    /// Made by the expression: JSON names and values.
    Built(Arc<ObjectType>, Arc<Vec<(Arc<str>, Value<'a>)>>),
}

impl Shape {
    /// Reads JSON as this shape.
    pub fn read<'a>(&self, json: &'a Json) -> Value<'a> {
        match (json, self.of()) {
            (Json::Number(number), Type::Double) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            (Json::Number(number), Type::Uint) => number.as_u64().map_or_else(|| natural(json), Value::Uint),
            (Json::String(text), Type::Timestamp) => read_moment(text).map_or_else(|| natural(json), Value::Timestamp),
            (Json::String(text), Type::Duration) => read_duration(text).map_or_else(|| natural(json), Value::Duration),
            (Json::String(text), Type::Bytes) => {
                read_base64(text).map_or_else(|_| natural(json), |bytes| Value::Bytes(bytes.into()))
            }
            (Json::Array(items), _) => {
                let item = self.item().cloned().unwrap_or_else(anything);
                Value::List(List::Json(items, item, self.order().clone()))
            }
            (Json::Object(fields), Type::Object(object)) if !object.is_open() => {
                Value::Object(Object::Json(fields, Arc::clone(object)))
            }
            (Json::Object(entries), _) => Value::Map(Map::Json(entries, self.item().cloned().unwrap_or_else(anything))),
            _ => natural(json),
        }
    }
}

/// A moment, or the beginning of a day.
fn read_moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()))
}

fn anything() -> Arc<Shape> {
    Arc::new(Shape::from(Type::Dyn))
}

/// JSON as what it is.
fn natural(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (_, Some(uint)) => Value::Uint(uint),
            _ => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List::Json(items, anything(), Order::Atomic)),
        Json::Object(entries) => Value::Map(Map::Json(entries, anything())),
    }
}

impl<'a> From<&'a Json> for Value<'a> {
    fn from(json: &'a Json) -> Value<'a> {
        natural(json)
    }
}

impl<'a> From<bool> for Value<'a> {
    fn from(bool: bool) -> Value<'a> {
        Value::Bool(bool)
    }
}

impl<'a> From<i64> for Value<'a> {
    fn from(int: i64) -> Value<'a> {
        Value::Int(int)
    }
}

impl<'a> From<String> for Value<'a> {
    fn from(text: String) -> Value<'a> {
        Value::String(Text::Owned(text.into()))
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Built(Arc::new(items), Order::Atomic))
    }
}

impl<'a> Value<'a> {
    /// No value.
    pub const NONE: Value<'static> = Value::Optional(None);

    /// A value, as an optional.
    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    /// Text that lives as long as the data.
    pub fn text(text: &'a str) -> Value<'a> {
        Value::String(Text::Borrowed(text))
    }

    /// Its bool, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(bool) => Some(*bool),
            _ => None,
        }
    }

    /// Its text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The type it has.
    pub fn of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Object(Object::Json(_, of) | Object::Built(of, _)) => Type::Object(Arc::clone(of)),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(Arc::new(Type::Dyn)),
            Value::Opaque(opaque) => Type::Opaque(opaque.name()),
        }
    }

    /// How large it is, in the units that costs count: characters, bytes, items, entries; 1 for what has no size.
    pub fn size(&self) -> u64 {
        let size = match self {
            Value::String(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            _ => 1,
        };
        size as u64
    }
}

impl<'a> List<'a> {
    /// How many items.
    pub fn len(&self) -> usize {
        match self {
            List::Built(items, _) => items.len(),
            List::Json(items, ..) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at this place.
    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            List::Built(items, _) => items.get(at).cloned(),
            List::Json(items, shape, _) => items.get(at).map(|item| shape.read(item)),
        }
    }

    /// The items.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// How it is compared and joined.
    pub fn order(&self) -> &Order {
        match self {
            List::Built(_, order) | List::Json(_, _, order) => order,
        }
    }
}

impl<'a> Map<'a> {
    /// How many entries.
    pub fn len(&self) -> usize {
        match self {
            Map::Built(entries) | Map::Nested(entries) => entries.len(),
            Map::Json(entries, _) => entries.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of this key; numbers of equal value are the same key.
    pub fn get(&self, key: &Value<'a>) -> Option<Value<'a>> {
        match self {
            Map::Json(entries, shape) => entries.get(key.as_str()?).map(|value| shape.read(value)),
            Map::Built(entries) => Key::alike(key).into_iter().flatten().find_map(|key| entries.get(&key).cloned()),
            Map::Nested(_) => self.get_str(key.as_str()?),
        }
    }

    /// Whether it holds this key.
    pub fn has(&self, key: &Value<'a>) -> bool {
        match self {
            Map::Nested(entries) => Key::of(key).is_some_and(|key| entries.contains_key(&key)),
            _ => self.get(key).is_some(),
        }
    }

    /// The value of this text.
    pub fn get_str(&self, key: &str) -> Option<Value<'a>> {
        match self {
            Map::Json(entries, shape) => entries.get(key).map(|value| shape.read(value)),
            Map::Built(entries) => entries.get(&Key::String(Text::Owned(key.into()))).cloned(),
            Map::Nested(entries) => {
                let found = entries.get(&Key::String(Text::Owned(key.into()))).cloned();
                Some(found.unwrap_or_else(|| Value::Map(Map::Built(Arc::default()))))
            }
        }
    }

    /// The entries, by key.
    pub fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Map::Built(entries) | Map::Nested(entries) => {
                entries.iter().map(|(key, value)| (key.clone().into(), value.clone())).collect()
            }
            Map::Json(entries, shape) => {
                entries.iter().map(|(key, value)| (Value::text(key), shape.read(value))).collect()
            }
        }
    }
}

impl<'a> Key<'a> {
    /// The key that a value makes.
    pub fn of(value: &Value<'a>) -> Option<Key<'a>> {
        match value {
            Value::Bool(bool) => Some(Key::Bool(*bool)),
            Value::Int(int) => Some(Key::Int(*int)),
            Value::Uint(uint) => Some(Key::Uint(*uint)),
            Value::String(text) => Some(Key::String(text.clone())),
            _ => None,
        }
    }

    /// The keys that equal a value.
    fn alike(value: &Value<'a>) -> [Option<Key<'a>>; 2] {
        let number = |int: Option<i64>, uint: Option<u64>| [int.map(Key::Int), uint.map(Key::Uint)];
        match value {
            Value::Int(int) => number(Some(*int), u64::try_from(*int).ok()),
            Value::Uint(uint) => number(i64::try_from(*uint).ok(), Some(*uint)),
            Value::Double(double) => number(whole_int(*double), whole_uint(*double)),
            _ => [Key::of(value), None],
        }
    }
}

impl<'a> From<Key<'a>> for Value<'a> {
    fn from(key: Key<'a>) -> Value<'a> {
        match key {
            Key::Bool(bool) => Value::Bool(bool),
            Key::Int(int) => Value::Int(int),
            Key::Uint(uint) => Value::Uint(uint),
            Key::String(text) => Value::String(text),
        }
    }
}

/// The integer a floating point number is, if it is one.
pub(super) fn whole_int(double: f64) -> Option<i64> {
    // 2^63 is the first that is out of range
    let fits = double.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&double);
    fits.then_some(double as i64)
}

/// The unsigned integer a floating point number is, if it is one.
pub(super) fn whole_uint(double: f64) -> Option<u64> {
    let fits = double.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&double);
    fits.then_some(double as u64)
}

impl<'a> Object<'a> {
    /// Its type.
    pub fn of(&self) -> &Arc<ObjectType> {
        match self {
            Object::Json(_, of) | Object::Built(of, _) => of,
        }
    }

    /// The field that expressions call `name`.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Object::Json(fields, of) => {
                let field = of.find(name)?;
                fields.get(&*field.json).map(|value| field.shape.read(value))
            }
            Object::Built(of, fields) => {
                let json = of.find(name).map_or(name, |field| &*field.json);
                fields.iter().find(|(own, _)| **own == *json).map(|(_, value)| value.clone())
            }
        }
    }

    /// Its fields: JSON names and values.
    pub fn fields(&self) -> Vec<(String, Value<'a>)> {
        match self {
            Object::Json(fields, of) => {
                let read = |(name, value): (&String, &'a Json)| {
                    (name.clone(), of.find_json(name).map_or_else(|| natural(value), |field| field.shape.read(value)))
                };
                fields.iter().map(read).collect()
            }
            Object::Built(_, fields) => fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        }
    }
}
