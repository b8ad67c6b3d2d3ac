//! A compiled schema as a table of messages, so that unknown fields, pruning and server-side apply know custom kinds as
//! they know built-in ones.

use super::node::{Additional, List, Node, Type as Of};
use crate::kind::Kind;
use crate::schema::{
    Builder, Form, META, Merging, MessageId, MessageRef, Part, Schema, SchemaError, Shape, Slot, Type, kubernetes,
};

/// The message of a custom kind in a table of its own.
pub(crate) fn message(kind: &Kind, node: &Node) -> Result<MessageRef, SchemaError> {
    root(kind, node, true)
}

/// The message of an object by itself, that is no kind.
pub(crate) fn part(kind: &Kind, node: &Node) -> Result<MessageRef, SchemaError> {
    root(kind, node, node.embedded)
}

fn root(kind: &Kind, node: &Node, is_kind: bool) -> Result<MessageRef, SchemaError> {
    let package = package(kind);
    let mut table = Table { builder: Builder::new(package.clone(), kind.api_version()) };
    table.object(&kind.kind, node, is_kind)?;
    let schema: Schema = table.builder.finish();
    let full_name = format!("{package}.{}", kind.kind);
    Ok(MessageRef::own(std::sync::Arc::new(schema), &full_name).expect("the first message bears the kind's name"))
}

/// `com.example.v1` for `example.com/v1`: how the published schemas of custom kinds are named.
fn package(kind: &Kind) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
    parts.push(&kind.version);
    parts.join(".")
}

struct Table {
    builder: Builder,
}

impl Table {
    /// An object with fields of its own.
    fn object(&mut self, name: &str, node: &Node, is_kind: bool) -> Result<MessageId, SchemaError> {
        let open = node.open || matches!(node.additional, Additional::Any);
        let part = Part { name: name.to_owned(), form: Form::Fields, kind: is_kind, atomic: node.atomic, open };
        let id = self.builder.message(part)?;
        for (field, inner) in &node.properties {
            if is_kind && matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let slot = self.slot(&format!("{name}/{field}"), inner)?;
            self.builder.field(id, field, slot)?;
        }
        if is_kind {
            let metadata = kubernetes().find(&format!("{META}.ObjectMeta")).expect("a message of the built-in table");
            let of = Type::Message(self.builder.take(metadata)?);
            self.builder.field(id, "metadata", one(of))?;
        }
        Ok(id)
    }

    /// What a field of this node holds.
    fn slot(&mut self, name: &str, node: &Node) -> Result<Slot, SchemaError> {
        if node.int_or_string {
            return Ok(one(self.any(name, Form::Any)?));
        }
        let merging = |atomic: bool| if atomic { Merging::Atomic } else { Merging::Granular };
        match (node.of, &node.additional, &node.items) {
            (Of::Array, _, Some(items)) => {
                let (merging, keys) = match &node.list {
                    List::Atomic => (Merging::Atomic, Vec::new()),
                    List::Set => (Merging::Set, Vec::new()),
                    List::Map(keys) => (Merging::Map, keys.clone()),
                };
                Ok(Slot { shape: Shape::List, of: self.of(name, items)?, merging, keys })
            }
            (Of::Object, Additional::Each(values), _) if node.properties.is_empty() => {
                let of = self.of(name, values)?;
                Ok(Slot { shape: Shape::Map, of, merging: merging(node.atomic), keys: Vec::new() })
            }
            _ => Ok(Slot {
                merging: if node.atomic { Merging::Atomic } else { Merging::Unsaid },
                ..one(self.of(name, node)?)
            }),
        }
    }

    /// The type of one value.
    fn of(&mut self, name: &str, node: &Node) -> Result<Type, SchemaError> {
        let is_map = matches!(node.additional, Additional::Each(_)) && node.properties.is_empty();
        match node.of {
            _ if node.int_or_string => self.any(name, Form::Any),
            Of::Any => self.any(name, Form::AnyObject),
            Of::Array if node.items.is_none() => self.any(name, Form::AnyObject),
            Of::Object if !is_map => Ok(Type::Message(self.object(name, node, node.embedded)?)),
            Of::Array | Of::Object => {
                let part = Part { name: name.to_owned(), form: Form::Nested, kind: false, atomic: false, open: false };
                let id = self.builder.message(part)?;
                let slot = self.slot(&format!("{name}/"), node)?;
                self.builder.field(id, "", slot)?;
                Ok(Type::Message(id))
            }
            Of::String => Ok(Type::String),
            Of::Integer => Ok(Type::Int64),
            Of::Number => Ok(Type::Double),
            Of::Boolean => Ok(Type::Bool),
        }
    }

    /// What anything may stand in.
    fn any(&mut self, name: &str, form: Form) -> Result<Type, SchemaError> {
        let part = Part { name: name.to_owned(), form, kind: false, atomic: false, open: true };
        Ok(Type::Message(self.builder.message(part)?))
    }
}

fn one(of: Type) -> Slot {
    Slot { shape: Shape::One, of, merging: Merging::Unsaid, keys: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::message;
    use crate::codec::{Validation, check_fields};
    use crate::custom::Node;
    use crate::kind::Kind;
    use crate::schema::{Form, Merging, Shape};
    use serde_json::{Value, json};

    fn kind() -> Kind {
        Kind {
            group: "example.com".into(),
            version: "v1".into(),
            kind: "Foo".into(),
            plural: "foos".into(),
            namespaced: true,
        }
    }

    #[test]
    fn unknown_fields_are_found_at_every_depth() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"b": {"type": "object"}}},
            "lists": {"type": "array", "items": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}}},
            "maps": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": {"type": "object"}}},
            "object": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "either": {"x-kubernetes-int-or-string": true},
        }}}});
        let found = message(&kind(), &Node::compile(&schema)).expect("a small table");
        let mut value = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x", "odd": 1},
            "top": 1, "spec": {"a": "wrong type", "x": 1, "open": {"y": 1, "b": {"z": 1}}, "either": {"a": 1},
            "lists": [[{"c": 1, "d": 2}], 5], "maps": {"k": {"l": {"e": 1}}},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}, "f": 1}, "spec": {"g": 1}}}});
        let kept = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"},
            "spec": {"a": "wrong type", "open": {"y": 1, "b": {}}, "either": {"a": 1},
            "lists": [[{"c": 1}], 5], "maps": {"k": {"l": {}}},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}, "spec": {"g": 1}}}});
        let warnings = check_fields(&mut value, found.get(), &[], Validation::Warn).expect("nothing is refused");
        assert_eq!(value, kept);
        for path in [
            "metadata.odd",
            "top",
            "spec.x",
            "spec.open.b.z",
            "spec.lists[0][0].d",
            "spec.maps.k.l.e",
            "spec.object.metadata.f",
        ] {
            assert!(warnings.contains(&format!("unknown field {path:?}")), "{path} in {warnings:?}");
        }
        assert_eq!(warnings.len(), 7);
    }

    #[test]
    fn metadata_is_checked_like_that_of_built_in_kinds() {
        let found = message(&kind(), &Node::compile(&json!({"type": "object"}))).expect("a small table");
        let mut value: Value = json!({"metadata": {"labels": {"a": 1}}});
        let refused = check_fields(&mut value, found.get(), &[], Validation::Ignore).expect_err("labels are texts");
        assert!(refused.message.contains("metadata.labels.a of type string"), "{refused}");
    }

    #[test]
    fn lists_and_maps_say_how_they_merge() {
        let schema = json!({"type": "object", "properties": {
            "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": {"type": "object"}},
            "n": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        }});
        let found = message(&kind(), &Node::compile(&schema)).expect("a small table");
        let root = found.get();
        let field = |name: &str| root.field(name).expect("a field");
        assert_eq!((field("s").shape, field("s").merging), (Shape::List, Merging::Set));
        assert_eq!(field("m").keys(), ["a", "b"]);
        let inner = root.of(field("n")).expect("a list of lists");
        assert_eq!((inner.form(), inner.nested().map(|field| field.shape)), (Form::Nested, Some(Shape::List)));
        assert_eq!((root.full_name().as_str(), root.api_version()), ("com.example.v1.Foo", "example.com/v1"));
    }
}
