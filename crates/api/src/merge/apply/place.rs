//! What the schema says of a value: whether it is one value to everybody, or which parts of it have owners of their own.
//!
//! Rules
//!   R1 said       an atomic message, list or map is one value; a `map` or `set` list is known item by item
//!   R2 unsaid     lists are one value, objects and maps are known entry by entry
//!   R3 unknown    where there is no schema, objects are known entry by entry and all else is one value
//!   R4 default    a key that an item leaves out has the schema's default
//!
//! Source: API concepts, "Merge strategy"; markers listType, listMapKey, mapType, structType.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::set::Element;
use crate::schema::{Field, Form, Merging, Message, Shape};

/// What the schema says of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// It is one value.
    One,
    /// An object with the fields of a message.
    Fields(Message<'a>),
    /// A map whose values are of this field.
    Entries(Message<'a>, &'a Field),
    /// A list whose items, of this field, are known by their keys or as a set.
    Items(Message<'a>, &'a Field),
    /// Nothing is said.
    Unknown,
}

/// How a value at some place is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// It is not.
    One,
    /// Entry by entry.
    Object,
    /// Item by item.
    List,
}

/// What the schema says of a named part of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child<'a> {
    pub place: Place<'a>,
    /// It is a field of a message, and no entry of a map.
    pub is_field: bool,
    /// What stands there when nothing is written: an object or list that cannot be absent.
    pub absent: Option<&'static Value>,
}

static NO_FIELDS: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NO_ITEMS: Value = Value::Array(Vec::new());

impl<'a> Place<'a> {
    /// How `value` is walked here.
    pub fn walk(self, value: &Value) -> Walk {
        match (self, value) {
            (Place::Fields(_) | Place::Entries(..) | Place::Unknown, Value::Object(_)) => Walk::Object,
            (Place::Items(..), Value::Array(_)) => Walk::List,
            _ => Walk::One,
        }
    }

    /// The part of this name.
    pub fn child(self, name: &str) -> Child<'a> {
        let entry = |place| Child { place, is_field: false, absent: None };
        match self {
            Place::Fields(message) => match message.field(name) {
                Some(field) => of_field(message, field),
                None if message.is_kind() && matches!(name, "apiVersion" | "kind") => {
                    Child { place: Place::One, is_field: true, absent: None }
                }
                None => entry(Place::Unknown),
            },
            Place::Entries(owner, field) => entry(of_type(owner, field)),
            Place::Unknown => entry(Place::Unknown),
            Place::One | Place::Items(..) => entry(Place::One),
        }
    }

    /// What the schema says of the items of a list that is walked.
    pub fn item(self) -> Place<'a> {
        match self {
            Place::Items(owner, field) => of_type(owner, field),
            _ => Place::One,
        }
    }

    /// The name of an item of a list that is walked; its position where it has none.
    pub fn element(self, index: usize, item: &Value) -> Element<'static> {
        match self {
            Place::Items(owner, field) => name_of(owner, field, item).unwrap_or(Element::Index(index)),
            _ => Element::Index(index),
        }
    }

    /// Why an item has no name, in Kubernetes' words.
    pub fn why_nameless(self, item: &Value) -> Option<String> {
        let Place::Items(owner, field) = self else { return None };
        if name_of(owner, field, item).is_some() {
            return None;
        }
        Some(match (field.merging, item) {
            (Merging::Map, Value::Object(fields)) => {
                let missing = field.keys().iter().find(|key| key_of(owner, field, fields, key).is_none());
                let missing = missing.map(AsRef::as_ref).unwrap_or_default();
                format!(
                    "associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"
                )
            }
            (Merging::Map, Value::Null) => "associative list with keys may not have null element".to_owned(),
            (Merging::Map, _) => "associative list with keys may not have non-map elements".to_owned(),
            (_, Value::Null) => "associative list without keys has an element that's an explicit null".to_owned(),
            (_, Value::Object(_)) => "associative list without keys has an element that's a map type".to_owned(),
            _ => "not supported: associative list with lists as elements".to_owned(),
        })
    }
}

fn of_field<'a>(message: Message<'a>, field: &'a Field) -> Child<'a> {
    let inner = message.of(field);
    let (place, absent) = match (field.shape, field.merging) {
        (Shape::List, Merging::Set | Merging::Map) => {
            (Place::Items(message, field), field.required.then_some(&NO_ITEMS))
        }
        (Shape::List, _) | (_, Merging::Atomic) => (Place::One, None),
        (Shape::Map, _) => (Place::Entries(message, field), None),
        (Shape::One, merging) => {
            let place = match inner {
                // a field may say that it is not the one value that its message is
                Some(inner) if inner.form() == Form::Fields && merging == Merging::Granular => Place::Fields(inner),
                _ => of_type(message, field),
            };
            let is_always_there = !field.pointer && matches!(place, Place::Fields(_));
            (place, is_always_there.then(|| &*NO_FIELDS))
        }
    };
    Child { place, is_field: true, absent }
}

/// What a value of the field's type, an item or an entry is.
fn of_type<'a>(message: Message<'a>, field: &'a Field) -> Place<'a> {
    match message.of(field) {
        Some(inner) if inner.is_atomic() => Place::One,
        Some(inner) => match inner.form() {
            Form::Fields => Place::Fields(inner),
            Form::AnyObject => Place::Unknown,
            Form::Nested => inner.nested().map_or(Place::One, |field| of_field(inner, field).place),
            _ => Place::One,
        },
        None => Place::One,
    }
}

fn name_of(owner: Message<'_>, field: &Field, item: &Value) -> Option<Element<'static>> {
    match (field.merging, item) {
        (Merging::Map, Value::Object(fields)) => {
            let mut keys = Map::new();
            for key in field.keys() {
                keys.insert(key.to_string(), key_of(owner, field, fields, key)?);
            }
            Some(Element::keyed(keys))
        }
        (Merging::Set, Value::String(_) | Value::Number(_) | Value::Bool(_)) => Some(Element::scalar(item)),
        _ => None,
    }
}

/// R4.
fn key_of(owner: Message<'_>, field: &Field, item: &Map<String, Value>, key: &str) -> Option<Value> {
    if let Some(value) = item.get(key).filter(|value| !value.is_null()) {
        return Some(value.clone());
    }
    let default = owner.of(field)?.field(key)?.default()?;
    serde_json::from_str(default).ok()
}
