//! Arguments of functions, as what the row says they are.

use std::sync::Arc;

use super::super::budget::EvalError;
use super::super::opaque::Opaque;
use super::super::value::{List, Map, Text, Value};
use super::{Answer, failed, no_overload};

/// Bytes of text that a function may build: more would take memory that no cost pays for.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Access to an argument by place and kind.
pub(super) trait Args<'a> {
    fn value(&self, at: usize) -> Result<&Value<'a>, EvalError>;

    fn int(&self, at: usize) -> Result<i64, EvalError> {
        match self.value(at)? {
            Value::Int(int) => Ok(*int),
            _ => Err(no_overload()),
        }
    }

    fn uint(&self, at: usize) -> Result<u64, EvalError> {
        match self.value(at)? {
            Value::Uint(uint) => Ok(*uint),
            _ => Err(no_overload()),
        }
    }

    fn double(&self, at: usize) -> Result<f64, EvalError> {
        match self.value(at)? {
            Value::Double(double) => Ok(*double),
            _ => Err(no_overload()),
        }
    }

    fn bool(&self, at: usize) -> Result<bool, EvalError> {
        self.value(at)?.as_bool().ok_or_else(no_overload)
    }

    fn text(&self, at: usize) -> Result<&Text<'a>, EvalError> {
        match self.value(at)? {
            Value::String(text) => Ok(text),
            _ => Err(no_overload()),
        }
    }

    fn list(&self, at: usize) -> Result<&List<'a>, EvalError> {
        match self.value(at)? {
            Value::List(list) => Ok(list),
            _ => Err(no_overload()),
        }
    }

    fn map(&self, at: usize) -> Result<&Map<'a>, EvalError> {
        match self.value(at)? {
            Value::Map(map) => Ok(map),
            _ => Err(no_overload()),
        }
    }

    fn opaque(&self, at: usize) -> Result<&Opaque<'a>, EvalError> {
        match self.value(at)? {
            Value::Opaque(opaque) => Ok(opaque),
            _ => Err(no_overload()),
        }
    }
}

impl<'a> Args<'a> for [Value<'a>] {
    fn value(&self, at: usize) -> Result<&Value<'a>, EvalError> {
        self.get(at).ok_or_else(no_overload)
    }
}

/// A text as a value.
///
/// Errors: when it is larger than a function may build.
pub(super) fn give<'a>(text: impl Into<Arc<str>>) -> Answer<'a> {
    let text = text.into();
    room(text.len())?;
    Ok(Value::String(Text::Owned(text)))
}

/// Whether a text of so many bytes may be built; asked before it is.
pub(super) fn room(bytes: usize) -> Result<(), EvalError> {
    if bytes <= TEXT_BYTES_MAX { Ok(()) } else { failed(format!("text exceeds {TEXT_BYTES_MAX} bytes")) }
}
