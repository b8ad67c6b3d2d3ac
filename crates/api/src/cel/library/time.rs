//! Moments and spans of time: arithmetic, parts of dates.
//!
//! Source: CEL language definition, "Timestamp" and "Duration"; RFC 3339.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::super::budget::EvalError;
use super::super::cost::Charge::One;
use super::super::value::Value;
use super::args::Args;
use super::{Answer, Row, failed, no_overload};
use crate::codec::form;
use crate::zone::find_zone;

/// The first second of the year 1, and the last that `jiff` holds: two hours short of the last day of the year 9999.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_207_200;
/// Longest text looked at.
const TEXT_BYTES_MAX: usize = 128;
/// Of a zone that there is not, so much is shown.
const ZONE_CHARS_MAX: usize = 64;
const NANOS: i64 = 1_000_000_000;

pub(super) const ROWS: &[Row] = &[
    Row("<timestamp>.getFullYear() -> int", One, |_, args| part(args, |date| i64::from(date.year()))),
    Row("<timestamp>.getFullYear(string) -> int", One, |_, args| part(args, |date| i64::from(date.year()))),
    Row("<timestamp>.getMonth() -> int", One, |_, args| part(args, |date| i64::from(date.month()) - 1)),
    Row("<timestamp>.getMonth(string) -> int", One, |_, args| part(args, |date| i64::from(date.month()) - 1)),
    Row("<timestamp>.getDayOfYear() -> int", One, |_, args| part(args, |date| i64::from(date.day_of_year()) - 1)),
    Row("<timestamp>.getDayOfYear(string) -> int", One, |_, args| part(args, |date| i64::from(date.day_of_year()) - 1)),
    Row("<timestamp>.getDayOfMonth() -> int", One, |_, args| part(args, |date| i64::from(date.day()) - 1)),
    Row("<timestamp>.getDayOfMonth(string) -> int", One, |_, args| part(args, |date| i64::from(date.day()) - 1)),
    Row("<timestamp>.getDate() -> int", One, |_, args| part(args, |date| i64::from(date.day()))),
    Row("<timestamp>.getDate(string) -> int", One, |_, args| part(args, |date| i64::from(date.day()))),
    Row("<timestamp>.getDayOfWeek() -> int", One, |_, args| part(args, week_day)),
    Row("<timestamp>.getDayOfWeek(string) -> int", One, |_, args| part(args, week_day)),
    Row("<timestamp>.getHours() -> int", One, |_, args| part(args, |date| i64::from(date.hour()))),
    Row("<timestamp>.getHours(string) -> int", One, |_, args| part(args, |date| i64::from(date.hour()))),
    Row("<timestamp>.getMinutes() -> int", One, |_, args| part(args, |date| i64::from(date.minute()))),
    Row("<timestamp>.getMinutes(string) -> int", One, |_, args| part(args, |date| i64::from(date.minute()))),
    Row("<timestamp>.getSeconds() -> int", One, |_, args| part(args, |date| i64::from(date.second()))),
    Row("<timestamp>.getSeconds(string) -> int", One, |_, args| part(args, |date| i64::from(date.second()))),
    Row("<timestamp>.getMilliseconds() -> int", One, |_, args| part(args, |date| i64::from(date.millisecond()))),
    Row("<timestamp>.getMilliseconds(string) -> int", One, |_, args| part(args, |date| i64::from(date.millisecond()))),
    Row("<duration>.getHours() -> int", One, |_, args| Ok(Value::Int(nanos(args.value(0)?)? / (3600 * NANOS)))),
    Row("<duration>.getMinutes() -> int", One, |_, args| Ok(Value::Int(nanos(args.value(0)?)? / (60 * NANOS)))),
    Row("<duration>.getSeconds() -> int", One, |_, args| Ok(Value::Int(nanos(args.value(0)?)? / NANOS))),
    Row("<duration>.getMilliseconds() -> int", One, |_, args| {
        Ok(Value::Int(nanos(args.value(0)?)? / 1_000_000 % 1_000))
    }),
];

fn week_day(date: &jiff::Zoned) -> i64 {
    i64::from(date.weekday().to_sunday_zero_offset())
}

fn part<'a>(args: &[Value<'a>], of: fn(&jiff::Zoned) -> i64) -> Answer<'a> {
    let Value::Timestamp(time) = args.value(0)? else { return Err(no_overload()) };
    let zone = match args.get(1) {
        Some(_) => read_zone(args.text(1)?)?,
        None => TimeZone::UTC,
    };
    Ok(Value::Int(of(&time.to_zoned(zone))))
}

/// `UTC`, an offset such as `+02:00`, `-07:30`, `02:00`, or the name of a zone such as `Europe/Vienna`.
fn read_zone(text: &str) -> Result<TimeZone, EvalError> {
    if matches!(text, "UTC" | "Z" | "") {
        return Ok(TimeZone::UTC);
    }
    if !text.contains(':') {
        let short: String = text.chars().take(ZONE_CHARS_MAX).collect();
        return find_zone(text).map_or_else(|| failed(format!("unknown time zone {short}")), Ok);
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let minutes = digits.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
        (hours <= 23 && minutes <= 59).then_some(i32::from(hours) * 60 + i32::from(minutes))
    });
    let offset = minutes.and_then(|minutes| Offset::from_seconds(sign * minutes * 60).ok());
    match offset {
        Some(offset) => Ok(offset.to_time_zone()),
        None => failed(format!("unknown time zone {text}")),
    }
}

/// Reads an RFC 3339 time.
pub(in super::super) fn read_timestamp(text: &str) -> Result<Timestamp, String> {
    let shaped = text.len() <= TEXT_BYTES_MAX && text.as_bytes().get(10) == Some(&b'T') && !text.contains('[');
    let time: Option<Timestamp> = if shaped { text.parse().ok() } else { None };
    time.filter(|time| in_years(*time)).ok_or_else(|| format!("expected an RFC 3339 time, found {text:?}"))
}

/// Reads a duration such as `1h30m`.
pub(in super::super) fn read_duration(text: &str) -> Result<i64, String> {
    form::read_duration(text).ok_or_else(|| format!("expected a duration such as \"1h30m\", found {text:?}"))
}

fn in_years(time: Timestamp) -> bool {
    (SECONDS_MIN..=SECONDS_MAX)
        .contains(&time.as_nanosecond().div_euclid(i128::from(NANOS)).try_into().unwrap_or(i64::MIN))
}

fn of_nanos<'a>(nanos: Option<i128>) -> Answer<'a> {
    let time = nanos.and_then(|nanos| Timestamp::from_nanosecond(nanos).ok()).filter(|time| in_years(*time));
    time.map_or_else(|| failed("timestamp overflow"), |time| Ok(Value::Timestamp(time)))
}

fn of_span<'a>(nanos: Option<i128>) -> Answer<'a> {
    let nanos = nanos.and_then(|nanos| i64::try_from(nanos).ok());
    nanos.map_or_else(|| failed("duration overflow"), |nanos| Ok(Value::Duration(nanos)))
}

/// So many seconds after 1970.
pub(super) fn of_seconds<'a>(seconds: i64) -> Answer<'a> {
    of_nanos(i128::from(seconds).checked_mul(i128::from(NANOS)))
}

fn nanos(value: &Value) -> Result<i64, EvalError> {
    match value {
        Value::Duration(nanos) => Ok(*nanos),
        _ => Err(no_overload()),
    }
}

/// A moment or span, later by a span.
pub(super) fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Answer<'a> {
    let by = i128::from(nanos(b)?);
    match a {
        Value::Timestamp(time) => of_nanos(Some(time.as_nanosecond() + by)),
        _ => of_span(Some(i128::from(nanos(a)?) + by)),
    }
}

/// The span between moments, or a moment or span earlier by a span.
pub(super) fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Answer<'a> {
    match (a, b) {
        (Value::Timestamp(a), Value::Timestamp(b)) => of_span(Some(a.as_nanosecond() - b.as_nanosecond())),
        (Value::Timestamp(time), span) => of_nanos(Some(time.as_nanosecond() - i128::from(nanos(span)?))),
        _ => of_span(Some(i128::from(nanos(a)?) - i128::from(nanos(b)?))),
    }
}
