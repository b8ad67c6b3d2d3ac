//! The set of all fields that a value has: what an applier owns of its configuration.
//!
//! Rules
//!   R1 leaf       a value that is not walked is a member
//!   R2 field      an object that is a field of a message is no member itself, unless it is null or empty
//!   R3 entry      entries of maps and items of lists are members, and so is what lies in them
//!   R4 twice      items of one name are one member, and nothing in them is
//!
//! Source: KEP-555.

use serde_json::Value;

use super::place::{Place, Walk};
use super::set::{Element, FieldSet};
use crate::schema::Message;

/// The fields of an object of `message`.
pub fn gather<'a>(object: &'a Value, message: Message<'_>) -> FieldSet<'a> {
    walk(object, Place::Fields(message))
}

fn walk<'a>(value: &'a Value, place: Place<'_>) -> FieldSet<'a> {
    let mut set = FieldSet::default();
    match (place.walk(value), value) {
        (Walk::Object, Value::Object(fields)) => {
            for (name, value) in fields {
                let child = place.child(name);
                let mut below = walk(value, child.place);
                let is_bare = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                below.is_member |= is_bare || !child.is_field;
                set.put(Element::field(name), below);
            }
        }
        (Walk::List, Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let element = place.element(index, item);
                let below = match set.below.contains_key(&element) {
                    true => FieldSet::member(),
                    false => FieldSet { is_member: true, ..walk(item, place.item()) },
                };
                set.put(element, below);
            }
        }
        _ => set.is_member = true,
    }
    set
}
