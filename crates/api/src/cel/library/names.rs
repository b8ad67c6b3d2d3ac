//! How rows of the function table are read, and which names types have in expressions.

use std::sync::Arc;

use super::super::types::Type;
use super::{Overload, Row};

/// The types that library rows name, and their full names.
const OPAQUE: [(&str, &str); 11] = [
    ("quantity", "kubernetes.Quantity"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("url", "kubernetes.URL"),
    ("format", "kubernetes.NamedFormat"),
    ("semver", "kubernetes.Semver"),
    ("authorizer", "kubernetes.authorization.Authorizer"),
    ("path_check", "kubernetes.authorization.PathCheck"),
    ("group_check", "kubernetes.authorization.GroupCheck"),
    ("resource_check", "kubernetes.authorization.ResourceCheck"),
    ("decision", "kubernetes.authorization.Decision"),
];

/// The type an expression calls `name`.
pub(in super::super) fn find_type(name: &str) -> Option<Type> {
    let plain = match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "type" => Type::Type(Arc::new(Type::Dyn)),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        _ => return OPAQUE.iter().find(|(_, full)| *full == name).map(|(_, full)| Type::Opaque(full)),
    };
    Some(plain)
}

/// The overloads of one row.
pub(super) fn read_row(row: &'static Row) -> Vec<Overload> {
    let Row(text, charge, run) = *row;
    let (call, result) = text.split_once(" -> ").expect("a row has a result");
    let (target, rest) = match call.strip_prefix('<') {
        Some(rest) => rest.split_once(">.").map(|(target, rest)| (Some(target), rest)).expect("a target is closed"),
        None => (None, call),
    };
    let (function, params) = rest.split_once('(').expect("a row has parameters");
    let params = params.strip_suffix(')').expect("parameters are closed");
    let choices = target.into_iter().chain(split(params)).map(|param| param.split('|').collect::<Vec<_>>());
    let rows = choices.fold(vec![Vec::new()], |rows: Vec<Vec<&str>>, choice| {
        let with = |row: &Vec<&'static str>, one: &&'static str| row.iter().chain([one]).copied().collect::<Vec<_>>();
        rows.iter().flat_map(|row| choice.iter().map(|one| with(row, one)).collect::<Vec<_>>()).collect()
    });
    let overload = |params: Vec<&'static str>| {
        let mut letters = 0;
        let params = params.into_iter().map(|param| read_type(param, &mut letters)).collect();
        let result = read_type(result, &mut letters);
        Overload { function, member: target.is_some(), params, result, letters, charge, run }
    };
    rows.into_iter().map(overload).collect()
}

/// Splits at the commas that are not inside parentheses.
fn split(text: &'static str) -> Vec<&'static str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn read_type(text: &'static str, letters: &mut u32) -> Type {
    let inner = |head: &str| text.strip_prefix(head)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(item) = inner("list") {
        return Type::list(read_type(item, letters));
    }
    if let Some(of) = inner("optional") {
        return Type::optional(read_type(of, letters));
    }
    if let Some(of) = inner("type") {
        return Type::Type(Arc::new(read_type(of, letters)));
    }
    if let Some(parts) = inner("map") {
        let parts = split(parts);
        return Type::map(read_type(parts[0], letters), read_type(parts[1], letters));
    }
    match text {
        "dyn" => Type::Dyn,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "A" | "B" => {
            let at = u32::from(text == "B");
            *letters = (*letters).max(at + 1);
            Type::Param(at)
        }
        _ => match OPAQUE.iter().find(|(name, _)| *name == text) {
            Some((_, full)) => Type::Opaque(full),
            None => find_type(text).expect("a row names types that exist"),
        },
    }
}
