//! URLs.
//!
//! Source: Kubernetes "CEL in Kubernetes", URL library; RFC 3986.

use std::fmt;
use std::sync::Arc;

use super::super::cost::{Charge, Grow};
use super::super::opaque::Opaque;
use super::super::value::{Key, Map, Text, Value};
use super::args::{Args, give};
use super::convert::owned;
use super::{Row, failed, no_overload};
use Charge::One;

/// Longest URL looked at.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
const READ: Charge = Charge::Scan(0, 1, Grow::Unknown);

/// A URL: absolute, or a path from the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: Vec<(String, String)>,
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

pub(super) const ROWS: &[Row] = &[
    Row("url(string) -> url", READ, |_, args| match read(args.text(0)?) {
        Some(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
        None => failed(format!("URL parse error during conversion from string: invalid URI {:?}", &**args.text(0)?)),
    }),
    Row("isURL(string) -> bool", READ, |_, args| Ok(Value::Bool(read(args.text(0)?).is_some()))),
    Row("<url>.getScheme() -> string", One, |_, args| give(take(args)?.scheme.as_str())),
    Row("<url>.getHost() -> string", One, |_, args| give(take(args)?.host.as_str())),
    Row("<url>.getHostname() -> string", One, |_, args| give(host_and_port(&take(args)?.host).0)),
    Row("<url>.getPort() -> string", One, |_, args| give(host_and_port(&take(args)?.host).1)),
    Row("<url>.getEscapedPath() -> string", One, |_, args| give(take(args)?.path.as_str())),
    Row("<url>.getQuery() -> map(string, list(string))", One, |_, args| {
        let mut query: std::collections::BTreeMap<Key, Vec<Value>> = Default::default();
        for (key, value) in &take(args)?.query {
            let key = Key::String(Text::Owned(key.as_str().into()));
            query.entry(key).or_default().push(owned(value.clone()));
        }
        let entries = query.into_iter().map(|(key, values)| (key, Value::from(values)));
        Ok(Value::Map(Map::Built(Arc::new(entries.collect()))))
    }),
];

fn take<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, super::super::EvalError> {
    match args.opaque(0)? {
        Opaque::Url(url) => Ok(url),
        _ => Err(no_overload()),
    }
}

/// Splits `host:port`; an IPv6 host is without its brackets.
fn host_and_port(host: &str) -> (&str, &str) {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (name, after.strip_prefix(':').unwrap_or_default());
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

fn read(text: &str) -> Option<Url> {
    let plain = text.len() <= TEXT_BYTES_MAX && !text.bytes().any(|byte| byte.is_ascii_control());
    if !plain || text.contains('#') && text.starts_with('#') {
        return None;
    }
    let (before, _fragment) = text.split_once('#').unwrap_or((text, ""));
    let (before, query) = before.split_once('?').unwrap_or((before, ""));
    let (scheme, rest) = match before.split_once(':') {
        _ if before.starts_with('/') => ("", before),
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ => return None,
    };
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        // a path that starts with two slashes and no scheme has a host; others have none
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if !is_host(host) || (scheme.is_empty() && !rest.starts_with('/')) || !is_escaped(path) {
        return None;
    }
    Some(Url {
        text: text.to_owned(),
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: escape_path(path),
        query: query.split('&').filter(|pair| !pair.is_empty()).map(read_pair).collect(),
    })
}

/// Whether the text is a URL as above.
pub(super) fn is_uri(text: &str) -> bool {
    read(text).is_some()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn is_host(host: &str) -> bool {
    let (name, port) = host_and_port(host);
    let bracketed = host.starts_with('[');
    let name_fits = if bracketed {
        host.contains(']') && name.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        !name.contains([':', '[', ']', ' ', '<', '>', '"', '\\', '^', '`', '{', '}', '|']) && is_escaped(name)
    };
    let after = if bracketed { host.split_once(']').map_or("", |(_, after)| after) } else { "" };
    name_fits && port.bytes().all(|byte| byte.is_ascii_digit()) && (after.is_empty() || after.starts_with(':'))
}

/// Whether every `%` begins an escape.
fn is_escaped(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/$&+,;=:@!'()*%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn read_pair(pair: &str) -> (String, String) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    (unescape(key), unescape(value))
}

fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        let hex = text.get(text.len() - bytes.len()..).and_then(|rest| rest.get(..2));
        match (byte, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(escaped)) => {
                out.push(escaped);
                bytes.nth(1);
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
