//! Texts: the standard functions and the strings extension. Positions count characters.
//!
//! Source: CEL language definition, "List of Standard Definitions"; the strings extension.

use super::super::budget::EvalError;
use super::super::cost::{Charge, Grow};
use super::super::value::Value;
use super::args::{Args, give, room};
use super::convert::owned;
use super::{Answer, Context, Row, failed, show};
use Charge::{Contains, One, Scan};

/// Parts that a split may give.
const PARTS_MAX: usize = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    Row("<string>.contains(string) -> bool", Contains, |_, args| {
        Ok(Value::Bool(args.text(0)?.contains(&**args.text(1)?)))
    }),
    Row("<string>.startsWith(string) -> bool", Charge::Scan(1, 1, Grow::Unknown), |_, args| {
        Ok(Value::Bool(args.text(0)?.starts_with(&**args.text(1)?)))
    }),
    Row("<string>.endsWith(string) -> bool", Charge::Scan(1, 1, Grow::Unknown), |_, args| {
        Ok(Value::Bool(args.text(0)?.ends_with(&**args.text(1)?)))
    }),
    Row("<string>.charAt(int) -> string", One, |_, args| {
        let (text, at) = (args.text(0)?, args.int(1)?);
        let found = usize::try_from(at).ok().and_then(|at| text.chars().nth(at));
        match found {
            Some(c) => Ok(owned(c.to_string())),
            None if usize::try_from(at).is_ok_and(|at| at == text.chars().count()) => Ok(owned(String::new())),
            None => failed(format!("index out of range: {at}")),
        }
    }),
    Row("<string>.indexOf(string) -> int", Contains, |_, args| index(args, 0)),
    Row("<string>.indexOf(string, int) -> int", Contains, |_, args| index(args, args.int(2)?)),
    Row("<string>.lastIndexOf(string) -> int", Contains, |_, args| last_index(args, None)),
    Row("<string>.lastIndexOf(string, int) -> int", Contains, |_, args| last_index(args, Some(args.int(2)?))),
    Row("<string>.lowerAscii() -> string", Scan(0, 1, Grow::Same), |_, args| give(args.text(0)?.to_ascii_lowercase())),
    Row("<string>.upperAscii() -> string", Scan(0, 1, Grow::Same), |_, args| give(args.text(0)?.to_ascii_uppercase())),
    Row("<string>.trim() -> string", Scan(0, 1, Grow::Shrink), |_, args| give(args.text(0)?.trim())),
    Row("<string>.reverse() -> string", Scan(0, 1, Grow::Same), |_, args| {
        give(args.text(0)?.chars().rev().collect::<String>())
    }),
    Row("<string>.substring(int) -> string", Scan(0, 1, Grow::Shrink), |_, args| substring(args, None)),
    Row("<string>.substring(int, int) -> string", Scan(0, 1, Grow::Shrink), |_, args| {
        substring(args, Some(args.int(2)?))
    }),
    Row("<string>.replace(string, string) -> string", Scan(0, 2, Grow::Replace), |_, args| replace(args, -1)),
    Row("<string>.replace(string, string, int) -> string", Scan(0, 2, Grow::Replace), |_, args| {
        replace(args, args.int(3)?)
    }),
    Row("<string>.split(string) -> list(string)", Scan(0, 2, Grow::Split), |_, args| split(args, -1)),
    Row("<string>.split(string, int) -> list(string)", Scan(0, 2, Grow::Split), |_, args| split(args, args.int(2)?)),
    Row("<list(string)>.join() -> string", Charge::Result(2), |_, args| join(args, "")),
    Row("<list(string)>.join(string) -> string", Charge::Result(2), |_, args| join(args, args.text(1)?)),
    Row("<string>.format(list(dyn)) -> string", Scan(0, 1, Grow::Unknown), |context, args| {
        let items: Vec<Value> = args.list(1)?.iter().collect();
        fill(context, args.text(0)?, &items)
    }),
];

/// The byte where the character at this place begins; the end counts as one.
fn byte_at(text: &str, at: i64) -> Result<usize, EvalError> {
    let starts = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    let found = usize::try_from(at).ok().and_then(|at| starts.clone().nth(at));
    found.map_or_else(|| failed(format!("index out of range: {at}")), Ok)
}

fn index<'a>(args: &[Value<'a>], from: i64) -> Answer<'a> {
    let (text, wanted) = (args.text(0)?, args.text(1)?);
    let start = byte_at(text, from)?;
    let found = text[start..].find(&**wanted);
    Ok(Value::Int(found.map_or(-1, |byte| text[..start + byte].chars().count() as i64)))
}

fn last_index<'a>(args: &[Value<'a>], until: Option<i64>) -> Answer<'a> {
    let (text, wanted) = (args.text(0)?, args.text(1)?);
    let end = match until {
        // the match may begin at the last place asked for, and end after it
        Some(until) => (byte_at(text, until)? + wanted.len()).min(text.len()),
        None => text.len(),
    };
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    Ok(Value::Int(text[..end].rfind(&**wanted).map_or(-1, |byte| text[..byte].chars().count() as i64)))
}

fn substring<'a>(args: &[Value<'a>], end: Option<i64>) -> Answer<'a> {
    let (text, start) = (args.text(0)?, args.int(1)?);
    let from = byte_at(text, start)?;
    let to = end.map_or(Ok(text.len()), |end| byte_at(text, end))?;
    if from > to {
        return failed(format!("invalid substring range. start: {start}, end: {}", end.unwrap_or_default()));
    }
    give(&text[from..to])
}

fn replace<'a>(args: &[Value<'a>], limit: i64) -> Answer<'a> {
    let (text, from, to) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let count = text.matches(&**from).take(usize::try_from(limit).unwrap_or(usize::MAX)).count();
    room(text.len().saturating_add(count.saturating_mul(to.len())))?;
    give(text.replacen(&**from, to, count))
}

fn split<'a>(args: &[Value<'a>], limit: i64) -> Answer<'a> {
    let (text, at) = (args.text(0)?, args.text(1)?);
    let limit = match usize::try_from(limit) {
        Ok(0) => return Ok(Vec::new().into()),
        Ok(limit) => limit.min(PARTS_MAX),
        Err(_) => PARTS_MAX,
    };
    let parts: Vec<Value> = if at.is_empty() {
        // between all characters; the last part takes what is left
        let mut rest = &**text;
        let mut parts = Vec::new();
        while let Some(c) = rest.chars().next() {
            let take = if parts.len() + 1 == limit { rest.len() } else { c.len_utf8() };
            parts.push(owned(rest[..take].to_owned()));
            rest = &rest[take..];
        }
        parts
    } else {
        text.splitn(limit, &**at).map(|part| owned(part.to_owned())).collect()
    };
    Ok(parts.into())
}

fn join<'a>(args: &[Value<'a>], between: &str) -> Answer<'a> {
    let mut out = String::new();
    for (at, item) in args.list(0)?.iter().enumerate() {
        if at > 0 {
            out.push_str(between);
        }
        out.push_str(item.as_str().ok_or_else(super::no_overload)?);
        room(out.len())?;
    }
    give(out)
}

/// `%s %d %f %e %b %o %x %X %%`, with a precision such as `%.2f`.
fn fill<'a>(context: &mut Context<'_>, text: &str, items: &[Value<'a>]) -> Answer<'a> {
    let mut out = String::new();
    let mut items = items.iter();
    let mut used = 0;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let precision = match rest.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                rest = &after[end..];
                after[..end].parse::<usize>().ok().filter(|digits| *digits <= 100)
            }
            None => None,
        };
        let Some(clause) = rest.chars().next() else { return failed("unexpected end of format string") };
        rest = &rest[clause.len_utf8()..];
        let Some(item) = items.next() else { return failed(format!("index {used} out of range")) };
        used += 1;
        let piece = clause_text(clause, precision, item)?;
        context.budget.work(piece.len() as u64 / 10)?;
        room(out.len() + piece.len())?;
        out.push_str(&piece);
    }
    out.push_str(rest);
    give(out)
}

fn clause_text(clause: char, precision: Option<usize>, item: &Value) -> Result<String, EvalError> {
    let digits = precision.unwrap_or(6);
    let text = match (clause, item) {
        ('s', item) => show::show(item),
        ('d', Value::Int(_) | Value::Uint(_)) => show::show(item),
        ('d', Value::Double(double)) if !double.is_finite() => show::show(item),
        ('f', Value::Double(double)) => format!("{double:.digits$}"),
        ('f', Value::Int(int)) => format!("{:.digits$}", *int as f64),
        ('f', Value::Uint(uint)) => format!("{:.digits$}", *uint as f64),
        ('e', Value::Double(double)) => scientific(*double, digits),
        ('e', Value::Int(int)) => scientific(*int as f64, digits),
        ('b', Value::Int(int)) => signed(*int, |magnitude| format!("{magnitude:b}")),
        ('b', Value::Uint(uint)) => format!("{uint:b}"),
        ('b', Value::Bool(bool)) => u8::from(*bool).to_string(),
        ('o', Value::Int(int)) => signed(*int, |magnitude| format!("{magnitude:o}")),
        ('o', Value::Uint(uint)) => format!("{uint:o}"),
        ('x', Value::Int(int)) => signed(*int, |magnitude| format!("{magnitude:x}")),
        ('X', Value::Int(int)) => signed(*int, |magnitude| format!("{magnitude:X}")),
        ('x', Value::Uint(uint)) => format!("{uint:x}"),
        ('X', Value::Uint(uint)) => format!("{uint:X}"),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('X', Value::String(text)) => hex(text.as_bytes()).to_ascii_uppercase(),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', Value::Bytes(bytes)) => hex(bytes).to_ascii_uppercase(),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', item) => {
            return failed(format!(
                "error during formatting: %{clause} clause cannot take a value of type {}",
                item.of()
            ));
        }
        _ => return failed(format!("could not parse formatting clause: unrecognized formatting clause \"{clause}\"")),
    };
    Ok(text)
}

fn signed(int: i64, show: fn(u64) -> String) -> String {
    format!("{}{}", if int < 0 { "-" } else { "" }, show(int.unsigned_abs()))
}

fn scientific(double: f64, digits: usize) -> String {
    let text = format!("{double:.digits$e}");
    match text.split_once('e') {
        Some((number, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{number}e{sign}{power:0>2}")
        }
        None => text,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
