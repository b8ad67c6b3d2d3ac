//! What an applied configuration must be beyond well-typed, so that every part of it has one owner and one name.
//!
//! Rules
//!   R1 declared    every field is in the schema
//!   R2 named       every item of a list that merges has its keys
//!   R3 once        no two items of such a list have one name
//!
//! Source: KEP-555; the wording is that of Kubernetes' typed values, which clients show to people.

use std::collections::BTreeSet;

use serde_json::Value;

use super::place::{Place, Walk};
use crate::schema::Message;

/// Findings reported of one configuration.
const FINDINGS_MAX: usize = 16;

/// Says what is wrong with a configuration of `message`.
pub fn check(config: &Value, message: Message<'_>) -> Result<(), String> {
    let mut found = Vec::new();
    walk(config, Place::Fields(message), "", &mut found);
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn walk(value: &Value, place: Place<'_>, path: &str, found: &mut Vec<String>) {
    if found.len() == FINDINGS_MAX {
        return;
    }
    match (place.walk(value), value) {
        (Walk::Object, Value::Object(fields)) => {
            for (name, value) in fields {
                let child = place.child(name);
                let path = format!("{path}.{name}");
                if matches!(place, Place::Fields(message) if !message.is_open()) && !child.is_field {
                    found.push(format!("{}: field not declared in schema", cut(&path)));
                } else {
                    walk(value, child.place, &path, found);
                }
            }
        }
        (Walk::List, Value::Array(items)) => {
            let mut names = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                if let Some(why) = place.why_nameless(item) {
                    found.push(format!("{}: element {index}: {why}", cut(path)));
                    return;
                }
                let name = place.element(index, item);
                let inner = format!("{path}{name}");
                if !names.insert(name) {
                    let name = &inner[path.len()..];
                    found.push(format!("{}: duplicate entries for key {name}", cut(path)));
                    return;
                }
                walk(item, place.item(), &inner, found);
            }
        }
        _ => {}
    }
}

fn cut(path: &str) -> String {
    const PATH_CHARS_MAX: usize = 512;
    path.chars().take(PATH_CHARS_MAX).collect()
}
