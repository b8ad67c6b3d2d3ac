//! Named formats: `format.dns1123Label().validate(text)` gives what is wrong with a text, or none.
//!
//! Source: Kubernetes "CEL in Kubernetes", format library; RFC 1035, RFC 1123, RFC 3339, RFC 4122, RFC 4648.

use super::super::cost::Charge::{Fixed, One, Scan};
use super::super::cost::Grow;
use super::super::opaque::Opaque;
use super::super::value::Value;
use super::args::Args;
use super::convert::owned;
use super::{Answer, Row, no_overload};
use crate::codec::form;
use crate::name;

/// A format and what it says of a text.
#[derive(Debug)]
pub struct NamedFormat {
    /// Its name.
    pub name: &'static str,
    errors: fn(&str) -> Vec<String>,
}

static NAMED: [NamedFormat; 13] = [
    NamedFormat { name: "dns1123Label", errors: name::label },
    NamedFormat { name: "dns1123Subdomain", errors: name::subdomain },
    NamedFormat { name: "dns1035Label", errors: name::letter_label },
    NamedFormat { name: "qualifiedName", errors: name::label_key },
    NamedFormat { name: "dns1123LabelPrefix", errors: |text| prefix(text, name::label) },
    NamedFormat { name: "dns1123SubdomainPrefix", errors: |text| prefix(text, name::subdomain) },
    NamedFormat { name: "dns1035LabelPrefix", errors: |text| prefix(text, name::letter_label) },
    NamedFormat { name: "labelValue", errors: name::label_value },
    NamedFormat { name: "uri", errors: |text| says(super::url::is_uri(text), "invalid URI") },
    NamedFormat { name: "uuid", errors: |text| says(is_uuid(text), "does not match the UUID pattern") },
    NamedFormat { name: "byte", errors: |text| says(form::read_base64(text).is_ok(), "invalid base64") },
    NamedFormat { name: "date", errors: |text| says(is_date(text), "invalid date") },
    NamedFormat {
        name: "datetime",
        errors: |text| says(super::time::read_timestamp(text).is_ok(), "invalid datetime"),
    },
];

pub(super) const ROWS: &[Row] = &[
    Row("format.dns1123Label() -> format", One, |_, _| give("dns1123Label")),
    Row("format.dns1123Subdomain() -> format", One, |_, _| give("dns1123Subdomain")),
    Row("format.dns1035Label() -> format", One, |_, _| give("dns1035Label")),
    Row("format.qualifiedName() -> format", One, |_, _| give("qualifiedName")),
    Row("format.dns1123LabelPrefix() -> format", One, |_, _| give("dns1123LabelPrefix")),
    Row("format.dns1123SubdomainPrefix() -> format", One, |_, _| give("dns1123SubdomainPrefix")),
    Row("format.dns1035LabelPrefix() -> format", One, |_, _| give("dns1035LabelPrefix")),
    Row("format.labelValue() -> format", One, |_, _| give("labelValue")),
    Row("format.uri() -> format", One, |_, _| give("uri")),
    Row("format.uuid() -> format", One, |_, _| give("uuid")),
    Row("format.byte() -> format", One, |_, _| give("byte")),
    Row("format.date() -> format", One, |_, _| give("date")),
    Row("format.datetime() -> format", One, |_, _| give("datetime")),
    Row("format.named(string) -> optional(format)", Fixed(1), |_, args| {
        let found = find(args.text(0)?);
        Ok(found.map_or(Value::NONE, |format| Value::some(Value::Opaque(Opaque::Format(format)))))
    }),
    Row("<format>.validate(string) -> optional(list(string))", Scan(1, 2, Grow::Unknown), |_, args| {
        let Opaque::Format(format) = args.opaque(0)? else { return Err(no_overload()) };
        let errors = (format.errors)(args.text(1)?);
        if errors.is_empty() {
            return Ok(Value::NONE);
        }
        Ok(Value::some(errors.into_iter().map(owned).collect::<Vec<_>>().into()))
    }),
];

fn find(name: &str) -> Option<&'static NamedFormat> {
    NAMED.iter().find(|format| format.name == name)
}

fn give<'a>(name: &str) -> Answer<'a> {
    find(name).map(|format| Value::Opaque(Opaque::Format(format))).ok_or_else(no_overload)
}

fn says(fits: bool, why: &str) -> Vec<String> {
    if fits { Vec::new() } else { vec![why.to_owned()] }
}

/// A prefix may end with a dash, which is not the last character of the name.
fn prefix(text: &str, errors: fn(&str) -> Vec<String>) -> Vec<String> {
    match text.strip_suffix('-') {
        Some(head) if !head.is_empty() => errors(&format!("{head}a")),
        _ => errors(text),
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| hex(part))
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}
