//! Protobuf bodies, as every typed Go client sends them: an envelope that names the kind, and the kind's message.
//!
//! Rules
//!   R1 envelope   `k8s\0`, then runtime.Unknown: type meta 1, raw object 2, content encoding 3, content type 4
//!   R2 unknown    fields that the table does not have are skipped: a newer client may send them
//!   R3 zero       Go writes the zero values of fields it has no pointer for; they mean "absent" and are dropped
//!   R4 embedded   a raw extension holds JSON, or another envelope
//!
//! Every length is checked against what is left before anything is kept; depth and memory are bounded as for JSON.
//! Source: protobuf encoding; apimachinery's description of its protobuf serialisation.

use serde_json::{Map, Number, Value};

use super::tree::{ENTRY_BYTES, ITEM_BYTES, OBJECT_BYTES, Pass};
use super::wire::{Reader, Wire, syntax};
use super::{DecodeError, Decoded, Limits, form, json};
use crate::schema::{Field, Form, Message, Shape, Type, kubernetes};

/// What every body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Decodes a body. `expected` is the message when the envelope's kind is not in the table (a kind served in a group
/// version of its own); else the envelope decides, and the caller sees `apiVersion` and `kind` in the tree.
pub fn decode(bytes: &[u8], expected: Option<Message>, limits: Limits) -> Result<Decoded, DecodeError> {
    let decoder = Decoder { pass: Pass::new(limits, false) };
    let value = decoder.envelope(bytes, expected, 0)?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

struct Decoder {
    pass: Pass,
}

#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
    content_encoding: String,
    content_type: String,
}

fn read_envelope(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| syntax("expected the prefix k8s\\0, found none"))?;
    let mut envelope = Envelope::default();
    let mut reader = Reader::new(rest);
    while let Some(field) = reader.field()? {
        match field {
            (1, Wire::Bytes(bytes)) => {
                let mut meta = Reader::new(bytes);
                while let Some(field) = meta.field()? {
                    match field {
                        (1, Wire::Bytes(text)) => envelope.api_version = text_of(text)?.to_owned(),
                        (2, Wire::Bytes(text)) => envelope.kind = text_of(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => envelope.raw = bytes,
            (3, Wire::Bytes(text)) => envelope.content_encoding = text_of(text)?.to_owned(),
            (4, Wire::Bytes(text)) => envelope.content_type = text_of(text)?.to_owned(),
            _ => {}
        }
    }
    Ok(envelope)
}

fn text_of(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| syntax(format!("expected text in UTF-8, found {error}")))
}

impl Decoder {
    fn envelope(&self, bytes: &[u8], expected: Option<Message>, depth: usize) -> Result<Value, DecodeError> {
        let envelope = read_envelope(bytes)?;
        if !envelope.content_encoding.is_empty() {
            return Err(syntax("expected no content encoding in the envelope, found one"));
        }
        if !matches!(envelope.content_type.as_str(), "" | "application/vnd.kubernetes.protobuf") {
            return Err(syntax("expected protobuf in the envelope, found another content type"));
        }
        let found = kubernetes().find_kind(&envelope.api_version, &envelope.kind);
        let Some(message) = found.or(expected) else {
            return Err(DecodeError::UnknownKind {
                api_version: cut(&envelope.api_version),
                kind: cut(&envelope.kind),
            });
        };
        let mut value = self.message(envelope.raw, message, depth)?;
        if let Value::Object(map) = &mut value {
            for (name, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
                if !text.is_empty() {
                    map.insert(name.to_owned(), Value::String(text));
                }
            }
        }
        Ok(value)
    }

    fn message(&self, bytes: &[u8], message: Message, depth: usize) -> Result<Value, DecodeError> {
        self.pass.budget.check_depth(depth + 1)?;
        match message.form() {
            Form::Fields => {
                let mut map = Map::new();
                self.fields(bytes, message, &mut map, depth)?;
                Ok(Value::Object(map))
            }
            Form::AnyObject | Form::Any | Form::Nested => self.raw(bytes, depth),
            Form::Time => Ok(parts_time(bytes)?.map_or(Value::Null, |time| form::show_time(time, 0).into())),
            Form::MicroTime => Ok(parts_time(bytes)?.map_or(Value::Null, |time| form::show_time(time, 6).into())),
            form => {
                let mut map = Map::new();
                self.fields(bytes, message, &mut map, depth)?;
                Ok(of_form(form, map))
            }
        }
    }

    /// Reads a message's fields into `map`: its own object, or, for inlined messages, that of the message around it.
    fn fields(
        &self,
        bytes: &[u8],
        message: Message,
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        while let Some((tag, wire)) = reader.field()? {
            let Some(field) = message.tagged(tag) else { continue };
            match (field.shape, message.of(field), &wire) {
                (Shape::One, Some(inner), Wire::Bytes(bytes)) if field.inline => {
                    self.pass.budget.check_depth(depth + 1)?;
                    self.fields(bytes, inner, map, depth + 1)?;
                }
                (Shape::One, ..) => {
                    let value = self.value(&wire, field, message, depth)?;
                    if is_absent(&value, field, message) {
                        map.remove(field.name.as_ref());
                    } else {
                        self.entry(map, field.name.len())?;
                        map.insert(field.name.to_string(), value);
                    }
                }
                (Shape::List, ..) => {
                    self.list(&wire, field, message, self.slot(map, field, Value::Array(Vec::new()))?, depth)?
                }
                (Shape::Map, ..) => {
                    self.pair(&wire, field, message, self.slot(map, field, Value::Object(Map::new()))?, depth)?
                }
            }
        }
        Ok(())
    }

    fn entry(&self, map: &Map<String, Value>, name_bytes: usize) -> Result<(), DecodeError> {
        self.pass.budget.charge(name_bytes + if map.is_empty() { OBJECT_BYTES } else { ENTRY_BYTES })
    }

    fn slot<'m>(
        &self,
        map: &'m mut Map<String, Value>,
        field: &Field,
        empty: Value,
    ) -> Result<&'m mut Value, DecodeError> {
        if !map.contains_key(field.name.as_ref()) {
            self.entry(map, field.name.len())?;
        }
        Ok(map.entry(field.name.to_string()).or_insert(empty))
    }

    fn list(
        &self,
        wire: &Wire,
        field: &Field,
        message: Message,
        slot: &mut Value,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let Value::Array(items) = slot else { return Err(wrong_wire(field)) };
        let packed = !matches!(field.of, Type::String | Type::Bytes | Type::Message(_));
        match wire {
            Wire::Bytes(bytes) if packed => {
                let mut reader = Reader::new(bytes);
                while !reader.rest.is_empty() {
                    let wire = match field.of {
                        Type::Double => {
                            let bytes = reader.take(8)?.try_into().expect("eight bytes were taken");
                            Wire::Fixed64(u64::from_le_bytes(bytes))
                        }
                        _ => Wire::Varint(reader.varint()?),
                    };
                    self.pass.budget.charge(ITEM_BYTES)?;
                    items.push(self.value(&wire, field, message, depth)?);
                }
            }
            _ => {
                self.pass.budget.charge(ITEM_BYTES)?;
                items.push(self.value(wire, field, message, depth + 1)?);
            }
        }
        Ok(())
    }

    fn pair(
        &self,
        wire: &Wire,
        field: &Field,
        message: Message,
        slot: &mut Value,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let (Value::Object(entries), Wire::Bytes(bytes)) = (slot, wire) else { return Err(wrong_wire(field)) };
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(bytes);
        while let Some((tag, wire)) = reader.field()? {
            match (tag, &wire) {
                (1, Wire::Bytes(text)) => key = text_of(text)?.to_owned(),
                (2, wire) => value = Some(self.value(wire, field, message, depth + 1)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            // an entry without value holds the zero value
            None if matches!(field.of, Type::String | Type::Bytes | Type::Message(_)) => {
                self.value(&Wire::Bytes(&[]), field, message, depth + 1)?
            }
            None => self.value(&Wire::Varint(0), field, message, depth + 1)?,
        };
        self.entry(entries, key.len())?;
        entries.insert(key, value);
        Ok(())
    }

    fn value(&self, wire: &Wire, field: &Field, message: Message, depth: usize) -> Result<Value, DecodeError> {
        Ok(match (field.of, wire) {
            (Type::String, Wire::Bytes(bytes)) => {
                self.pass.budget.charge(bytes.len())?;
                Value::from(text_of(bytes)?)
            }
            (Type::Bytes, Wire::Bytes(bytes)) => {
                self.pass.budget.charge(bytes.len() / 3 * 4)?;
                Value::from(form::show_base64(bytes))
            }
            (Type::Bool, Wire::Varint(number)) => Value::from(*number != 0),
            (Type::Int32, Wire::Varint(number)) => Value::from(*number as i32),
            (Type::Int64, Wire::Varint(number)) => Value::from(*number as i64),
            (Type::Double, Wire::Fixed64(bits)) => match Number::from_f64(f64::from_bits(*bits)) {
                Some(number) => Value::Number(number),
                None => return Err(syntax(format!("expected a finite number in {}, found none", field.name))),
            },
            (Type::Message(_), Wire::Bytes(bytes)) => {
                let inner = message.of(field).expect("the field's type is a message");
                self.message(bytes, inner, depth + 1)?
            }
            _ => return Err(wrong_wire(field)),
        })
    }

    /// The JSON or envelope in field 1 of a raw extension.
    fn raw(&self, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut raw: &[u8] = &[];
        while let Some(field) = reader.field()? {
            if let (1, Wire::Bytes(bytes)) = field {
                raw = bytes;
            }
        }
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if raw.starts_with(MAGIC) {
            return self.envelope(raw, None, depth + 1);
        }
        json::read(raw, &self.pass, depth)
    }
}

fn wrong_wire(field: &Field) -> DecodeError {
    syntax(format!("field {} has another wire type than its type asks for", field.name))
}

fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

/// R3: whether a value that Go wrote stands for nothing.
fn is_absent(value: &Value, field: &Field, message: Message) -> bool {
    if value.is_null() {
        return true;
    }
    if field.pointer || field.required {
        return false;
    }
    let form = message.of(field).map(|inner| inner.form());
    match value {
        Value::String(text) => text.is_empty() || (form == Some(Form::Duration) && text == "0s"),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(map) => map.is_empty() && form == Some(Form::Fields),
        Value::Array(items) => items.is_empty(),
        Value::Null => true,
    }
}

/// `None` for the zero time, which Go writes as no bytes.
fn parts_time(bytes: &[u8]) -> Result<Option<jiff::Timestamp>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        match field {
            (1, Wire::Varint(number)) => seconds = number as i64,
            (2, Wire::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    let time = form::time_of_parts(seconds, nanos);
    time.map(Some).ok_or_else(|| syntax("expected a time between the years -9999 and 9999, found another"))
}

/// The JSON of a message whose form is not an object, from its fields.
fn of_form(form: Form, mut map: Map<String, Value>) -> Value {
    let mut take = |name: &str| map.remove(name);
    match form {
        Form::Quantity => take("string").filter(|text| text != "").unwrap_or_else(|| "0".into()),
        Form::IntOrString if take("type").is_some() => take("strVal").unwrap_or_else(|| "".into()),
        Form::IntOrString => take("intVal").unwrap_or_else(|| 0.into()),
        Form::Duration => form::show_duration(take("duration").and_then(|nanos| nanos.as_i64()).unwrap_or(0)).into(),
        Form::Strings => take("items").unwrap_or_else(|| Value::Array(Vec::new())),
        Form::SchemaOrArray => take("jSONSchemas").or_else(|| take("schema")).unwrap_or(Value::Null),
        Form::SchemaOrBool => take("schema").or_else(|| take("allows")).unwrap_or(Value::Bool(false)),
        Form::SchemaOrStrings => take("schema").or_else(|| take("property")).unwrap_or(Value::Null),
        Form::Fields | Form::AnyObject | Form::Any | Form::Nested | Form::Time | Form::MicroTime => Value::Object(map),
    }
}

#[cfg(test)]
mod tests;
