//! What became of each field between two states of an object.
//!
//! Rules
//!   R1 leaf       a value that is not walked is added, modified or removed as a whole
//!   R2 inside     of what is added or removed, every part is
//!   R3 empty      an object or list with nothing in it is a leaf, so that it and none are told apart
//!   R4 implied    an object that cannot be absent is never added or removed, only what is in it
//!   R5 twice      items of one name are compared together
//!
//! Source: KEP-555.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::place::{Place, Walk};
use super::set::{Element, FieldSet};
use crate::schema::Message;

/// The fields in which two states of an object differ.
#[derive(Debug, Default, PartialEq)]
pub struct Changes<'a> {
    /// Only the later state has them.
    pub added: FieldSet<'a>,
    /// Both states have them, with other values.
    pub modified: FieldSet<'a>,
    /// Only the earlier state has them.
    pub removed: FieldSet<'a>,
}

impl<'a> Changes<'a> {
    fn put(&mut self, element: Element<'a>, below: Changes<'a>) {
        for (set, below) in
            [(&mut self.added, below.added), (&mut self.modified, below.modified), (&mut self.removed, below.removed)]
        {
            if !below.is_empty() {
                set.put(element.clone(), below);
            }
        }
    }

    /// What this path itself became, if one of the states does not have it.
    fn mark(&mut self, before: bool, after: bool) {
        self.added.is_member |= !before;
        self.removed.is_member |= !after;
    }
}

/// Compares two states of an object of `message`.
pub fn compare<'a>(before: &'a Value, after: &'a Value, message: Message<'_>) -> Changes<'a> {
    walk(Some(before), Some(after), Place::Fields(message))
}

/// At least one of the states is there.
fn walk<'a>(before: Option<&'a Value>, after: Option<&'a Value>, place: Place<'_>) -> Changes<'a> {
    if before == after {
        return Changes::default();
    }
    let (earlier, later) = (before.map(|value| place.walk(value)), after.map(|value| place.walk(value)));
    match (earlier, later) {
        (Some(Walk::Object) | None, Some(Walk::Object) | None) => {
            objects(before.and_then(Value::as_object), after.and_then(Value::as_object), place)
        }
        (Some(Walk::List) | None, Some(Walk::List) | None) => {
            lists(before.and_then(Value::as_array), after.and_then(Value::as_array), place)
        }
        (Some(Walk::One) | None, Some(Walk::One) | None) => leaf(before.is_some(), after.is_some()),
        // it became another type: what was inside is gone, what is inside is new
        _ => {
            let mut changes = leaf(true, true);
            changes.removed = FieldSet { is_member: false, ..walk(before, None, place).removed };
            changes.added = FieldSet { is_member: false, ..walk(None, after, place).added };
            changes
        }
    }
}

/// R1.
fn leaf<'a>(before: bool, after: bool) -> Changes<'a> {
    let mut changes = Changes::default();
    changes.mark(before, after);
    changes.modified.is_member = before && after;
    changes
}

fn objects<'a>(
    before: Option<&'a Map<String, Value>>,
    after: Option<&'a Map<String, Value>>,
    place: Place<'_>,
) -> Changes<'a> {
    if before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty) {
        return leaf(before.is_some(), after.is_some());
    }
    let mut changes = Changes::default();
    changes.mark(before.is_some(), after.is_some());
    let mut part = |name: &'a str, mut old: Option<&'a Value>, mut new: Option<&'a Value>| {
        if old == new {
            return;
        }
        let child = place.child(name);
        if before.is_some() && after.is_some() {
            old = old.or(child.absent);
            new = new.or(child.absent);
        }
        changes.put(Element::field(name), walk(old, new, child.place));
    };
    for (name, old) in before.into_iter().flatten() {
        part(name, Some(old), after.and_then(|after| after.get(name)));
    }
    for (name, new) in after.into_iter().flatten() {
        if before.is_none_or(|before| !before.contains_key(name)) {
            part(name, None, Some(new));
        }
    }
    changes
}

fn lists<'a>(before: Option<&'a Vec<Value>>, after: Option<&'a Vec<Value>>, place: Place<'_>) -> Changes<'a> {
    if before.is_none_or(Vec::is_empty) && after.is_none_or(Vec::is_empty) {
        return leaf(before.is_some(), after.is_some());
    }
    let mut changes = Changes::default();
    changes.mark(before.is_some(), after.is_some());
    let mut pairs: BTreeMap<Element<'static>, (Vec<&'a Value>, Vec<&'a Value>)> = BTreeMap::new();
    for (index, item) in before.into_iter().flatten().enumerate() {
        pairs.entry(place.element(index, item)).or_default().0.push(item);
    }
    for (index, item) in after.into_iter().flatten().enumerate() {
        pairs.entry(place.element(index, item)).or_default().1.push(item);
    }
    for (element, (old, new)) in pairs {
        let below = match (old.as_slice(), new.as_slice()) {
            (old, new) if old == new => continue,
            ([old], [new]) => walk(Some(old), Some(new), place.item()),
            ([old], []) => walk(Some(old), None, place.item()),
            ([], [new]) => walk(None, Some(new), place.item()),
            (old, new) => leaf(!old.is_empty(), !new.is_empty()),
        };
        changes.put(element, below);
    }
    changes
}
