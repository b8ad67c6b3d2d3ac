//! Trees to protobuf, for clients that ask for it: the inverse of `protobuf`.

use serde_json::{Map, Value};

use super::{form, protobuf};
use crate::schema::{Field, Form, Message, Shape, Type, kubernetes};

/// A tree that is not of its message: it was not checked first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "field {field:?} of {message:?}: expected a value of its type, found another; check the object before encoding it"
)]
pub struct EncodeError {
    /// The message's name.
    pub message: String,
    /// The field's name.
    pub field: String,
}

/// Encodes a checked object of `message` with its envelope.
pub fn encode_protobuf(value: &Value, message: Message) -> Result<Vec<u8>, EncodeError> {
    let raw = encode_bare(value, message)?;
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let mut out = open_envelope(text("apiVersion"), text("kind"), raw.len());
    out.extend_from_slice(&raw);
    out.extend_from_slice(&ENVELOPE_END);
    Ok(out)
}

/// Encodes a checked object of `message` as it lies inside another message.
pub fn encode_bare(value: &Value, message: Message) -> Result<Vec<u8>, EncodeError> {
    let mut raw = Vec::with_capacity(1024);
    match value {
        Value::Object(map) => fields(&mut raw, map, message)?,
        _ => return Err(EncodeError { message: message.name().to_owned(), field: String::new() }),
    }
    Ok(raw)
}

/// What ends an envelope: no content encoding, and no content type but protobuf's own.
pub const ENVELOPE_END: [u8; 4] = [0x1a, 0, 0x22, 0];

/// What stands before the bytes of an object.
fn open_envelope(api_version: &str, kind: &str, raw_bytes: usize) -> Vec<u8> {
    let mut meta = Vec::new();
    for (tag, text) in [(1, api_version), (2, kind)] {
        bytes(&mut meta, tag, text.as_bytes());
    }
    let mut out = Vec::with_capacity(raw_bytes + meta.len() + 32);
    out.extend_from_slice(protobuf::MAGIC);
    bytes(&mut out, 1, &meta);
    varint(&mut out, 2 << 3 | 2);
    varint(&mut out, raw_bytes as u64);
    out
}

/// What stands before the items of a list whose items, each with its [`item_head`], are so many bytes. Then come the
/// items, then [`ENVELOPE_END`].
pub fn list_head(api_version: &str, kind: &str, metadata: &Value, items_bytes: usize) -> Result<Vec<u8>, EncodeError> {
    let name = "k8s.io.apimachinery.pkg.apis.meta.v1.ListMeta";
    let message = kubernetes().find(name).expect("lists have metadata in the table");
    let mut head = Vec::new();
    bytes(&mut head, 1, &encode_bare(metadata, message)?);
    let mut out = open_envelope(api_version, kind, head.len() + items_bytes);
    out.extend_from_slice(&head);
    Ok(out)
}

/// What stands before one item of a list.
pub fn item_head(item_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(8);
    varint(&mut out, 2 << 3 | 2);
    varint(&mut out, item_bytes as u64);
    out
}

/// An event of a watch that shows an encoded object: its length in four bytes, then a WatchEvent without an envelope.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    bytes(&mut extension, 1, object);
    let mut event = Vec::with_capacity(extension.len() + 32);
    bytes(&mut event, 1, kind.as_bytes());
    bytes(&mut event, 2, &extension);
    let mut out = Vec::with_capacity(event.len() + 4);
    out.extend_from_slice(&(event.len() as u32).to_be_bytes());
    out.extend_from_slice(&event);
    out
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    varint(out, u64::from(tag) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, tag: u32, value: i64) {
    varint(out, u64::from(tag) << 3);
    varint(out, value as u64);
}

fn fields(out: &mut Vec<u8>, map: &Map<String, Value>, message: Message) -> Result<(), EncodeError> {
    for field in message.tagged_fields().filter(|field| field.tag != 0) {
        if let (true, Some(inner)) = (field.inline, message.of(field)) {
            let mut nested = Vec::new();
            fields(&mut nested, map, inner)?;
            bytes(out, field.tag, &nested);
            continue;
        }
        let wrong = || EncodeError { message: message.name().to_owned(), field: field.name.to_string() };
        match (field.shape, map.get(field.name.as_ref())) {
            (_, None | Some(Value::Null)) => {}
            (Shape::One, Some(value)) => one(out, field.tag, value, field, message)?,
            (Shape::List, Some(Value::Array(items))) => {
                for item in items {
                    one(out, field.tag, item, field, message)?;
                }
            }
            (Shape::Map, Some(Value::Object(entries))) => {
                for (key, item) in entries {
                    let mut entry = Vec::new();
                    bytes(&mut entry, 1, key.as_bytes());
                    one(&mut entry, 2, item, field, message)?;
                    bytes(out, field.tag, &entry);
                }
            }
            _ => return Err(wrong()),
        }
    }
    Ok(())
}

fn one(out: &mut Vec<u8>, tag: u32, value: &Value, field: &Field, message: Message) -> Result<(), EncodeError> {
    let wrong = || EncodeError { message: message.name().to_owned(), field: field.name.to_string() };
    match (field.of, value) {
        (Type::String, Value::String(text)) => bytes(out, tag, text.as_bytes()),
        (Type::Bytes, Value::String(text)) => bytes(out, tag, &form::read_base64(text).map_err(|_| wrong())?),
        (Type::Bool, Value::Bool(flag)) => number(out, tag, i64::from(*flag)),
        (Type::Int32 | Type::Int64, Value::Number(found)) => number(out, tag, found.as_i64().ok_or_else(wrong)?),
        (Type::Double, Value::Number(found)) => {
            varint(out, u64::from(tag) << 3 | 1);
            out.extend_from_slice(&found.as_f64().ok_or_else(wrong)?.to_le_bytes());
        }
        (Type::Message(_), value) => {
            let inner = message.of(field).expect("the field's type is a message");
            let mut nested = Vec::new();
            whole(&mut nested, value, inner).ok_or_else(wrong)??;
            bytes(out, tag, &nested);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// The bytes of a message's value; `None` when the value has another form.
fn whole(out: &mut Vec<u8>, value: &Value, message: Message) -> Option<Result<(), EncodeError>> {
    match (message.form(), value) {
        (Form::Fields, Value::Object(map)) => return Some(fields(out, map, message)),
        (Form::AnyObject | Form::Any | Form::Nested, value) => bytes(out, 1, value.to_string().as_bytes()),
        (Form::Quantity, Value::String(text)) => bytes(out, 1, text.as_bytes()),
        (Form::Quantity, Value::Number(found)) => bytes(out, 1, found.to_string().as_bytes()),
        (Form::IntOrString, Value::Number(found)) => {
            number(out, 1, 0);
            number(out, 2, found.as_i64()?);
            bytes(out, 3, b"");
        }
        (Form::IntOrString, Value::String(text)) => {
            number(out, 1, 1);
            number(out, 2, 0);
            bytes(out, 3, text.as_bytes());
        }
        (Form::Time | Form::MicroTime, Value::String(text)) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            number(out, 1, time.as_second());
            number(out, 2, i64::from(time.subsec_nanosecond()));
        }
        (Form::Duration, Value::String(text)) => number(out, 1, form::read_duration(text)?),
        (Form::Strings, Value::Array(items)) => {
            for item in items {
                bytes(out, 1, item.as_str()?.as_bytes());
            }
        }
        (Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings, value) => {
            return schema_or(out, value, message);
        }
        _ => return None,
    }
    Some(Ok(()))
}

fn schema_or(out: &mut Vec<u8>, value: &Value, message: Message) -> Option<Result<(), EncodeError>> {
    let field = message.field("schema")?;
    let nested = |item: &Value, tag: u32, out: &mut Vec<u8>| one(out, tag, item, field, message);
    match (message.form(), value) {
        (form, Value::Object(_)) => {
            if form == Form::SchemaOrBool {
                // Where there is a schema, what meets it is allowed.
                number(out, 1, 1);
            }
            Some(nested(value, field.tag, out))
        }
        (Form::SchemaOrArray, Value::Array(items)) => Some(items.iter().try_for_each(|item| nested(item, 2, out))),
        (Form::SchemaOrBool, Value::Bool(flag)) => {
            number(out, 1, i64::from(*flag));
            Some(Ok(()))
        }
        (Form::SchemaOrStrings, Value::Array(items)) => {
            for item in items {
                bytes(out, 2, item.as_str()?.as_bytes());
            }
            Some(Ok(()))
        }
        _ => None,
    }
}
