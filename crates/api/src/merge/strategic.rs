//! Strategic merge: like a merge patch, but lists that the schema gives a key merge item by item.
//!
//! Rules
//!   R1 directive  `$patch: replace|delete|merge` in an object says what happens to the object
//!   R2 retain     `$retainKeys: [..]` drops the keys of the object that are not listed
//!   R3 delete     `$deleteFromPrimitiveList/x: [..]` removes items of the list of scalars `x`
//!   R4 null       removes a field; a field that is new comes without its nulls and directives
//!   R5 object     objects merge field by field, unless their field says `replace`
//!   R6 keyed      lists with a merge key merge by it; lists of scalars with `merge` are unions
//!   R7 list       all other lists are replaced
//!   R8 order      patched items come in the patch's order, or in that of `$setElementOrder/x`; others keep their place
//!
//! Source: API guide "Update API objects in place using kubectl patch", and the design note "strategic merge patch".

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{MergeError, type_of};
use crate::field::Path;
use crate::schema::{Field, Form, Message, Shape};

pub(super) const PATCH: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";
pub(super) const ORDER: &str = "$setElementOrder/";

/// Lays `patch` over an object of `message`.
pub fn strategic_merge(target: &Value, patch: Value, message: Message) -> Result<Value, MergeError> {
    let (Value::Object(target), Value::Object(patch)) = (target.clone(), patch) else {
        return Err(wrong(&Path::root(), "two objects", "another value".to_owned()));
    };
    merge_object(target, patch, Shaped::Message(message), &Path::root()).map(Value::Object)
}

fn wrong(path: &Path, expected: &str, found: String) -> MergeError {
    MergeError::Shape {
        path: path.to_string(),
        expected: expected.to_owned(),
        found: found.chars().take(256).collect(),
    }
}

/// What the schema says of the values inside an object.
#[derive(Clone, Copy)]
pub(super) enum Shaped<'a> {
    /// An object of this message.
    Message(Message<'a>),
    /// A map whose values are of this field.
    Entries(&'a Field, Message<'a>),
    /// Free JSON.
    Unknown,
}

/// What the schema says of one value.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) field: Option<&'a Field>,
    pub(super) inner: Shaped<'a>,
}

impl<'a> Shaped<'a> {
    pub(super) fn at(self, name: &str) -> Place<'a> {
        let objects = |message: Message<'a>| {
            if message.form() == Form::Fields { Shaped::Message(message) } else { Shaped::Unknown }
        };
        let unknown = Place { field: None, inner: Shaped::Unknown };
        match self {
            Shaped::Unknown => unknown,
            Shaped::Entries(field, owner) => {
                Place { field: None, inner: owner.of(field).map_or(Shaped::Unknown, objects) }
            }
            Shaped::Message(message) => match message.field(name) {
                None => unknown,
                Some(field) if field.shape == Shape::Map => {
                    Place { field: Some(field), inner: Shaped::Entries(field, message) }
                }
                Some(field) => Place { field: Some(field), inner: message.of(field).map_or(Shaped::Unknown, objects) },
            },
        }
    }
}

/// The directives that stand in an object beside its fields.
#[derive(Default)]
struct Directives {
    order: BTreeMap<String, Vec<Value>>,
    delete: BTreeMap<String, Vec<Value>>,
}

fn merge_object(
    mut target: Map<String, Value>,
    mut patch: Map<String, Value>,
    shaped: Shaped,
    path: &Path,
) -> Result<Map<String, Value>, MergeError> {
    match patch.remove(PATCH).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => target.clear(),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(found) => {
            let found = found.unwrap_or("another value").to_owned();
            return Err(wrong(&path.child(PATCH), "replace, delete or merge", found));
        }
    }
    let directives = take_directives(&mut patch, path)?;
    if let Some(retained) = patch.remove(RETAIN_KEYS) {
        retain(&mut target, &patch, &retained, path)?;
    }
    let untouched = |name: &String| !patch.contains_key(name);
    let only_directed: Vec<String> =
        directives.order.keys().chain(directives.delete.keys()).filter(|name| untouched(name)).cloned().collect();
    for name in only_directed {
        let merges = shaped.at(&name).field.is_some_and(|field| field.merge);
        if merges && target.get(&name).is_some_and(Value::is_array) {
            patch.insert(name, Value::Array(Vec::new()));
        }
    }
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
            continue;
        }
        let at = path.child(&name);
        let place = shaped.at(&name);
        let merged = match (target.remove(&name), value) {
            (found, Value::Object(patch)) => {
                let kept = match found {
                    Some(Value::Object(found)) if !place.field.is_some_and(|field| field.replace) => found,
                    _ => Map::new(),
                };
                Value::Object(merge_object(kept, patch, place.inner, &at)?)
            }
            (found, Value::Array(patch)) => {
                let found = match found {
                    Some(Value::Array(found)) => found,
                    _ => Vec::new(),
                };
                let order = directives.order.get(&name).map(Vec::as_slice);
                let delete = directives.delete.get(&name).map(Vec::as_slice).unwrap_or_default();
                Value::Array(merge_list(List { found, patch, order, delete }, place, &at)?)
            }
            (_, scalar) => scalar,
        };
        target.insert(name, merged);
    }
    Ok(target)
}

fn take_directives(patch: &mut Map<String, Value>, path: &Path) -> Result<Directives, MergeError> {
    let mut directives = Directives::default();
    let names: Vec<String> =
        patch.keys().filter(|name| name.starts_with(ORDER) || name.starts_with(DELETE_ITEMS)).cloned().collect();
    for name in names {
        let items = match patch.remove(&name) {
            Some(Value::Array(items)) => items,
            other => {
                let found = type_of(other.as_ref().unwrap_or(&Value::Null)).to_owned();
                return Err(wrong(&path.child(&name), "a list", found));
            }
        };
        if let Some(field) = name.strip_prefix(ORDER) {
            directives.order.insert(field.to_owned(), items);
        } else if let Some(field) = name.strip_prefix(DELETE_ITEMS) {
            directives.delete.insert(field.to_owned(), items);
        }
    }
    Ok(directives)
}

/// R2: the patch may only set keys that it retains.
fn retain(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retained: &Value,
    path: &Path,
) -> Result<(), MergeError> {
    let at = path.child(RETAIN_KEYS);
    let names = retained.as_array().ok_or_else(|| wrong(&at, "a list of field names", type_of(retained).to_owned()))?;
    let names: BTreeSet<&str> = names.iter().filter_map(Value::as_str).collect();
    if let Some(name) = patch.iter().find(|(name, value)| !value.is_null() && !names.contains(name.as_str())) {
        return Err(wrong(&at, "every field that the patch sets", format!("no {:?}", name.0)));
    }
    target.retain(|name, _| names.contains(name.as_str()));
    Ok(())
}

/// A list, its patch and the directives about it.
struct List<'a> {
    found: Vec<Value>,
    patch: Vec<Value>,
    order: Option<&'a [Value]>,
    delete: &'a [Value],
}

fn merge_list(list: List, place: Place, path: &Path) -> Result<Vec<Value>, MergeError> {
    match place.field {
        Some(field) if field.merge && field.shape == Shape::List => match field.merge_key() {
            Some(key) => merge_keyed(list, key, place.inner, path),
            None => merge_scalars(list, path),
        },
        _ => Ok(list.patch),
    }
}

fn merge_scalars(list: List, path: &Path) -> Result<Vec<Value>, MergeError> {
    let mut positions: BTreeMap<String, ()> = BTreeMap::new();
    let deleted: BTreeMap<String, ()> = list.delete.iter().map(|item| (item.to_string(), ())).collect();
    let before: Vec<Value> = list.found.clone();
    let mut merged = Vec::with_capacity(list.found.len() + list.patch.len());
    let kept = list.found.into_iter().filter(|item| !deleted.contains_key(&item.to_string()));
    for item in kept.chain(list.patch.iter().cloned()) {
        if item.is_object() || item.is_array() {
            return Err(wrong(path, "a list of scalars", type_of(&item).to_owned()));
        }
        if positions.insert(item.to_string(), ()).is_none() {
            merged.push(item);
        }
    }
    let order = list.order.unwrap_or(&list.patch);
    Ok(arrange(merged, order, &before, |item| Some(item.to_string())))
}

/// The text of an item's merge key, if it has one.
fn key_of(item: &Value, key: &str) -> Option<String> {
    item.get(key).filter(|value| !value.is_null()).map(Value::to_string)
}

fn merge_keyed(list: List, key: &str, inner: Shaped, path: &Path) -> Result<Vec<Value>, MergeError> {
    let before = list.found.clone();
    let mut patches = list.patch;
    let replaces = |item: &Value| item[PATCH] == "replace" && item.as_object().is_some_and(|item| item.len() == 1);
    let replace = patches.iter().any(replaces);
    patches.retain(|item| !replaces(item));
    let mut items: Vec<Option<Value>> = if replace { Vec::new() } else { list.found.into_iter().map(Some).collect() };
    let mut positions: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (position, item) in items.iter().enumerate() {
        if let Some(text) = item.as_ref().and_then(|item| key_of(item, key)) {
            positions.entry(text).or_default().push(position);
        }
    }
    let ordered: Option<BTreeSet<String>> =
        list.order.map(|order| order.iter().filter_map(|item| key_of(item, key)).collect());
    let mut patched = Vec::with_capacity(patches.len());
    for (index, patch) in patches.into_iter().enumerate() {
        let at = path.index(index);
        let Value::Object(mut patch) = patch else { return Err(wrong(&at, "an object", type_of(&patch).to_owned())) };
        let Some(text) = patch.get(key).filter(|value| !value.is_null()).map(Value::to_string) else {
            return Err(wrong(&at, &format!("the merge key {key:?}"), "none".to_owned()));
        };
        let deletes = patch.get(PATCH).is_some_and(|directive| directive == "delete");
        if deletes {
            for position in positions.remove(&text).unwrap_or_default() {
                items[position] = None;
            }
            continue;
        }
        if ordered.as_ref().is_some_and(|ordered| !ordered.contains(&text)) {
            return Err(wrong(&at, "every patched item in $setElementOrder", format!("no {text}")));
        }
        patched.push(patch.get(key).cloned().map(|value| Value::Object(Map::from_iter([(key.to_owned(), value)]))));
        let position = match positions.get(&text).and_then(|found| found.first()) {
            Some(position) => *position,
            None => {
                positions.insert(text, vec![items.len()]);
                items.push(None);
                items.len() - 1
            }
        };
        let found = match items[position].take() {
            Some(Value::Object(found)) => found,
            _ => Map::new(),
        };
        if patch.get(PATCH).is_some_and(|directive| directive == "replace") {
            patch.remove(PATCH);
            items[position] = Some(Value::Object(merge_object(Map::new(), patch, inner, &at)?));
        } else {
            items[position] = Some(Value::Object(merge_object(found, patch, inner, &at)?));
        }
    }
    let patched: Vec<Value> = patched.into_iter().flatten().collect();
    let merged: Vec<Value> = items.into_iter().flatten().collect();
    Ok(arrange(merged, list.order.unwrap_or(&patched), &before, |item| key_of(item, key)))
}

/// R8: items named in `order` come in that order; each of the others stays before the first ordered item that it stood
/// before.
fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key_of: impl Fn(&Value) -> Option<String>,
) -> Vec<Value> {
    let positions = |items: &[Value]| {
        let mut positions = BTreeMap::new();
        for (position, item) in items.iter().enumerate() {
            if let Some(text) = key_of(item) {
                positions.entry(text).or_insert(position);
            }
        }
        positions
    };
    let (ordered_at, stood_at) = (positions(order), positions(before));
    let rank = |item: &Value| key_of(item).and_then(|text| ordered_at.get(&text).copied());
    let (mut ordered, others): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|item| rank(item).is_some());
    ordered.sort_by_cached_key(|item| rank(item));
    let stood = |item: &Value| key_of(item).and_then(|text| stood_at.get(&text).copied());
    let mut out = Vec::with_capacity(ordered.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in ordered {
        if let Some(at) = stood(&item) {
            while let Some(other) = others.next_if(|other| stood(other).is_some_and(|other| other < at)) {
                out.push(other);
            }
        }
        out.push(item);
    }
    out.extend(others);
    out
}

#[cfg(test)]
mod tests;
