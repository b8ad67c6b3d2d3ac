//! A structural schema as CEL sees it: types, and how large values may become.
//!
//! Rules
//!   R1 types     each type of a schema has its own; texts of format `date-time` and `date` are moments, `duration` spans
//!                of time, `byte` bytes; int-or-string is dynamic. What says no type cannot be named
//!   R2 objects   named fields make an object, additional ones of one schema a map. The root and embedded objects have
//!                apiVersion, kind, metadata.name and metadata.generateName too
//!   R3 sizes     as declared; a character may take four bytes. What declares none is as large as a request can carry
//! Source: Kubernetes "CEL in Kubernetes", type mapping of structural schemas; CRD rules, "Resource constraints".

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node::{Additional, List, Node, Type as Of};
use crate::cel::{ObjectType, Order, Shape, Type};

/// Bytes of a request that bring an object: no value in it is larger.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// The two quotes, brackets or braces of the one value of a request.
const ENDS_BYTES: u64 = 2;
/// A character in UTF-8.
const CHAR_BYTES_MAX: u64 = 4;
/// `"a":` and the comma.
const ENTRY_BYTES: u64 = 6;

/// The shape of a place, and how many bytes its shortest JSON takes: how often it fits in a request.
#[derive(Debug, Clone)]
pub(super) struct Sized {
    pub(super) shape: Shape,
    pub(super) bytes_min: u64,
}

/// How many values of this shortest JSON one request can carry.
pub(crate) fn occurrences_max(bytes_min: u64) -> u64 {
    REQUEST_BYTES_MAX / (bytes_min + 1)
}

/// The largest text that nothing bounds.
fn any_text() -> Shape {
    Shape::from(Type::String).max(REQUEST_BYTES_MAX - ENDS_BYTES)
}

/// R1 of what has no parts; `None` for what has parts, or no type.
pub(super) fn scalar(node: &Node) -> Option<Sized> {
    let (shape, bytes_min) = match node.of {
        _ if node.int_or_string => (Shape::from(Type::Dyn).max(REQUEST_BYTES_MAX - ENDS_BYTES), 1),
        Of::String => text(node),
        Of::Integer => (Type::Int.into(), 1),
        Of::Number => (Type::Double.into(), 1),
        Of::Boolean => (Type::Bool.into(), 4),
        Of::Any | Of::Object | Of::Array => return None,
    };
    Some(Sized { shape, bytes_min })
}

fn text(node: &Node) -> (Shape, u64) {
    let checks = node.checks.as_deref();
    let declared = checks.and_then(|checks| checks.length.1);
    let unbounded = REQUEST_BYTES_MAX - ENDS_BYTES;
    match checks.map_or("", |checks| checks.format.as_str()) {
        "byte" => (Shape::from(Type::Bytes).max(declared.unwrap_or(unbounded)), 2),
        "date-time" => (Type::Timestamp.into(), 21),
        "date" => (Type::Timestamp.into(), 12),
        "duration" => (Type::Duration.into(), 7),
        _ => {
            let words = checks.map(|checks| checks.words.as_slice()).unwrap_or_default();
            let longest = words.iter().filter_map(|word| word.as_str()).map(|word| word.len() as u64).max();
            let max = declared.map(|chars| chars.saturating_mul(CHAR_BYTES_MAX)).or(longest).unwrap_or(unbounded);
            (Shape::from(Type::String).max(max), 2)
        }
    }
}

/// A list of such items.
pub(super) fn list(node: &Node, item: &Sized) -> Sized {
    let most = node.checks.as_deref().and_then(|checks| checks.items.1);
    let most = most.unwrap_or((REQUEST_BYTES_MAX - ENDS_BYTES) / (item.bytes_min + 1));
    let order = match &node.list {
        List::Atomic => Order::Atomic,
        List::Set => Order::Set,
        List::Map(keys) => Order::Keyed(keys.clone().into()),
    };
    Sized { shape: Shape::list(item.shape.clone()).max(most).ordered(order), bytes_min: ENDS_BYTES }
}

/// A map to such values.
pub(super) fn map(node: &Node, value: &Sized) -> Sized {
    let most = node.checks.as_deref().and_then(|checks| checks.properties.1);
    let most = most.unwrap_or((REQUEST_BYTES_MAX - ENDS_BYTES) / (value.bytes_min + ENTRY_BYTES));
    let shape = Shape::map(value.shape.clone()).max(most).key_max(REQUEST_BYTES_MAX - ENDS_BYTES);
    Sized { shape, bytes_min: ENDS_BYTES }
}

/// R2: an object with these fields, called `name` in messages.
pub(super) fn object(node: &Node, name: &str, fields: &BTreeMap<String, Sized>, is_whole: bool) -> Sized {
    let required = node.checks.as_deref().map(|checks| checks.required.as_slice()).unwrap_or_default();
    let mut bytes_min = ENDS_BYTES;
    let mut object = ObjectType::new(name);
    for (field, sized) in fields {
        let is_default = node.properties.get(field).is_some_and(|inner| inner.default.is_some());
        if required.contains(field) && !is_default {
            bytes_min += field.len() as u64 + sized.bytes_min + 4;
        }
        if !(is_whole && field == "metadata") {
            object = object.field(field, sized.shape.clone());
        }
    }
    if is_whole {
        object = whole(object, name, fields);
    }
    Sized { shape: Shape::object(Arc::new(object)), bytes_min }
}

/// What every API object has.
fn whole(mut object: ObjectType, name: &str, fields: &BTreeMap<String, Sized>) -> ObjectType {
    for field in ["apiVersion", "kind"].into_iter().filter(|field| !fields.contains_key(*field)) {
        object = object.field(field, any_text());
    }
    let own = match fields.get("metadata").map(|sized| sized.shape.of()) {
        Some(Type::Object(own)) => Some(Arc::clone(own)),
        _ => None,
    };
    let text = |field: &str| {
        let declared = own.as_ref().and_then(|own| own.find_json(field));
        declared.map_or_else(any_text, |field| (*field.shape).clone())
    };
    let metadata = ObjectType::new(format!("{name}.metadata"));
    let metadata = metadata.field("name", text("name")).field("generateName", text("generateName"));
    object.field("metadata", Shape::object(Arc::new(metadata)))
}

/// Whether a place holds additional fields of one schema and nothing else.
pub(super) fn map_values(node: &Node) -> Option<&Node> {
    match &node.additional {
        Additional::Each(values) if node.of == Of::Object => Some(values),
        Additional::Each(_) | Additional::Any | Additional::None => None,
    }
}
