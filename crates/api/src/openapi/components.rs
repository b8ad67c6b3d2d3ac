//! Component schemas: the messages of the table in OpenAPI's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource};
use crate::schema::{Field, Form, META, Merging, Message, Shape, Type, kubernetes};

/// The body of every patch: an object, whatever its form.
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The name a message has in OpenAPI: `io.k8s.api.core.v1.Pod`.
pub(super) fn name_of(full_name: &str) -> String {
    match full_name.strip_prefix("k8s.io.") {
        Some(rest) => format!("io.k8s.{}", rest.replace('_', "-")),
        None => full_name.to_owned(),
    }
}

/// The name of a kind's schema, in the table or not (custom resources).
pub(super) fn resource_name(resource: &Resource) -> String {
    name_of(&resource.message.get().full_name())
}

/// The name of the schema of a list of a kind.
pub(super) fn list_name(resource: &Resource) -> String {
    let name = resource_name(resource);
    let package = name.strip_suffix(resource.kind.kind.as_ref()).unwrap_or_default();
    format!("{package}{}", resource.list_kind)
}

/// A reference to the schema of a message of meta/v1.
pub(super) fn meta(name: &str) -> Value {
    reference(&name_of(&format!("{META}.{name}")))
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The schemas of these names and of all they refer to.
pub(super) fn schemas(registry: &Registry, names: BTreeSet<String>) -> Value {
    let by_name: &BTreeMap<String, Message<'static>> = table();
    let mut open: Vec<String> = names.into_iter().collect();
    let mut shown = Map::new();
    while let Some(name) = open.pop() {
        if shown.contains_key(&name) {
            continue;
        }
        let schema = match by_name.get(&name) {
            Some(message) => {
                open.extend(message.fields().filter_map(|field| message.of(field)).filter_map(component_of));
                of_message(*message, registry)
            }
            None if name == PATCH => {
                json!({"type": "object", "description": "A patch: what it may hold is said by its content type."})
            }
            None => {
                open.extend(named_by_custom());
                of_custom(&name, registry)
            }
        };
        shown.insert(name, schema);
    }
    Value::Object(shown)
}

fn table() -> &'static BTreeMap<String, Message<'static>> {
    static TABLE: OnceLock<BTreeMap<String, Message<'static>>> = OnceLock::new();
    TABLE.get_or_init(|| kubernetes().messages().map(|message| (name_of(&message.full_name()), message)).collect())
}

/// The component a field refers to; `None` where its schema is written in place.
fn component_of(message: Message) -> Option<String> {
    match message.form() {
        Form::Strings => None,
        _ => Some(name_of(&message.full_name())),
    }
}

fn of_message(message: Message, registry: &Registry) -> Value {
    let mut schema = match message.form() {
        Form::Fields => of_fields(message),
        Form::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Form::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true})
        }
        Form::Time | Form::MicroTime => json!({"type": "string", "format": "date-time"}),
        Form::Duration => json!({"type": "string"}),
        Form::AnyObject => json!({"type": "object"}),
        Form::Strings => strings(),
        Form::Any | Form::Nested | Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => json!({}),
    };
    if let Some(text) = description(message.name(), "") {
        schema["description"] = json!(text);
    }
    if message.is_atomic() {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    let kinds = kinds_of(message, registry);
    if !kinds.is_empty() {
        schema["x-kubernetes-group-version-kind"] = Value::Array(kinds);
    }
    schema
}

fn strings() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn of_fields(message: Message) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    if message.is_kind() {
        for name in ["apiVersion", "kind"] {
            let text = description("TypeMeta", name).unwrap_or_default();
            properties.insert(name.to_owned(), json!({"type": "string", "description": text}));
        }
    }
    for field in message.fields() {
        properties.insert(field.name.to_string(), of_field(message, field));
        if field.required {
            required.push(field.name.as_ref());
        }
    }
    let mut schema = json!({"type": "object"});
    if !properties.is_empty() {
        schema["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn of_field(message: Message, field: &Field) -> Value {
    let of = of_type(message, field);
    let mut schema = match field.shape {
        Shape::One => of,
        Shape::List => json!({"type": "array", "items": of}),
        Shape::Map => json!({"type": "object", "additionalProperties": of}),
    };
    let mut beside = Map::new();
    let text = description(message.name(), &field.name).map_or_else(|| derived(message, field), str::to_owned);
    beside.insert("description".to_owned(), Value::String(text));
    if let Some(default) = field.default() {
        let default = serde_json::from_str(default).expect("defaults of the table are JSON, which a test checks");
        beside.insert("default".to_owned(), default);
    }
    insert_merging(&mut beside, field);
    // nothing may stand beside a reference, so it moves one level down
    if schema.get("$ref").is_some() {
        schema = json!({"allOf": [schema]});
    }
    schema.as_object_mut().expect("every schema is an object").append(&mut beside);
    schema
}

fn insert_merging(beside: &mut Map<String, Value>, field: &Field) {
    let mut insert = |name: &str, value: Value| drop(beside.insert(format!("x-kubernetes-{name}"), value));
    match (field.shape, field.merging) {
        (_, Merging::Unsaid) => {}
        (Shape::List, Merging::Atomic) => insert("list-type", json!("atomic")),
        (Shape::List, Merging::Set) => insert("list-type", json!("set")),
        (Shape::List, Merging::Map) => {
            insert("list-type", json!("map"));
            insert("list-map-keys", json!(field.keys()));
        }
        (_, Merging::Atomic) => insert("map-type", json!("atomic")),
        (_, Merging::Granular) => insert("map-type", json!("granular")),
        (_, Merging::Set | Merging::Map) => {}
    }
    let named = [("merge", field.merge), ("retainKeys", field.retain_keys), ("replace", field.replace)];
    let strategies: Vec<&str> = named.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if !strategies.is_empty() {
        insert("patch-strategy", json!(strategies.join(",")));
    }
    if let Some(key) = field.merge_key() {
        insert("patch-merge-key", json!(key));
    }
}

fn of_type(message: Message, field: &Field) -> Value {
    match field.of {
        Type::String => json!({"type": "string"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Message(_) => {
            let inner = message.of(field).expect("the field's type is a message");
            component_of(inner).map_or_else(strings, |name| reference(&name))
        }
    }
}

/// The kinds a schema stands for: its own, and for what every group shares, that of each group version.
fn kinds_of(message: Message, registry: &Registry) -> Vec<Value> {
    if !message.is_kind() {
        return Vec::new();
    }
    let kind = |group: &str, version: &str| json!({"group": group, "version": version, "kind": message.name()});
    if message.package() != META {
        return vec![kind(message.group(), message.version())];
    }
    match message.name() {
        "DeleteOptions" => {
            let served: BTreeSet<(&str, &str)> =
                registry.iter().map(|row| (row.kind.group.as_ref(), row.kind.version.as_ref())).collect();
            served.into_iter().map(|(group, version)| kind(group, version)).collect()
        }
        _ => vec![kind("", "v1")],
    }
}

/// The schema of a custom kind or of its lists: what its definition says.
fn of_custom(name: &str, registry: &Registry) -> Value {
    for row in registry.iter() {
        let Some(custom) = &row.custom else { continue };
        if resource_name(row) == name {
            return Value::clone(&custom.open_api);
        }
        if list_name(row) == name {
            return list_of(row);
        }
    }
    json!({"type": "object"})
}

fn list_of(row: &Resource) -> Value {
    let kind = json!({"group": row.kind.group, "version": row.kind.version, "kind": row.list_kind});
    json!({
        "type": "object", "required": ["items"], "x-kubernetes-group-version-kind": [kind],
        "description": format!("{} is a list of {}", row.list_kind, row.kind.kind),
        "properties": {
            "apiVersion": {"type": "string", "description": type_meta("apiVersion")},
            "kind": {"type": "string", "description": type_meta("kind")},
            "metadata": {"allOf": [meta("ListMeta")]},
            "items": {"type": "array", "items": reference(&resource_name(row))},
        },
    })
}

/// What `apiVersion` or `kind` of any object means.
pub(super) fn type_meta(field: &str) -> &'static str {
    description("TypeMeta", field).unwrap_or_default()
}

/// The schemas that those of custom kinds refer to.
fn named_by_custom() -> [String; 2] {
    ["ObjectMeta", "ListMeta"].map(|name| name_of(&format!("{META}.{name}")))
}

/// Our own words for a message (`field` empty) or one of its fields: those of the message, or those that hold everywhere.
fn description(message: &str, field: &str) -> Option<&'static str> {
    static TEXTS: OnceLock<BTreeMap<(&'static str, &'static str), &'static str>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| read_descriptions(include_str!("descriptions.txt")));
    let everywhere = || texts.get(&("*", field)).filter(|_| !field.is_empty());
    texts.get(&(message, field)).or_else(everywhere).copied()
}

/// Words for a field that nobody has described: those of what it holds, or its name taken apart.
fn derived(message: Message, field: &Field) -> String {
    let of = message.of(field).and_then(|inner| description(inner.name(), ""));
    match (of, field.shape, field.of) {
        (Some(text), Shape::One, _) => text.to_owned(),
        (Some(text), Shape::List, _) => format!("A list. Each: {text}"),
        (Some(text), Shape::Map, _) => format!("By key. Each: {text}"),
        (None, Shape::One, Type::Bool) => format!("Whether it is so: {}.", words(&field.name)),
        (None, Shape::One, _) => format!("The {}.", words(&field.name)),
        (None, Shape::List, _) => format!("A list: the {}.", words(&field.name)),
        (None, Shape::Map, _) => format!("By key: the {}.", words(&field.name)),
    }
}

/// `volumeClaimTemplate` becomes `volume claim template`; `clusterIP` becomes `cluster IP`.
fn words(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::with_capacity(name.len() + 8);
    for (index, character) in chars.iter().enumerate() {
        let follows_lower = index > 0 && chars[index - 1].is_lowercase();
        let is_plural =
            chars.get(index + 1) == Some(&'s') && chars.get(index + 2).is_none_or(|next| next.is_uppercase());
        let begins_word = !is_plural && chars.get(index + 1).is_some_and(|next| next.is_lowercase());
        let ends_abbreviation = index > 0 && chars[index - 1].is_uppercase() && begins_word;
        if character.is_uppercase() && (follows_lower || ends_abbreviation) {
            text.push(' ');
        }
        match character.is_uppercase() && begins_word {
            true => text.extend(character.to_lowercase()),
            false => text.push(*character),
        }
    }
    text
}

/// Reads lines of `Message: text` and, indented below, `field: text`.
pub(super) fn read_descriptions(text: &'static str) -> BTreeMap<(&'static str, &'static str), &'static str> {
    let mut message = "";
    let mut texts = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, text)) = line.split_once(": ") else { continue };
        match name.strip_prefix(' ') {
            Some(field) => drop(texts.insert((message, field), text)),
            None => {
                message = name;
                texts.insert((message, ""), text);
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_name_is_taken_apart_into_words() {
        for (name, expected) in [
            ("volumeClaimTemplate", "volume claim template"),
            ("clusterIP", "cluster IP"),
            ("podIPs", "pod IPs"),
            ("hostPID", "host PID"),
            ("FQDNName", "FQDN name"),
            ("name", "name"),
        ] {
            assert_eq!(words(name), expected);
        }
    }
}
