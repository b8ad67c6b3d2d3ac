//! Values to JSON: what a message, an annotation or a mutation becomes.
//!
//! Source: the protobuf JSON mapping of CEL's types.

use serde_json::{Map as JsonMap, Number, Value as Json};

use super::budget::EvalError;
use super::library::show::{duration_text, show, type_name};
use super::value::Value;
use crate::codec::form::show_base64;

/// Nodes of the JSON that a value may become: values share their parts, JSON does not.
const NODES_MAX: usize = 1_000_000;
/// Lists and maps inside each other.
const DEPTH_MAX: usize = 100;

impl Value<'_> {
    /// The value as JSON.
    ///
    /// Errors: library values that have no JSON form, numbers that JSON cannot hold, values that would become too large.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        let mut left = NODES_MAX;
        convert(self, DEPTH_MAX, &mut left)
    }
}

fn convert(value: &Value, depth: usize, left: &mut usize) -> Result<Json, EvalError> {
    let fail = |why: String| Err(EvalError::Failed(why));
    if depth == 0 || *left == 0 {
        return fail("value is too large or too deep for JSON".to_owned());
    }
    *left -= 1;
    let json = match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Optional(Some(held)) => convert(held, depth - 1, left)?,
        Value::Bool(bool) => Json::Bool(*bool),
        Value::Int(int) => Json::from(*int),
        Value::Uint(uint) => Json::from(*uint),
        Value::Double(double) => match Number::from_f64(*double) {
            Some(number) => Json::Number(number),
            None => return fail(format!("{double} has no JSON form")),
        },
        Value::String(text) => Json::from(&**text),
        Value::Bytes(bytes) => Json::from(show_base64(bytes)),
        Value::Timestamp(time) => Json::from(time.to_string()),
        Value::Duration(nanos) => Json::from(duration_text(*nanos)),
        Value::Type(of) => Json::from(type_name(of)),
        Value::Opaque(opaque) => return fail(format!("a value of type {} has no JSON form", opaque.name())),
        Value::List(list) => {
            Json::Array(list.iter().map(|item| convert(&item, depth - 1, left)).collect::<Result<_, _>>()?)
        }
        Value::Map(map) => {
            let mut out = JsonMap::new();
            for (key, value) in map.entries() {
                out.insert(show(&key), convert(&value, depth - 1, left)?);
            }
            Json::Object(out)
        }
        Value::Object(object) => {
            let mut out = JsonMap::new();
            for (name, value) in object.fields() {
                out.insert(name, convert(&value, depth - 1, left)?);
            }
            Json::Object(out)
        }
    };
    Ok(json)
}
