//! What a schema of a definition may say (C6).
//!
//! Rules
//!   S1 types       the root is an object; each named field, item and additional property has a type, unless it is
//!                  int-or-string or keeps unknown fields
//!   S2 keywords    nothing that is not structural: no references, no definitions, no two ways to say one thing, no
//!                  additionalProperties: false, no uniqueItems
//!   S3 junctors    allOf, anyOf, oneOf and not only check: what they name is named outside too, and they say nothing that
//!                  prunes, fills or merges
//!   S4 extensions  x-kubernetes-* fit the type they stand beside; lists that merge have items that can be told apart
//!   S5 metadata    is implied: only name and generateName may be restricted
//!   S6 defaults    are valid, hold no unknown field, and are not said of metadata
//!   S7 bounds      patterns compile to a bounded size; a schema has at most [`PLACES_MAX`] places
//!   S8 rules       in CEL are looked at only once the schema is one (`rule`), and are not for junctors
//! Source: custom resources guide, "Specifying a structural schema"; KEP-1111 on its forbidden fields.

use serde_json::Value;

use crate::codec::{DEPTH_MAX, Validation, check_fields};
use crate::custom::Node;
use crate::custom::pattern::Pattern;
use crate::custom::table;
use crate::custom::value::{Place, check};
use crate::field::{Errors, Path};
use crate::kind::{Kind, kinds};
use crate::resources::tree::Tree;

/// Places of one schema: fields, items and junctors. Each becomes a message or a field of a table that numbers 65,535.
pub(super) const PLACES_MAX: usize = 30_000;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Keywords of JSON schema that no structural schema has.
const UNSUPPORTED: [&str; 7] =
    ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id", "$schema"];
/// What a junctor may not say.
const NOT_IN_JUNCTORS: [&str; 13] = [
    "description",
    "type",
    "default",
    "title",
    "additionalProperties",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

/// Adds an error for each broken rule of the schema at `path`.
pub(super) fn validate(schema: &Value, path: &Path, errors: &mut Errors) {
    let mut walk = Walk { errors, places: 0 };
    match schema.text("type") {
        "" => walk.errors.required(&path.child("type"), "must not be empty at the root"),
        "object" => {}
        other => walk.errors.invalid(&path.child("type"), other, "must be object at the root"),
    }
    if schema.flag("nullable") {
        walk.errors.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    walk.place(schema, path, Stands::Root, 0);
    walk.metadata(schema, path);
    let is_small = walk.places <= PLACES_MAX;
    if !is_small {
        walk.errors.too_many(path, walk.places, PLACES_MAX);
    }
    // Defaults are held against the schema only once it is one.
    if errors.is_empty() && is_small {
        check_defaults(schema, path, errors, 0);
        if errors.is_empty() {
            super::rule::validate(schema, path, errors);
        }
    }
}

/// Where a schema stands in the one around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Root,
    Field,
    Item,
    Junctor,
}

struct Walk<'a> {
    errors: &'a mut Errors,
    places: usize,
}

impl Walk<'_> {
    fn place(&mut self, schema: &Value, path: &Path, stands: Stands, depth: usize) {
        self.places += 1;
        if depth > DEPTH_MAX || self.places > PLACES_MAX {
            return;
        }
        self.keywords(schema, path);
        if stands == Stands::Junctor {
            self.junctor(schema, path);
        } else {
            self.types(schema, path, stands);
            self.extensions(schema, path);
            self.junctors_name_only_what_is_named(schema, schema, path, depth);
        }
        let inner = if stands == Stands::Junctor { Stands::Junctor } else { Stands::Field };
        for (name, field) in schema.entries("properties") {
            self.place(field, &path.child("properties").key(name), inner, depth + 1);
        }
        if schema["additionalProperties"].is_object() {
            self.place(&schema["additionalProperties"], &path.child("additionalProperties"), inner, depth + 1);
        }
        if schema["items"].is_object() {
            let inner = if stands == Stands::Junctor { Stands::Junctor } else { Stands::Item };
            self.place(&schema["items"], &path.child("items"), inner, depth + 1);
        }
        for junctor in ["allOf", "anyOf", "oneOf"] {
            for (index, part) in schema.items(junctor).iter().enumerate() {
                self.place(part, &path.child(junctor).index(index), Stands::Junctor, depth + 1);
            }
        }
        if schema["not"].is_object() {
            self.place(&schema["not"], &path.child("not"), Stands::Junctor, depth + 1);
        }
    }

    /// S2 and S7.
    fn keywords(&mut self, schema: &Value, path: &Path) {
        for keyword in UNSUPPORTED {
            if schema.is_set(keyword) {
                self.errors.forbidden(&path.child(keyword), &format!("{keyword} is not supported"));
            }
        }
        if schema.flag("uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.forbidden(&path.child("uniqueItems"), detail);
        }
        if schema["additionalProperties"] == false {
            let detail = "additionalProperties cannot be set to false";
            self.errors.forbidden(&path.child("additionalProperties"), detail);
        }
        if schema.is_set("additionalProperties") && !schema.entries("properties").is_empty() {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.errors.forbidden(&path.child("additionalProperties"), detail);
        }
        if schema["items"].is_array() {
            self.errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
        }
        let kind = schema.text("type");
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            self.errors.forbidden(&path.child("type"), detail);
        } else if !kind.is_empty() && !TYPES.contains(&kind) {
            self.errors.not_supported(&path.child("type"), kind, &TYPES);
        }
        let pattern = schema.text("pattern");
        if let Some(why) = Some(pattern).filter(|text| !text.is_empty()).and_then(|text| Pattern::new(text).err()) {
            let detail = format!("must be a valid regular expression, but isn't: {why}");
            self.errors.invalid(&path.child("pattern"), pattern, &detail);
        }
    }

    /// S3 and S8: what a junctor itself may say.
    fn junctor(&mut self, schema: &Value, path: &Path) {
        for keyword in NOT_IN_JUNCTORS {
            let is_said = schema.get(keyword).is_some_and(|said| !said.is_null() && *said != false && *said != "");
            // A schema of int-or-string may spell out its two types.
            if is_said && keyword != "type" {
                self.errors.forbidden(&path.child(keyword), "must be empty to be structural");
            }
        }
    }

    /// S1.
    fn types(&mut self, schema: &Value, path: &Path, stands: Stands) {
        let (kind, at) = (schema.text("type"), path.child("type"));
        let either = schema.flag("x-kubernetes-int-or-string");
        let open = schema.flag("x-kubernetes-preserve-unknown-fields");
        match stands {
            Stands::Field if kind.is_empty() && !either && !open => {
                self.errors.required(&at, "must not be empty for specified object fields");
            }
            Stands::Item if kind.is_empty() && !either && !open => {
                self.errors.required(&at, "must not be empty for specified array items");
            }
            _ => {}
        }
        if kind == "array" && !schema.is_set("items") {
            self.errors.required(&path.child("items"), "must be specified");
        }
        if schema.is_set("items") && kind != "array" && !kind.is_empty() {
            self.errors.invalid(&at, kind, "must be array if items is specified");
        }
        let has_fields = !schema.entries("properties").is_empty() || schema.is_set("additionalProperties");
        if has_fields && kind != "object" && !kind.is_empty() {
            self.errors.invalid(&at, kind, "must be object if properties or additionalProperties is specified");
        }
        self.types_of_junctors(schema, path, either);
    }

    /// Types inside junctors are for int-or-string only, as `anyOf: [{type: integer}, {type: string}]`.
    fn types_of_junctors(&mut self, schema: &Value, path: &Path, either: bool) {
        for junctor in ["allOf", "anyOf", "oneOf"] {
            for (index, part) in schema.items(junctor).iter().enumerate() {
                let at = path.child(junctor).index(index);
                if part.text("type").is_empty() || (either && junctor == "anyOf") {
                    continue;
                }
                self.errors.forbidden(&at.child("type"), "must be empty to be structural");
            }
        }
        if !schema["not"].text("type").is_empty() {
            self.errors.forbidden(&path.child("not").child("type"), "must be empty to be structural");
        }
    }

    /// S3: every field, item and additional property of a junctor is named outside it.
    fn junctors_name_only_what_is_named(&mut self, outer: &Value, schema: &Value, path: &Path, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let lists = ["allOf", "anyOf", "oneOf"].into_iter();
        let parts = lists.flat_map(|junctor| {
            schema.items(junctor).iter().enumerate().map(move |(index, part)| (part, path.child(junctor).index(index)))
        });
        let not = schema["not"].is_object().then(|| (&schema["not"], path.child("not")));
        for (part, at) in parts.chain(not) {
            self.is_named(outer, part, (path, &at), depth + 1);
            self.junctors_name_only_what_is_named(outer, part, &at, depth + 1);
        }
    }

    fn is_named(&mut self, outer: &Value, part: &Value, (path, at): (&Path, &Path), depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        for (name, inner) in part.entries("properties") {
            let (own, defined) = (path.child("properties").key(name), at.child("properties").key(name));
            match outer["properties"].get(name) {
                Some(outer) => self.is_named(outer, inner, (&own, &defined), depth + 1),
                None if outer["additionalProperties"].is_object() => {}
                None => self.errors.required(&own, &format!("because it is defined in {defined}")),
            }
        }
        if part["items"].is_object() {
            let (own, defined) = (path.child("items"), at.child("items"));
            match outer.get("items").filter(|items| items.is_object()) {
                Some(outer) => self.is_named(outer, &part["items"], (&own, &defined), depth + 1),
                None => self.errors.required(&own, &format!("because it is defined in {defined}")),
            }
        }
    }

    /// S4.
    fn extensions(&mut self, schema: &Value, path: &Path) {
        let kind = schema.text("type");
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.errors.invalid(&at, false, "must be true or undefined");
        }
        if schema.flag("x-kubernetes-embedded-resource") {
            if kind != "object" {
                let detail = "must be object if x-kubernetes-embedded-resource is true";
                self.errors.invalid(&path.child("type"), kind, detail);
            }
            if schema.entries("properties").is_empty() && !schema.flag("x-kubernetes-preserve-unknown-fields") {
                let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                              x-kubernetes-preserve-unknown-fields";
                self.errors.required(&path.child("properties"), detail);
            }
        }
        self.list(schema, path, kind);
        match schema.text("x-kubernetes-map-type") {
            "" => {}
            "granular" | "atomic" if kind == "object" => {}
            "granular" | "atomic" => {
                let detail = "must be object if x-kubernetes-map-type is specified";
                self.errors.invalid(&path.child("type"), kind, detail);
            }
            other => {
                let at = path.child("x-kubernetes-map-type");
                self.errors.not_supported(&at, other, &["granular", "atomic"]);
            }
        }
    }

    fn list(&mut self, schema: &Value, path: &Path, kind: &str) {
        let (list, keys) = (schema.text("x-kubernetes-list-type"), schema.items("x-kubernetes-list-map-keys"));
        let (at, at_keys) = (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
        if !list.is_empty() && kind != "array" {
            let detail = "must be array if x-kubernetes-list-type is specified";
            self.errors.invalid(&path.child("type"), kind, detail);
        }
        if list != "map" && !keys.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.invalid(&at, list, detail);
        }
        let items = &schema["items"];
        match list {
            "" | "atomic" => {}
            "set" => {
                let merges = |field: &str| items.text(field) != "atomic";
                let (is_list, is_map) = (items.text("type") == "array", items.text("type") == "object");
                if (is_list && merges("x-kubernetes-list-type")) || (is_map && merges("x-kubernetes-map-type")) {
                    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                    self.errors.invalid(&path.child("items"), items.text("type"), detail);
                }
            }
            "map" if keys.is_empty() => {
                self.errors.required(&at_keys, "must not be empty if x-kubernetes-list-type is map");
            }
            "map" => self.map_keys(items, keys, path),
            other => self.errors.not_supported(&at, other, &["atomic", "set", "map"]),
        }
    }

    fn map_keys(&mut self, items: &Value, keys: &[Value], path: &Path) {
        let (at, at_items) = (path.child("x-kubernetes-list-map-keys"), path.child("items"));
        if items.text("type") != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.errors.invalid(&at_items.child("type"), items.text("type"), detail);
        }
        for (index, key) in keys.iter().enumerate() {
            let name = key.as_str().unwrap_or_default();
            if keys[..index].contains(key) {
                self.errors.duplicate(&at.index(index), name);
            }
            let (Some(field), at_field) = (items["properties"].get(name), at_items.child("properties").key(name))
            else {
                self.errors.invalid(&at.index(index), name, "must be a required property of the items");
                continue;
            };
            if matches!(field.text("type"), "array" | "object") {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.errors.invalid(&at_field.child("type"), field.text("type"), detail);
            }
            if field.flag("nullable") {
                self.errors.forbidden(&at_field.child("nullable"), "must not be nullable as a key of a map list");
            }
            if !items.items("required").contains(key) && !field.is_set("default") {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                              required property";
                self.errors.required(&at_field.child("default"), detail);
            }
        }
    }

    /// S5.
    fn metadata(&mut self, schema: &Value, path: &Path) {
        let at = path.child("properties").key("metadata");
        let metadata = &schema["properties"]["metadata"];
        if metadata.is_null() {
            return;
        }
        if metadata.text("type") != "object" {
            self.errors.invalid(&at.child("type"), metadata.text("type"), "must be object");
        }
        let known = ["type", "description", "properties", "title"];
        let is_plain = metadata.as_object().into_iter().flatten().all(|(key, _)| known.contains(&key.as_str()));
        let only_names = metadata.entries("properties").keys().all(|name| name == "name" || name == "generateName");
        if !is_plain || !only_names {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                          specified";
            self.errors.forbidden(&at, detail);
        }
        for name in ["apiVersion", "kind"] {
            let kind = schema["properties"][name].text("type");
            if schema["properties"].is_set(name) && kind != "string" {
                self.errors.invalid(&path.child("properties").key(name).child("type"), kind, "must be string");
            }
        }
    }
}

/// S6.
fn check_defaults(schema: &Value, path: &Path, errors: &mut Errors, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let at = path.child("default");
        let node = Node::compile(schema);
        let mut filled = default.clone();
        crate::custom::fill::fill(&mut filled, &node);
        check(Place::new(&filled, None, &at), &node, errors);
        prunes_nothing(default, &node, &at, errors);
    }
    for (name, field) in schema.entries("properties") {
        check_defaults(field, &path.child("properties").key(name), errors, depth + 1);
    }
    for name in ["items", "additionalProperties"] {
        if schema[name].is_object() {
            check_defaults(&schema[name], &path.child(name), errors, depth + 1);
        }
    }
}

fn prunes_nothing(default: &Value, node: &Node, at: &Path, errors: &mut Errors) {
    if !default.is_object() || node.open {
        return;
    }
    // The table of the part by itself: a kind of its own, whose metadata nothing is said of.
    let kind = Kind { kind: "default".into(), ..kinds::CUSTOM_RESOURCE_DEFINITION.clone() };
    let Ok(message) = table::part(&kind, node) else { return };
    let mut pruned = default.clone();
    match check_fields(&mut pruned, message.get(), &[], Validation::Strict) {
        Ok(_) => {}
        Err(error) => {
            let why = error.message.rsplit("strict decoding error: ").next().unwrap_or_default();
            errors.invalid(at, default.clone(), &format!("must be pruned: {why}"));
        }
    }
}
