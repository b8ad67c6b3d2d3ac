//! Formats of texts and numbers that Kubernetes checks. A format that it does not know says nothing.
//!
//! Not here    bounds of numbers: `int32`, `int64`, `float` and `double` are published for clients and not checked, as in
//!             Kubernetes; `minimum` and `maximum` are
//! Source: custom resources, "Validation"; the RFCs named below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use jiff::civil::Date;

use crate::name;

/// Longest text whose format is looked at; a longer one has none.
const FORMATTED_BYTES_MAX: usize = 16 * 1024;

/// Whether a text has this format.
pub(crate) fn holds(format: &str, text: &str) -> bool {
    let known: fn(&str) -> bool = match format.replace('-', "").as_str() {
        "datetime" => |text| text.contains(['T', 't']) && text.parse::<Timestamp>().is_ok(),
        "date" => |text| text.len() == 10 && text.parse::<Date>().is_ok(),
        "duration" => is_duration,
        "uri" => is_uri,
        "email" => is_email,
        "hostname" => is_hostname,
        "ipv4" => |text| text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => |text| text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr,
        "mac" => is_mac,
        "uuid" => |text| is_uuid(text, None),
        "uuid3" => |text| is_uuid(text, Some(b'3')),
        "uuid4" => |text| is_uuid(text, Some(b'4')),
        "uuid5" => |text| is_uuid(text, Some(b'5')),
        "byte" => |text| crate::codec::is_base64(text),
        "bsonobjectid" => |text| text.len() == 24 && is_hex(text),
        "hexcolor" => is_hex_color,
        "rgbcolor" => is_rgb_color,
        "ssn" => {
            |text| is_shaped(text, "999-99-9999") || is_shaped(text, "999 99 9999") || is_shaped(text, "999999999")
        }
        "creditcard" => is_credit_card,
        "isbn" => |text| is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10,
        "isbn13" => is_isbn13,
        "k8sshortname" => |text| name::label(text).is_empty(),
        "k8slongname" => |text| name::subdomain(text).is_empty(),
        _ => return true,
    };
    text.len() <= FORMATTED_BYTES_MAX && known(text)
}

/// Go's durations, and whole numbers of days and weeks.
fn is_duration(text: &str) -> bool {
    let words = ["d", "day", "days", "w", "week", "weeks"];
    let in_words = || {
        let (number, unit) = text.trim().split_at(text.trim().find(|c: char| !c.is_ascii_digit())?);
        (!number.is_empty() && words.contains(&unit.trim())).then_some(())
    };
    crate::codec::is_duration(text) || in_words().is_some()
}

/// RFC 3986: a scheme, or an absolute path.
fn is_uri(text: &str) -> bool {
    let is_plain =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte));
    let has_scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !rest.is_empty()
    });
    is_plain && (has_scheme || text.starts_with('/'))
}

/// RFC 5322, the part people use.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    !local.is_empty() && local.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@') && is_hostname(domain)
}

/// RFC 1034.
fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

fn is_mac(text: &str) -> bool {
    [':', '-'].iter().any(|&between| {
        let parts: Vec<&str> = text.split(between).collect();
        matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| part.len() == 2 && is_hex(part))
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// RFC 9562, dashes or not.
fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let digits = text.replace('-', "");
    let is_dashed = text.len() == 32 || is_shaped_hex(text, &[8, 4, 4, 4, 12]);
    let has_version = version.is_none_or(|version| digits.as_bytes().get(12) == Some(&version));
    let has_variant = match version {
        Some(b'4' | b'5') => digits.as_bytes().get(16).is_some_and(|byte| b"89abAB".contains(byte)),
        _ => true,
    };
    digits.len() == 32 && is_hex(&digits) && is_dashed && has_version && has_variant
}

fn is_shaped_hex(text: &str, lengths: &[usize]) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == lengths.len() && parts.iter().zip(lengths).all(|(part, length)| part.len() == *length)
}

/// Whether a text has a digit for each 9 and else the same letters.
fn is_shaped(text: &str, shape: &str) -> bool {
    let fits = |(found, wanted): (u8, u8)| if wanted == b'9' { found.is_ascii_digit() } else { found == wanted };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && is_hex(digits)
}

fn is_rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or_default().split(',').collect();
    parts.len() == 3 && parts.iter().all(|part| part.trim().parse::<u8>().is_ok())
}

fn digits(text: &str) -> Option<Vec<u32>> {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    plain.chars().map(|c| c.to_digit(10)).collect()
}

/// Luhn's sum.
fn is_credit_card(text: &str) -> bool {
    let Some(digits) = digits(text).filter(|digits| (13..=19).contains(&digits.len())) else { return false };
    let doubled = |digit: u32| if digit * 2 > 9 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(at, &digit)| if at % 2 == 1 { doubled(digit) } else { digit }).sum();
    sum.is_multiple_of(10)
}

fn is_isbn10(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let values: Option<Vec<u32>> = plain
        .iter()
        .enumerate()
        .map(|(at, c)| if at == 9 && matches!(c, 'X' | 'x') { Some(10) } else { c.to_digit(10) })
        .collect();
    values.is_some_and(|values| {
        values.len() == 10 && values.iter().zip((1..=10).rev()).map(|(a, b)| a * b).sum::<u32>().is_multiple_of(11)
    })
}

fn is_isbn13(text: &str) -> bool {
    digits(text).is_some_and(|digits| {
        let sum: u32 = digits.iter().enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 }).sum();
        digits.len() == 13 && sum.is_multiple_of(10)
    })
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn formats_are_those_of_their_standards() {
        for (format, good, bad) in [
            ("date-time", "2026-01-02T03:04:05Z", "2026-01-02"),
            ("date", "2026-01-02", "2026-13-02"),
            ("duration", "1h30m", "soon"),
            ("uri", "https://example.com/a?b=c", "not a uri"),
            ("email", "a.b@example.com", "a.b"),
            ("hostname", "a-b.example", "-a"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23:45"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
            ("uuid4", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("byte", "aGk=", "a"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("hexcolor", "#fff", "#ff"),
            ("rgbcolor", "rgb(1, 2, 255)", "rgb(1,2,256)"),
            ("ssn", "111-22-3333", "111-22-333"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("isbn10", "0-306-40615-2", "0-306-40615-3"),
            ("isbn13", "978-0-306-40615-7", "978-0-306-40615-8"),
            ("k8s-short-name", "my-name", "my.name"),
            ("k8s-long-name", "my.name", "My"),
        ] {
            assert!(holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(holds("whatever", "anything") && holds("password", "secret"));
        assert!(!holds("uri", &format!("/{}", "a".repeat(20_000))));
    }
}
