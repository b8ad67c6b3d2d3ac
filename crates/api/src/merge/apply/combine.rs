//! A configuration laid over an object, and fields taken out of one.
//!
//! Rules
//!   R1 one        what is one value is the configuration's
//!   R2 object     objects and maps combine entry by entry; what only the object has stays
//!   R3 list       items combine by name; the configuration's come in its order, the others stay before the item of the
//!                 configuration that they stood before
//!   R4 prune      a pruned field goes with all that is in it; what is empty then goes too. What the configuration says is
//!                 empty stays, empty
//!
//! Source: KEP-555; structured lists keep the order of the last applier.

use std::collections::BTreeMap;

use serde_json::Value;

use super::place::{Place, Walk};
use super::set::{Element, FieldSet};
use crate::schema::Message;

/// Lays a configuration over an object of `message`.
pub fn combine(live: Value, config: &Value, message: Message<'_>) -> Value {
    lay(live, config, Place::Fields(message))
}

fn lay(live: Value, config: &Value, place: Place<'_>) -> Value {
    match (place.walk(config), live, config) {
        (Walk::Object, Value::Object(mut fields), Value::Object(config)) => {
            for (name, value) in config {
                let laid = match fields.remove(name) {
                    Some(live) => lay(live, value, place.child(name).place),
                    None => value.clone(),
                };
                fields.insert(name.clone(), laid);
            }
            Value::Object(fields)
        }
        (Walk::List, Value::Array(live), Value::Array(config)) => Value::Array(lay_items(live, config, place)),
        _ => config.clone(),
    }
}

/// R3.
fn lay_items(live: Vec<Value>, config: &[Value], place: Place<'_>) -> Vec<Value> {
    let named = |items: &[Value]| -> Vec<Element<'static>> {
        items.iter().enumerate().map(|(index, item)| place.element(index, item)).collect()
    };
    let (live_names, config_names) = (named(&live), named(config));
    let ranks: BTreeMap<&Element<'_>, usize> =
        config_names.iter().enumerate().map(|(rank, name)| (name, rank)).collect();
    // the live item that each item of the configuration is laid over
    let mut under: Vec<Option<Value>> = vec![None; config.len()];
    // the live items in their order: one of its own, or the rank of the one that stands for it
    let mut line = Vec::with_capacity(live.len());
    for (name, item) in live_names.iter().zip(live) {
        match ranks.get(name) {
            None => line.push((None, Some(item))),
            Some(rank) if under[*rank].is_none() => {
                under[*rank] = Some(item);
                line.push((Some(*rank), None));
            }
            Some(_) => {} // a second of this name: there may be only one
        }
    }
    let shared: Vec<usize> = (0..config.len()).filter(|rank| under[*rank].is_some()).collect();
    let mut shared = shared.into_iter().peekable();
    let mut out = Vec::with_capacity(config.len() + line.len());
    let mut waiting = config.iter().zip(under).enumerate().peekable();
    for (rank, item) in line {
        out.extend(item);
        // only the next shared item draws those before it along; one that comes too early has its place later
        if rank.is_none() || shared.next_if(|next| Some(*next) == rank).is_none() {
            continue;
        }
        while let Some((_, (config, under))) = waiting.next_if(|(at, _)| Some(*at) <= rank) {
            out.push(lay_item(under, config, place));
        }
    }
    out.extend(waiting.map(|(_, (config, under))| lay_item(under, config, place)));
    out
}

fn lay_item(live: Option<Value>, config: &Value, place: Place<'_>) -> Value {
    match live {
        Some(live) => lay(live, config, place.item()),
        None => config.clone(),
    }
}

/// Takes the fields of a set out of an object of `message` that a configuration was laid over (R4).
pub fn prune(object: &mut Value, gone: &FieldSet<'_>, config: &Value, message: Message<'_>) {
    take_out(object, gone, Some(config), Place::Fields(message));
}

fn take_out(value: &mut Value, gone: &FieldSet<'_>, config: Option<&Value>, place: Place<'_>) {
    match (place.walk(value), value) {
        (Walk::Object, Value::Object(fields)) => {
            for (element, gone) in &gone.below {
                let Element::Field(name) = element else { continue };
                let Some(value) = fields.get_mut(name.as_ref()) else { continue };
                let config = config.and_then(|config| config.get(name.as_ref()));
                if (gone.is_member && config.is_none()) || empties(value, gone, config, place.child(name).place) {
                    fields.remove(name.as_ref());
                }
            }
        }
        (Walk::List, Value::Array(items)) => {
            let config = config.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let said: BTreeMap<Element<'_>, &Value> =
                config.iter().enumerate().map(|(index, item)| (place.element(index, item), item)).collect();
            let mut index = 0;
            items.retain_mut(|item| {
                let name = place.element(index, item);
                index += 1;
                let Some(gone) = gone.below.get(&name) else { return true };
                !gone.is_member && !empties(item, gone, said.get(&name).copied(), place.item())
            });
        }
        _ => {}
    }
}

/// Takes the fields of a set out of a value; whether it is empty thereby and nobody says so.
fn empties(value: &mut Value, gone: &FieldSet<'_>, config: Option<&Value>, place: Place<'_>) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let was_empty = is_empty(value);
    take_out(value, gone, config, place);
    !was_empty && is_empty(value) && config.is_none()
}

/// A set with the fields of messages that lead to its members: who owns something in such a field owns the field.
pub(super) fn with_fields<'a>(set: FieldSet<'a>, message: Message<'_>) -> FieldSet<'a> {
    name_fields(set, Place::Fields(message))
}

fn name_fields<'a>(mut set: FieldSet<'a>, place: Place<'_>) -> FieldSet<'a> {
    set.below = std::mem::take(&mut set.below)
        .into_iter()
        .map(|(element, below)| {
            let (inner, is_field) = match &element {
                Element::Field(name) => {
                    let child = place.child(name);
                    (child.place, child.is_field)
                }
                _ => (place.item(), false),
            };
            let mut below = name_fields(below, inner);
            below.is_member |= is_field;
            (element, below)
        })
        .collect();
    set
}
