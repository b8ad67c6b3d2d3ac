//! Conversions between types.
//!
//! Source: CEL language definition, "List of Standard Definitions".

use std::sync::Arc;

use super::super::cost::{Charge, Grow};
use super::super::value::{Text, Value, whole_int, whole_uint};
use super::args::{Args, give};
use super::{Answer, Row, failed, show, time};
use Charge::One;

pub(super) const ROWS: &[Row] = &[
    Row("dyn(A) -> dyn", One, same),
    Row("type(A) -> type(A)", One, |_, args| Ok(Value::Type(args.value(0)?.of()))),
    Row("bool(bool) -> bool", One, same),
    Row("bool(string) -> bool", One, |_, args| match &**args.text(0)? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
        _ => cannot("string", "bool"),
    }),
    Row("int(int) -> int", One, same),
    Row("int(uint) -> int", One, |_, args| in_range(i64::try_from(args.uint(0)?).ok().map(Value::Int), "integer")),
    Row("int(double) -> int", One, |_, args| {
        // the two ends are where a double no longer tells integers apart
        let double = args.double(0)?.trunc();
        let inside = double > i64::MIN as f64 && double < i64::MAX as f64;
        in_range(whole_int(double).filter(|_| inside).map(Value::Int), "integer")
    }),
    Row("int(string) -> int", One, |_, args| match args.text(0)?.parse() {
        Ok(int) => Ok(Value::Int(int)),
        Err(_) => cannot("string", "int"),
    }),
    Row("int(timestamp) -> int", One, |_, args| match args.value(0)? {
        Value::Timestamp(time) => Ok(Value::Int(time.as_nanosecond().div_euclid(1_000_000_000) as i64)),
        _ => cannot("dyn", "int"),
    }),
    Row("int(duration) -> int", One, |_, args| match args.value(0)? {
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        _ => cannot("dyn", "int"),
    }),
    Row("uint(uint) -> uint", One, same),
    Row("uint(int) -> uint", One, |_, args| {
        in_range(u64::try_from(args.int(0)?).ok().map(Value::Uint), "unsigned integer")
    }),
    Row("uint(double) -> uint", One, |_, args| {
        let double = args.double(0)?.trunc();
        in_range(whole_uint(double).map(Value::Uint), "unsigned integer")
    }),
    Row("uint(string) -> uint", One, |_, args| match args.text(0)?.parse() {
        Ok(uint) => Ok(Value::Uint(uint)),
        Err(_) => cannot("string", "uint"),
    }),
    Row("double(double) -> double", One, same),
    Row("double(int) -> double", One, |_, args| Ok(Value::Double(args.int(0)? as f64))),
    Row("double(uint) -> double", One, |_, args| Ok(Value::Double(args.uint(0)? as f64))),
    Row("double(string) -> double", One, |_, args| match args.text(0)?.parse() {
        Ok(double) => Ok(Value::Double(double)),
        Err(_) => cannot("string", "double"),
    }),
    Row("string(string) -> string", One, same),
    Row("string(bool|int|uint|double|timestamp|duration|ip|cidr) -> string", One, |_, args| {
        give(show::show(args.value(0)?))
    }),
    Row("string(bytes) -> string", Charge::Scan(0, 1, Grow::Same), |_, args| match args.value(0)? {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => give(text),
            Err(_) => failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        _ => cannot("dyn", "string"),
    }),
    Row("bytes(bytes) -> bytes", One, same),
    Row("bytes(string) -> bytes", Charge::Scan(0, 1, Grow::Bytes), |_, args| {
        Ok(Value::Bytes(args.text(0)?.as_bytes().into()))
    }),
    Row("timestamp(timestamp) -> timestamp", One, same),
    Row("timestamp(string) -> timestamp", One, |_, args| match time::read_timestamp(args.text(0)?) {
        Ok(time) => Ok(Value::Timestamp(time)),
        Err(_) => cannot("string", "timestamp"),
    }),
    Row("timestamp(int) -> timestamp", One, |_, args| time::of_seconds(args.int(0)?)),
    Row("duration(duration) -> duration", One, same),
    Row("duration(string) -> duration", One, |_, args| match time::read_duration(args.text(0)?) {
        Ok(nanos) => Ok(Value::Duration(nanos)),
        Err(_) => cannot("string", "duration"),
    }),
    Row("duration(int) -> duration", One, |_, args| Ok(Value::Duration(args.int(0)?))),
    Row("base64.encode(bytes) -> string", Charge::Scan(0, 1, Grow::Twice), |_, args| match args.value(0)? {
        Value::Bytes(bytes) => give(crate::codec::form::show_base64(bytes)),
        _ => cannot("dyn", "string"),
    }),
    Row("base64.decode(string) -> bytes", Charge::Scan(0, 1, Grow::Same), |_, args| {
        let text = args.text(0)?;
        let padded =
            format!("{}{}", text.trim_end_matches('='), "=".repeat((4 - text.trim_end_matches('=').len() % 4) % 4));
        match crate::codec::form::read_base64(&padded) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(why) => failed(why),
        }
    }),
    Row("jsonpatch.escapeKey(string) -> string", Charge::Scan(0, 1, Grow::Twice), |_, args| {
        give(args.text(0)?.replace('~', "~0").replace('/', "~1"))
    }),
];

fn same<'a>(_: &mut super::Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    args.value(0).cloned()
}

fn cannot<'a>(from: &str, to: &str) -> Answer<'a> {
    failed(format!("type conversion error from '{from}' to '{to}'"))
}

fn in_range<'a>(value: Option<Value<'a>>, what: &str) -> Answer<'a> {
    value.map_or_else(|| failed(format!("{what} overflow")), Ok)
}

/// Text that was made.
pub(super) fn owned<'a>(text: String) -> Value<'a> {
    Value::String(Text::Owned(Arc::from(text)))
}
