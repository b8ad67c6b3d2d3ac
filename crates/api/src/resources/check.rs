//! The small rules that fields of many kinds share.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::tree::Tree;
use crate::codec::form::read_base64;
use crate::field::{Errors, Path};
use crate::name;
use crate::quantity::Quantity;

/// Said of a number that must not be negative.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// A text that follows a naming rule.
pub(crate) fn named(rule: fn(&str) -> Vec<String>, text: &str, path: &Path, errors: &mut Errors) {
    for reason in rule(text) {
        errors.invalid(path, text, &reason);
    }
}

/// A field that must be there and follow a naming rule.
pub(crate) fn required_name(
    object: &Value,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    at: &Path,
    errors: &mut Errors,
) {
    let path = at.child(field);
    match object.text(field) {
        "" => errors.required(&path, ""),
        text => named(rule, text, &path, errors),
    }
}

/// A field that follows a naming rule if it is there.
pub(crate) fn optional_name(
    object: &Value,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    at: &Path,
    errors: &mut Errors,
) {
    let text = object.text(field);
    if !text.is_empty() {
        named(rule, text, &at.child(field), errors);
    }
}

/// A field that must hold a text.
pub(crate) fn required_text(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    if object.text(field).is_empty() {
        errors.required(&at.child(field), "");
    }
}

/// A field that must hold one of a few words.
pub(crate) fn required_word(object: &Value, field: &str, words: &[&str], at: &Path, errors: &mut Errors) {
    match object.text(field) {
        "" => errors.required(&at.child(field), ""),
        _ => optional_word(object, field, words, at, errors),
    }
}

/// A field that holds one of a few words if it is there.
pub(crate) fn optional_word(object: &Value, field: &str, words: &[&str], at: &Path, errors: &mut Errors) {
    let word = object.text(field);
    if !word.is_empty() && !words.contains(&word) {
        errors.not_supported(&at.child(field), word, words);
    }
}

/// A number that is not negative if it is there.
pub(crate) fn not_negative(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    if let Some(number) = object.int(field).filter(|&number| number < 0) {
        errors.invalid(&at.child(field), number, NOT_NEGATIVE);
    }
}

/// A number between two others if it is there.
pub(crate) fn within(object: &Value, field: &str, (least, most): (i64, i64), at: &Path, errors: &mut Errors) {
    if let Some(number) = object.int(field).filter(|number| !(least..=most).contains(number)) {
        errors.invalid(&at.child(field), number, &format!("must be between {least} and {most}, inclusive"));
    }
}

/// Port numbers.
pub(crate) const PORTS: (i64, i64) = (1, 65_535);

/// A port by number or name, which must be there.
pub(crate) fn port(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    match &object[field] {
        Value::String(text) => named(name::port_name, text, &at.child(field), errors),
        Value::Number(_) => within(object, field, PORTS, at, errors),
        _ => errors.invalid(&at.child(field), 0, "must be between 1 and 65535, inclusive"),
    }
}

/// A path that stays below where it starts.
pub(crate) fn descending_path(text: &str, path: &Path, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(text, path, errors);
}

/// A path without `..`.
pub(crate) fn no_backsteps(text: &str, path: &Path, errors: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
    if text.contains('\0') {
        errors.invalid(path, text, "must not contain a NUL byte");
    }
}

/// An IP address in its usual form; `None` after an error.
pub(crate) fn address(text: &str, path: &Path, errors: &mut Errors) -> Option<IpAddr> {
    let Ok(address) = text.parse::<IpAddr>() else {
        errors.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return None;
    };
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        errors.invalid(path, text, "must not be an IPv4-mapped IPv6 address");
    }
    Some(address)
}

/// Refuses addresses that mean the machine itself or its link: traffic sent there never reaches what was meant, and may
/// reach what was not.
pub(crate) fn ordinary_address(address: IpAddr, path: &Path, errors: &mut Errors) {
    let shown = address.to_string();
    let mut refuse = |detail: &str| errors.invalid(path, shown.as_str(), detail);
    if address.is_unspecified() {
        refuse(&format!("may not be unspecified ({address})"));
    }
    if address.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(address) => (address.is_link_local(), is_link_local_multicast(address)),
        IpAddr::V6(address) => (address.is_unicast_link_local(), is_link_local_multicast_v6(address)),
    };
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn is_link_local_multicast(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [224, 0, 0, _])
}

fn is_link_local_multicast_v6(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xff0f == 0xff02
}

/// A network in its usual form.
pub(crate) fn network(text: &str, path: &Path, errors: &mut Errors) {
    let fault = match text.split_once('/') {
        Some((address, bits)) => match (address.parse::<IpAddr>(), bits.parse::<u32>()) {
            (Ok(IpAddr::V4(address)), Ok(bits)) if bits <= 32 => {
                let below = u32::MAX.checked_shr(bits).unwrap_or(0);
                (u32::from(address) & below != 0).then_some("must not have bits set beyond the prefix length")
            }
            (Ok(IpAddr::V6(address)), Ok(bits)) if bits <= 128 => {
                let below = u128::MAX.checked_shr(bits).unwrap_or(0);
                (u128::from(address) & below != 0).then_some("must not have bits set beyond the prefix length")
            }
            _ => Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        },
        None => Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
    };
    if let Some(fault) = fault {
        errors.invalid(path, text, fault);
    }
}

/// Whether a network is inside another and smaller than it. Both are valid.
pub(crate) fn is_strict_part(part: &str, whole: &str) -> bool {
    let read = |text: &str| -> Option<(IpAddr, u32)> {
        let (address, bits) = text.split_once('/')?;
        Some((address.parse().ok()?, bits.parse().ok()?))
    };
    let (Some((part, part_bits)), Some((whole, bits))) = (read(part), read(whole)) else { return false };
    let starts_alike = match (part, whole) {
        (IpAddr::V4(part), IpAddr::V4(whole)) => {
            (u32::from(part) ^ u32::from(whole)).checked_shr(32 - bits.min(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(part), IpAddr::V6(whole)) => {
            (u128::from(part) ^ u128::from(whole)).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0
        }
        _ => false,
    };
    starts_alike && part_bits > bits
}

/// Conditions as meta/v1 has them: each type once, with a status, a time and a reason.
pub(crate) fn conditions(conditions: &[Value], at: &Path, errors: &mut Errors) {
    const REASON_BYTES_MAX: usize = 1024;
    const MESSAGE_BYTES_MAX: usize = 32 * 1024;
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let at = at.index(index);
        let kind = condition.text("type");
        if !kind.is_empty() && !seen.insert(kind) {
            errors.duplicate(&at.child("type"), kind);
        }
        required_name(condition, "type", name::label_key, &at, errors);
        let (status, words) = (condition.text("status"), ["False", "True", "Unknown"]);
        if !words.contains(&status) {
            errors.not_supported(&at.child("status"), status, &words);
        }
        not_negative(condition, "observedGeneration", &at, errors);
        if condition.text("lastTransitionTime").is_empty() {
            errors.required(&at.child("lastTransitionTime"), "must be set");
        }
        required_name(condition, "reason", name::condition_reason, &at, errors);
        if condition.text("reason").len() > REASON_BYTES_MAX {
            errors.too_long(&at.child("reason"), REASON_BYTES_MAX);
        }
        if condition.text("message").len() > MESSAGE_BYTES_MAX {
            errors.too_long(&at.child("message"), MESSAGE_BYTES_MAX);
        }
    }
}

/// A quantity that is not negative, if there is one.
pub(crate) fn amount(value: &Value, path: &Path, errors: &mut Errors) {
    if !value.is_null() {
        quantity(value, path, errors);
    }
}

/// A quantity that is not negative; `None` after an error.
pub(crate) fn quantity(value: &Value, path: &Path, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::from_json(value) {
        Ok(amount) if amount.is_negative() => errors.invalid(path, amount.to_string(), NOT_NEGATIVE),
        Ok(amount) => return Some(amount),
        Err(error) => errors.invalid(path, value.clone(), &error.to_string()),
    }
    None
}

/// A quantity that is more than nothing; `None` after an error.
pub(crate) fn positive_quantity(value: &Value, path: &Path, errors: &mut Errors) -> Option<Quantity> {
    let amount = quantity(value, path, errors)?;
    if amount.is_zero() {
        errors.invalid(path, amount.to_string(), "must be greater than zero");
        return None;
    }
    Some(amount)
}
/// Why base64 text is no bundle of PEM certificates; none at all is one.
pub(super) fn check_bundle(text: &str) -> Result<(), &'static str> {
    const NOT_PEM: &str = "unable to parse bytes as PEM block";
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if text.is_empty() {
        return Ok(());
    }
    let pem = read_base64(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(NOT_PEM)?;
    let mut blocks = pem.split(BEGIN).skip(1).peekable();
    blocks.peek().ok_or(NOT_PEM)?;
    for block in blocks {
        let (body, _) = block.split_once(END).ok_or(NOT_PEM)?;
        let body: String = body.split_whitespace().collect();
        // A certificate is a DER sequence.
        match read_base64(&body) {
            Ok(der) if der.first() == Some(&0x30) => {}
            _ => return Err("x509: malformed certificate"),
        }
    }
    Ok(())
}
