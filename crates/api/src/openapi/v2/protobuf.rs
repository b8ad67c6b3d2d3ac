//! The protobuf form of an OpenAPI v2 document: gnostic's messages, written by their field numbers.
//!
//! A map is a list of name and value. What has no message of its own (extensions, defaults, enums) is an `Any` with YAML
//! text, and JSON is YAML.

use serde_json::{Map, Value};

/// A v2 document in protobuf.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Out::default();
    out.text_of(1, &document["swagger"]);
    out.message(2, |info| {
        info.text_of(1, &document["info"]["title"]);
        info.text_of(2, &document["info"]["version"]);
    });
    out.message(8, |paths| paths.named(2, entries(&document["paths"]), path_item));
    out.message(9, |definitions| definitions.named(1, entries(&document["definitions"]), schema));
    out.0
}

fn path_item(out: &mut Out, item: &Value) {
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        if let Some(found) = item.get(method) {
            out.message(tag, |out| operation(out, found));
        }
    }
    parameters(out, 9, item);
    extensions(out, 10, item);
}

fn operation(out: &mut Out, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text_of(3, &operation["description"]);
    out.text_of(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    parameters(out, 8, operation);
    out.message(9, |out| {
        out.named(1, entries(&operation["responses"]), |out, answer| out.message(1, |out| response(out, answer)))
    });
    extensions(out, 13, operation);
}

fn response(out: &mut Out, answer: &Value) {
    out.text_of(1, &answer["description"]);
    if let Some(of) = answer.get("schema") {
        out.message(2, |out| out.message(1, |out| schema(out, of)));
    }
}

fn parameters(out: &mut Out, tag: u32, owner: &Value) {
    for parameter in owner["parameters"].as_array().into_iter().flatten() {
        out.message(tag, |out| out.message(1, |out| one_parameter(out, parameter)));
    }
}

fn one_parameter(out: &mut Out, parameter: &Value) {
    if parameter["in"] == "body" {
        out.message(1, |body| {
            body.text_of(1, &parameter["description"]);
            body.text_of(2, &parameter["name"]);
            body.text_of(3, &parameter["in"]);
            body.flag(4, &parameter["required"]);
            body.message(5, |out| schema(out, &parameter["schema"]));
        });
        return;
    }
    // A query parameter has one field more than a path parameter, before the type.
    let (place, skipped) = if parameter["in"] == "query" { (3, 1) } else { (4, 0) };
    out.message(2, |out| {
        out.message(place, |out| {
            out.flag(1, &parameter["required"]);
            out.text_of(2, &parameter["in"]);
            out.text_of(3, &parameter["description"]);
            out.text_of(4, &parameter["name"]);
            out.text_of(5 + skipped, &parameter["type"]);
            out.text_of(6 + skipped, &parameter["format"]);
            out.flag(19 + skipped, &parameter["uniqueItems"]);
        });
    });
}

fn schema(out: &mut Out, of: &Value) {
    out.text_of(1, &of["$ref"]);
    out.text_of(2, &of["format"]);
    out.text_of(3, &of["title"]);
    out.text_of(4, &of["description"]);
    if let Some(default) = of.get("default") {
        out.message(5, |out| any(out, default));
    }
    out.double(7, &of["maximum"]);
    out.flag(8, &of["exclusiveMaximum"]);
    out.double(9, &of["minimum"]);
    out.flag(10, &of["exclusiveMinimum"]);
    out.number(11, &of["maxLength"]);
    out.number(12, &of["minLength"]);
    out.text_of(13, &of["pattern"]);
    out.number(14, &of["maxItems"]);
    out.number(15, &of["minItems"]);
    out.flag(16, &of["uniqueItems"]);
    out.number(17, &of["maxProperties"]);
    out.number(18, &of["minProperties"]);
    out.texts(19, &of["required"]);
    for value in of["enum"].as_array().into_iter().flatten() {
        out.message(20, |out| any(out, value));
    }
    match &of["additionalProperties"] {
        Value::Bool(any) => out.message(21, |out| out.flag(2, &Value::Bool(*any))),
        Value::Null => {}
        values => out.message(21, |out| out.message(1, |out| schema(out, values))),
    }
    if of["type"].is_string() {
        out.message(22, |out| out.text_of(1, &of["type"]));
    }
    if let Some(items) = of.get("items") {
        out.message(23, |out| out.message(1, |out| schema(out, items)));
    }
    for part in of["allOf"].as_array().into_iter().flatten() {
        out.message(24, |out| schema(out, part));
    }
    if let Some(Value::Object(properties)) = of.get("properties") {
        out.message(25, |out| out.named(1, Some(properties), schema));
    }
    extensions(out, 31, of);
}

fn extensions(out: &mut Out, tag: u32, owner: &Value) {
    for (name, value) in entries(owner).into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        out.message(tag, |out| {
            out.text(1, name);
            out.message(2, |out| any(out, value));
        });
    }
}

fn any(out: &mut Out, value: &Value) {
    out.text(2, &value.to_string());
}

fn entries(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

/// Protobuf bytes under way.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, tag: u32, wire: u32) {
        self.varint(u64::from(tag << 3 | wire));
    }

    fn text(&mut self, tag: u32, text: &str) {
        self.key(tag, 2);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A text that is there; an empty one is as good as absent.
    fn text_of(&mut self, tag: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.text(tag, text);
        }
    }

    fn texts(&mut self, tag: u32, values: &Value) {
        for text in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.text(tag, text);
        }
    }

    fn flag(&mut self, tag: u32, value: &Value) {
        if value == &Value::Bool(true) {
            self.key(tag, 0);
            self.varint(1);
        }
    }

    fn number(&mut self, tag: u32, value: &Value) {
        if let Some(number) = value.as_i64() {
            self.key(tag, 0);
            self.varint(number as u64);
        }
    }

    fn double(&mut self, tag: u32, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.key(tag, 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, tag: u32, write: impl FnOnce(&mut Out)) {
        let mut inner = Out::default();
        write(&mut inner);
        self.key(tag, 2);
        self.varint(inner.0.len() as u64);
        self.0.append(&mut inner.0);
    }

    /// A map, as a list of messages with name and value.
    fn named(&mut self, tag: u32, map: Option<&Map<String, Value>>, write: impl Fn(&mut Out, &Value)) {
        for (name, value) in map.into_iter().flatten() {
            self.message(tag, |entry| {
                entry.text(1, name);
                entry.message(2, |out| write(out, value));
            });
        }
    }
}
