//! Values as text: for `string()`, `format()` and `quote()`.
//!
//! Source: CEL language definition, "String conversions"; the strings extension, `format` and `strings.quote`.

use super::super::opaque::Opaque;
use super::super::types::Type;
use super::super::value::Value;

/// Items inside each other that are shown.
const DEPTH_MAX: usize = 16;
/// Bytes after which the rest of a list or map is left out.
const BYTES_MAX: usize = 1024 * 1024;

/// The value as `%s` shows it.
pub(in super::super) fn show(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0, false);
    out
}

fn write(out: &mut String, value: &Value, depth: usize, inside: bool) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
        Value::Int(int) => out.push_str(&int.to_string()),
        Value::Uint(uint) => out.push_str(&uint.to_string()),
        Value::Double(double) => out.push_str(&double_text(*double)),
        Value::String(text) if inside => out.push_str(&quote(text)),
        Value::String(text) => out.push_str(text),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Timestamp(time) => out.push_str(&time.to_string()),
        Value::Duration(nanos) => out.push_str(&duration_text(*nanos)),
        Value::Type(of) => out.push_str(&type_name(of)),
        Value::Opaque(opaque) => out.push_str(&opaque_text(opaque)),
        Value::Optional(None) => out.push_str("optional.none()"),
        Value::Optional(Some(value)) => {
            out.push_str("optional(");
            write_inner(out, value, depth);
            out.push(')');
        }
        Value::List(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if separate(out, at) {
                    break;
                }
                write_inner(out, &item, depth);
            }
            out.push(']');
        }
        Value::Map(map) => {
            write_entries(out, map.entries(), depth);
        }
        Value::Object(object) => {
            let fields = object.fields().into_iter().map(|(name, value)| (Value::from(name), value));
            write_entries(out, fields.collect(), depth);
        }
    }
}

fn write_entries(out: &mut String, entries: Vec<(Value, Value)>, depth: usize) {
    out.push('{');
    for (at, (key, value)) in entries.into_iter().enumerate() {
        if separate(out, at) {
            break;
        }
        write_inner(out, &key, depth);
        out.push_str(": ");
        write_inner(out, &value, depth);
    }
    out.push('}');
}

fn write_inner(out: &mut String, value: &Value, depth: usize) {
    if depth < DEPTH_MAX { write(out, value, depth + 1, true) } else { out.push('…') }
}

/// Whether enough has been written; else the comma before what follows.
fn separate(out: &mut String, at: usize) -> bool {
    if at > 0 {
        out.push_str(", ");
    }
    let full = out.len() > BYTES_MAX;
    if full {
        out.push('…');
    }
    full
}

/// A type's name as `string(type(x))` would give it.
pub(in super::super) fn type_name(of: &Type) -> String {
    match of {
        Type::List(_) => "list".to_owned(),
        Type::Map(..) => "map".to_owned(),
        Type::Optional(_) => "optional_type".to_owned(),
        Type::Type(_) => "type".to_owned(),
        Type::Null => "null_type".to_owned(),
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        other => other.to_string(),
    }
}

fn opaque_text(opaque: &Opaque) -> String {
    match opaque {
        Opaque::Quantity(quantity) => quantity.to_string(),
        Opaque::Ip(ip) => ip.to_string(),
        Opaque::Cidr(cidr) => cidr.to_string(),
        Opaque::Url(url) => url.to_string(),
        Opaque::Format(format) => format.name.to_owned(),
        Opaque::Semver(version) => version.to_string(),
        other => other.name().to_owned(),
    }
}

/// Seconds, as text.
pub(in super::super) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let fraction = format!("{:09}", all % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{fraction}s", all / 1_000_000_000)
}

/// A floating point number in the shortest form that reads back, with an exponent where it is very large or small.
pub(super) fn double_text(double: f64) -> String {
    if double.is_nan() {
        return "NaN".to_owned();
    }
    if double.is_infinite() {
        return if double > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let short = format!("{double:e}");
    let (digits, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if double != 0.0 && !(-4..21).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    format!("{double}")
}

/// The text in quotes, what cannot be seen escaped.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}
